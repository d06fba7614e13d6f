#!/usr/bin/env bats
# The work that a start does for its user has limits, and what a node lacks is not the image's fault.

load support

cleanup() {
	local index
	for ((index = 0; index < 64; index++)); do
		[[ -e /dev/loop$index ]] || mknod -m 660 "/dev/loop$index" b 7 "$index"
	done
	[[ ! -e $dir/limited ]] || on-node n1 prlimit --pid "$(</run/slurmd.n1.pid)" --nofile="$(<"$dir/limited")"
	rm -f "/dev/shm/coracle-peak-$BATS_SUITE_TEST_NUMBER"
}

# The tree of an image without a shell, with 120 environment scripts that make 1.8 GB of variables.
greedy_image() { # FILE
	local tree=$dir/tree script
	mkdir "$tree"
	unsquashfs -quiet -no-progress -force -dest "$tree" "$IMG/busybox-zstd.sqsh" >/dev/null
	rm -f "$tree/bin/sh"
	mkdir -p "$tree/.singularity.d/env"
	for ((script = 100; script < 220; script++)); do
		echo "B=$(head -c 60000 /dev/zero | tr '\0' x)"
		for ((i = 0; i < 120; i++)); do echo "export V${script}_$i=\$B\$B"; done
	done | split -l 121 --numeric-suffixes=100 -a 3 --additional-suffix=.sh - "$tree/.singularity.d/env/"
	mksquashfs "$tree" "$1" -noappend -quiet -no-progress -all-root -comp zstd >/dev/null
	rm -rf "$tree"
}

# The largest peak of memory, in KiB, of alice's processes that are ours, until FILE is gone.
watch_peak() { # FILE
	local peak=0 found
	while [[ -e $1 ]]; do
		sleep 0.02
		# shellcheck disable=SC2046 # several files
		found=$(grep -hs '^VmHWM:' $(pgrep -u alice -x "$PROGRAMS" | sed 's#.*#/proc/&/status#') </dev/null | awk '$2 > m { m = $2 } END { print m + 0 }')
		((found <= peak)) || peak=$found
	done
	echo "$peak"
}

@test "an image's scripts make no environment of gigabytes, before or in the job's control groups" {
	local peak running=/dev/shm/coracle-peak-$BATS_SUITE_TEST_NUMBER
	greedy_image "$dir/greedy.sqsh"
	touch "$running"
	exec 5< <(watch_peak "$running")
	run alice env PWD="$PWD" srun -w n1 -n1 --container="$dir/greedy.sqsh" true
	rm "$running"
	read -r peak <&5
	exec 5<&-
	((status == 125)) || fail "status $status" "$output"
	said system 'its environment is longer than any program can have'
	((peak > 0 && peak < 256 * 1024)) || fail "a process of ours has had $peak KiB"
	healthy
}

@test "a file that is nearly all holes is not hashed" {
	cp "$IMG/busybox-zstd.sqsh" "$dir/sparse.sqsh"
	truncate -s 8T "$dir/sparse.sqsh"
	at=node refused image-format 'are stored: not hashed' \
		srun -n1 --container="$dir/sparse.sqsh" --container-digest="sha256:$(printf '0%.0s' {1..64})" true
	# The same where the site's rules want the digest, of a trusted image.
	configure "version: 1
user_images: deny
image_paths: [{path: $dir, owner: alice}]
digests: ['sha256:$(printf '0%.0s' {1..64})']"
	chown alice:alice "$dir/sparse.sqsh"
	at=node refused image-format 'are stored: not hashed' srun -n1 --container="$dir/sparse.sqsh" true
}

@test "an image that is too large for the site is not hashed" {
	configure $'version: 1\nuser_images: kernel\nmax_image_size: 4k'
	at=node refused policy 'and the site runs images of at most 4096 (max_image_size)' \
		srun -n1 --container="$busybox" --container-digest="sha256:$(printf '0%.0s' {1..64})" true
}

@test "an image of some size is hashed in time, and its digest is known" {
	good srun -n1 --container="$busybox@sha256:$(sha256sum <"$busybox" | cut -d' ' -f1)" sh -c 'echo $CORACLE_DIGEST'
	prints "sha256:$(sha256sum <"$busybox" | cut -d' ' -f1)"
}

