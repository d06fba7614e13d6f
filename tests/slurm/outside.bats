# Nothing that runs as the user on the node itself, while a step begins, runs and ends, lets a task out of its container.
load support

setup() {
	in_own_directory || return
	compiled outside.c outside -static || return
	looker=''
}

cleanup() {
	touch "$dir/over"
	[[ -z $looker ]] || wait "$looker" || true
}

# A step in a container of the first node that looks for processes of alice's outside of containers.
start_looker() {
	alice srun -n1 -w n1 --container="$busybox" sh -c "touch $dir/looks; exec $dir/outside $dir/over" >caught 2>&1 3>&- &
	looker=$!
	eventually test -e looks
}

# It has looked at what must not be seen, and not seen it.
nothing_caught() {
	touch over
	local status=0
	wait "$looker" || status=$?
	looker=''
	((status == 0)) || fail "$(<caught)"
	grep -Eq '^looks [1-9][0-9]*, hidden [1-9][0-9]*, caught 0$' caught || fail "$(<caught)"
}

inside() { # SRUN-ARGUMENT...
	for _ in 1 2 3; do
		good srun -n2 -w n1 "$@" sh -c 'cat /etc/image-only; sleep 0.1' || return
		[[ $(grep -cx "$MARK" <<<"$output") == 2 ]] || fail "$output" || return
	done
}

@test "a process of the user's on the node itself is seen by the test" {
	start_looker
	good srun -n1 -w n1 sleep 1
	touch over
	wait "$looker" && fail "$(<caught)"
	looker=''
	grep -qx 'caught: root of sleep' caught || fail "$(<caught)"
}

@test "images that the kernel reads" {
	start_looker
	inside --container="$busybox"
	inside --container="$IMG/busybox.erofs"
	nothing_caught
}

@test "images that squashfuse_ll reads" {
	configure $'version: 1\nuser_images: fuse\nbinds:\n- source: /scratch'
	start_looker
	inside --container="$busybox"
	inside --container="$IMG/busybox-gzip.sif"
	nothing_caught
}

@test "writable containers, and kept overlays" {
	start_looker
	inside --container="$busybox" --container-writable
	install -d -o alice -g alice kept
	inside --container="$busybox" --container-overlay="$dir/kept"
	configure $'version: 1\nuser_images: fuse\nbinds:\n- source: /scratch'
	inside --container="$busybox" --container-writable
	nothing_caught
}

@test "environment scripts that need the image's shell, and look-ups for MPI" {
	needs_pmix
	unsquashfs -quiet -no-progress -force -dest tree "$CORACLE_IMAGES/busybox-none.sqsh" >/dev/null
	mkdir -p tree/.singularity.d/env
	echo 'export SAID=$(sleep 0.2; echo yes)' >tree/.singularity.d/env/10-says.sh
	mksquashfs tree says.sqsh -quiet -no-progress -all-root >/dev/null
	start_looker
	inside --container="$dir/says.sqsh"
	inside --mpi=pmix --container="$busybox"
	configure $'version: 1\nuser_images: fuse\nbinds:\n- source: /scratch'
	inside --container="$dir/says.sqsh"
	nothing_caught
}

@test "a refused image, and a digest that takes time" {
	start_looker
	head -c 100000 "$busybox" >cut.sif
	chmod 644 cut.sif
	run alice srun -n1 -w n1 --container="$dir/cut.sif" true
	((status != 0)) || fail "$output"
	inside --container="$busybox" --container-digest="sha256:$(sha256sum "$busybox" | cut -d' ' -f1)"
	nothing_caught
}

commented() { # JOB
	[[ $(job_field "$1" Comment) == "coracle:$busybox" ]]
}

@test "the command that sets a job's comment, of steps and job scripts" {
	local job
	install -d -m 755 /var/log/outside
	configure $'version: 1\nuser_images: kernel\nbinds:\n- source: /scratch\naudit: {file: /var/log/outside/log, comment: yes}'
	start_looker
	for _ in 1 2 3; do
		rm -f go in
		alice srun -n2 -w n1 --container="$busybox" sh -c "echo \$SLURM_JOB_ID >$dir/in; until test -e $dir/go; do sleep 0.1; done" >out 2>&1 3>&- &
		step=$!
		eventually test -s in
		job=$(<in)
		eventually commented "$job"
		# A user who empties it has the command run again with the next step.
		alice scontrol update JobId="$job" Comment=
		alice srun --jobid="$job" --overlap -n1 -w n1 --container="$busybox" sh -c 'sleep 0.5' 3>&- || fail "$(<out)"
		touch go
		wait "$step"
		job=$(alice sbatch --parsable -w n1 -o /dev/null --container="$busybox" --wrap "sleep 0.5")
		eventually ended "$job"
		commented "$job" || fail "$(job_field "$job" Comment)"
	done
	rm -r /var/log/outside
	nothing_caught
}
