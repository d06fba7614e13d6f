# A step whose image a process of its user's reads ends, whatever the user does to that process; the clusters are started
# with each way of tracking processes.
load support

# A step on the first node that looks for names which the kernel does not know yet, until it is ended.
start_looking() {
	configure $'version: 1\nuser_images: fuse\nbinds:\n- source: /scratch'
	alice srun -n1 -w n1 --container="$busybox" sh -c "trap '' TERM; i=0; touch $dir/in
		while :; do i=\$((i + 1)); test -e /none-\$i; done" >out 2>&1 3>&- &
	step=$!
	eventually test -e in
	server=$(pgrep -x squashfuse_ll)
}

# The task waits for squashfuse_ll.
waits_for_it() { grep -qs fuse "/proc/$(pgrep -u alice -x -n sh)/stack"; }
job_over() { [[ -z $(squeue --noheader) ]]; }

# The job is over, the node is well, and nothing is left: no process, no mount, and no control group of Slurm's.
all_gone() {
	# A killed step of a job that waits has a task until the connection is broken.
	local end=$((SECONDS + 40))
	until job_over; do
		((SECONDS < end)) || { fail "$(squeue)" "$(ps ax)"; return; }
		sleep 0.2
	done
	wait "$step" || true
	healthy || return
	[[ -z $(squeue --noheader) && $(sinfo --noheader --nodes n1 --format %t) == idle ]] || fail "$(sinfo)"
}

@test "stopped by its user, the job is cancelled" {
	start_looking
	alice kill -STOP "$server"
	scancel --user=alice
	all_gone
}

@test "stopped by its user, with a task that nothing but its end would wake" {
	start_looking
	alice kill -STOP "$server"
	eventually waits_for_it
	scancel --signal=KILL --user=alice
	all_gone
}

@test "stopped by its user, and the tasks end by themselves" {
	configure $'version: 1\nuser_images: fuse\nbinds:\n- source: /scratch'
	alice srun -n1 -w n1 --container="$busybox" sh -c "touch $dir/in; until test -e $dir/go; do :; done" >out 2>&1 3>&- &
	step=$!
	eventually test -e in
	alice kill -STOP "$(pgrep -x squashfuse_ll)"
	touch go
	all_gone
}

@test "its user cannot trace it; one that has taken a request and never answers does not keep the job" {
	compiled take.c take -static || return
	start_looking
	run alice ./take "$server"
	prints 'seize: Operation not permitted'
	run ./take "$server"
	prints taken
	grep -q '^State:	T' "/proc/$server/status"
	eventually waits_for_it
	scancel --user=alice
	all_gone
}

@test "a task whose name is no UTF-8 is seen by the guard like any other" {
	compiled take.c take -static || return
	configure $'version: 1\nuser_images: fuse\nbinds:\n- source: /scratch'
	alice srun -n1 -w n1 --container="$busybox" sh -c "trap '' TERM; printf 's\\377h' >/proc/\$\$/comm; i=0; touch $dir/in
		while :; do i=\$((i + 1)); test -e /none-\$i; done" >out 2>&1 3>&- &
	step=$!
	eventually test -e in
	server=$(pgrep -x squashfuse_ll)
	task=$(grep -lsax $'s\377h' /proc/[0-9]*/comm | cut -d/ -f3)
	[[ -n $task ]]
	run ./take "$server"
	prints taken
	eventually grep -qs fuse "/proc/$task/stack"
	scancel --user=alice
	all_gone
}

@test "one that is stopped in a batch job does not keep it" {
	configure $'version: 1\nuser_images: fuse\nbinds:\n- source: /scratch'
	good sbatch --parsable -w n1 -o /dev/null --container="$busybox" \
		--wrap "touch $dir/in; i=0; while :; do i=\$((i + 1)); test -e /none-\$i; done"
	step=''
	eventually test -e in
	alice kill -STOP "$(pgrep -x squashfuse_ll)"
	scancel --user=alice
	all_gone
}

@test "stopped, and slurmstepd killed: nobody waits for ever" {
	start_looking
	alice kill -STOP "$server"
	kill -KILL "$(pgrep -x slurmstepd)"
	kill -KILL $(pgrep -x srun)
	eventually no_squashfuse
	eventually no_watch
	# Slurm itself does not end the tasks of a slurmstepd that was killed; this one finds no image any more.
	pkill -KILL -u alice -x sh || true
	scancel --user=alice
	all_gone
}

@test "a step ends at once when squashfuse_ll is well" {
	configure $'version: 1\nuser_images: fuse\nbinds:\n- source: /scratch'
	good srun -N3 -n6 --container="$busybox" cat /etc/image-only
	[[ $(grep -cx "$MARK" <<<"$output") == 6 ]] || fail "$output"
	no_squashfuse && no_watch || { sleep 0.5; no_squashfuse && no_watch; } || fail "$(ps ax)"
}

# What alice's FUSE file system shows, mounted on the first node as her fusermount3 would.
own_fuse() {
	mkdir tree
	cp "$busybox" tree/own.sif
	cp -r "$CORACLE_IMAGES/tree" tree/root
	cp "$CORACLE_IMAGES/busybox.erofs" tree/own.erofs
	mksquashfs tree outer.sqsh -quiet -no-progress -all-root >/dev/null
	mkdir mine bound over
	chown alice outer.sqsh mine
	on-node n1 python3 "$BATS_TEST_DIRNAME/serve_as.py" 2001 "$dir/outer.sqsh" "$dir/mine" >served 2>&1 3>&- &
	# Root is not told what is there.
	eventually on-node n1 grep -q " $dir/mine " /proc/self/mountinfo
}

cleanup() {
	local place
	for place in over bound mine; do
		on-node n1 umount -l "$dir/$place" 2>/dev/null || true
	done
	pkill -KILL -x squashfuse_ll || true
}

@test "an image on a FUSE file system of a user's is refused, whoever reads it, and by each way to it" {
	own_fuse
	on-node n1 mount --bind mine bound
	local mode image
	for mode in kernel fuse; do
		configure $'version: 1\ndirectories: allow\nbinds:\n- source: /scratch\nuser_images: '"$mode"
		for image in mine/own.sif bound/own.sif mine/own.erofs mine/root; do
			run alice srun -n1 -w n1 --container="$dir/$image" true
			((status == 125)) || fail "$mode $image: $status" "$output"
			said image-type "$dir/$image: on a file system that a process of user 2001 serves (fuse.mine)" || return
			has 'hint: copy it to another file system, or into the store'
			no_loops
		done
	done
}
