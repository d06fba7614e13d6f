# Steps of several nodes: all run, or none does.
# bats file_tags=releases
load support

@test "every node of a step runs the image" {
	good srun -N3 --container="$busybox" sh -c 'cat /etc/image-only; echo $SLURMD_NODENAME'
	[[ $(grep -cx "$MARK" <<<"$output") == 3 ]] || fail "$output"
	for node in n1 n2 n3; do has_line "$node"; done
}

@test "six ranks on three nodes pass a message around by PMIx, from inside the image" {
	needs_pmix
	good srun -N3 -n6 --mpi=pmix --container="$IMG/mpi.sif" /usr/bin/ring
	has_line 'ring sum=15 ranks=6'
	[[ $(grep -c ' in coracle mpi test image$' <<<"$output") == 6 ]] || fail "$output"
	[[ $(grep -c ' on n[123] in ' <<<"$output") == 6 ]] || fail "$output"
}

@test "ranks of one node talk through shared memory of the node" {
	needs_pmix
	good srun -N1 -n4 --mpi=pmix --container="$IMG/mpi.sif" /usr/bin/ring
	has_line 'ring sum=6 ranks=4'
}

@test "six ranks by PMI2 start" {
	good srun -N3 -n6 --mpi=pmi2 --container="$busybox" sh -c 'cat /etc/image-only; echo $PMI_RANK'
	[[ $(grep -cx "$MARK" <<<"$output") == 6 ]]
	[[ $(grep -cxE '[0-5]' <<<"$output") == 6 ]]
}

@test "an MPI program of a batch job runs in the job's image on all nodes" {
	needs_pmix
	job_script job.sh 'cat /etc/image-only'
	batch -N3 -n6 --container="$busybox" job.sh
	prints "$MARK"
	batch -N3 -n6 --wrap "srun --mpi=pmix --container=$IMG/mpi.sif /usr/bin/ring"
	has_line 'ring sum=15 ranks=6'
}

# The image is on two of three nodes only.
on_two_nodes() { # IMAGE
	local node
	for node in n1 n3; do
		on-node "$node" install -m 644 "$1" /var/tmp/two.sif
	done
}

cleanup() {
	local node
	for node in n1 n2 n3; do
		on-node "$node" rm -f /var/tmp/two.sif
	done
}

@test "when one node of three refuses, all six PMIx ranks end and none is left" {
	needs_pmix
	on_two_nodes "$IMG/mpi.sif"
	refused image-missing '/var/tmp/two.sif: no such file on this node' \
		srun -N3 -n6 --mpi=pmix --container=/var/tmp/two.sif /usr/bin/ring
	node_said n2 'coracle: /var/tmp/two.sif'
	has_not 'ring sum'
}

@test "when one node of three refuses, tasks elsewhere that wait for nothing end too" {
	on_two_nodes "$busybox"
	refused image-missing '/var/tmp/two.sif: no such file on this node' srun -N3 -n6 --container=/var/tmp/two.sif sleep 1000
}

@test "when one node of three refuses in a batch job's step, the job goes on after it" {
	on_two_nodes "$busybox"
	job_script job.sh 'srun --container=/var/tmp/two.sif sleep 1000; echo "status $?"'
	batch -N3 -n6 job.sh
	node_said n2 'coracle: /var/tmp/two.sif: no such file on this node'
	# srun has the highest status of all tasks; those that ran elsewhere were killed.
	has_line 'status 125' || has_line 'status 137'
}

@test "when all nodes refuse, each says so once" {
	nodes=3 at=node refused image-missing '/no/such.sif: no such file on this node' srun -N3 -n48 --container=/no/such.sif true
}

@test "a node without the launcher refuses, and the whole step with it" {
	on-node n2 mount --bind /dev/null /usr/lib/coracle/coracle-launcher
	run alice srun -N3 -n6 --container="$busybox" sleep 1000
	on-node n2 umount /usr/lib/coracle/coracle-launcher
	((status == 125 || status == 137)) || fail "$status $output"
	said system '/usr/lib/coracle/coracle-launcher: '
	node_said n2 'coracle: '
}
