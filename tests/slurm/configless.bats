#!/usr/bin/env bats
# Nodes that have no configuration of their own (slurmd --conf-server): what the controller hands out.

load support

has_taken() { # NODE FILE
	on-node "$1" cmp -s /run/slurm/conf/plugstack.conf - <"$2"
}

# The nodes have taken what the controller hands out now.
handed_out() { # FILE
	scontrol reconfigure
	local node
	for node in n1 n2 n3; do
		eventually has_taken "$node" "$1" || return
	done
	# From 26.05 on they are unknown to the controller for a moment.
	eventually nodes_well
}

setup_file() {
	cp -a /etc/slurm/plugstack.conf "$SUITE/plugstack.conf"
}

cleanup() {
	cp -a "$SUITE/plugstack.conf" /etc/slurm/plugstack.conf
	scontrol reconfigure
	eventually nodes_well
}

@test "the line in plugstack.conf itself reaches the nodes, and steps and jobs run in their image" {
	cp "$BATS_TEST_DIRNAME/../../slurm-conf-examples/configless/plugstack.conf" /etc/slurm/plugstack.conf
	handed_out /etc/slurm/plugstack.conf
	good srun -N3 --container="$busybox" cat /etc/image-only
	prints "$MARK"$'\n'"$MARK"$'\n'"$MARK"
	job_script job.sh 'cat /etc/image-only; srun -n1 cat /etc/image-only'
	batch --container="$busybox" job.sh
	prints "$MARK"$'\n'"$MARK"
	run on-node n2 coracle doctor --node
	((status == 0)) || fail "$output"
	has_line 'ok       plugin    /run/slurm/conf/plugstack.conf: required /usr/lib/coracle/spank_coracle.so'
	run coracle doctor --role controller
	((status == 0)) || fail "$output"
}

@test "doctor says on nodes and on the controller that an included line reaches no node" {
	echo 'include /etc/slurm/plugstack.conf.d/*.conf' >/etc/slurm/plugstack.conf
	handed_out /etc/slurm/plugstack.conf
	run on-node n1 coracle doctor --node --faults
	((status == 1)) || fail "$output"
	has '/run/slurm/conf/plugstack.conf: no line loads spank_coracle.so: jobs run on the bare node'
	run coracle doctor --role controller --faults
	((status == 1)) || fail "$output"
	has 'a configless controller hands out /etc/slurm/plugstack.conf only'
}

NOTE='coracle: note: /etc/slurm/plugstack.conf: loads this plugin by an include, and a configless controller hands nodes that file only: '

@test "srun, sbatch and salloc say once that nodes may not load the plugin, and nothing where they do" {
	echo 'include /etc/slurm/plugstack.conf.d/*.conf' >/etc/slurm/plugstack.conf
	handed_out /etc/slurm/plugstack.conf
	# What can still happen: the job of a node without the plugin.
	run alice srun -n1 --container="$busybox" sh -c 'cat /etc/image-only || echo ran on the host'
	[[ $(grep -cF "$NOTE" <<<"$output") == 1 ]] || fail "$output"
	has_line 'ran on the host'
	run alice srun -n1 --container="$busybox" true : -n1 --container="$busybox" true
	[[ $(grep -cF "$NOTE" <<<"$output") == 1 ]] || fail "$output"
	job_script job.sh true
	run alice sbatch -o /dev/null --container="$busybox" job.sh
	[[ $(grep -cF "$NOTE" <<<"$output") == 1 ]] || fail "$output"
	# A job without a container is nobody's concern.
	run alice srun -n1 true
	has_not "$NOTE"
	cp "$BATS_TEST_DIRNAME/../../slurm-conf-examples/configless/plugstack.conf" /etc/slurm/plugstack.conf
	handed_out /etc/slurm/plugstack.conf
	good srun -n1 --container="$busybox" cat /etc/image-only
	prints "$MARK"
}
