# user_images: fuse: users' own images are read by squashfuse_ll as the user, and not by the kernel.
load support

FUSE=$'version: 1\nuser_images: fuse\nbinds:\n- source: /scratch'

fuse() { # MORE-OF-CORACLE.YAML
	configure "$FUSE${1:+$'\n'$1}"
}

cleanup() {
	rm -rf /opt/fuse /opt/images
}

squashfuse() { pgrep -x squashfuse_ll >/dev/null; }

# A step that waits for $dir/go, once COUNT tasks of it are there.
start_waiting() { # COUNT SRUN-ARGUMENT...
	local count=$1
	shift
	alice srun "$@" sh -c "touch $dir/in.\$SLURM_PROCID; until test -e $dir/go; do /bin/sleep 0.1; done; cat /etc/image-only" >out 2>&1 3>&- &
	step=$!
	eventually arrived "$count"
}

arrived() { # COUNT
	[[ $(find "$dir" -name 'in.*' | wc -l) == "$1" ]]
}

finish() {
	touch "$dir/go"
	wait "$step"
}

# A squashfuse_ll of the site's that does something else.
instead() { # PROGRAM MORE-OF-CORACLE.YAML
	install -D -m 755 "$1" /opt/fuse/squashfuse_ll
	fuse "squashfuse: /opt/fuse/squashfuse_ll${2:+$'\n'$2}"
}

# One that says hello to the kernel, takes each question after that, and answers none.
silent() { # COMPILER-ARGUMENT...
	compiled silent.c silent "$@"
}

@test "images of the user's run on three nodes, by one process a node that is the user's, and gone with the step" {
	fuse
	start_waiting 48 -N3 -n48 --overcommit --container="$busybox"
	pgrep -x squashfuse_ll >pids
	[[ $(wc -l <pids) == 3 ]] || fail "$(ps ax)"
	[[ $(no_loops && echo none) == none ]] || fail "$(loops)"
	local pid
	for pid in $(<pids); do
		[[ $(stat -c %U "/proc/$pid") == alice ]]
		grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|PPid):' "/proc/$pid/status" >status
		grep -qx "PPid:	$(pgrep -P 1 -x coracle-watch | grep -x "$(sed -n 's/^PPid:	//p' status)")" status
		grep -qx 'Uid:	2001	2001	2001	2001' status
		grep -qx 'Gid:	2001	2001	2001	2001' status
		grep -qx 'NoNewPrivs:	1' status
		[[ $(grep -c '^Cap...:	0000000000000000$' status) == 5 ]] || fail "$(<status)"
		# Three times /dev/null, the image twice (squashfuse_ll opens it again), its end of the mount.
		readlink "/proc/$pid/fd/"* | sort | uniq -c >fds
		[[ $(wc -l <fds) == 3 ]] || fail "$(<fds)"
		grep -q '3 /dev/null$' fds && grep -q ' /dev/fuse$' fds && grep -q " $busybox\$" fds || fail "$(<fds)"
		[[ ! -s /proc/$pid/environ ]]
		[[ $(readlink "/proc/$pid/cwd") == / ]]
	done
	finish
	[[ $(grep -cx "$MARK" out) == 48 ]] || fail "$(<out)"
	eventually no_squashfuse
	eventually no_watch
	healthy
}

@test "the log names the rule" {
	fuse 'log: none'
	run coracle exec --user alice --plan "$busybox"
	((status == 0)) || fail "$output"
	has 'squashfs+zstd'
	eventually no_squashfuse
	eventually no_watch
}

@test "SIF and squashfs, with every compression, run" {
	fuse
	local image
	for image in "$IMG"/busybox-*.sif "$IMG"/busybox-zstd.sqsh; do
		good srun -n1 --container="$image" cat /etc/image-only
		prints "$MARK"
	done
}

