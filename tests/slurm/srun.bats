# srun --container: the main job.
# bats file_tags=releases
load support

@test "a task runs inside the image" {
	good srun -n1 --container="$busybox" cat /etc/image-only
	prints "$MARK"
}

@test "every kind of squashfs, in a SIF and alone, is run" {
	local name
	for name in busybox-none.sif busybox-gzip.sif busybox-zstd.sif busybox-xz.sif busybox-lz4.sif busybox-zstd.sqsh; do
		good srun -n1 --container="$IMG/$name" cat /etc/image-only
		prints "$MARK"
	done
}

@test "an image with nothing in it but programs is run" {
	good srun -n1 --container="$IMG/bare.sif" sh -c 'cat /image-only; ls -d /proc/self /tmp /etc/passwd'
	has_line 'coracle bare test image'
	has_line /etc/passwd
}

real_image_runs() { # NAME
	real "$1"
	cmp -s "$dir/$1" "$REAL/$1"
	good srun -n2 --container="$dir/$1" sh -c 'ls /.singularity.d/runscript && busybox true && echo inside'
	has_line inside
	has_line /.singularity.d/runscript
}

@test "busybox.sif of Apptainer runs" { real_image_runs busybox.sif; }
@test "busybox-xz.sif of Apptainer runs" { real_image_runs busybox-xz.sif; }
@test "busybox-lz4.sif of Apptainer runs" { real_image_runs busybox-lz4.sif; }
@test "busybox-signed-pgp.sif of Apptainer runs" { real_image_runs busybox-signed-pgp.sif; }

@test "a relative path is one from the working directory" {
	cp "$busybox" "$dir/here.sif"
	mkdir -m 777 "$dir/sub"
	good srun -n1 --container=here.sif cat /etc/image-only
	prints "$MARK"
	good srun -n1 --container=./here.sif cat /etc/image-only
	prints "$MARK"
	cd "$dir/sub"
	good srun -n1 --container=../here.sif cat /etc/image-only
	prints "$MARK"
	good srun -n1 --chdir=/tmp --container=../here.sif cat /etc/image-only
	prints "$MARK"
}

@test "a symbolic link to an image is followed" {
	ln -s "$busybox" "$dir/link.sif"
	good srun -n1 --container="$dir/link.sif" cat /etc/image-only
	prints "$MARK"
}

@test "names with blanks, colons, percent signs, quotes and letters beyond ASCII reach the node as they are" {
	local name
	for name in 'a b.sif' 'a:b=c;d.sif' '100%25.sif' "quo'te\".sif" 'ümläut-💾.sif' '--dash.sif' 'a,b.sif'; do
		cp "$busybox" "$dir/$name"
		good srun -n1 --container="$name" sh -c 'cat /etc/image-only; echo "$CORACLE_IMAGE"'
		has_line "$MARK"
		has_line "$dir/$name"
	done
}

@test "--container=none runs on the node" {
	good srun -n1 --container=none sh -c 'test ! -e /etc/image-only && echo host'
	prints host
}

@test "without --container nothing changes: status, signal, environment and standard input" {
	good srun -n1 sh -c 'test ! -e /etc/image-only && echo host'
	prints host
	run alice srun -n1 sh -c 'exit 7'
	((status == 7))
	run alice srun -n1 sh -c 'kill -TERM $$'
	((status == 143))
	run bash -c 'echo word | as alice srun -n1 cat'
	prints word
	good srun -n1 env
	has_not CORACLE
	has_not SLURM_CONTAINER
}

@test "the environment is that of a step without a container, but for PATH and five variables of ours" {
	local only="^(SLURM_(JOB_?ID|STEP_?ID|JOB_NAME|TASK_PID|STEP_LAUNCHER_PORT|SRUN_COMM_PORT|JOB_START_TIME|JOB_END_TIME|JOB_SLUID)|_|SHLVL|PWD)="
	good srun -n1 env
	grep -vE "$only" <<<"$output" | sort >bare
	good srun -n1 --container="$busybox" env
	grep -vE "$only" <<<"$output" | sort >contained
	run diff bare contained
	[[ $(grep -c '^[<>]' <<<"$output") == 7 ]] || fail "$output"
	has '> PATH=/run/coracle/slurm/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
	has '> SLURM_CORACLE_OUTER=1:'
	has_line "> CORACLE_IMAGE=$busybox"
	has_line "> CORACLE_NAME=busybox-zstd"
	has "> SLURM_CORACLE_STEPS=2:"
}

