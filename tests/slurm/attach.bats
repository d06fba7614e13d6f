# coracle exec --job: into the container of a step that runs.
bats_require_minimum_version 1.5.0
load support

# A job on two nodes whose script and whose step 0 run in writable containers, and step 1 on the nodes.
start_job() {
	job_script job.sh "echo batch >/mark; readlink /proc/self/ns/mnt >$dir/ns.batch
srun -N2 -n2 --overlap --container-writable sh -c 'echo step >/mark; readlink /proc/self/ns/mnt >$dir/ns.0.\$(hostname); sleep 100' &
until test -e $dir/ns.0.n1 && test -e $dir/ns.0.n2; do sleep 0.1; done
srun -N1 -n1 --overlap --container=none sh -c 'touch $dir/bare; sleep 100' &
wait"
	job=$(alice sbatch --parsable -N2 -n2 --overcommit --container="$busybox" --container-writable -o "$dir/out" job.sh)
	eventually test -e bare || fail "$(<out)"
}

cleanup() {
	scancel "${job:-0}" 2>/dev/null || true
	job=''
	eventually no_tasks
}

# Refused in one line, by srun's plugin or the node's; the job runs on.
not_joined() { # TEXT COMMAND...
	local text=$1
	shift
	run alice "$@"
	((status != 0)) || { fail "not refused: $*" "$output"; return; }
	said usage "$text"
}

ns='readlink /proc/self/ns/mnt'

# bats test_tags=releases
@test "the very container of a step is entered, on the node that is asked for" {
	start_job
	good coracle exec --job "$job.batch" sh -c "$ns; cat /mark; cat /etc/image-only"
	prints "$(<ns.batch)"$'\n'"batch"$'\n'"$MARK"
	good coracle exec --job "$job" sh -c "$ns"
	prints "$(<ns.batch)"
	good coracle exec --job "$job.0" -w n2 -- sh -c "$ns; cat /mark; hostname"
	prints "$(<ns.0.n2)"$'\n'"step"$'\n'"n2"
	good coracle exec --job "$job.0" -w n1 sh -c "$ns; echo word >/mark"
	prints "$(<ns.0.n1)"
	good coracle exec --job "$job.0" -w n1 cat /mark
	prints word
	good coracle exec --job "$job.0" grep -E '^(Cap...|NoNewPrivs):' /proc/self/status
	[[ $(grep -c '^Cap...:	0000000000000000$' <<<"$output") == 5 ]] || fail "$output"
	has_line 'NoNewPrivs:	1'
}

@test "the exit status, input and options go through srun" {
	start_job
	run alice coracle exec --job "$job.0" sh -c 'exit 7'
	((status == 7))
	run alice bash -c "echo word | coracle exec --job $job.0 cat"
	prints word
	good coracle exec --job "$job.0" --env A=5 --pwd /etc sh -c 'echo $A; pwd'
	prints $'5\n/etc'
	good script -qec "coracle exec --job $job.0 tty" /dev/null
	has /dev/pts/
}

@test "what cannot be joined is refused" {
	start_job
	not_joined "step $job.9: does not run on this node" coracle exec --job "$job.9" true
	not_joined "step $job.1: has no container on this node" coracle exec --job "$job.1" true
	not_joined 'binds, digest, home, MPI, GPUs, and what can be written were decided' \
		coracle exec --job "$job.0" -B /tmp:/x true
	run as bob coracle exec --job "$job.0" true
	((status != 0))
	has 'Access/permission denied'
	run alice coracle exec --job 4711 true
	((status != 0))
	has 'Invalid job id'
	run -125 alice coracle exec --job "$job.x" true
	[[ ${lines[0]} == "coracle: $job.x: not a job: JOB or JOB.STEP is wanted [usage]" ]] || fail "$output"
	run -125 alice coracle exec --job "$job"
	[[ ${lines[0]} == 'coracle: exec: the command is missing [usage]' ]] || fail "$output"
	run -125 alice coracle exec -w n1 "$busybox" true
	run -125 alice env PATH=/no /usr/bin/coracle exec --job "$job.0" --plan true
}