@test "root's container shows the kernel's settings, and lets nobody change them" {
	local file
	for command in 'coracle exec' 'srun -w n1 -n1 --container='; do
		for file in /proc/sys/kernel/core_pattern /proc/sys/vm/drop_caches /proc/sysrq-trigger /sys/power/state; do
			[[ -e $file ]] || continue
			case $command in
			srun*) run on-node n1 srun -w n1 -n1 --container="$busybox" sh -c "id -u; [ -e $file ] && : >>$file" ;;
			*) run on-node n1 coracle exec "$busybox" sh -c "id -u; [ -e $file ] && : >>$file" ;;
			esac
			((status != 0)) || fail "$command: $file can be written" "$output"
			has_line 0
			has 'Read-only file system'
		done
	done
	run on-node n1 coracle exec "$busybox" sh -c 'cat /proc/sys/kernel/ostype; echo 5 >/proc/self/oom_score_adj && cat /proc/self/oom_score_adj'
	prints $'Linux\n5'
	# A user may write none of them anyway, and has the node's own.
	good coracle exec "$busybox" sh -c 'grep -c " /proc/sys " /proc/self/mountinfo || true'
	prints 0
}

@test "limits of the user's own that are lower than ours are kept" {
	local command
	local low='ulimit -Sv 1500000; ulimit -Hv 1500000; ulimit -Sf 1000; ulimit -Hf 1000'
	for command in "exec $busybox sh -c 'ulimit -v; ulimit -f'" "run $busybox sh -c 'ulimit -v'" "shell $busybox -c 'ulimit -v'"; do
		good bash -c "$low; echo 'ulimit -v' | coracle $command"
		has_line 1500000
	done
	sha256sum "$busybox" >"$dir/sums"
	good bash -c "ulimit -Hv 900000; ulimit -f 100; coracle verify --sums $dir/sums $busybox"
}

@test "descriptors that run out are not called a damaged image" {
	local limit kind
	on-node n1 prlimit --pid "$(</run/slurmd.n1.pid)" --nofile --output=SOFT,HARD --noheadings | sed -E 's/^ *([0-9]+) +([0-9]+).*/\1:\2/' >"$dir/limited"
	local refused=0
	for limit in 20 22 24 26 28 30; do
		on-node n1 prlimit --pid "$(</run/slurmd.n1.pid)" --nofile="$limit:"
		run alice srun -w n1 -n1 --container="$busybox" true
		on-node n1 prlimit --pid "$(</run/slurmd.n1.pid)" --nofile="$(<"$dir/limited")"
		((status != 0)) || continue
		refused=$((refused + 1))
		has_not 'image-format'
		has_not 'damaged'
	done
	((refused > 0)) || fail 'no limit was low enough'
	good srun -w n1 -n1 --container="$busybox" true
}

@test "a loop device without a node in /dev is said, and not the kernel's driver" {
	rm -f /dev/loop[0-9]*
	run alice srun -w n1 -n1 --container="$busybox" true
	((status == 125)) || fail "$status $output"
	has '/dev/loop'
	has 'all loop devices with a node in /dev are in use'
	has_not modprobe
}

# An image whose /proc and /sys hold something at the places of the kernel's settings.
with_settings() { # FILE KIND
	local tree=$dir/tree place
	rm -rf "$tree"
	unsquashfs -quiet -no-progress -force -dest "$tree" "$CORACLE_IMAGES/busybox-none.sqsh" >/dev/null
	for place in proc/sys proc/sysrq-trigger proc/irq proc/bus proc/fs sys/power; do
		case $2 in
		link) ln -s /tmp "$tree/$place" ;;
		out) ln -s ../../../etc "$tree/$place" ;;
		file) echo mine >"$tree/$place" ;;
		fifo) mkfifo "$tree/$place" ;;
		device) mknod "$tree/$place" c 1 3 ;;
		directory) mkdir -p "$tree/$place/kernel" && echo mine >"$tree/$place/kernel/core_pattern" ;;
		esac
	done
	mksquashfs "$tree" "$1" -noappend -quiet -no-progress -all-root >/dev/null
	rm -rf "$tree"
}

@test "the kernel's settings are read-only in root's container, whatever an image has in their places" {
	local kind start settings
	settings=$(ls /proc/sys/kernel/core_pattern /proc/sys/vm/drop_caches /proc/sysrq-trigger /proc/sys/kernel/modprobe 2>/dev/null || true)
	for kind in link out file fifo device directory; do
		with_settings "$dir/$kind.sqsh" "$kind"
		for start in "coracle exec $dir/$kind.sqsh" "srun -w n1 -n1 --container=$dir/$kind.sqsh"; do
			# shellcheck disable=SC2086
			run on-node n1 $start sh -c "cat /etc/image-only /proc/sys/kernel/ostype
				for file in ${settings//$'\n'/ }; do (: >>\$file); done"
			has_line "$MARK"
			has_line Linux
			[[ $(grep -c 'Read-only file system' <<<"$output") == $(wc -l <<<"$settings") ]] || fail "$kind, $start: $output"
		done
		# A user's own container shows the node's /proc, and not what the image has.
		good srun -n1 -w n1 --container="$dir/$kind.sqsh" cat /proc/sys/kernel/ostype
		prints Linux
	done
}
