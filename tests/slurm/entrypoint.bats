# --container-entrypoint: the image's own way to start a command.
load support

env=$IMG/env.sif
exec_only=$IMG/sourcing.sif

@test "a SIF's runscript gets the command and its arguments" {
	good srun -n2 --container="$env" --container-entrypoint echo a
	[[ $(grep -cx 'run script: 2 <echo> <a> <>' <<<"$output") == 2 && $(grep -cx a <<<"$output") == 2 ]] || fail "$output"
}

@test "arguments keep blanks, quotes, stars, newlines, and emptiness" {
	good srun -n1 --container="$exec_only" --container-entrypoint printf '<%s>' 'a b' '' '"q"' "it's" '*' '$HOME' $'two\nlines' '%41' -- -x
	prints "<a b><><\"q\"><it's><*><\$HOME><two
lines><%41><--><-x>"
}

@test "a command with a path, with blanks in it, and one in the working directory" {
	mkdir 'a b'
	printf '#!/bin/sh\necho "mine $*"\n' >'a b/my app'
	chmod 755 'a b' 'a b/my app'
	good srun -n1 --container="$exec_only" --container-entrypoint "$dir/a b/my app" 1 '2 3'
	prints 'mine 1 2 3'
	good srun -n1 --container="$exec_only" --container-entrypoint './a b/my app' 1
	prints 'mine 1'
}

@test "the exit status is the command's" {
	run alice srun -n1 --container="$exec_only" --container-entrypoint sh -c 'exit 9'
	((status == 9)) || fail "$status $output"
	run alice srun -n1 --container="$exec_only" --container-entrypoint /no/such
	((status == 127)) || fail "$status $output"
}

@test "a relative command that is not there has a hint at the working directory" {
	run alice srun -n1 --container="$exec_only" --container-entrypoint ./no-start.sh
	((status == 127)) || fail "$status $output"
	run coracle exec "$exec_only" ./no-start.sh
	((status == 127)) || fail "$status $output"
	has_line 'coracle: ./no-start.sh: no such command in the container [usage]'
	has_line 'coracle: hint: it is relative to the working directory: --workdir=DIRECTORY names that of the image'
}

@test "a signal reaches the command" {
	alice srun -n1 --job-name=sig --container="$exec_only" --container-entrypoint sh -c "trap 'echo got it; exit 3' USR1; touch $dir/in; while :; do sleep 0.1; done" >out 2>&1 3>&- &
	local step=$! status=0
	eventually test -e in
	alice scancel --signal=USR1 --name=sig
	wait "$step" || status=$?
	((status == 3)) && grep -qx 'got it' out || fail "$status $(<out)"
}

@test "nothing of ours is left in the environment, but what a task may know" {
	good srun -n1 --container="$exec_only" --container-entrypoint env
	has_not SLURM_CORACLE_COMMAND
	has_not SLURM_CORACLE_ENTRYPOINT
}

@test "a batch script runs through it, and its steps too" {
	job_script job.sh 'echo "script $# $1"; srun -n1 echo step'
	batch --container="$env" --container-entrypoint job.sh one
	grep -q '^run script: 2 <.*slurm_script> <one> <>$' <<<"$output" || fail "$output"
	has_line 'script 1 one'
	has_line 'run script: 2 <echo> <step> <>'
	has_line step
	batch --container="$env" --container-entrypoint --wrap 'srun -n1 --no-container-entrypoint echo plain; srun -n1 --container='"$busybox"' echo other; srun -n1 --container=none echo host'
	has_line plain
	has_line other
	has_line host
	[[ $(grep -c 'run script' <<<"$output") == 1 ]] || fail "$output"
}

@test "MPI runs through it" {
	needs_pmix
	good srun -N3 -n6 --mpi=pmix --container="$IMG/mpi-entry.sif" --container-entrypoint /usr/bin/ring
	has_line 'ring sum=15 ranks=6'
}

@test "with --multi-prog it is refused, before the job queues" {
	echo '* echo x' >programs
	at=submit refused usage '--container-entrypoint: cannot be used together with --multi-prog' \
		srun -n2 --container="$env" --container-entrypoint --multi-prog programs
}

