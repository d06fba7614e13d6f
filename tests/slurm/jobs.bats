#!/usr/bin/env bats
# slurm-conf-examples: the job scripts as they are, and the settings of Slurm as a site has them. The cluster itself runs with
# these files, but for its own site.conf.

load support

SITE=$BATS_TEST_DIRNAME/../../slurm-conf-examples
EXAMPLES=$SITE/jobs

# In the directory of the job are the images that the scripts name.
images() {
	cp "$busybox" img.sif
	cp "$IMG/mpi.sif" mpi.sif
	cp "$EXAMPLES"/*.sh .
	chown alice ./*.sif ./*.sh
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

# As Slurm's own commands read it: what they do not know is an error. The cluster's controller is another user's, so the
# answer does not count.
reads() { # SLURM.CONF
	run alice env SLURM_CONF="$1" scontrol ping
	has 'Slurmctld(primary) at ctl is '
	has_not 'error'
}

@test "slurm.conf and site.conf of a site are read, and so are the lines that some sites want" {
	cp "$SITE"/*.conf .
	reads "$dir/slurm.conf"
	local release
	release=$(sinfo --version | sed -E 's/^slurm(-wlm)? ([0-9]+\.[0-9]+).*/\2/')
	# shellcheck disable=SC2072 # of releases, which are all of one length, strings compare as numbers do
	if [[ $release < 25.11 ]]; then
		sed -i '/^#NamespaceType=/d' slurm.conf
	else
		sed -i '/^#JobContainerType=/d' slurm.conf
	fi
	sed -i -E 's/^#([A-Z][A-Za-z]+=)/\1/' slurm.conf
	[[ $(grep -c '^[A-Z]' slurm.conf) -gt 12 ]] || fail "$(<slurm.conf)"
	reads "$dir/slurm.conf"
	sed -i 's/^GetEnvTimeout=/GetEnvTimout=/' slurm.conf
	run alice env SLURM_CONF="$dir/slurm.conf" scontrol ping
	has 'GetEnvTimout'
}