@test "six ranks on three nodes pass a message around" {
	needs_pmix
	fuse
	good srun -N3 -n6 --mpi=pmix --container="$IMG/mpi.sif" /usr/bin/ring
	has_line 'ring sum=15 ranks=6'
	[[ $(grep -c ' in coracle mpi test image$' <<<"$output") == 6 ]] || fail "$output"
	eventually no_squashfuse
	eventually no_watch
}

@test "a batch job and its steps run" {
	fuse
	job_script job.sh "cat /etc/image-only"
	batch --container="$busybox" job.sh
	prints "$MARK"
	batch --wrap "srun -n1 --container=$busybox cat /etc/image-only; srun -n1 --container=$busybox cat /etc/image-only"
	prints "$MARK"$'\n'"$MARK"
	eventually no_squashfuse
	eventually no_watch
}

@test "set-user-id programs, file capabilities and devices give nothing, and modes count" {
	fuse
	good srun -n1 --container="$IMG/hostile.sqsh" sh -c 'ls -l /bin/busybox-as-root /bin/busybox-as-group
		/bin/busybox-as-root id -u; /bin/busybox-as-group id -g; /bin/busybox-with-caps grep CapEff /proc/self/status
		cat /devices/null 2>&1; cat /alices; touch /alices 2>&1; true'
	has '-rwsr-xr-x'
	has_line 2001
	has 'CapEff:	0000000000000000'
	has "can't open '/devices/null': Permission denied"
	has_line mine
	has 'Read-only file system'
	mkdir tree
	cp "$(type -P busybox)" tree/sh
	echo secret >tree/secret
	mkdir tree/proc tree/sys tree/dev tree/tmp
	mksquashfs tree modes.sqsh -noappend -quiet -no-progress -p 'secret m 600 0 0' >/dev/null
	chmod 644 modes.sqsh
	# From release 0.2.0 on it shows all files as the user's.
	! grep -q 'set file owner to uid' "$(type -P squashfuse_ll)" || return 0
	run alice srun -n1 --container="$dir/modes.sqsh" /sh cat /secret
	has_not secret$'\n'
	((status != 0)) || fail "$output"
}

@test "a trusted image is the kernel's to read" {
	fuse $'image_paths:\n- path: /opt/images'
	install -d /opt/images
	install -m 644 "$busybox" /opt/images/good.sif
	start_waiting 1 -n1 --container=/opt/images/good.sif
	! squashfuse || fail 'squashfuse_ll runs'
	losetup --list --noheadings --output BACK-FILE | grep -qx /opt/images/good.sif || fail "$(losetup)"
	finish
	[[ $(without_waiting <out) == "$MARK" ]]
}

@test "an image that root may not read runs" {
	fuse
	install -o bob -g proj -m 640 "$busybox" group.sif
	good srun -n1 --container=group.sif cat /etc/image-only
	prints "$MARK"
}

@test "a cancelled step leaves no process" {
	fuse
	start_waiting 4 -n4 --container="$busybox"
	scancel --user=alice
	wait "$step" || true
	eventually no_squashfuse
	eventually no_watch
	healthy
}

@test "signals of the step do not end squashfuse_ll before its tasks" {
	fuse
	alice srun -n2 --container="$busybox" sh -c "trap '/bin/sleep 0.3; /bin/cat /etc/image-only; exit' TERM; touch $dir/in.\$SLURM_PROCID; while :; do /bin/sleep 0.1; done" >out 2>&1 3>&- &
	step=$!
	eventually arrived 2
	pkill -TERM -x squashfuse_ll
	pkill -INT -x squashfuse_ll
	pkill -USR1 -x squashfuse_ll
	scancel --signal=TERM --user=alice
	wait "$step" || true
	[[ $(grep -cx "$MARK" out) == 2 ]] || fail "$(<out)"
	eventually no_squashfuse
	eventually no_watch
	healthy
}

@test "a refused step leaves no process" {
	fuse
	refused bind '/no/such: does not exist on this node' srun -n2 --container-bind=/no/such:/mnt --container="$busybox" true
	eventually no_squashfuse
	eventually no_watch
}

