#!/usr/bin/env bats
# The job scripts of slurm-conf-examples/jobs, as they are.

load support

EXAMPLES=$BATS_TEST_DIRNAME/../../slurm-conf-examples/jobs

# In the directory of the job are the images that the scripts name.
images() {
	cp "$busybox" img.sif
	cp "$IMG/mpi.sif" mpi.sif
	cp "$EXAMPLES"/*.sh .
	chown alice *.sif *.sh
}

@test "batch.sh: the script and its step run in the image" {
	images
	batch batch.sh
	prints "$MARK"$'\n'"$MARK"
}

@test "mpi.sh: four ranks on two nodes meet, in the image" {
	needs_pmix
	images
	batch mpi.sh
	has 'ring sum=6 ranks=4'
}

@test "array.sh: each task of an array runs in the image" {
	images
	good sbatch --wait array.sh
	local task
	for task in 1 2 3; do
		output=$(<"array.$task.out")
		prints "task $task in img"
	done
}

@test "heterogeneous.sh: a step has the image of its component" {
	images
	good sbatch --wait -o het.out heterogeneous.sh
	output=$(<het.out)
	prints "$MARK"$'\ncoracle mpi test image'
}
