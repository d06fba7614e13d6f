# Kinds of jobs and steps that no other file has: each runs in its image.
load support

# bats test_tags=releases
@test "salloc without a command gives a shell inside the image" {
	needs python3
	# Slurm starts the user's own shell, which the image must have.
	run env SHELL=/bin/sh "$BATS_TEST_DIRNAME/terminal.py" 33x101 'await=$ ' \
		'send=cat /etc/image-only; echo size $(stty size)\n' 'await=size 33 101' 'send=exit 5\n' \
		-- as -d "$dir" alice env SHELL=/bin/sh salloc -Q -n1 --container="$busybox"
	has "$MARK"
	has 'size 33 101'
	((status == 5)) || fail "status $status" "$output"
}

@test "srun --pty gives a shell inside the image, bash where the image has it" {
	needs python3
	# No image of ours has bash: the machine's one, with the libraries that the image has for MPI.
	local libraries binds
	libraries=$(ldd "$(type -P bash)" | awk '$3 ~ /libtinfo/ { print $3 }')
	binds="$(realpath "$(type -P bash)"):/bin/bash:ro,$(realpath "$libraries"):$libraries:ro"
	# The images are made on the machine, and this may be a tree of another Debian.
	output=$(alice srun -n1 --container="$IMG/mpi.sif" --container-bind="$binds" bash -c true 2>&1) || true
	[[ $output != *'version `GLIBC_'* && $output != *'cannot open shared object file'* ]] || skip "not there: a bash of this tree for the image's glibc"
	run "$BATS_TEST_DIRNAME/terminal.py" 24x80 'await=$ ' 'send=cat /etc/image-only; echo $BASH $((6 * 7))\n' \
		'await=/bin/bash 42' 'send=exit 6\n' \
		-- as -d "$dir" alice srun -n1 --container="$IMG/mpi.sif" \
		--container-bind="$binds" --pty bash --norc
	has 'coracle mpi test image'
	((status == 6)) || fail "status $status" "$output"
}

