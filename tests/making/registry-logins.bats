# Logins of registries: files and variables, tokens, redirections.
bats_require_minimum_version 1.5.0
load making
load registry
load registry_box

@test "a registry with htpasswd gives out to whom it knows, by each place that has a password" {
	mkdir -p guarded
	# pass:word, by bcrypt.
	echo 'alice:$2b$05$abcdefghijklmnopqrstuuDIEddBSuRWBBEY6g5zv60IAP5bSSfki' >guarded/htpasswd
	cp -r "$BATS_FILE_TMPDIR/registry/data" guarded/data
	local open=$registry registry registry_pid
	start_registry "$PWD/guarded" "auth: {htpasswd: {realm: here, path: $PWD/guarded/htpasswd}}"
	started+=("$registry_pid")
	[[ $registry != "$open" ]]
	pull() {
		coracle pull --force --plain-http "$@" "docker://$registry/lab/box:1" a.sif
	}
	run pull
	[[ $status == 1 && $output == *"$registry wants a login, or has no such image (401)"*'[registry]'*"docker login $registry"* ]]
	auth_file auth.json "$registry" alice:pass:word
	pull --authfile auth.json
	REGISTRY_AUTH_FILE=auth.json pull
	mkdir -p runtime/containers settings/containers docker home/.docker home/.config/containers home/.apptainer apptainer
	for place in runtime/containers/auth.json settings/containers/auth.json docker/config.json home/.docker/config.json \
		home/.config/containers/auth.json home/.apptainer/docker-config.json apptainer/docker-config.json; do
		cp auth.json "$place"
		export APPTAINER_CONFIGDIR=$PWD/apptainer
		[[ $place != home/.apptainer/* ]] || unset APPTAINER_CONFIGDIR
		XDG_RUNTIME_DIR=$PWD/runtime XDG_CONFIG_HOME=$([[ $place == settings* ]] && echo "$PWD/settings") \
			DOCKER_CONFIG=$PWD/docker HOME=$PWD/home pull
		rm "$place"
		run pull
		[[ $status == 1 && $output == *'(401)'* ]]
	done
	unset APPTAINER_CONFIGDIR
	for place in CORACLE APPTAINER SINGULARITY; do
		run env "${place}_DOCKER_USERNAME=alice" "${place}_DOCKER_PASSWORD=pass:word" \
			coracle pull --force --plain-http "docker://$registry/lab/box:1" a.sif
		[[ $status == 0 ]]
	done
	printf '#!/bin/sh\nhost=$(cat) && [ "$1 $host" = "get %s" ] && echo %s\n' "$registry" \
		"'{\"ServerURL\":\"\",\"Username\":\"alice\",\"Secret\":\"pass:word\"}'" >docker-credential-mine
	chmod 755 docker-credential-mine
	echo '{"credsStore": "mine"}' >helped.json
	PATH=$PWD:$PATH pull --authfile helped.json
	printf '{"credHelpers": {"%s": "mine"}}' "$registry" >helped.json
	PATH=$PWD:$PATH pull --authfile helped.json
	auth_file wrong.json "$registry" alice:hunter2
	run pull --authfile wrong.json
	[[ $status == 1 && $output == *'does not know this user and password (401)'* && $output != *hunter2* ]]
	run pull --authfile none.json
	[[ $status == 2 && $output == *'none.json: no such file [usage]'* ]]
}

@test "login files that nobody named and that are broken, foreign or another's do not stop a public pull" {
	local home=$PWD/home file text words
	mkdir -p home/.docker home/.apptainer cache
	chmod 755 home home/.docker home/.apptainer
	chown user: cache
	public() { # SAYS, or nothing
		run --separate-stderr as_user env HOME="$home" coracle pull --force --plain-http "docker://$registry/lab/box:1" a.sif
		[[ $status == 0 && $(inside_of a.sif small) == small ]] || { echo "$stderr"; return 1; }
		[[ ( -z ${1-} && -z $stderr ) || ( -n ${1-} && $stderr == $1"; going on without what it has for $registry" ) ]] ||
			{ echo "not '$1': $stderr"; return 1; }
	}
	for file in "$home/.docker/config.json" "$home/.apptainer/docker-config.json"; do
		for text in '{"auths":null}' '{"auths":{}}' '{"credsStore":""}' '' '{"auths":{"other.example":{"auth":"!"}}}' \
			"{\"auths\":{\"$registry\":null}}" '{"credHelpers":{"other.example":"desktop"}}' '{"HttpHeaders":{"A":"b"},"psFormat":"x"}'; do
			echo "$text" >"$file"
			public || { echo "$text"; return 1; }
		done
		echo '{"credsStore":"desktop"}' >"$file"
		public "coracle: $file: docker-credential-desktop: "*
		echo "{\"credHelpers\":{\"$registry\":\"desktop\"}}" >"$file"
		public "coracle: $file: docker-credential-desktop: "*
		echo '{"auths":{"a.example":{"auth":"aHVudGVyMg=="}' >"$file"
		public "coracle: $file: no file of docker login or podman login: line "*
		[[ $stderr != *aHVudGVy* ]]
		echo "{\"auths\":{\"$registry\":{\"auth\":\"hunter2\"}}}" >"$file"
		public "coracle: $file: what it has for $registry cannot be read"
		auth_file "$file" "$registry" alice:pass
		chmod 600 "$file"
		public "coracle: $file: cannot be read: Permission denied (os error 13)"
		rm "$file"
		mkdir "$file"
		public "coracle: $file: cannot be read: Is a directory (os error 21)"
		rmdir "$file"
	done
	# A definition file pulls as well.
	echo '{"credsStore":"desktop"}' >home/.docker/config.json
	printf '%s\n' 'Bootstrap: docker' "From: $registry/lab/box:1" >x.def
	run as_user env HOME="$home" coracle build --plain-http b.sif x.def
	[[ $status == 0 && $output == *"$home/.docker/config.json: docker-credential-desktop: "* && $(inside_of b.sif small) == small ]]
	# One that was named is meant.
	for words in 'coracle pull --authfile home/.docker/config.json' 'env REGISTRY_AUTH_FILE=home/.docker/config.json coracle pull'; do
		# shellcheck disable=SC2086 # words
		run as_user $words --plain-http "docker://$registry/lab/box:1" c.sif
		[[ $status == 1 && $output == 'coracle: docker-credential-desktop: '*'[system]'* && ! -e c.sif ]] || { echo "$words: $output"; return 1; }
	done
	# Where a login is wanted, both are said: the file, and that the registry wants one.
	start_between between "$registry"
	echo '{"basic": "alice:pass:word"}' >between/login
	run as_user env HOME="$home" coracle pull --plain-http "docker://$between/lab/box:1" d.sif
	[[ $status == 1 && $output == *'docker-credential-desktop: '*'going on without'*"$between wants a login"*'[registry]'* && ! -e d.sif ]] || { echo "$output"; return 1; }
}

@test "tokens are got from the realm that the registry names, for nobody and for somebody" {
	start_between between "$registry"
	echo '{"token": ""}' >between/login
	coracle pull --plain-http "docker://$between/lab/box:1" nobody.sif
	[[ $(asked between '^/token[?]scope=repository%3Alab%2Fbox%3Apull&service=here$') == '- -' ]]
	[[ $(asked between /blobs/ | sort -u) == '- Bearer_a-token-for-those-who-asked' ]]
	echo '{"token": "alice:pass:word"}' >between/login
	run coracle pull --plain-http "docker://$between/lab/box:1" somebody.sif
	[[ $status == 1 && $output == *'wants a login'*'who are you?'*'[registry]'* ]]
	auth_file auth.json "$between" alice:pass:word
	coracle pull --plain-http --authfile auth.json "docker://$between/lab/box:1" somebody.sif
	: >between/log
	printf '{"auths":{"%s":{"identitytoken":"refresh-me"}}}' "$between" >auth.json
	echo '{"token": ""}' >between/login
	coracle pull --plain-http --authfile auth.json "docker://$between/lab/box:1" token.sif
	[[ $(grep -c '^POST /token - -$' between/log) == 1 ]]
	# It is not for whom the realm redirects to.
	local realm=$between
	start_between other
	printf '[{"path": "^/token", "status": 307, "headers": {"Location": "http://%s/token"}}]' "$between" >between/rules
	run coracle pull --plain-http --authfile auth.json "docker://$realm/lab/box:1" other.sif
	[[ $status == 1 && $output == *"$realm answers 307 [registry]"* && ! -s other/log ]]
}

@test "under TLS, neither a password nor a request goes to where there is none" {
	certificates between
	start_between realm
	local realm=$between
	start_between between "$registry"
	printf '{"token": "", "realm": "http://127.0.0.1:%s/token"}' "$(<realm/port)" >between/login
	auth_file auth.json "$between" alice:pass:word
	SSL_CERT_FILE=between/ca.pem run coracle pull --authfile auth.json "docker://$between/lab/box:1"
	[[ $status == 1 && $output == *'wants a token from'*'[registry]'*'without TLS'* && ! -s realm/log ]]
	rm between/login
	printf '[{"path": "manifests", "status": 302, "headers": {"Location": "http://%s/"}}]' "$realm" >between/rules
	SSL_CERT_FILE=between/ca.pem run coracle pull --authfile auth.json "docker://$between/lab/box:1"
	[[ $status == 1 && $output == *'redirects to a place without TLS [registry]'* && ! -s realm/log ]]
}

@test "whom the registry redirects to gets no login, also if it asks for one" {
	local to
	start_between other "$registry"
	to=$between
	start_between between "$registry"
	for login in '{"token": "alice:pass:word"}' '{"basic": "alice:pass:word"}'; do
		rm -rf cache other/login
		echo "$login" >between/login
		printf '[{"path": "^/v2/lab/box/blobs/(sha256:.*)", "status": 307, "headers": {"Location": "http://%s/v2/lab/box/blobs/%s"}}]' \
			"$to" "$(part_of_box config)" >between/rules
		auth_file auth.json "$between" alice:pass:word
		: >other/log
		# The configuration comes, and the layers are something else.
		run coracle pull --plain-http --authfile auth.json "docker://$between/lab/box:1"
		[[ $status == 1 && $output == *'[digest]'* ]]
		[[ -s other/log && $(asked other . | sort -u) == '- -' ]]
		rm -rf cache
		: >other/log
		cp between/login other/login
		run coracle pull --plain-http --authfile auth.json "docker://$between/lab/box:1"
		[[ $status == 1 && $output == *'redirects to a place that does not give it out (401)'*'[registry]'* ]]
		[[ $(asked other .) == '- -' ]]
	done
}
