# With job_container/tmpfs each job has a /tmp of its own; the cluster is started for it.
load support

# bats test_tags=releases
@test "a task sees the job's own /tmp and /dev/shm" {
	on-node n1 touch /tmp/coracle-node
	good srun -n2 -w n1 --container="$busybox" sh -c 'cat /etc/image-only; test ! -e /tmp/coracle-node && echo own; echo x >/tmp/coracle-mine.$SLURM_PROCID'
	on-node n1 rm /tmp/coracle-node
	[[ $(grep -cx "$MARK" <<<"$output") == 2 && $(grep -cx own <<<"$output") == 2 ]] || fail "$output"
	on-node n1 test ! -e /tmp/coracle-mine.0
}

@test "contained and bare steps of a job share its /tmp" {
	job_script job.sh "echo word >/tmp/coracle-word
srun -n1 --container=$busybox sh -c 'cat /etc/image-only /tmp/coracle-word; echo back >/tmp/coracle-back'
cat /tmp/coracle-back"
	batch job.sh
	prints "$MARK"$'\nword\nback'
}

@test "an image that sbcast left in the job's own /tmp runs" {
	job_script job.sh "sbcast $IMG/bare.sif /tmp/cast.sif
srun -N2 -n2 --container=/tmp/cast.sif cat /image-only"
	batch -N2 job.sh
	prints $'coracle bare test image\ncoracle bare test image'
}

@test "an image in the job's own /tmp wins over one of that name in the node's" {
	on-node n1 install -m 644 "$busybox" /tmp/cast.sif
	job_script job.sh "sbcast $IMG/bare.sif /tmp/cast.sif
srun -n1 --container=/tmp/cast.sif cat /image-only"
	batch -w n1 job.sh
	on-node n1 rm /tmp/cast.sif
	prints 'coracle bare test image'
}

@test "an image in the node's /tmp is not there for a job" {
	on-node n1 install -m 644 "$busybox" /tmp/node.sif
	run alice srun -n1 -w n1 --container=/tmp/node.sif cat /etc/image-only
	on-node n1 rm /tmp/node.sif
	((status == 125)) || fail "$status $output"
	said image-missing '/tmp/node.sif: no such file on this node'
}

@test "a bind source and a working directory that are in the job's own /tmp only" {
	job_script job.sh "mkdir /tmp/data /tmp/here; echo word >/tmp/data/file
srun -n1 --container=$busybox --container-bind=/tmp/data:/mnt/data cat /etc/image-only /mnt/data/file
srun -n1 --chdir=/tmp/here --container=$busybox sh -c 'pwd; cat /etc/image-only'"
	batch -w n1 job.sh
	# slurmstepd itself is not in the job's namespace when it goes to the working directory, and says so.
	output=$(sed -E 's/^\[[0-9T:.-]+\] error: /slurmstepd-n1: error: /' <<<"$output")
	prints "$MARK
word
slurmstepd-n1: error: couldn't chdir to \`/tmp/here': No such file or directory: going to /tmp instead
/tmp/here
$MARK"
}

@test "a batch script runs inside, and so does each of sixteen tasks, in one namespace" {
	job_script job.sh 'cat /etc/image-only'
	batch --container="$busybox" job.sh
	prints "$MARK"
	good srun -n16 -w n1 --container="$busybox" readlink /proc/self/ns/mnt
	[[ $(sort -u <<<"$output" | wc -l) == 1 && $(wc -l <<<"$output") == 16 ]] || fail "$output"
}

@test "a working directory in the job's own /tmp" {
	good srun -n1 --chdir=/tmp --container="$busybox" sh -c 'pwd; cat /etc/image-only'
	prints $'/tmp\n'"$MARK"
}

@test "six ranks pass a message around by PMIx" {
	needs_pmix
	good srun -N3 -n6 --mpi=pmix --container="$IMG/mpi.sif" /usr/bin/ring
	has_line 'ring sum=15 ranks=6'
	[[ $(grep -c ' in coracle mpi test image$' <<<"$output") == 6 ]]
}

@test "a refusal is one line and hurts no node" {
	nodes=3 at=node refused image-missing '/no/such.sif: no such file on this node' srun -N3 -n6 --container=/no/such.sif true
	head -c 100000 "$busybox" >cut.sif
	chmod 644 cut.sif
	at=node refused image-format 'cut.sif: truncated' srun -n2 --container="$dir/cut.sif" true
}

