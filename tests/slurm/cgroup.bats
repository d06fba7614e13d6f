# With proctrack/cgroup and task/affinity,task/cgroup; the cluster is started for it.
load support

@test "a task runs inside the image" {
	good srun -N3 -n6 --container="$busybox" cat /etc/image-only
	[[ $(grep -cx "$MARK" <<<"$output") == 6 ]] || fail "$output"
}

@test "a task is in the cgroups of its step, as a bare one" {
	local list='cat /proc/self/cgroup | sed "s/[0-9][0-9]*/N/g"'
	good srun -n1 sh -c "$list"
	local bare=$output
	has /slurm
	good srun -n1 --container="$busybox" sh -c "$list; cat /etc/image-only"
	prints "$bare"$'\n'"$MARK"
}

@test "a task is bound to the processors that a bare one is bound to" {
	good srun -n1 -c2 grep Cpus_allowed_list /proc/self/status
	local bare=$output
	good srun -n1 -c2 --container="$busybox" grep Cpus_allowed_list /proc/self/status
	prints "$bare"
}

@test "the launcher is in no cgroup of the step, which ends at once" {
	good srun -N1 -n2 --container="$busybox" true
	healthy
	find /sys/fs/cgroup/freezer -path '*step_*' -name cgroup.procs -exec cat {} + >procs || true
	[[ ! -s procs ]]
}

@test "a process that leaves its session ends with the step" {
	good srun -n1 --container="$busybox" sh -c 'setsid sleep 1000 </dev/null >/dev/null 2>&1 & cat /etc/image-only'
	prints "$MARK"
	healthy
}

@test "a step in a container is suspended and goes on" {
	good sbatch --parsable -o out --wrap "srun --container=$busybox sh -c 'touch $dir/in; until test -e $dir/go; do sleep 0.1; done; cat /etc/image-only'"
	job=$output
	eventually test -e in
	scontrol suspend "$job"
	[[ $(job_field "$job" JobState) == SUSPENDED ]]
	scontrol resume "$job"
	touch go
	eventually ended "$job"
	[[ $(<out) == "$MARK" ]]
}

@test "six ranks pass a message around by PMIx, and end together when a node refuses" {
	needs_pmix
	good srun -N3 -n6 --mpi=pmix --container="$IMG/mpi.sif" /usr/bin/ring
	has_line 'ring sum=15 ranks=6'
	on-node n1 install -m 644 "$IMG/mpi.sif" /var/tmp/two.sif
	on-node n3 install -m 644 "$IMG/mpi.sif" /var/tmp/two.sif
	run alice srun -N3 -n6 --mpi=pmix --container=/var/tmp/two.sif /usr/bin/ring
	on-node n1 rm /var/tmp/two.sif
	on-node n3 rm /var/tmp/two.sif
	((status == 125 || status == 137)) || fail "$status $output"
	said image-missing '/var/tmp/two.sif: no such file on this node'
	healthy
}

@test "a refusal is one line and hurts no node" {
	nodes=3 at=node refused image-missing '/no/such.sif: no such file on this node' srun -N3 -n6 --container=/no/such.sif true
	job_script job.sh true
	refused_batch image-missing '/no/such.sif' --container=/no/such.sif job.sh
}

@test "a refused step leaves no control group of its job" {
	before=$(job_groups)
	nodes=3 at=node refused image-missing '/no/such.sif' srun -N3 -n6 --container=/no/such.sif true
	eventually groups_as_before
}

# Of a rank that was killed in PMIx, a slurmstepd may still wait in libpmix, and keep its job's.
job_groups() { find /sys/fs/cgroup/*/slurm_n* -name 'job_*' 2>/dev/null | sort; }
# One that was there before may end meanwhile.
groups_as_before() { [[ -z $(comm -13 <(echo "$before") <(job_groups)) ]]; }

cancel_a_running_job() {
	good sbatch --parsable -o /dev/null --container="$busybox" --wrap "touch $dir/in; sleep 1000"
	job=$output
	eventually test -e in
	scancel "$job"
	eventually ended "$job"
	healthy
}

@test "the batch script and its steps, and a cancelled job, leave nothing" {
	job_script job.sh 'cat /etc/image-only'
	batch --container="$busybox" job.sh
	prints "$MARK"
	cancel_a_running_job
}

@test "squashfuse_ll is where its step is: it may use no device that the job was not given" {
	local where='sed -n "s/^[0-9]*:devices://p"'
	configure $'version: 1\nuser_images: fuse\nbinds:\n- source: /scratch'
	good srun -N1 -n2 --container="$busybox" sh -c "cat /proc/self/cgroup | $where | sed 's#/task_.*##'; for p in /proc/[0-9]*; do
		grep -qsx squashfuse_ll \$p/comm && cat \$p/cgroup | $where; done | sort -u"
	has /job_
	[[ $(sort -u <<<"$output" | wc -l) == 1 ]] || fail "$output"
}

@test "an image's environment scripts are where their step is, too" {
	local where='sed -n "s/^[0-9]*:devices://p" /proc/self/cgroup'
	unsquashfs -quiet -no-progress -force -dest tree "$CORACLE_IMAGES/busybox-none.sqsh" >/dev/null
	mkdir -p tree/.singularity.d/env
	echo "export SCRIPT_WAS=\$($where)" >tree/.singularity.d/env/10-where.sh
	mksquashfs tree where.sqsh -quiet -no-progress -all-root >/dev/null
	good srun -N1 -n2 --container="$dir/where.sqsh" sh -c "echo \$SCRIPT_WAS; $where | sed 's#/task_.*##'"
	has /job_
	[[ $(sort -u <<<"$output" | wc -l) == 1 ]] || fail "$output"
}

@test "the command that sets the job's comment is where its step is, out of its user's reach, and holds no group" {
	before=$(job_groups)
	configure $'version: 1\nuser_images: kernel\nbinds:\n- source: /scratch\naudit: {comment: yes}'
	on-node n1 as -d "$dir" alice python3 "$BATS_TEST_DIRNAME/commands_seen.py" scontrol "$dir/stop" >seen 3>&- &
	local looks=$! i
	for i in 1 2 3; do
		good sbatch --parsable -w n1 -o /dev/null --container="$busybox" --wrap "until test -e $dir/done.$i; do sleep 0.1; done"
		job=$output
		commented() { [[ $(job_field "$job" Comment) == "coracle:$busybox" ]]; }
		eventually commented
		touch "done.$i"
		eventually ended "$job"
	done
	touch stop
	wait "$looks"
	output=$(<seen)
	has_line 'seen True'
	has_line 'worked:'
	[[ $output =~ $'\n'"devices:"( /[^ ]*/job_[^ ]*)+$ ]] || fail "$output"
	# A job that is over before its comment is set leaves nothing either.
	for i in 1 2 3 4 5 6; do good srun -n1 -w n1 --container="$busybox" true; done
	healthy
	eventually groups_as_before
}

@test "an image that squashfuse_ll reads: the step ends at once, and neither a process nor a cgroup stays" {
	before=$(job_groups)
	configure $'version: 1\nuser_images: fuse\nbinds:\n- source: /scratch'
	good srun -N3 -n6 --container="$busybox" cat /etc/image-only
	[[ $(grep -cx "$MARK" <<<"$output") == 6 ]] || fail "$output"
	healthy
	eventually groups_as_before
	cancel_a_running_job
	eventually groups_as_before
}