@test "--multi-prog runs each rank's program inside" {
	job_script rank.sh 'cat /etc/image-only; echo rank $1 of $2'
	printf '%s\n' '0 /bin/cat /etc/image-only' '1-2 ./rank.sh %t %o' '* /bin/echo rest' >programs
	chmod 644 programs
	good srun -n4 -l --multi-prog --container="$busybox" programs
	[[ $(sort <<<"$output") == "0: $MARK
1: $MARK
1: rank 1 of 0
2: $MARK
2: rank 2 of 1
3: rest" ]] || fail "$output"
}

@test "--overlap: a second step of a job is inside while the first one is" {
	job_script job.sh "srun -n1 --overlap --container=$busybox sh -c 'touch first; until test -e second; do sleep 0.1; done; cat /etc/image-only' &
until test -e first; do sleep 0.1; done
srun -n1 --overlap --container=$IMG/bare.sif sh -c 'cat /image-only; touch second'
wait"
	batch -n1 job.sh
	prints $'coracle bare test image\n'"$MARK"
}

@test "--overlap into a running job from outside, by its number" {
	job_script job.sh 'touch in; until test -e go; do sleep 0.1; done'
	job=$(alice sbatch --parsable -o "$dir/batch.out" --container="$busybox" job.sh)
	eventually test -e in
	good srun --jobid="$job" --overlap --container="$busybox" cat /etc/image-only
	prints "$MARK"
	# The job's image is inherited from the environment of the job, which this shell has not.
	good srun --jobid="$job" --overlap sh -c 'test ! -e /etc/image-only && echo host'
	prints host
	touch go
	eventually ended "$job"
	[[ $(job_field "$job" JobState) == COMPLETED ]]
}

@test "sattach reads what a step inside writes" {
	good sbatch --parsable -n2 -o /dev/null --wrap "srun -n2 --container=$busybox sh -c 'touch in.\$SLURM_PROCID; until test -e go; do sleep 0.1; done; cat /etc/image-only; exit 0'"
	job=$output
	eventually test -e in.0 -a -e in.1
	local before
	before=$(attachments)
	alice sattach "$job.0" >attached 2>&1 3>&- &
	local reader=$!
	eventually more_than "$before"
	touch go
	wait "$reader"
	[[ $(grep -cx "$MARK" attached) == 2 ]] || fail "$(<attached)"
	eventually ended "$job"
}

# How often a slurmstepd was asked for a step's output.
attachments() { cat /var/log/slurm/n*.log | grep -cE 'Handling REQUEST_ATTACH|_handle_attach for ' || true; }
more_than() { (($(attachments) > $1)); }

@test "sattach --layout names the tasks of a step inside" {
	good sbatch --parsable -n2 -N2 -o /dev/null --wrap "srun -n2 -N2 --container=$busybox sh -c 'touch in.\$SLURM_PROCID; until test -e go; do sleep 0.1; done'"
	job=$output
	eventually test -e in.0 -a -e in.1
	good sattach --layout "$job.0"
	touch go
	has '2 tasks, 2 nodes'
	eventually ended "$job"
}

# bats test_tags=releases
@test "SBATCH_CONTAINER, SALLOC_CONTAINER and SRUN_CONTAINER choose the image, and the option wins" {
	job_script job.sh 'cat /etc/image-only'
	variables=(SBATCH_CONTAINER="$busybox")
	batch job.sh
	prints "$MARK"
	good env SRUN_CONTAINER="$busybox" srun -n1 cat /etc/image-only
	prints "$MARK"
	good env SALLOC_CONTAINER="$busybox" salloc -Q -n1 srun -n1 cat /etc/image-only
	prints "$MARK"
	good env SRUN_CONTAINER="$busybox" srun -n1 --container="$IMG/bare.sif" cat /image-only
	prints 'coracle bare test image'
	good env SRUN_CONTAINER="$busybox" srun -n1 --container=none sh -c 'test ! -e /etc/image-only && echo host'
	prints host
	variables=(SBATCH_CONTAINER="$IMG/bare.sif")
	batch --container="$busybox" job.sh
	prints "$MARK"
}

# bats test_tags=releases
@test "SBATCH_CONTAINER wins over #SBATCH --container, as Slurm has it for all options" {
	job_script job.sh "#SBATCH --container=$IMG/bare.sif
cat /etc/image-only"
	variables=(SBATCH_CONTAINER="$busybox")
	batch job.sh
	prints "$MARK"
	variables=(SBATCH_CONTAINER="$IMG/bare.sif")
	batch --container="$busybox" job.sh
	prints "$MARK"
	variables=(SLURM_CONTAINER="$busybox")
	job_script job.sh "#SBATCH --container=$IMG/bare.sif
cat /image-only"
	batch job.sh
	prints 'coracle bare test image'
}

# bats test_tags=releases
@test "SRUN_CONTAINER counts in each component without an image, and SRUN_CONTAINER_HET_GROUP_N in one" {
	local which="cat /etc/image-only /image-only 2>/dev/null || test -e /etc/image-only -o -e /image-only || echo host"
	local bare='coracle bare test image'
	good env SRUN_CONTAINER="$busybox" srun -Q -l -n1 sh -c "$which" : -n1 --container="$IMG/bare.sif" sh -c "$which"
	[[ $(sort <<<"$output") == "0: $MARK"$'\n'"1: $bare" ]] || fail "$output"
	good env SRUN_CONTAINER="$busybox" srun -Q -l -n1 --container="$IMG/bare.sif" sh -c "$which" : -n1 sh -c "$which"
	[[ $(sort <<<"$output") == "0: $bare"$'\n'"1: $MARK" ]] || fail "$output"
	good env SRUN_CONTAINER_HET_GROUP_1="$busybox" srun -Q -l -n1 sh -c "$which" : -n1 sh -c "$which"
	[[ $(sort <<<"$output") == $'0: host\n'"1: $MARK" ]] || fail "$output"
	good env SRUN_CONTAINER="$IMG/bare.sif" SRUN_CONTAINER_HET_GROUP_0="$busybox" srun -n1 sh -c "$which"
	prints "$MARK"
}

@test "an empty SRUN_CONTAINER, SBATCH_CONTAINER or SALLOC_CONTAINER is refused, as an empty --container is" {
	job_script job.sh true
	at=submit refused usage '--container: the name of an image is missing' env SRUN_CONTAINER= srun -n1 true
	at=submit refused usage '--container: the name of an image is missing' env SBATCH_CONTAINER= sbatch job.sh
	at=submit refused usage '--container: the name of an image is missing' env SALLOC_CONTAINER= salloc -Q -n1 true
}

@test "SRUN_CONTAINER in a job's environment reaches its steps" {
	job_script job.sh "test ! -e /etc/image-only && echo host
srun -n1 cat /etc/image-only"
	# shellcheck disable=SC2034 # for batch
	variables=(SRUN_CONTAINER="$busybox")
	batch job.sh
	prints $'host\n'"$MARK"
}

@test "our options in #SBATCH lines count" {
	mkdir -m 777 data
	echo word >data/file
	job_script job.sh "#SBATCH --container=$busybox
#SBATCH --container-bind=$dir/data:/mnt/data:ro
#SBATCH --container-digest=sha256:$(sha256sum "$busybox" | cut -d' ' -f1)
cat /etc/image-only /mnt/data/file; echo \$CORACLE_DIGEST"
	batch job.sh
	has_line word
	has_line "sha256:$(sha256sum "$busybox" | cut -d' ' -f1)"
}

# Slurm lets a requeued job wait two minutes, counted from when it has ended.
started_again() { # JOB
	[[ $(job_field "$1" Restarts) == 1 ]] || return
	if [[ $(job_field "$1" JobState) == PENDING ]]; then
		# Until a second has passed, the node takes the new credential for the one that was revoked.
		sleep 2
		scontrol update job "$1" starttime=now
	fi
	[[ $(job_field "$1" JobState) =~ ^(RUNNING|COMPLETED)$ ]]
}

@test "a job that is requeued runs inside again, with the number that it had" {
	job_script job.sh 'cat /etc/image-only; echo $SLURM_JOB_ID ${SLURM_RESTART_COUNT-first}
test -n "$SLURM_RESTART_COUNT" || { touch in; sleep 1000; }'
	job=$(alice sbatch --parsable --requeue --open-mode=append -o "$dir/batch.out" --container="$busybox" job.sh)
	eventually test -e in
	scontrol requeue "$job"
	eventually started_again "$job"
	eventually ended "$job"
	output=$(<batch.out)
	[[ $(job_field "$job" JobState) == COMPLETED ]] || fail "$output"
	[[ $(grep -cx "$MARK" <<<"$output") == 2 ]] || fail "$output"
	has_line "$job first"
	has_line "$job 1"
}

@test "a requeued job whose image was replaced has the new one" {
	install -o alice -m 644 "$busybox" mine.sif
	job_script job.sh 'cat /etc/image-only /image-only 2>/dev/null
test -n "$SLURM_RESTART_COUNT" || { touch in; sleep 1000; }'
	job=$(alice sbatch --parsable --requeue --open-mode=append -o "$dir/batch.out" --container=mine.sif job.sh)
	eventually test -e in
	install -o alice -m 644 "$IMG/bare.sif" new.sif
	mv new.sif mine.sif
	scontrol requeue "$job"
	eventually started_again "$job"
	eventually ended "$job"
	output=$(<batch.out)
	has_line "$MARK"
	has_line 'coracle bare test image'
}

@test "a job that is held and released runs inside" {
	job_script job.sh 'cat /etc/image-only'
	job=$(alice sbatch --parsable -H -o "$dir/batch.out" --container="$busybox" job.sh)
	scontrol release "$job"
	eventually ended "$job"
	[[ $(<batch.out) == "$MARK" ]]
}

@test "a job that waits for another one runs inside" {
	job_script job.sh 'cat /etc/image-only >>order; echo $SLURM_JOB_NAME >>order'
	job=$(alice sbatch --parsable -H -J one -o /dev/null --container="$busybox" job.sh)
	local second
	second=$(alice sbatch --parsable -J two -o /dev/null --dependency="afterok:$job" --container="$busybox" job.sh)
	scontrol release "$job"
	eventually ended "$second"
	[[ $(<order) == "$MARK"$'\none\n'"$MARK"$'\ntwo' ]] || fail "$(<order)"
}

# bats test_tags=releases
@test "--export=NAME and --export=ALL,NAME=VALUE keep the image" {
	good env WORD=x OTHER=y srun -n1 --export=WORD,PATH --container="$busybox" sh -c 'cat /etc/image-only; echo "<$WORD> <$OTHER>"'
	prints "$MARK"$'\n<x> <>'
	good env OTHER=y srun -n1 --export=ALL,WORD=z --container="$busybox" sh -c 'cat /etc/image-only; echo "<$WORD> <$OTHER>"'
	prints "$MARK"$'\n<z> <y>'
	job_script job.sh 'cat /etc/image-only; echo "<$WORD>"'
	batch --export=NIL --container="$busybox" job.sh
	prints "$MARK"$'\n<>'
}

@test "an array's tasks that are requeued and cancelled one by one are those that were meant" {
	job_script job.sh 'cat /etc/image-only >$SLURM_ARRAY_TASK_ID.out; sleep 1000'
	job=$(alice sbatch --parsable -o /dev/null --array=1-3 --container="$busybox" job.sh)
	for i in 1 2 3; do eventually test -s "$i.out"; done
	scancel "${job}_2"
	eventually ended "${job}_2"
	[[ $(job_field "${job}_1" JobState) == RUNNING && $(job_field "${job}_3" JobState) == RUNNING ]]
	scancel "$job"
	eventually ended "${job}_1"
	eventually ended "${job}_3"
}
