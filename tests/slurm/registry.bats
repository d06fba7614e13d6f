# srun --container=docker://…: what the site says it becomes, once for all nodes of the job.
load support
load ../making/registry
bats_require_minimum_version 1.5.0

setup_file() {
	. "$BATS_TEST_DIRNAME/support.bash"
	. "$BATS_TEST_DIRNAME/../making/registry.bash"
	start_registry "$SUITE/registry"
	export registry
	echo "$registry_pid" >"$SUITE/registry.pid"
	python3 "$BATS_TEST_DIRNAME/../making/registry_layout.py" "$SUITE/layout" 1 "$here:$CORACLE_IMAGES/tree"
	push 1
	install -d -o coracle -g coracle -m 755 /var/lib/coracle/store
	install -d -m 755 /run/coracle
	coracle store-service --socket /run/coracle/store.sock </dev/null >"$SUITE/service.log" 2>&1 3>&- 4>&- &
	echo $! >"$SUITE/service.pid"
	eventually test -S /run/coracle/store.sock
}

teardown_file() {
	. "$BATS_TEST_DIRNAME/support.bash"
	kill "$(<"$SUITE/registry.pid")" "$(<"$SUITE/service.pid")" 2>/dev/null || true
	eventually no_service
	rm -rf /var/lib/coracle/store /run/coracle/store.sock "$SUITE/registry" "$SUITE/layout"
}

# The service itself goes on; whoever served a caller does not.
no_launcher() { [[ $(pgrep -x coracle | wc -l) == $(pgrep -F "$SUITE/service.pid" | wc -l) ]]; }
no_service() { ! pgrep -u coracle -x coracle >/dev/null; }

cleanup() {
	rm -rf /home/alice/.cache /var/lib/coracle/store/alice
}

push() { # TAG
	skopeo --insecure-policy copy --quiet --dest-tls-verify=false "oci:$SUITE/layout:1" "docker://$registry/lab/box:$1"
}

site() { # LINE...
	configure "version: 1
user_images: kernel
registries: {\"$registry\": {plain_http: true}}
$(printf '%s\n' "$@")"
}

made() {
	find /home/alice/.cache/coracle/images -name '*.sif' | wc -l
}

@test "where the site says nothing, or no, docker:// is refused with the command that makes a file, before the job queues" {
	site
	at=submit refused policy "docker://$registry/lab/box: nothing is fetched for jobs" srun -n1 --container="docker://$registry/lab/box" true
	has "coracle pull docker://$registry/lab/box box_latest.sif"
	site 'registry_images: deny'
	at=submit refused policy '(registry_images: deny)' sbatch --container="docker://$registry/lab/box:1" --wrap true
	run ! test -e /home/alice/.cache
}

@test "file: the image is made once, whatever the number of nodes, and found by the next job" {
	site 'registry_images: file'
	good srun -Q -N3 --container="docker://$registry/lab/box:1" cat /etc/image-only
	prints "$MARK
$MARK
$MARK"
	[[ $(made) == 1 ]]
	local first
	first=$(stat -c '%i %y' /home/alice/.cache/coracle/images/*.sif)
	good srun -Q -n1 --container="docker://$registry/lab/box:1" cat /etc/image-only
	prints "$MARK"
	[[ $(stat -c '%i %y' /home/alice/.cache/coracle/images/*.sif) == "$first" ]]
	batch --container="docker://$registry/lab/box:1" --wrap 'cat /etc/image-only; srun -n1 cat /etc/image-only'
	prints "$MARK
$MARK"
}

@test "file: two jobs that ask at the same time share one" {
	site 'registry_images: file'
	alice srun -Q -n1 --container="docker://$registry/lab/box:1" cat /etc/image-only >first 2>&1 3>&- &
	local first=$!
	good srun -Q -n1 --container="docker://$registry/lab/box:1" cat /etc/image-only
	prints "$MARK"
	wait "$first"
	[[ $(cat first) == "$MARK" && $(made) == 1 ]]
}

@test "file: a tag that moves is another file, and what was pinned stays" {
	site 'registry_images: file'
	push moving
	good srun -Q -n1 --container="docker://$registry/lab/box:moving" cat /etc/image-only
	mkdir "$dir/new"
	cp -a "$CORACLE_IMAGES/tree/." "$dir/new"
	echo moved >"$dir/new/etc/image-only"
	python3 "$BATS_TEST_DIRNAME/../making/registry_layout.py" "$dir/layout" 1 "$here:$dir/new"
	skopeo --insecure-policy copy --quiet --dest-tls-verify=false "oci:$dir/layout:1" "docker://$registry/lab/box:moving"
	good srun -Q -n1 --container="docker://$registry/lab/box:moving" cat /etc/image-only
	prints moved
	[[ $(made) == 2 ]]
	local digest
	digest=$(skopeo inspect --tls-verify=false --format '{{.Digest}}' "docker://$registry/lab/box:1")
	good srun -Q -n1 --container="docker://$registry/lab/box@$digest" cat /etc/image-only
	prints "$MARK"
	[[ $(made) == 2 ]]
}

@test "store: the image goes through the store's service, and runs as a stored one" {
	configure "version: 1
user_images: deny
registries: {\"$registry\": {plain_http: true}}
registry_images: store"
	good srun -Q -N2 --container="docker://$registry/lab/box:1" sh -c 'cat /etc/image-only; echo "${CORACLE_DIGEST%%:*}"'
	has_line "$MARK"
	has_line sha256
	good coracle ls
	[[ $output == box_1-*.sif ]]
	local first=$output
	good srun -Q -n1 --container="docker://$registry/lab/box:1" cat /etc/image-only
	prints "$MARK"
	good coracle ls
	prints "$first"
	good coracle pull --store=mine.sif "docker://$registry/lab/box:1"
	has 'mine.sif sha256:'
	good srun -Q -n1 --container=store:mine.sif cat /etc/image-only
	prints "$MARK"
}

@test "what the registry refuses is said before the job queues, and nothing stays" {
	site 'registry_images: file'
	run alice srun -Q -n1 --container="docker://$registry/lab/none" true
	((status != 0)) || fail "$output"
	has 'has no such image (404)'
	has 'was not fetched'
	run alice srun -Q -n1 --container="docker://$registry/lab/box:1@sha256:00" true
	((status != 0)) || fail "$output"
	has '[usage]'
	[[ $(made) == 0 ]]
	healthy
}

@test "file: a directory of images that somebody else could have filled is not used" {
	site 'registry_images: file'
	install -d -o alice -g alice -m 755 "$dir/cache"
	install -d -o alice -g alice -m 777 "$dir/cache/images"
	run alice env CORACLE_CACHEDIR="$dir/cache" srun -Q -n1 --container="docker://$registry/lab/box:1" true
	((status != 0)) || fail "$output"
	has "$dir/cache/images: it is a link, or belongs to somebody else, or others may write to it [system]"
	rmdir "$dir/cache/images"
	good env CORACLE_CACHEDIR="$dir/cache" srun -Q -n1 --container="docker://$registry/lab/box:1" cat /etc/image-only
	prints "$MARK"
}

@test "outside of a job docker:// is the same image" {
	site 'registry_images: file'
	good coracle exec "docker://$registry/lab/box:1" cat /etc/image-only
	prints "$MARK"
	good coracle run --no-home "docker://$registry/lab/box:1" cat /etc/image-only
	[[ $(made) == 1 ]]
	site
	run -125 alice coracle exec "docker://$registry/lab/box:1" true
	has 'coracle pull'
}
