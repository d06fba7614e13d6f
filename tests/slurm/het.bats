# Heterogeneous jobs: each component has its own image, or none.
# bats file_tags=releases
load support

# What both images print of themselves.
WHICH='cat /image-only /etc/image-only 2>/dev/null || true; test -e /image-only -o -e /etc/image-only || echo host'
BARE='coracle bare test image'

# scontrol shows all components of the job; the first one has the script.
job_field() { # JOB FIELD
	scontrol --oneliner show job "$1+0" | tr ' ' '\n' | sed -n "s/^$2=//p"
}

@test "srun A : B: each component runs in its own image" {
	good srun -Q -l -n1 --container="$busybox" sh -c "$WHICH" : -n2 --container="$IMG/bare.sif" sh -c "$WHICH"
	[[ $(sort <<<"$output") == "0: $MARK"$'\n'"1: $BARE"$'\n'"2: $BARE" ]] || fail "$output"
}

@test "srun A : none and none : B" {
	good srun -Q -l -n1 --container="$busybox" sh -c "$WHICH" : -n1 --container=none sh -c "$WHICH"
	[[ $(sort <<<"$output") == "0: $MARK"$'\n1: host' ]] || fail "$output"
	good srun -Q -l -n1 --container=none sh -c "$WHICH" : -n1 --container="$busybox" sh -c "$WHICH"
	[[ $(sort <<<"$output") == $'0: host\n'"1: $MARK" ]] || fail "$output"
}

@test "#SBATCH hetjob: two --container lines, and srun in each component" {
	job_script job.sh "#SBATCH -n1 --container=$busybox
#SBATCH hetjob
#SBATCH -n1 --container=$IMG/bare.sif
$WHICH"
	batch job.sh
	# The script is the first component's.
	prints "$MARK"
}

@test "srun --het-group: a step in one component has the image that it asks for" {
	job_script job.sh "#SBATCH -n1
#SBATCH hetjob
#SBATCH -n1
srun -n1 --het-group=0 --container=$busybox sh -c '$WHICH'
srun -n1 --het-group=1 --container=$IMG/bare.sif sh -c '$WHICH'
srun -n1 --het-group=1 sh -c '$WHICH'
srun -l --het-group=0,1 --container=$busybox sh -c '$WHICH' | sort"
	batch job.sh
	prints "$MARK"$'\n'"$BARE"$'\nhost\n'"0: $MARK"$'\n'"1: $MARK"
}

@test "srun --het-group=0 A : --het-group=1 B: a step in both, each with its own" {
	job_script job.sh "#SBATCH -n1
#SBATCH hetjob
#SBATCH -n1
srun -l -n1 --het-group=0 --container=$busybox sh -c '$WHICH' : -n1 --het-group=1 --container=$IMG/bare.sif sh -c '$WHICH' | sort
srun -n1 --het-group=0 echo bare : -n1 --het-group=1 echo bare
true"
	batch job.sh
	if since 21.08; then
		prints "0: $MARK"$'\n'"1: $BARE"$'\nbare\nbare'
	else
		# Slurm itself does not start such a step.
		[[ $(grep -c 'Allocation failure' <<<"$output") == 2 ]] || fail "$output"
		has_not "$MARK"
		has_not "$BARE"
	fi
}

@test "salloc A : B: a step of a component inherits that component's image" {
	good salloc -Q -n1 --container="$busybox" : -n1 --container="$IMG/bare.sif" \
		sh -c "srun -n1 --het-group=0 sh -c '$WHICH'; srun -n1 --het-group=1 sh -c '$WHICH'"
	prints "$MARK"$'\n'"$BARE"
	good salloc -Q -n1 --container="$busybox" : -n1 \
		sh -c "srun -n1 --het-group=0 sh -c '$WHICH'; srun -n1 --het-group=1 sh -c '$WHICH'"
	prints "$MARK"$'\n'"$MARK"
}

@test "sbatch with an image for the second component alone" {
	job_script job.sh "srun -n1 --het-group=0 sh -c '$WHICH'; srun -n1 --het-group=1 sh -c '$WHICH'"
	if since 21.08; then
		# sbatch has read the whole command line before it reads the first component's, and keeps the image of that.
		batch -n1 : -n1 --container="$IMG/bare.sif" job.sh
		prints "$BARE"$'\n'"$BARE"
		[[ $(job_field "$job" Container) == "$IMG/bare.sif"* ]] || fail "$(scontrol show job "$job")"
		batch -n1 --container=none : -n1 --container="$IMG/bare.sif" job.sh
		prints $'host\n'"$BARE"
		return
	fi
	# The script could not know, and the controller has no record of it.
	local first
	for first in '' --container=none "--container=$busybox --container-scope=script"; do
		# shellcheck disable=SC2086
		at=submit refused usage '--container: component 1 has it, and the first one, which has the script, has none for its steps' \
			sbatch -n1 $first : -n1 --container="$IMG/bare.sif" --container-scope=all job.sh || return
		has 'hint: name the image in the script, at its own srun commands: this release of Slurm does not record it' || return
	done
	job_script job.sh "srun -n1 --het-group=1 sh -c '$WHICH'; srun -n1 --het-group=1 --container=$IMG/bare.sif sh -c '$WHICH'"
	batch -n1 --container="$busybox" : -n1 --container="$IMG/bare.sif" job.sh
	has 'coracle: component 1 of the job: this release of Slurm does not record its image [system]'
	has 'hint: give the step --container=IMAGE, or --container=none'
	has_line "$BARE"
	has_not "$MARK"
}

@test "sbatch A : B on the command line" {
	job_script job.sh "$WHICH"
	batch -n1 --container="$busybox" : -n1 --container="$IMG/bare.sif" job.sh
	prints "$MARK"
}

@test "binds are each component's own" {
	mkdir -m 777 one two
	good srun -Q -l -n1 --container="$busybox" --container-bind="$dir/one:/mnt/one" sh -c 'ls -d /mnt/*' : \
		-n1 --container="$IMG/bare.sif" --container-bind="$dir/two:/mnt/two" sh -c 'ls -d /mnt/*'
	[[ $(sort <<<"$output") == $'0: /mnt/one\n1: /mnt/two' ]] || fail "$output"
}

@test "one component's image that is missing ends the whole step" {
	run alice srun -n1 --container="$busybox" sleep 1000 : -n1 --container=/no/such.sif true
	((status != 0)) || fail "$output"
	has 'coracle: /no/such.sif: no such file on this node'
	has '[image-missing]'
	healthy
}

@test "one component's file that is no image is refused before the job queues" {
	at=submit refused image-type '/dev/null: no regular file' \
		srun -n1 --container="$busybox" true : -n1 --container=/dev/null true
}
