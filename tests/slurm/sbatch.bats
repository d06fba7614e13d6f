# sbatch --container: the script itself runs inside the image.
# bats file_tags=releases
load support

@test "the script runs inside the image" {
	job_script job.sh 'cat /etc/image-only; pwd'
	batch --container="$busybox" job.sh
	prints "$MARK"$'\n'"$dir"
}

@test "a script from --wrap and one from standard input run inside" {
	batch --container="$busybox" --wrap 'cat /etc/image-only'
	prints "$MARK"
	printf '#!/bin/sh\ncat /etc/image-only\n' >in.sh
	batch --container="$busybox" <in.sh
	prints "$MARK"
}

@test "#SBATCH --container in the script counts" {
	job_script job.sh "#SBATCH --container=$busybox
cat /etc/image-only"
	batch job.sh
	prints "$MARK"
}

@test "a script that names its own path is the file in the spool directory" {
	job_script job.sh 'cat /etc/image-only; test -r "$0" && tail -n 1 "$0"; case $0 in */slurm_script) echo spool;; esac; # last'
	batch --container="$busybox" job.sh
	has_line "$MARK"
	has_line spool
	has '# last'
}

@test "the spool directory of other jobs is not to be seen" {
	job_script job.sh 'ls /var/spool/slurmd.*'
	batch --container="$busybox" job.sh
	[[ $(wc -l <<<"$output") == 1 && $output == job* ]] || fail "$output"
}

@test "#!/bin/bash in a script needs bash in the image" {
	printf '#!/bin/bash\ntrue\n' >"$dir/bash.sh"
	job=$(alice sbatch --parsable -o "$dir/batch.out" --container="$busybox" bash.sh)
	eventually ended "$job"
	[[ $(job_field "$job" JobState) == FAILED ]]
	nodes_well
}

@test "SLURM_CONTAINER and SLURM_CORACLE_REQUEST are not in the tasks' environment" {
	job_script job.sh 'cat /etc/image-only; env'
	batch --container="$busybox" job.sh
	has_line "$MARK"
	has_not 'SLURM_CONTAINER='
	has_not SLURM_CORACLE_REQUEST
	has_line "CORACLE_IMAGE=$busybox"
	has_line CORACLE_NAME=busybox-zstd
}

@test "--export=NONE still runs in the image" {
	job_script job.sh 'cat /etc/image-only; echo ${CORACLE_TEST_VARIABLE-unset}'
	# shellcheck disable=SC2034 # for batch
	variables=(CORACLE_TEST_VARIABLE=x)
	batch --export=NONE --container="$busybox" job.sh
	prints "$MARK"$'\n'unset
	good srun -n1 --export=NONE --container="$busybox" /bin/cat /etc/image-only
	prints "$MARK"
}

@test "the exit status of the script is the job's" {
	job_script job.sh 'cat /etc/image-only; exit 9'
	job=$(alice sbatch --parsable -o "$dir/batch.out" --container="$busybox" job.sh)
	eventually ended "$job"
	[[ $(job_field "$job" JobState) == FAILED && $(job_field "$job" ExitCode) == 9:0 ]]
	[[ $(<batch.out) == "$MARK" ]]
}

@test "each task of an array runs inside" {
	job_script job.sh 'cat /etc/image-only >"$SLURM_ARRAY_TASK_ID.out"'
	job=$(alice sbatch --parsable -o /dev/null --array=1-4 --container="$busybox" job.sh)
	for i in 1 2 3 4; do eventually ended "${job}_$i"; done
	for i in 1 2 3 4; do [[ $(<"$i.out") == "$MARK" ]]; done
}

@test "a job array whose image is missing fails as a whole and hurts no node" {
	job_script job.sh true
	job=$(alice sbatch --parsable -o 'out.%a' --array=1-3 --container=/no/such.sif job.sh)
	for i in 1 2 3; do
		eventually ended "${job}_$i"
		[[ $(job_field "${job}_$i" JobState) == FAILED ]]
		grep -qE 'coracle: /no/such.sif: no such file on this node( \(node n[0-9]\))? \[image-missing\]' "out.$i"
	done
	healthy
}

@test "sbatch refuses what is no image before the job queues" {
	job_script job.sh true
	echo text >text.sif
	chmod 644 text.sif
	at=submit refused image-format 'text.sif: not an image' sbatch --container=text.sif job.sh
	at=submit refused image-type '/dev/null: no regular file' sbatch --container=/dev/null job.sh
}

@test "sbatch refuses wrong options before the job queues" {
	job_script job.sh true
	at=submit refused usage '/tmp:x:y:z' sbatch --container="$busybox" --container-bind=/tmp:x:y:z job.sh
	at=submit refused usage 'sha256:1' sbatch --container="$busybox" --container-digest=sha256:1 job.sh
}

@test "a refused job says so in its output, fails with 125 and drains nothing: image missing" {
	job_script job.sh 'echo started'
	refused_batch image-missing '/no/such.sif: no such file on this node' --container=/no/such.sif job.sh
}

@test "a refused job says so in its output, fails with 125 and drains nothing: truncated image" {
	job_script job.sh 'echo started'
	head -c 100000 "$busybox" >cut.sif
	chmod 644 cut.sif
	refused_batch image-format 'cut.sif: truncated: the root partition ends at byte' --container=cut.sif job.sh
}

@test "a refused job says so in its output, fails with 125 and drains nothing: another's image" {
	job_script job.sh 'echo started'
	install -o bob -m 600 "$busybox" bobs.sif
	refused_batch image-unreadable 'bobs.sif: you may not read it' --container=bobs.sif job.sh
}

@test "a refused job says so in its output, fails with 125 and drains nothing: digest" {
	job_script job.sh 'echo started'
	local wrong
	wrong=sha256:$(printf '0%.0s' {1..64})
	refused_batch digest "$wrong was asked for" --container="$busybox" --container-digest="$wrong" job.sh
}

@test "a refused job says so in its output, fails with 125 and drains nothing: bind source" {
	job_script job.sh 'echo started'
	refused_batch bind '/no/such: does not exist on this node' --container="$busybox" --container-bind=/no/such:/mnt job.sh
}

@test "a refused job says so in its output, fails with 125 and drains nothing: configuration" {
	job_script job.sh 'echo started'
	configure 'version: 3'
	refused_batch config '/etc/coracle/coracle.yaml:1:1: `version` 3 is not known' --container="$busybox" job.sh
}