@test "slurmstepd killed: the tasks go on, and squashfuse_ll ends with them" {
	fuse
	start_waiting 2 -n2 --container="$busybox"
	kill -KILL $(pgrep -x slurmstepd)
	squashfuse
	touch go
	eventually no_squashfuse
	eventually no_watch
	kill -KILL $(pgrep -x srun)
	scancel --user=alice
	wait "$step" || true
	healthy
}

@test "squashfuse_ll killed: its tasks fail, and the node is well" {
	fuse
	alice srun -n2 --container="$busybox" sh -c "touch $dir/in.\$SLURM_PROCID; until test -e $dir/go; do :; done; /bin/cat /etc/image-only" >out 2>&1 3>&- &
	step=$!
	eventually arrived 2
	pkill -KILL -x squashfuse_ll
	touch go
	wait "$step" && fail "$(<out)"
	grep -q 'Transport endpoint is not connected\|Bus error\|not found' out || fail "$(<out)"
	healthy
}

@test "one that never answers is refused in time, and neither it nor the launcher stays" {
	silent || return
	instead silent 'start_timeout: 2'
	at=node refused timeout "$busybox: squashfuse_ll, which reads it as you, did not answer in time" srun -n2 --container="$busybox" true
	eventually no_squashfuse
	eventually no_watch
	pgrep -u alice && fail "$(ps ax)"
	true
}

@test "one that gives its descriptor away and never answers is refused in time" {
	silent -DGIVE_AWAY || return
	instead silent 'start_timeout: 2'
	at=node refused timeout "$busybox: squashfuse_ll, which reads it as you, did not answer in time" srun -n2 --container="$busybox" true
}

@test "one that ends at once, or knows no such compression, is refused at once" {
	instead "$(type -P false)"
	at=node refused image-format "$busybox: squashfuse_ll, which reads it as you, has ended" srun -n2 --container="$busybox" true
}

@test "the launcher killed while squashfuse_ll does not answer: nothing stays" {
	silent || return
	instead silent 'start_timeout: 4'
	alice srun -n2 --container="$busybox" true >out 2>&1 3>&- &
	step=$!
	eventually pgrep -x "$PROGRAMS"
	eventually squashfuse
	pkill -KILL -x "$PROGRAMS"
	wait "$step" && fail "$(<out)"
	eventually no_watch
	healthy
}

@test "a node without squashfuse_ll refuses, and says what to install" {
	fuse 'squashfuse: /opt/fuse/none'
	at=node refused system '/opt/fuse/none: not found on this node, and user_images: fuse needs it' srun -n2 --container="$busybox" true
	has 'hint: install the package squashfuse'
}

@test "one that others than root could have written is not started" {
	instead "$(type -P false)"
	chmod 775 /opt/fuse/squashfuse_ll
	refused config '/opt/fuse/squashfuse_ll: writable by others than root (mode 0775)' srun -n1 --container="$busybox" true
	chmod 755 /opt/fuse/squashfuse_ll
	chown alice /opt/fuse
	refused config '/opt/fuse: belongs to user 2001, and must belong to root' srun -n1 --container="$busybox" true
}

@test "a script is not started: its user could trace it" {
	printf '#!/bin/sh\nexit 1\n' >script
	instead script
	refused config '/opt/fuse/squashfuse_ll: no ELF program' srun -n1 --container="$busybox" true
	has 'hint: a script as squashfuse_ll could be traced by its user'
}

@test "a node without /dev/fuse refuses, and says what to load" {
	fuse
	# A device that no driver has, as one whose module is not loaded.
	on-node n1 sh -c 'mknod /run/coracle/fuse c 10 250 && mount --bind /run/coracle/fuse /dev/fuse'
	run alice srun -n1 -w n1 --container="$busybox" true
	on-node n1 sh -c 'umount /dev/fuse && rm /run/coracle/fuse'
	((status == 125)) || fail "$output"
	said system "$busybox: open(\"/dev/fuse\", O_RDWR): ENODEV"
	has 'hint: the kernel of this node has no FUSE: modprobe fuse'
}