@test "the exit status of the command is srun's" {
	run alice srun -n1 --container="$busybox" sh -c 'cat /etc/image-only; exit 7'
	((status == 7))
	has "$MARK"
}

@test "a signal that ends the command is seen by srun as without a container" {
	run alice srun -n1 --container="$busybox" sh -c 'cat /etc/image-only; kill -TERM $$'
	((status == 143)) && has "$MARK" && has 'task 0: Terminated'
	run alice srun -n1 --container="$busybox" sh -c 'kill -SEGV $$'
	((status == 139))
}

@test "a task begins with no signal blocked, and a shell waits for its background process" {
	# Slurm 25.05 leaves SIGCHLD blocked, and busybox's wait then never returns.
	good timeout 30 srun -n1 --container="$busybox" sh -c 'grep SigBlk /proc/self/status; sleep 0.1 & wait; echo waited'
	prints $'SigBlk:\t0000000000000000\nwaited'
}

@test "a command that the image lacks is reported as Slurm does" {
	run alice srun -n1 --container="$busybox" coracle-no-such-command
	((status == 2))
	has 'coracle-no-such-command: No such file or directory'
	has_not 'coracle: '
}

@test "the command is looked up in the image" {
	# This machine has bash, the image has not.
	run alice srun -n1 --container="$busybox" bash -c true
	((status == 2))
	has 'bash: No such file or directory'
}

@test "standard input and output reach the task unchanged" {
	head -c 300000 /dev/urandom >in
	chmod 644 in
	alice srun -n1 --container="$busybox" sh -c 'test -e /etc/image-only && cat' <in >out
	cmp in out
}

@test "--pty gives the command a terminal" {
	# A terminal whose other end stays open.
	mkfifo keys
	exec 7<>keys
	run script -qec "as -d $dir alice srun -n1 --pty --container=$busybox sh -c 'tty; cat /etc/image-only; stty size'" /dev/null <&7
	exec 7<&-
	((status == 0)) || fail "$output"
	has /dev/pts/
	has "$MARK"
}

@test "salloc's steps run in the image that salloc was given" {
	good salloc -Q -n1 --container="$busybox" srun -n1 cat /etc/image-only
	prints "$MARK"
}

@test "a step of an allocation has the image that it asks for" {
	good salloc -Q -n1 srun -n1 --container="$busybox" cat /etc/image-only
	prints "$MARK"
}

@test "an allocation without a container runs on the node" {
	good salloc -Q -n1 srun -n1 sh -c 'test ! -e /etc/image-only && echo host'
	prints host
}

@test "each component of a heterogeneous srun has its own image, or none" {
	local say='cat /etc/image-only 2>/dev/null || cat /image-only 2>/dev/null || echo on the node'
	good srun -Q -n1 --container="$busybox" sh -c "$say" : -n1 --container="$IMG/bare.sif" sh -c "$say"
	[[ $(sort <<<"$output") == "$(printf '%s\n' 'coracle bare test image' "$MARK" | sort)" ]] || fail "$output"
	good srun -Q -n1 sh -c "$say" : -n1 --container="$busybox" sh -c "$say"
	[[ $(sort <<<"$output") == "$(printf '%s\n' 'on the node' "$MARK" | sort)" ]] || fail "$output"
}

@test "one image in all components of a heterogeneous job is run" {
	good srun -Q -n1 --container="$busybox" cat /etc/image-only : -n1 --container="$busybox" cat /etc/image-only
	prints "$MARK"$'\n'"$MARK"
	# Slurm lets the components after the first have its --container.
	good srun -Q -n1 --container="$busybox" cat /etc/image-only : -n1 cat /etc/image-only
	prints "$MARK"$'\n'"$MARK"
}

@test "srun --help lists our options once, and nothing of ours is an error" {
	good srun --help
	[[ $(grep -c -- '--container-bind=SRC' <<<"$output") == 1 ]]
	[[ $(grep -c -- '--container-digest=sha256:HEX' <<<"$output") == 1 ]]
	[[ $(grep -cE -- '--container(=path|=IMAGE)? ' <<<"$output") == 1 ]]
	has_not ': error: '
	has_not 'onflicting'
	for command in sbatch salloc; do
		good "$command" --help
		has '--container-bind=SRC'
		has_not ': error: '
	done
}

