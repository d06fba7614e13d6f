bats_require_minimum_version 1.5.0
load making
load registry

# One registry for all tests of this file: box (three layers, one of them of 8 MiB that nothing makes smaller), multi (an
# index), elsewhere (an index without this machine's processor) and foreign (an image of another one, no index).
setup_file() {
	local folder=$BATS_FILE_TMPDIR layout
	chmod 755 "$BATS_RUN_TMPDIR" "$BATS_FILE_TMPDIR"
	start_registry "$folder/registry"
	export registry registry_pid
	mkdir -p "$folder"/{base,random,small,arch-here/etc,arch-there/etc}
	cp -a "$CORACLE_IMAGES/tree/." "$folder/base"
	head -c 8388608 /dev/urandom >"$folder/random/random"
	echo small >"$folder/small/small"
	echo "$here" >"$folder/arch-here/etc/arch"
	echo "$there" >"$folder/arch-there/etc/arch"
	layout() { # NAME PLATFORM:FOLDERS...
		python3 "$BATS_TEST_DIRNAME/registry_layout.py" "$folder/layout-$1" 1 "${@:2}"
		skopeo --insecure-policy copy --quiet --all --dest-tls-verify=false \
			"oci:$folder/layout-$1:1" "docker://$registry/lab/$1:1"
	}
	layout box "$here:$folder/base,$folder/random,$folder/small"
	layout multi "s390x:$folder/arch-there" "$there:$folder/base,$folder/arch-there" "$here:$folder/base,$folder/arch-here"
	layout elsewhere "s390x:$folder/arch-there" "arm/v5:$folder/arch-there"
	layout foreign "s390x:$folder/arch-there"
}

teardown_file() {
	kill "$registry_pid"
}

setup() {
	settle
	started=() site=
	unset -v REGISTRY_AUTH_FILE XDG_CONFIG_HOME XDG_RUNTIME_DIR XDG_CACHE_HOME DOCKER_CONFIG SSL_CERT_FILE
	unset -v {CORACLE,APPTAINER,SINGULARITY}_DOCKER_{USERNAME,PASSWORD}
	unset -v {http,https,all,no}_proxy {HTTP,HTTPS,ALL,NO}_PROXY
	export CORACLE_CACHEDIR=$BATS_TEST_TMPDIR/cache
}

teardown() {
	stop_started
	[[ -z $site ]] || rm -rf "$site"
	nothing_left
}

# A coracle.yaml with these registries: in a folder of which nobody but root can have changed anything.
site() { # TEXT
	[[ -n $site ]] || site=$(mktemp -d /run/coracle-registries.XXXXXX)
	chmod 755 "$site"
	printf 'version: 1\nregistries: %s\n' "$1" >"$site/coracle.yaml"
}

# What was downloaded, or partly so.
cached() {
	find cache -type f -printf '%f\n' | sort
}

# The digest of a part of box: config, or a layer from 0 on.
part_of_box() { # config | NUMBER
	python3 - "$BATS_FILE_TMPDIR/layout-box" "$1" <<-'PYTHON'
		import json, sys
		layout, which = sys.argv[1:]
		blob = lambda digest: json.load(open(f"{layout}/blobs/{digest.replace(':', '/')}"))
		manifest = blob(json.load(open(f"{layout}/index.json"))["manifests"][0]["digest"])
		print(manifest["config"]["digest"] if which == "config" else manifest["layers"][int(which)]["digest"])
	PYTHON
}

manifest_of_box() {
	python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["manifests"][0]["digest"])' \
		"$BATS_FILE_TMPDIR/layout-box/index.json"
}

