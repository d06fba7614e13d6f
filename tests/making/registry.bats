# Images of registries: names, indexes, downloads, the cache, mirrors.
bats_require_minimum_version 1.5.0
load making
load registry
load registry_box

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

@test "an index may not say for which processor its images are: their configurations do" {
	layout_of() { # NAME PLATFORM:DIRECTORY...
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
	local what layer manifest
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