@test "our options without an image are refused, and are no matter when they come from the environment" {
	at=submit refused usage '--container-bind: no image was asked for' srun -n1 --container-bind=/tmp:/mnt true
	at=submit refused usage '--container-digest: no image was asked for' srun -n1 --container-digest=sha256:00 true
	good env CORACLE_CONTAINER_BIND=/nowhere CORACLE_CONTAINER_DIGEST=x srun -n1 echo host
	prints host
}

@test "an empty --container, a scheme and a stored image's name are refused before the job queues" {
	at=submit refused usage '--container: the name of an image is missing' srun -n1 --container= true
	at=submit refused usage 'oras://x/y: no kind of image that is fetched' srun -n1 --container=oras://x/y true
	at=submit refused policy 'docker://alpine: nothing is fetched for jobs' srun -n1 --container=docker://alpine true
	has 'coracle pull docker://alpine alpine_latest.sif'
	at=submit refused usage 'store:../x: not a name of a stored image' srun -n1 --container=store:../x true
	at=node refused image-missing 'store:x: no image of yours in the store' srun -n1 --container=store:x true
}

@test "SLURM_CONTAINER of the submitter's environment chooses no image" {
	good env SLURM_CONTAINER="$busybox" srun -n1 sh -c 'test ! -e /etc/image-only && echo host'
	prints host
	good env SLURM_CONTAINER=/no/such.sif srun -n1 --container="$busybox" cat /etc/image-only
	prints "$MARK"
}

@test "scancel ends a step in a container, and nothing is left" {
	good sbatch --parsable -o /dev/null -N2 -n4 --wrap "srun --container=$busybox sh -c 'test -e /etc/image-only && touch $dir/\$SLURM_PROCID && sleep 1000'"
	job=$output
	for rank in 0 1 2 3; do eventually test -e "$dir/$rank"; done
	[[ -n $(loops) ]]
	scancel "$job"
	eventually ended "$job"
	healthy
}

@test "srun ends its tasks when it is ended itself" {
	as -d "$dir" alice srun -n2 --container="$busybox" sh -c "touch $dir/\$SLURM_PROCID; sleep 1000" 3>&- &
	eventually test -e "$dir/0" -a -e "$dir/1"
	kill -TERM $!
	wait $! || true
	healthy
}

@test "an image that is deleted while it runs stays whole for those in it" {
	cp "$busybox" "$dir/going.sif"
	alice srun -n1 --container="$dir/going.sif" sh -c "touch $dir/in; until test -e $dir/go; do sleep 0.1; done; cat /etc/image-only" >out 3>&- &
	eventually test -e "$dir/in"
	rm "$dir/going.sif"
	touch "$dir/go"
	wait $!
	[[ $(<out) == "$MARK" ]]
}

@test "two steps at once on a node have each its own image" {
	alice srun -n1 -w n1 --container="$busybox" sh -c "touch $dir/a; until test -e $dir/b; do sleep 0.1; done; cat /etc/image-only" >out.a 3>&- &
	local first=$!
	alice srun -n1 -w n1 --container="$IMG/bare.sif" sh -c "touch $dir/b; until test -e $dir/a; do sleep 0.1; done; cat /image-only" >out.b 3>&- &
	wait $!
	wait "$first"
	[[ $(<out.a) == "$MARK" && $(<out.b) == 'coracle bare test image' ]]
}

@test "many steps at once start all" {
	local pids=() i
	for i in 1 2 3 4 5 6 7 8; do
		alice srun -n2 --overlap --oversubscribe --container="$busybox" cat /etc/image-only >"out.$i" 3>&- &
		pids+=($!)
	done
	for i in "${pids[@]}"; do wait "$i"; done
	[[ $(cat out.* | grep -cx "$MARK") == 16 ]] || fail "$(cat out.*)"
}

@test "an array's tasks and a job's tasks of 128 ranks all see the image" {
	good srun -N3 -n128 --overcommit --container="$busybox" cat /etc/image-only
	[[ $(grep -cx "$MARK" <<<"$output") == 128 ]]
}

@test "Slurm's own --container is what the controller records" {
	good sbatch --parsable -H --container="$busybox" --wrap true
	job=$output
	# Before 21.08 it has no such record.
	[[ $(job_field "$job" Container) == "$(since 21.08 && echo "$busybox" || true)" ]] || fail "$(scontrol show job "$job")"
	scancel "$job"
}