@test "where the site has it as default, --multi-prog is refused or runs the programs" {
	configure $'version: 1\nuser_images: kernel\nbinds:\n- source: /scratch\noptions:\n  entrypoint: true'
	printf '%s\n' '0 echo zero' '1 echo one' >programs
	chmod 644 programs
	run alice srun -n2 --container="$env" --multi-prog programs
	if ((status == 0)); then
		has_line zero && has_line one && has_not 'run script'
	else
		said usage '--multi-prog'
	fi
}

@test "an image without an entry point runs the command" {
	good srun -n1 --container="$busybox" --container-entrypoint cat /etc/image-only
	prints "$MARK"
}

@test "enroot's /etc/rc" {
	good srun -n1 --container="$IMG/enroot.sqsh" --container-entrypoint echo 'x y'
	prints $'rc: 2 <echo>\nx y'
}

@test "the task prolog still runs, before the entry point" {
	mkdir -m 755 prolog
	printf '#!/bin/sh\necho "export FROM_PROLOG=1"; echo "print prolog ran"\n' >prolog/task
	chmod 755 prolog/task
	chown -R alice prolog
	good srun -n1 --task-prolog="$dir/prolog/task" --container="$env" --container-entrypoint sh -c 'echo "${FROM_PROLOG-unset}"'
	has_line 'prolog ran'
	has_line 1
	has 'run script: 3'
}

@test "what an entry point prints comes once from each task, on the stream that it was printed on" {
	local kind script=$'#!/bin/sh\necho out; echo err >&2; exec "$@"'
	for kind in sif enroot; do
		cp -a "$IMG/tree" "$kind"
		case $kind in
		sif) install -D -m 755 /dev/stdin "$kind/.singularity.d/runscript" <<<"$script" ;;
		enroot) install -m 755 /dev/stdin "$kind/etc/rc" <<<"$script" ;;
		esac
		mkdir -p "$kind/.singularity.d/env"
		echo 'echo script; echo script >&2; export MADE=$(echo by a shell)' >"$kind/.singularity.d/env/50-prints.sh"
		[[ $kind == sif ]] || rm -r "$kind/.singularity.d"
		mksquashfs "$kind" "$kind.sqsh" -noappend -quiet -no-progress -all-root >/dev/null
		alice srun -N2 -n4 --container="$dir/$kind.sqsh" --container-entrypoint sh -c 'echo command' >out 2>err || { fail "$kind: $?" "$(<err)"; return; }
		[[ $(sort out | uniq -c | xargs) == '4 command 4 out' && $(without_waiting <err | sort | uniq -c | xargs) == '4 err' ]] || { fail "$kind" "$(<out)" "$(<err)"; return; }
		alice coracle run "$dir/$kind.sqsh" sh -c 'echo command' >out 2>err || { fail "$kind: $?" "$(<err)"; return; }
		[[ $(xargs <out) == 'out command' && $(<err) == err ]] || { fail "run $kind" "$(<out)" "$(<err)"; return; }
		batch --container="$dir/$kind.sqsh" --container-entrypoint --wrap 'echo command; srun -n1 echo step'
		# The step goes through it, too.
		[[ $(sort <<<"$output" | uniq -c | xargs) == '1 command 2 err 2 out 1 step' ]] || { fail "batch $kind" "$output"; return; }
	done
}

@test "an entry point that cannot be executed is named" {
	good srun -n1 --container="$exec_only" --container-writable --container-entrypoint true
	run alice srun -n1 --container="$IMG/broken-runscript.sqsh" --container-entrypoint true
	((status == 126)) || fail "$status $output"
	has 'coracle: /.singularity.d/runscript: permission denied [system]'
}

@test "a container that is joined and one with a terminal" {
	needs script
	good script -qec "srun -n1 --pty --container=$env --container-entrypoint sh -c 'tty; echo inside'" /dev/null
	has 'run script: 3'
	has /dev/pts/
	has inside
}
