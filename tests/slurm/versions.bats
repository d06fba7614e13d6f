#!/usr/bin/env bats
# Hosts and nodes with different versions of Coracle: what is there beside the installed one has another form of requests and
# messages (the feature `variant`).

load support

HOST='echo ran on the host'
OTHER=/usr/lib/variant
# An srun, sbatch or salloc with the other plugin.
CLIENT=(env SLURM_CONF=/etc/slurm/variant.conf)
NOT_READ='SLURM_CORACLE_REQUEST: of form 2, and this node reads form 99'

setup_file() {
	# Nodes have a /tmp and a /var/tmp of their own, and this may be a clone below one of them.
	install -D "$CORACLE_IMAGES/elsewhere/opt/coracle/lib/coracle/spank_coracle.so" "$OTHER/spank_coracle.so"
	install -D "$CORACLE_IMAGES/elsewhere/opt/coracle/lib/coracle/coracle-launcher" "$OTHER/coracle-launcher"
	echo "required $OTHER/spank_coracle.so" >/etc/slurm/variant-plugstack.conf
	{ grep -v '^PlugStackConfig' /etc/slurm/slurm.conf; echo 'PlugStackConfig=/etc/slurm/variant-plugstack.conf'; } >/etc/slurm/variant.conf
}

teardown_file() {
	rm -rf "$OTHER" /etc/slurm/variant.conf /etc/slurm/variant-plugstack.conf
}

PLUGIN=/usr/lib/coracle/spank_coracle.so LAUNCHER=/usr/lib/coracle/coracle-launcher

# The node has the other version of these files, until it is changed back.
change() { # NODE FILE...
	local node=$1 file
	shift
	for file; do on-node "$node" mount --bind "$OTHER/${file##*/}" "$file"; done
}

change_back() {
	local node file
	for node in n1 n2 n3; do
		for file in $PLUGIN $LAUNCHER; do
			! on-node "$node" mountpoint -q "$file" || on-node "$node" umount "$file"
		done
	done
}

cleanup() {
	change_back
}

# As `refused`, which wants the node's mounts to be as before.
named() { # KIND TEXT COMMAND...
	local kind=$1 text=$2
	shift 2
	run alice "$@"
	((status == 125)) || fail "$status" "$output" || return
	said "$kind" "$text"
	never_outside
}

never_outside() {
	has_not 'ran on the host'
}

@test "a job on nodes of different versions is refused by name, and what needs no container runs on all of them" {
	change n2 $PLUGIN $LAUNCHER
	run alice srun -N3 -n3 --container="$busybox" sh -c "test -e /etc/image-only || $HOST"
	((status != 0)) || fail "$output"
	never_outside
	[[ $(grep -cF "$NOT_READ [usage]" <<<"$output") == 1 ]] || fail "$output"
	has 'hint: the host on which the job was submitted has another version of Coracle: submit it again when both are the same'
	stepds_ended
	good srun -N3 -n3 echo bare
	prints $'bare\nbare\nbare'
	good srun -N2 -n2 -w n1,n3 --container="$busybox" cat /etc/image-only
	prints "$MARK"$'\n'"$MARK"
	# The script is in its container, and its step on the other node is refused.
	job_script job.sh "cat /etc/image-only; srun -N1 -n1 -w n1 cat /etc/image-only; srun -N1 -n1 -w n2 sh -c '$HOST'; echo \$?"
	batch -N2 -w n1,n2 --container="$busybox" job.sh
	never_outside
	[[ $(grep -cx "$MARK" <<<"$output") == 2 ]] || fail "$output"
	has "$NOT_READ"
	has_line 125
}

@test "of a host that submits with another version every node refuses the request by name" {
	local wanted='SLURM_CORACLE_REQUEST: of form 99, and this node reads form 2'
	nodes=2 refused usage "$wanted" "${CLIENT[@]}" srun -N2 -n2 --container="$busybox" sh -c "$HOST"
	job_script job.sh "$HOST"
	job=$(alice "${CLIENT[@]}" sbatch --parsable -w n1 -o "$dir/out" --container="$busybox" job.sh)
	eventually ended "$job"
	[[ $(job_field "$job" JobState) == FAILED && $(job_field "$job" ExitCode) == 125:0 ]]
	output=$(<out)
	said usage "$wanted"
	good "${CLIENT[@]}" srun -N2 -n2 echo bare
	prints $'bare\nbare'
}

# Where the form stays, package.bats has it start.
@test "a job that waited through an upgrade to another form is refused by name" {
	job_script job.sh "$HOST"
	job=$(alice sbatch --parsable --hold -w n1 -o "$dir/out" --container="$busybox" job.sh)
	change n1 $PLUGIN $LAUNCHER
	scontrol release "$job"
	eventually ended "$job"
	[[ $(job_field "$job" JobState) == FAILED && $(job_field "$job" ExitCode) == 125:0 ]]
	output=$(<out)
	said usage "$NOT_READ"
}

@test "a job that runs through an upgrade goes on, and a step that it starts then is refused by name" {
	job_script job.sh "cat /etc/image-only; touch up; until test -e go; do sleep 0.1; done; cat /etc/image-only
srun -n1 sh -c '$HOST'; echo \$?"
	job=$(alice sbatch --parsable -w n1 -o "$dir/out" --container="$busybox" job.sh)
	eventually test -e up
	change n1 $PLUGIN $LAUNCHER
	touch go
	eventually ended "$job"
	output=$(<out)
	never_outside
	[[ $(grep -cx "$MARK" <<<"$output") == 2 ]] || fail "$output"
	has 'SLURM_CORACLE_STEPS: of form 2, and this node reads form 99 [usage]'
	has_line 1
}

@test "a plugin and a launcher of different versions on one node refuse each other by name" {
	change n1 $PLUGIN
	named internal 'plugin and launcher: messages of form 99 and 1: they are of different versions' \
		"${CLIENT[@]}" srun -n2 -w n1 --container="$busybox" sh -c "$HOST"
	good srun -n1 -w n1 echo bare
	change_back
	change n1 $LAUNCHER
	named internal 'plugin and launcher: messages of form 1 and 99: they are of different versions' \
		srun -n2 -w n1 --container="$busybox" sh -c "$HOST"
	has 'hint: install coracle and coracle-slurm in the same version on this node; slurmd need not be started anew'
	job_script job.sh "$HOST"
	job=$(alice sbatch --parsable -w n1 -o "$dir/out" --container="$busybox" job.sh)
	eventually ended "$job"
	[[ $(job_field "$job" JobState) == FAILED && $(job_field "$job" ExitCode) == 125:0 ]]
	output=$(<out)
	said internal 'they are of different versions'
	good srun -n1 -w n1 echo bare
	change_back
	good srun -n1 -w n1 --container="$busybox" cat /etc/image-only
	prints "$MARK"
	# Both of the other version are as good as both of this one.
	change n1 $PLUGIN $LAUNCHER
	good "${CLIENT[@]}" srun -n1 -w n1 --container="$busybox" cat /etc/image-only
	prints "$MARK"
}

@test "where a container is required, a node of another version runs nothing outside of one" {
	configure $'version: 1\nuser_images: kernel\nrequired: yes\ndefault_image: '"$busybox"
	plugstack defaults=on
	change n2 $LAUNCHER
	run alice srun -N1 -n1 -w n2 sh -c "$HOST"
	((status == 125)) || fail "$status" "$output"
	never_outside
	has 'they are of different versions'
	good srun -N1 -n1 -w n1 cat /etc/image-only
	prints "$MARK"
}