@test "nothing is left when a contained step is cancelled" {
	good sbatch --parsable -o /dev/null --wrap "srun --container=$busybox sh -c 'touch $dir/in; sleep 1000'"
	job=$output
	eventually test -e in
	scancel "$job"
	eventually ended "$job"
	healthy
}

@test "an image in the job's own /tmp runs where squashfuse_ll reads it, by one process" {
	configure $'version: 1\nuser_images: fuse\nbinds:\n- source: /scratch'
	job_script job.sh "sbcast $IMG/bare.sif /tmp/cast.sif
srun -n2 --container=/tmp/cast.sif cat /image-only
srun -n1 --container=$busybox sh -c 'sleep 0.3; ps | grep -c [s]quashfuse_ll'"
	batch -w n1 -n2 job.sh
	prints $'coracle bare test image\ncoracle bare test image\n1'
}

@test "the record is of the image that the tasks got, not of the one that was prepared ahead" {
	local file=/var/lib/coracle/audit.jsonl bare
	mkdir -p /var/lib/coracle
	configure $'version: 1\nuser_images: kernel\nbinds:\n- source: /scratch\n'"audit: {file: $file, required: yes}"
	on-node n1 install -m 644 "$busybox" /tmp/cast.sif
	bare=sha256:$(sha256sum "$IMG/bare.sif" | cut -d' ' -f1)
	job_script job.sh "sbcast $IMG/bare.sif /tmp/cast.sif
srun -n2 --container=/tmp/cast.sif --container-digest=$bare cat /image-only"
	batch -n2 -w n1 job.sh
	on-node n1 rm /tmp/cast.sif
	prints $'coracle bare test image\ncoracle bare test image'
	[[ $(wc -l <"$file") == 1 ]] || fail "$(<"$file")"
	grep -q "\"path\":\"/tmp/cast.sif\",\"digest\":\"$bare\",.*\"verdict\":\"started\"" "$file" || fail "$(<"$file")"
	rm -r /var/lib/coracle
}

@test "the container of the node makes way for the one of the job's namespace" {
	needs_pmix
	on-node n1 sh -c 'mkdir /var/tmp/coracle-disk && mount -t tmpfs -o mode=755 disk /var/tmp/coracle-disk && install -d -o alice -g alice /var/tmp/coracle-disk/kept'
	run alice srun -n1 -w n1 --container="$busybox" --container-overlay=/var/tmp/coracle-disk/kept sh -c 'echo one >/one; cat /etc/image-only'
	local first=$output
	run alice srun -n2 -w n1 --mpi=pmix --container="$busybox" --container-overlay=/var/tmp/coracle-disk/kept sh -c 'cat /one'
	on-node n1 sh -c 'umount /var/tmp/coracle-disk; rmdir /var/tmp/coracle-disk'
	# Between two jobs srun may say that it waits for the node.
	grep -qxF "$MARK" <<<"$first" || fail "$first"
	[[ $(grep -cx one <<<"$output") == 2 ]] || fail "$output"
}

@test "of an image that squashfuse reads one process is left, and of a writable one no second memory" {
	command -v squashfuse_ll >/dev/null || skip 'no squashfuse_ll'
	configure $'version: 1\nuser_images: fuse\nbinds:\n- source: /scratch'
	alice srun -n2 -w n1 --container="$busybox" --container-writable=8m sh -c "
		touch $dir/in.\$SLURM_PROCID; until test -e $dir/go; do sleep 0.1; done" 3>&- &
	local step=$!
	eventually test -e "$dir/in.0" -a -e "$dir/in.1"
	local servers
	servers=$(pgrep -cx squashfuse_ll || true)
	touch "$dir/go"
	wait "$step"
	[[ $servers == 1 ]] || fail "$servers processes"
}

@test "the namespace that a job has for its /tmp is no container" {
	cp "$BATS_TEST_DIRNAME/chrooted.py" .
	job_script job.sh "export CORACLE_IMAGE=$busybox; python3 chrooted.py ready /scratch"
	job=$(alice sbatch --parsable -n1 -w n1 -o "$dir/out" job.sh)
	eventually test -e ready || fail "$(<out)"
	run alice srun --jobid="$job" --overlap --container=step true
	((status != 0))
	said usage "job $job: has no container on this node"
	run alice coracle exec --job "$job.batch" true
	((status != 0))
	said usage "step $job.batch: has no container on this node"
	rm ready
	eventually ended "$job"
}
