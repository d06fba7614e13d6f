# A registry with images, for the files of tests that pull from one.
# shellcheck disable=SC2034,SC2154 # shared with registry.bash and the tests

# One registry for all tests of a file: box (three layers, one of them of 8 MiB that nothing makes smaller), multi (an
# index), elsewhere (an index without this machine's processor) and foreign (an image of another one, no index).
setup_file() {
	local directory=$BATS_FILE_TMPDIR
	chmod 755 "$BATS_RUN_TMPDIR" "$BATS_FILE_TMPDIR"
	start_registry "$directory/registry"
	export registry registry_pid
	mkdir -p "$directory"/{base,random,small,arch-here/etc,arch-there/etc}
	cp -a "$CORACLE_IMAGES/tree/." "$directory/base"
	head -c 8388608 /dev/urandom >"$directory/random/random"
	echo small >"$directory/small/small"
	echo "$here" >"$directory/arch-here/etc/arch"
	echo "$there" >"$directory/arch-there/etc/arch"
	layout() { # NAME PLATFORM:DIRECTORIES...
		python3 "$BATS_TEST_DIRNAME/registry_layout.py" "$directory/layout-$1" 1 "${@:2}"
		skopeo --insecure-policy copy --quiet --all --dest-tls-verify=false \
			"oci:$directory/layout-$1:1" "docker://$registry/lab/$1:1"
	}
	layout box "$here:$directory/base,$directory/random,$directory/small"
	layout multi "s390x:$directory/arch-there" "$there:$directory/base,$directory/arch-there" "$here:$directory/base,$directory/arch-here"
	layout elsewhere "s390x:$directory/arch-there" "arm/v5:$directory/arch-there"
	layout foreign "s390x:$directory/arch-there"
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

# A coracle.yaml with these registries: in a directory of which nobody but root can have changed anything.
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
