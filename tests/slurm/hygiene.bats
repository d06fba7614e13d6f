# What a step costs its node, and that nothing of it stays.
load support

# A step of 16 tasks on n1 that waits for $dir/go, once all of them are there.
start_waiting() { # SRUN-ARGUMENT...
	alice srun -w n1 "$@" sh -c "readlink /proc/self/ns/mnt >$dir/ns.\$SLURM_PROCID; until test -e $dir/go; do sleep 0.1; done; cat /etc/image-only" >out 3>&- &
	step=$!
	eventually arrived "$1"
}

arrived() { # -nCOUNT
	[[ $(find "$dir" -name 'ns.*' -size +0 | wc -l) == "${1#-n}" ]]
}

no_shell_of_alices() { ! pgrep -u alice -x sh >/dev/null; }

finish() {
	touch "$dir/go"
	wait "$step"
}

@test "sixteen tasks of a node share one namespace, one superblock, one loop device" {
	start_waiting -n16 --container="$busybox"
	local spaces pid
	spaces=$(sort -u ns.*)
	[[ $(wc -l <<<"$spaces") == 1 ]] || fail "$spaces"
	[[ $spaces != "$(on-node n1 readlink /proc/self/ns/mnt)" ]]
	[[ $(loops | wc -l) == 1 ]] || fail "$(loops)"
	# The device numbers of the squashfs in the tasks' namespaces; the overlay above it keeps it out of mountinfo.
	for pid in $(pgrep -u alice -x sh); do
		readlink "/proc/$pid/ns/mnt" && stat -c %d "/proc/$pid/root/bin/busybox"
	done >seen
	[[ $(sort -u seen | wc -l) == 2 ]] || fail "$(sort seen | uniq -c)"
	finish
	[[ $(grep -cx "$MARK" out) == 16 ]]
	eventually no_loops
}

@test "two nodes have a namespace and a loop device each" {
	alice srun -N2 -n4 --container="$busybox" sh -c "echo \$SLURMD_NODENAME \$(readlink /proc/self/ns/mnt) >$dir/ns.\$SLURM_PROCID; until test -e $dir/go; do sleep 0.1; done" 3>&- &
	step=$!
	eventually arrived -n4
	[[ $(cat ns.* | sort -u | wc -l) == 2 ]] || fail "$(cat ns.*)"
	[[ $(loops | wc -l) == 2 ]] || fail "$(loops)"
	finish
}

@test "no mount is added to the node, during a step and after it" {
	start_waiting -n16 --container="$busybox"
	mounts_of_all | diff "$SUITE/mounts" -
	finish
	mounts_of_all | diff "$SUITE/mounts" -
}

@test "no process of ours runs beside the tasks" {
	start_waiting -n4 --container="$busybox"
	no_launcher
	local bare contained
	contained=$(ps -o comm= --ppid "$(pgrep -x -o slurmstepd)" | sort | uniq -c)
	ps -e -o comm= | sort | uniq -c | grep -v -e sleep -e ps -e sort -e uniq >during
	finish
	rm -f ns.* go
	start_waiting -n4
	bare=$(ps -o comm= --ppid "$(pgrep -x -o slurmstepd)" | sort | uniq -c)
	finish || true
	[[ $bare == "$contained" ]] || fail "bare: $bare" "contained: $contained"
}

@test "a task has the open files of a bare task and no others" {
	# Of a bare task's descriptors what they are, without the numbers that differ from run to run.
	local list='for fd in /proc/$$/fd/*; do echo "${fd##*/} $(readlink "$fd" | sed "s/[0-9][0-9]*//g")"; done'
	good srun -n1 /bin/sh -c "$list"
	local bare=$output
	good srun -n1 --container="$busybox" /bin/sh -c "$list; cat /etc/image-only"
	prints "$bare"$'\n'"$MARK"
	job_script job.sh "$list"
	batch job.sh
	bare=$output
	batch --container="$busybox" job.sh
	prints "$bare"
}

@test "a task has the limits, the umask, the priority and the signal mask of a bare task" {
	local list='ulimit -a; umask; grep -E "^(Sig|Shd|Threads|Cpus_allowed|Umask)" /proc/self/status | grep -v SigQ; cat /proc/self/oom_score_adj /proc/self/sessionid; cut -d" " -f5,18,19 /proc/self/stat | cut -d" " -f2-; cat /proc/self/cgroup | sed "s/[0-9][0-9]*//g"'
	good srun -n1 --container="$busybox" --container-bind=/usr/bin/busybox:/mnt/busybox /bin/busybox sh -c "$list"
	local contained=$output
	good srun -n1 "$(type -P busybox)" sh -c "$list"
	prints "$contained"
}

@test "the tasks' namespace goes when they end in whatever way" {
	local how
	for how in 'exit 0' 'exit 3' 'kill -KILL $$' 'kill -SEGV $$' 'kill -ABRT $$'; do
		run alice srun -n4 --container="$busybox" sh -c "$how"
		healthy
	done
}

@test "the loop device goes when slurmstepd is killed" {
	start_waiting -n2 --container="$busybox"
	kill -KILL $(pgrep -x slurmstepd)
	touch go
	eventually no_shell_of_alices
	eventually no_loops
	# srun would wait for a slurmstepd that is no more.
	kill -KILL $(pgrep -x srun)
	scancel --user=alice
	wait "$step" || true
	healthy
}

@test "a hundred steps leave nothing" {
	job_script job.sh "for i in \$(seq 100); do srun -n1 --container=$busybox true || echo failed; done"
	job=$(alice sbatch --parsable -o "$dir/batch.out" job.sh)
	local end=$((SECONDS + 300))
	until ended "$job"; do ((SECONDS < end)) || fail 'too slow'; sleep 1; done
	[[ ! -s batch.out ]] || fail "$(<batch.out)"
	healthy
}

@test "the image file is not written to, nor its times changed" {
	cp -p "$busybox" still.sif
	local before
	before=$(stat -c '%s %Y %Z %a %u' still.sif; sha256sum still.sif)
	good srun -n4 --container="$dir/still.sif" cat /etc/image-only
	[[ $(stat -c '%s %Y %Z %a %u' still.sif; sha256sum still.sif) == "$before" ]]
}

@test "an image that is cut while it runs ends no node" {
	cp "$IMG/busybox-none.sif" cut.sif
	alice srun -n1 --container="$dir/cut.sif" sh -c "touch $dir/in; until test -e $dir/go; do /bin/sleep 0.1; done; cat /bin/busybox | md5sum" >out 2>&1 3>&- &
	step=$!
	eventually test -e in
	truncate -s 40000 cut.sif
	touch go
	wait "$step" || true
	healthy
}