@test "an image is pulled by users of each kind, and standard output has one line: the file and its digest" {
	local name
	for name in root user ranged; do
		export CORACLE_CACHEDIR=$PWD/cache-$name
		mkdir -m 700 "$CORACLE_CACHEDIR"
		if [[ $name == root ]]; then
			run --separate-stderr coracle pull --plain-http "docker://$registry/lab/box:1" root.sif
		else
			chown "$name:" "$CORACLE_CACHEDIR"
			run --separate-stderr runs_as "$name" coracle pull --plain-http "docker://$registry/lab/box:1" "$name.sif"
		fi
		[[ $status == 0 && $stderr == '' && ${#lines[@]} == 1 ]]
		[[ $output == "$name.sif sha256:$(sha256sum <"$name.sif" | cut -d' ' -f1)" ]]
		[[ $(inside_of "$name.sif" small) == small ]]
		inside_of "$name.sif" random | cmp - "$BATS_FILE_TMPDIR/random/random"
		[[ $(find "$CORACLE_CACHEDIR" ! -user "$name" -o -perm /077 ! -type f) == '' ]]
		[[ $(find "$CORACLE_CACHEDIR" -type f | wc -l) == 4 ]]
	done
}

@test "the file is called as the image and its tag, and one that is there is not replaced, nor is anything asked for" {
	local digest
	start_between between "$registry"
	coracle pull --plain-http "docker://$between/lab/box:1"
	[[ -s box_1.sif ]]
	: >between/log
	run coracle pull --plain-http "docker://$between/lab/box:1"
	[[ $status == 2 && $output == *'box_1.sif: is there already [usage]'* && ! -s between/log ]]
	coracle pull --force --plain-http "docker://$between/lab/box:1"
	digest=$(manifest_of_box)
	coracle pull --plain-http "docker://$between/lab/box@$digest"
	[[ -s box_${digest:7:12}.sif ]]
	coracle pull --plain-http "docker://$between/lab/box:gone@$digest"
	[[ -s box_gone.sif ]]
	# What was downloaded before is not downloaded again.
	[[ $(asked between /blobs/) == '' ]]
}

@test "what is no name of an image is refused before anything is asked for" {
	run coracle pull docker://Alpine
	[[ $status == 2 && $output == *'docker://Alpine: "library/Alpine" is no name of a repository [usage]'*'lower case'* ]]
	run coracle pull alpine
	[[ $status == 2 && $output == *'not an image in a registry [usage]'*'docker://'* ]]
	run coracle pull docker://x.org/a@sha256:12
	[[ $status == 2 && $output == *'has 64 digits'*'[usage]'* ]]
	run coracle pull docker://x.org/a@md5:d41d8cd98f00b204e9800998ecf8427e
	[[ $status == 2 && $output == *'digests by "md5" are not known'* ]]
	run coracle pull docker://user:password@x.org/a
	[[ $status == 2 && ! -e cache ]]
}

@test "build takes an image from a registry, too" {
	coracle build --plain-http built.sif "docker://$registry/lab/box:1"
	[[ $(inside_of built.sif small) == small ]]
}

@test "of an index, the image for this processor is taken, or the one that was asked for, or it is said which there are" {
	coracle pull --plain-http "docker://$registry/lab/multi:1" own.sif
	[[ $(inside_of own.sif etc/arch) == "$here" ]]
	coracle pull --plain-http --arch "$there" "docker://$registry/lab/multi:1" other.sif
	[[ $(inside_of other.sif etc/arch) == "$there" ]]
	run coracle pull --plain-http "docker://$registry/lab/elsewhere:1" none.sif
	[[ $status == 1 && $output == *"none of its images is for $here; there are: s390x, arm/v5 [image-arch]"* ]]
	run coracle pull --plain-http "docker://$registry/lab/foreign:1" none.sif
	[[ $status == 1 && $output == *"it is for s390x, not for $here [image-arch]"*'--arch s390x'* ]]
	run coracle pull --arch 'a b' "docker://$registry/lab/multi:1" none.sif
	[[ $status == 2 && $output == *'--arch'*'[usage]'* && ! -e none.sif ]]
}

@test "manifests of Docker's second scheme are read, and those of the first are refused by name" {
	skopeo --insecure-policy copy --quiet --format v2s2 --src-tls-verify=false --dest-tls-verify=false \
		"docker://$registry/lab/box:1" "docker://$registry/lab/docker:1"
	coracle pull --plain-http "docker://$registry/lab/docker:1"
	[[ $(inside_of docker_1.sif small) == small ]]
	start_between between
	echo '[{"path": "manifests", "status": 200, "body": {"schemaVersion": 1, "fsLayers": []}}]' >between/rules
	run coracle pull --plain-http "docker://$between/lab/box:1"
	[[ $status == 1 && $output == *"Docker's first scheme"*'[image-format]'* ]]
}

@test "TLS is spoken unless plain HTTP was asked for, and a site's own authority counts when the machine has it" {
	certificates between
	start_between between "$registry"
	run coracle pull "docker://$between/lab/box:1"
	[[ $status == 1 && $output == *"certificate that is not accepted"*'[registry]'*SSL_CERT_FILE* ]]
	SSL_CERT_FILE=between/ca.pem coracle pull "docker://$between/lab/box:1"
	run coracle pull "docker://$registry/lab/box:1" other.sif
	[[ $status == 1 && $output == *"$registry does not speak TLS [registry]"*'--plain-http'* ]]
	run coracle pull --plain-http "docker://$between/lab/box:1" other.sif
	[[ $status == 1 && ! -e other.sif ]]
}

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

@test "an index may not say for which processor its images are: their configurations do" {
	layout_of() { # NAME PLATFORM:FOLDER...
		python3 "$BATS_TEST_DIRNAME/registry_layout.py" "layout-$1" 1 "${@:2}"
		skopeo --insecure-policy copy --quiet --all --dest-tls-verify=false "oci:layout-$1:1" "docker://$registry/silent/$1:1"
	}
	cp -a "$BATS_FILE_TMPDIR"/{base,arch-here,arch-there} .
	layout_of one "?$here:base,arch-here"
	coracle pull --plain-http "docker://$registry/silent/one:1" one.sif
	[[ $(inside_of one.sif etc/arch) == "$here" ]]
	layout_of both "?$there:base,arch-there" "?$here:base,arch-here"
	coracle pull --plain-http "docker://$registry/silent/both:1" both.sif
	[[ $(inside_of both.sif etc/arch) == "$here" ]]
	coracle pull --plain-http --arch "$there" "docker://$registry/silent/both:1" there.sif
	[[ $(inside_of there.sif etc/arch) == "$there" ]]
	layout_of saying "?$here:base" "$here:base,arch-here"
	coracle pull --plain-http "docker://$registry/silent/saying:1" saying.sif
	[[ $(inside_of saying.sif etc/arch) == "$here" ]]
	layout_of foreign "?s390x:arch-there"
	run coracle pull --plain-http "docker://$registry/silent/foreign:1" foreign.sif
	[[ $status == 1 && $output == *"s390x"*"$here"*'[image-arch]'* && ! -e foreign.sif ]] || { echo "$output"; return 1; }
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

@test "what the registry refuses is said in words, and how to get on" {
	start_between between "$registry"
	refused() { # RULE TEXT...
		local text
		echo "[$1]" >between/rules
		run coracle pull --plain-http "docker://$between/lab/box:1"
		echo "$output"
		[[ $status == 1 && ! -e box_1.sif ]] || return 1
		for text in "${@:2}"; do
			[[ $output == *"$text"* ]] || return 1
		done
	}
	refused '{"path": "manifests", "status": 401}' '(401) [registry]' 'podman login'
	refused '{"path": "manifests", "status": 403, "body": {"errors": [{"code": "DENIED", "message": "not \u001byou"}]}}' \
		'does not let you have it (403): not \u{1b}you [registry]'
	refused '{"path": "manifests", "status": 429, "headers": {"Retry-After": "3600"}}' \
		'limits how much you may ask for (429); it says to wait 3600 s [registry]' 'docker login'
	refused '{"path": "manifests", "status": 500}' 'has trouble (500) (tried 5 times) [registry]'
	refused '{"path": "manifests", "status": 302, "headers": {"Location": "/v2/lab/box/manifests/1"}}' 'redirects without an end'
	refused '{"path": "manifests", "status": 200, "body": "<html>"}' "its manifest: expected value"
	refused '{"path": "manifests", "status": 418}' 'answers 418 [registry]'
	refused '{"path": "blobs", "status": 404}' 'lacks a part of the image (404)'
	echo '[]' >between/rules
	run coracle pull --plain-http "docker://$between/lab/box:gone"
	[[ $status == 1 && $output == *'has no such image (404): manifest unknown [registry]'* ]]
}

@test "a manifest that does not end is not read to its end" {
	start_between between
	python3 -c 'import json; print(json.dumps([{"path": "manifests", "status": 200, "body": " " * (5 << 20)}]))' >between/rules
	run coracle pull --plain-http "docker://$between/lab/box:1"
	[[ $status == 1 && $output == *'answers more than 4194304 bytes [registry]'* ]]
}

@test "a registry that cannot be reached is said to be so at once" {
	local port
	port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
	run coracle pull --plain-http "docker://127.0.0.1:$port/a:1"
	[[ $status == 1 && $output == *'cannot be reached: Connection refused'*'[registry]'* ]]
	run coracle pull docker://registry.invalid/a:1
	[[ $status == 1 && $output == *'registry.invalid cannot be reached: failed to lookup address'*'[registry]'* ]]
}

@test "what passes is tried again: trouble, limits, and connections that break, which go on where they were" {
	local layer
	layer=$(part_of_box 1)
	start_between between "$registry"
	echo "[{\"path\": \"manifests\", \"times\": 2, \"status\": 503},
		{\"path\": \"$layer\", \"times\": 1, \"status\": 429, \"headers\": {\"Retry-After\": \"1\"}},
		{\"path\": \"$layer\", \"times\": 1, \"cut\": 3000000}]" >between/rules
	coracle pull --plain-http "docker://$between/lab/box:1"
	inside_of box_1.sif random | cmp - "$BATS_FILE_TMPDIR/random/random"
	[[ $(asked between manifests | wc -l) == 3 && $(asked between "$layer" | wc -l) == 3 ]]
	asked between "$layer" | tail -n 1 | grep -qE '^bytes=[1-9][0-9]*- -$'
}

@test "a connection on which nothing comes any more is given up, and tried again" {
	local layer
	layer=$(part_of_box 1)
	start_between between "$registry"
	echo "[{\"path\": \"$layer\", \"times\": 1, \"hang\": 3000000}]" >between/rules
	coracle pull --timeout 1 --plain-http "docker://$between/lab/box:1"
	asked between "$layer" | tail -n 1 | grep -qE '^bytes=[1-9][0-9]*- -$'
	rm -r cache
	echo "[{\"path\": \"$layer\", \"hang\": 0}]" >between/rules
	run coracle pull --timeout 1 --plain-http "docker://$between/lab/box:1" other.sif
	[[ $status == 1 && $output == *'has stopped giving it out (tried 5 times) [registry]'* && ! -e other.sif ]]
}

@test "what is not what its digest says is refused, and nothing of it is kept" {
	local what layer config manifest
	start_between between "$registry"
	for what in config 0 1; do
		what=$(part_of_box "$what")
		echo "[{\"path\": \"blobs/$what\", \"turn\": 100}]" >between/rules
		run coracle pull --plain-http "docker://$between/lab/box:1"
		[[ $status == 1 && $output == *"gives out as $what is something else [digest]"* && ! -e box_1.sif ]]
		run ! grep -q "${what#sha256:}" <(cached)
	done
	layer=$(part_of_box 1)
	echo "[{\"path\": \"blobs/$layer\", \"short\": 1000000}]" >between/rules
	run coracle pull --plain-http "docker://$between/lab/box:1"
	[[ $status == 1 && $output == *"has 1000000 bytes, not "*'[digest]'* ]]
	run ! grep -q "${layer#sha256:}" <(cached)
	manifest=$(manifest_of_box)
	for what in 1 "@$manifest"; do
		echo '[{"path": "manifests", "turn": 20}]' >between/rules
		run coracle pull --plain-http "docker://$between/lab/box${what/#1/:1}"
		[[ $status == 1 && $output == *"gives out as its manifest $manifest is sha256:"*'[digest]'* ]]
	done
	[[ -z $(find . -name '*.sif') ]]
}

@test "what lies in the cache is looked at again: what has changed there is downloaded anew" {
	local file
	coracle pull --plain-http "docker://$registry/lab/box:1" a.sif
	file=cache/blobs/$(part_of_box 1 | tr : /)
	chmod 600 "$file"
	printf X | dd of="$file" bs=1 seek=5000 conv=notrunc status=none
	coracle pull --plain-http "docker://$registry/lab/box:1" b.sif
	inside_of b.sif random | cmp - "$BATS_FILE_TMPDIR/random/random"
	[[ sha256:$(sha256sum <"$file" | cut -d' ' -f1) == "$(part_of_box 1)" ]]
}

@test "a pull that was ended leaves no file, and the next one asks for the rest only" {
	local layer signal part pid status
	layer=$(part_of_box 1)
	start_between between "$registry"
	for signal in INT TERM KILL; do
		rm -rf cache box_1.sif
		: >between/log
		echo "[{\"path\": \"$layer\", \"pace\": 100000}]" >between/rules
		# In the background, a shell has it ignore SIGINT.
		env --default-signal=INT coracle pull --plain-http "docker://$between/lab/box:1" &
		pid=$! part=cache/blobs/${layer/://}.part
		until [[ -e $part && $(stat -c %s "$part") -gt 500000 ]]; do sleep 0.01; done
		kill "-$signal" "$pid"
		status=0
		wait "$pid" || status=$?
		[[ $status -gt 128 && ! -e box_1.sif ]]
		# Whoever writes it dies with it, if a moment later.
		until flock --nonblock "$part" true; do sleep 0.01; done
		echo '[]' >between/rules
		coracle pull --plain-http "docker://$between/lab/box:1"
		inside_of box_1.sif random | cmp - "$BATS_FILE_TMPDIR/random/random"
		asked between "$layer" | tail -n 1 | grep -qE '^bytes=[1-9][0-9]{5,}- -$'
		[[ -z $(find cache -name '*.part') ]]
		[[ $signal == KILL ]] && find /tmp -maxdepth 1 -name 'coracle-*' -exec rm -r {} + || true
	done
}

@test "on a terminal there is a bar with bytes, rate and time" {
	start_between between "$registry"
	echo "[{\"path\": \"$(part_of_box 1)\", \"pace\": 500000}]" >between/rules
	run script -qec "stty cols 150; coracle pull --plain-http docker://$between/lab/box:1" /dev/null
	[[ $status == 0 ]]
	grep -qE 'docker://127[^ ]* \[.*\] [0-9.]+ MiB/[0-9.]+ MiB [0-9.]+ MiB/s [0-9]+s' <<<"$output"
	[[ $output == *'packing box_1.sif ['* && $output == *'box_1.sif sha256:'* ]]
	rm -r cache box_1.sif
	run script -qec "coracle --quiet pull --plain-http docker://$between/lab/box:1" /dev/null
	[[ $status == 0 && -z $output && -s box_1.sif ]]
}

@test "a registry that gives out no parts gives out the whole again, and a part that was wrong is no harm" {
	local layer part
	layer=$(part_of_box 1) part=cache/blobs/${layer/://}.part
	start_between between "$registry"
	echo "[{\"path\": \"$layer\", \"whole\": true}]" >between/rules
	coracle pull --plain-http "docker://$between/lab/box:1" a.sif
	rm "${part%.part}"
	head -c 3000000 /dev/zero >"$part"
	coracle pull --plain-http "docker://$between/lab/box:1" b.sif
	rm "${part%.part}"
	head -c 3000000 /dev/zero >"$part"
	echo '[]' >between/rules
	coracle pull --plain-http "docker://$between/lab/box:1" c.sif
	rm "${part%.part}"
	head -c 99000000 /dev/zero >"$part"
	coracle pull --plain-http "docker://$between/lab/box:1" d.sif
	inside_of d.sif random | cmp - "$BATS_FILE_TMPDIR/random/random"
}

@test "of two pulls at once, one downloads and the other uses it" {
	local layer pid
	layer=$(part_of_box 1)
	start_between between "$registry"
	echo "[{\"path\": \"$layer\", \"pace\": 200000}]" >between/rules
	coracle pull --plain-http "docker://$between/lab/box:1" a.sif &
	pid=$!
	until [[ -s cache/blobs/${layer/://}.part ]]; do sleep 0.01; done
	run coracle pull --plain-http "docker://$between/lab/box:1" b.sif
	wait "$pid"
	[[ $status == 0 && $output == *'waits for another process that downloads the same'* ]]
	[[ $(asked between "$layer" | wc -l) == 1 ]]
	inside_of a.sif random | cmp - "$BATS_FILE_TMPDIR/random/random"
	inside_of b.sif random | cmp - "$BATS_FILE_TMPDIR/random/random"
}

@test "a cache on a disk that is full is named, and so is one that others may write to" {
	mkdir cache
	mount -t tmpfs -o size=4m,mode=700 cache cache
	run coracle pull --plain-http "docker://$registry/lab/box:1"
	umount cache
	[[ $status == 1 && $output == *"$PWD/cache/blobs: no space is left there [system]"*CORACLE_CACHEDIR* && ! -e box_1.sif ]]
	mkdir -m 777 cache/blobs
	run coracle pull --plain-http "docker://$registry/lab/box:1"
	[[ $status == 1 && $output == *'cache/blobs: others may write there'*'[system]'*CORACLE_CACHEDIR* ]]
	chmod 700 cache/blobs
	chown user: cache/blobs
	run coracle pull --plain-http "docker://$registry/lab/box:1"
	[[ $status == 1 && $output == *'cache/blobs: belongs to somebody else'*'[system]'* ]]
	run env -u CORACLE_CACHEDIR -u HOME coracle pull --plain-http "docker://$registry/lab/box:1"
	[[ $status == 2 && $output == *'HOME: not set'*'[usage]'*CORACLE_CACHEDIR* ]]
}

@test "coracle.yaml names mirrors, which are asked in their order, and what they give out is checked" {
	local layer first second third
	layer=$(part_of_box 1)
	start_between first
	first=$between
	start_between second "$registry"
	second=$between
	start_between third "$registry"
	third=$between
	site "{registry.invalid: {mirrors: [http://$first, http://$second]}}"
	run coracle pull --config "$site/coracle.yaml" docker://registry.invalid/lab/box:1 a.sif
	[[ $status == 0 && $output == *"$first has no such image (404)"*'going on elsewhere'* ]]
	[[ $(asked first . | wc -l) == 1 && $(asked second /blobs/ | wc -l) == 4 ]]
	# What the first gives out is wrong, so the next one is asked for it.
	rm -r cache
	echo "[{\"path\": \"$layer\", \"turn\": 7}]" >second/rules
	site "{registry.invalid: {mirrors: [http://$second, http://$third]}}"
	run coracle pull --config "$site/coracle.yaml" docker://registry.invalid/lab/box:1 b.sif
	[[ $status == 0 && $output == *"$second gives out as $layer is something else; going on elsewhere"* ]]
	[[ $(asked third . | wc -l) == 1 ]]
	inside_of b.sif random | cmp - "$BATS_FILE_TMPDIR/random/random"
	# The password of the registry is not for its mirrors.
	auth_file auth.json registry.invalid alice:pass:word
	echo '{"basic": "alice:pass:word"}' >second/login
	: >second/log
	site "{registry.invalid: {mirrors: [http://$second]}}"
	run env CORACLE_DOCKER_USERNAME=alice CORACLE_DOCKER_PASSWORD=pass:word coracle pull --config "$site/coracle.yaml" docker://registry.invalid/lab/box:1 c.sif
	[[ $status == 1 && $output == *'registry.invalid cannot be reached'* && $(asked second . | sort -u) == '- -' ]]
	run coracle pull --config "$site/coracle.yaml" --authfile auth.json docker://registry.invalid/lab/box:1 c.sif
	[[ $status == 1 && $(asked second . | sort -u) == '- -' ]]
	# Docker Hub's, with something in front of its repositories.
	site "{docker.io: {mirrors: [http://$third/lab]}}"
	run coracle pull --config "$site/coracle.yaml" docker://box:1 d.sif
	[[ $(asked third '^/v2/lab/library/box/manifests/1$') == '- -' ]]
}

@test "coracle.yaml says which registries have no TLS, also to users in a namespace of their own" {
	site "{\"$registry\": {plain_http: yes}}"
	mkdir -m 700 cache
	chown user: cache
	as_user coracle pull --config "$site/coracle.yaml" "docker://$registry/lab/box:1"
	site "{\"$registry\": {plain: yes}}"
	run coracle pull --config "$site/coracle.yaml" "docker://$registry/lab/box:1" other.sif
	[[ $status == 1 && $output == *"$site/coracle.yaml:2:"*'unknown field `plain`'*'[config]'* ]]
}
