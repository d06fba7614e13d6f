# What the steps of a job take over from it.
# bats file_tags=releases
load support

# A host's srun inside an image would have to be bound into it, so here a script on the host has the environment that
# the node gives to the tasks of a contained step.
environment_of_a_task() {
	good srun -n1 --container="$busybox" "$@" sh -c 'echo "$SLURM_CORACLE_STEPS"'
	steps=$output
	[[ $steps == 2:* ]] || fail "$output"
}

@test "a contained step's environment names what inner steps inherit" {
	environment_of_a_task
	prints "2:image=$busybox;as=$busybox"
}

@test "an inner srun without --container runs in the image of its job" {
	environment_of_a_task
	good env SLURM_CORACLE_STEPS="$steps" srun -n1 cat /etc/image-only
	prints "$MARK"
}

@test "an inner srun inherits the job's binds and digest" {
	mkdir -m 777 data
	touch data/found
	environment_of_a_task --container-bind="$dir/data:/mnt/data"
	good env SLURM_CORACLE_STEPS="$steps" srun -n1 ls /mnt/data /etc/image-only
	has_line found
	environment_of_a_task --container-digest="sha256:$(sha256sum "$busybox" | cut -d' ' -f1)"
	good env SLURM_CORACLE_STEPS="$steps" srun -n1 sh -c 'cat /etc/image-only; echo $CORACLE_DIGEST'
	has_line "$MARK"
	has_line "sha256:$(sha256sum "$busybox" | cut -d' ' -f1)"
}

@test "a fresh --container wins over the inherited one, in all it says" {
	mkdir -m 777 data
	environment_of_a_task --container-bind="$dir/data:/mnt/data"
	good env SLURM_CORACLE_STEPS="$steps" srun -n1 --container="$IMG/bare.sif" sh -c 'cat /image-only; test ! -e /mnt/data && echo no bind; echo $CORACLE_NAME'
	prints $'coracle bare test image\nno bind\nbare'
}

@test "--container=none of an inner srun runs on the node" {
	environment_of_a_task
	good env SLURM_CORACLE_STEPS="$steps" srun -n1 --container=none sh -c 'test ! -e /etc/image-only && echo host; echo "<$SLURM_CORACLE_STEPS>"'
	prints $'host\n<>'
}

@test "an inner srun's own binds and digest count" {
	mkdir -m 777 data
	touch data/found
	environment_of_a_task
	good env SLURM_CORACLE_STEPS="$steps" srun -n1 --container-bind="$dir/data:/mnt/data" ls /mnt/data /etc/image-only
	has_line found
	refused digest 'was asked for' env SLURM_CORACLE_STEPS="$steps" srun -n1 \
		--container-digest=sha256:0000000000000000000000000000000000000000000000000000000000000000 true
}

# What the steps of a job see, each line of the script a step of its own.
steps_of() { # SCRIPT SBATCH-ARGUMENT...
	job_script job.sh "$1"
	shift
	batch --container="$busybox" "$@" job.sh
}

three_directories() {
	mkdir -m 777 one two three
	touch one/first two/second three/third
}

@test "the binds of an inner srun and those of its job add up" {
	three_directories
	steps_of "ls /mnt/a
srun -n1 --container-bind=$dir/two:/mnt/b ls /mnt/a /mnt/b
srun -n1 --container-bind=$dir/two:/mnt/b sh -c 'srun -n1 --overlap --container-bind=$dir/three:/mnt/c ls /mnt/a /mnt/b /mnt/c'
CORACLE_CONTAINER_BIND=$dir/two:/mnt/b srun -n1 ls /mnt/a /mnt/b
srun -n1 --container-bind=$dir/one:/mnt/a ls /mnt/a" --container-bind="$dir/one:/mnt/a"
	prints "first
/mnt/a:
first

/mnt/b:
second
/mnt/a:
first

/mnt/b:
second

/mnt/c:
third
/mnt/a:
first

/mnt/b:
second
first"
}

