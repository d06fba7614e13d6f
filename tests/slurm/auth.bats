# auth/slurm in place of munge: what a command inside of an image asks is a socket of slurmd's.
# bats file_tags=releases
load support

needs_auth_slurm() {
	scontrol show config | grep -qE '^AuthType +=  *auth/slurm$' || skip "not there: Slurm $(slurm_release) has no auth/slurm"
	! pgrep -x munged >/dev/null || fail 'munged runs'
}

@test "auth/slurm: steps and scripts run inside, and so do the steps that a script inside starts" {
	needs_auth_slurm
	good srun -N3 -n3 --container="$busybox" cat /etc/image-only
	prints "$MARK"$'\n'"$MARK"$'\n'"$MARK"
	job_script job.sh 'cat /etc/image-only; srun sh -c "echo \$SLURMD_NODENAME \$CORACLE_NAME"; srun -n1 -N1 sh -c "exit 7"; echo "status $?"'
	batch -N3 -n3 --container="$busybox" job.sh
	has_line "$MARK"
	for node in n1 n2 n3; do has_line "$node busybox-zstd"; done
	has_line 'status 7'
}

@test "auth/slurm: squeue, scontrol, sinfo, sbatch and scancel answer inside any image" {
	needs_auth_slurm
	local image
	for image in "$busybox" "$IMG/bare.sif" "$IMG/mpi.sif"; do
		job_script ask.sh "squeue --noheader --format 'queue %i %N'; scontrol --oneliner show job \$SLURM_JOB_ID; sinfo --noheader --format 'info %R'
id=\$(sbatch --hold --parsable -o /dev/null --wrap 'sleep 1000') && scancel \$id && scontrol --oneliner show job \$id
sbatch --wait -o $dir/second.out --container=$busybox --wrap 'cat /etc/image-only'"
		rm -f second.out
		batch -n1 --container="$image" ask.sh
		has "queue $job n" && has "JobId=$job JobName=ask.sh UserId=alice(2001)" && has_line 'info main' && has JobState=CANCELLED ||
			{ fail "in $image"; return; }
		[[ $(<second.out) == "$MARK" ]] || { fail "in $image: $(<second.out)"; return; }
	done
}

@test "auth/slurm: when one node of three refuses, tasks elsewhere end too" {
	needs_auth_slurm
	on-node n1 install -m 644 "$busybox" /var/tmp/two.sif
	on-node n3 install -m 644 "$busybox" /var/tmp/two.sif
	refused image-missing '/var/tmp/two.sif: no such file on this node' srun -N3 -n6 --container=/var/tmp/two.sif sleep 1000
}

cleanup() {
	on-node n1 rm -f /var/tmp/two.sif
	on-node n3 rm -f /var/tmp/two.sif
}