# A job whose script, and whose step 0, give themselves another root and say that it is an image's.
start_forged_job() { # DIRECTORY [mounts]
	cp "$BATS_TEST_DIRNAME/chrooted.py" .
	rm -f batch step
	job_script job.sh "export CORACLE_IMAGE=$busybox
srun -n1 --overlap python3 chrooted.py step $* &
python3 chrooted.py batch $*
wait"
	job=$(alice sbatch --parsable -N1 -n2 -w n1 --overcommit -o "$dir/out" job.sh)
	{ eventually test -e batch && eventually test -e step; } || fail "$(<out)"
}

end_forged_job() {
	rm batch step
	eventually ended "$job"
	[[ $(job_field "$job" JobState) == COMPLETED ]] || fail "$(<out)"
}

@test "a process that has changed its root is in no container, with or without a mount namespace of its own" {
	local root
	cp -a "$IMG/tree" own-tree
	chown -R alice own-tree
	for root in /scratch "$dir/own-tree" / /tmp '/scratch mounts' "$dir/own-tree mounts"; do
		# shellcheck disable=SC2086
		start_forged_job $root || return
		not_joined "job $job: has no container on this node" srun --jobid="$job" --overlap --container=step true || return
		not_joined "step $job.batch: has no container on this node" coracle exec --job "$job.batch" -w n1 true || return
		not_joined "step $job.0: has no container on this node" coracle exec --job "$job.0" true || return
		end_forged_job || fail "$root" || return
	done
}

@test "where the job script is in a container, a bare step is still none, and the script's is found" {
	cp "$BATS_TEST_DIRNAME/chrooted.py" .
	job_script job.sh "$ns >$dir/ns.batch
srun -N1 -n1 --overlap --container=none --export=ALL,CORACLE_IMAGE=$busybox python3 chrooted.py step /scratch &
until test -e $dir/done; do sleep 0.1; done
rm step
wait"
	job=$(alice sbatch --parsable -N1 -n2 --overcommit --container="$busybox" -o "$dir/out" job.sh)
	eventually test -e step || fail "$(<out)"
	not_joined "step $job.0: has no container on this node" coracle exec --job "$job.0" true
	good coracle exec --job "$job" sh -c "$ns"
	prints "$(<ns.batch)"
	touch 'done'
	eventually ended "$job"
}

@test "a task that has made itself a user namespace inside of its container is still in it" {
	job_script job.sh "$ns >$dir/ns.batch; exec unshare -U sh -c 'touch $dir/in; until test -e $dir/done; do sleep 0.1; done'"
	job=$(alice sbatch --parsable -N1 -n1 --container="$busybox" -o "$dir/out" job.sh)
	eventually test -e in || fail "$(<out)"
	good coracle exec --job "$job" sh -c "$ns"
	prints "$(<ns.batch)"
	touch 'done'
	eventually ended "$job"
}

@test "a directory that is an image is joined" {
	configure $'version: 1\nuser_images: kernel\ndirectories: allow\nbinds:\n- source: /scratch'
	job_script job.sh "$ns >$dir/ns.batch; touch $dir/in; until test -e $dir/done; do sleep 0.1; done"
	job=$(alice sbatch --parsable -N1 -n1 --container="$IMG/tree" -o "$dir/out" job.sh)
	eventually test -e in || fail "$(<out)"
	good coracle exec --job "$job" sh -c "$ns; cat /etc/image-only"
	prints "$(<ns.batch)"$'\n'"$MARK"
	touch 'done'
	eventually ended "$job"
}

@test "without srun that is said" {
	mv "$BIN_SLURM/srun" "$BIN_SLURM/srun.away"
	run -125 alice coracle exec --job 1 true
	mv "$BIN_SLURM/srun.away" "$BIN_SLURM/srun"
	[[ ${lines[0]} == 'coracle: srun: not found on this node [system]' ]] || fail "$output"
}