@test "of two binds for the same place the inner srun's counts, and none starts afresh" {
	three_directories
	steps_of "srun -n1 --container-bind=$dir/two:/mnt/a ls /mnt/a
srun -n1 --container-bind=none sh -c 'test ! -e /mnt/a && echo no bind'
srun -n1 --container-bind=none,$dir/two:/mnt/b sh -c 'ls /mnt/b; test ! -e /mnt/a && echo no bind'
CORACLE_CONTAINER_BIND=none srun -n1 sh -c 'test ! -e /mnt/a && echo no bind'
srun -n1 --container=$IMG/bare.sif --container-bind=$dir/two:/mnt/b sh -c 'ls /mnt/b; test ! -e /mnt/a && echo no bind'
srun -n1 --container=none sh -c 'test ! -e /mnt/a && echo host'
srun -n1 ls /mnt/a" --container-bind="$dir/one:/mnt/a"
	prints $'second\nno bind\nsecond\nno bind\nno bind\nsecond\nno bind\nhost\nfirst'
}

@test "the binds of salloc and of a job whose steps alone are inside add up with a step's, too" {
	three_directories
	good salloc -Q -n1 --container="$busybox" --container-bind="$dir/one:/mnt/a" \
		srun -n1 --container-bind="$dir/two:/mnt/b" sh -c 'ls /mnt/a; ls /mnt/b'
	prints $'first\nsecond'
	steps_of "test ! -e /mnt/a && echo host
srun -n1 --container-bind=$dir/two:/mnt/b sh -c 'ls /mnt/a; ls /mnt/b'" --container-scope=steps --container-bind="$dir/one:/mnt/a"
	prints $'host\nfirst\nsecond'
}

@test "a new batch job inherits nothing" {
	environment_of_a_task
	job=$(alice env SLURM_CORACLE_STEPS="$steps" SLURM_CONTAINER="$busybox" SLURM_CORACLE_REQUEST="2:image=$busybox" \
		sbatch --parsable -o "$dir/batch.out" --wrap 'test ! -e /etc/image-only && echo host')
	eventually ended "$job"
	[[ $(<batch.out) == host ]] || fail "$(<batch.out)"
}

@test "a step of a job on the host asks for an image of its own" {
	job_script job.sh "test ! -e /etc/image-only && echo host
srun -n1 --container=$busybox cat /etc/image-only
srun -n1 --container=$IMG/bare.sif cat /image-only
srun -n1 sh -c 'test ! -e /etc/image-only && echo host'"
	batch job.sh
	prints $'host\ncoracle test image\ncoracle bare test image\nhost'
}

@test "the exact value of --container is in no task's SLURM_CONTAINER, and the job's record has it" {
	job_script job.sh "srun -n1 --container=$IMG/bare.sif sh -c 'echo \"<\$SLURM_CONTAINER> \$CORACLE_IMAGE\"'
sed -n 's/.*Container=//p' /dev/null; scontrol show job \$SLURM_JOB_ID | sed -n 's/^ *Container=/record /p'"
	batch job.sh
	has_line "<> $IMG/bare.sif"
}

@test "an inherited request that is broken is refused, not ignored" {
	at=submit refused usage 'SLURM_CORACLE_STEPS' env SLURM_CORACLE_STEPS=garbage srun -n1 true
	at=submit refused usage 'SLURM_CORACLE_STEPS' env SLURM_CORACLE_STEPS= srun -n1 true
}

@test "srun inside an image, with Slurm bound into it, inherits the job's image" {
	local libraries
	job_script inner.sh 'cat /etc/image-only; srun -n1 cat /etc/image-only; srun -n1 --container=none sh -c "test ! -e /etc/image-only && echo host"'
	libraries=/usr/lib,$BIN_SLURM/srun,$ETC_SLURM,/usr/lib64:/lib64
	[[ -d /usr/lib64 ]] || libraries=/usr/lib,$BIN_SLURM/srun,$ETC_SLURM
	batch --container="$IMG/mpi.sif" --container-bind="$libraries" inner.sh
	prints $'coracle mpi test image\ncoracle mpi test image\nhost'
}
