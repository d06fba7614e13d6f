# The same cases three times: without the plugin, with it and unused, and in an image. Status, output and effects must be
# the same; where they are not, the case says which difference there is and why.
load support

# Programs that are the same file in all three, wherever the tasks are: /scratch is bound.
TOOLS=/scratch/tools

setup_file() {
	mkdir -p "$TOOLS"
	cp "$(type -P busybox)" "$TOOLS/busybox"
	"$TOOLS/busybox" --install -s "$TOOLS"
	# Between TERM and KILL; half a minute is too long here.
	slurm_conf KillWait=2
}

teardown_file() {
	slurm_conf_as_before
	rm -rf "$TOOLS"
}

listener=''
cleanup() {
	[[ -z $listener ]] || { kill "$listener"; wait "$listener" || true; } 2>/dev/null
	rm -f /dev/log
}

# What the launcher says to syslog, a line each, in $dir/log: the proof that a case was in a container, and when not.
listen() {
	: >"$dir/log"
	perl -MSocket -e '
		socket(S, AF_UNIX, SOCK_DGRAM, 0) && bind(S, sockaddr_un("/dev/log")) or die "/dev/log: $!";
		chmod 0666, "/dev/log";
		open(my $out, ">>", $ARGV[0]) or die;
		$out->autoflush(1);
		while (defined(recv(S, my $text, 65536, 0))) { $text =~ s/\n/|/g; print $out "$text\n"; }
	' "$dir/log" 3>&- &
	listener=$!
	eventually test -S /dev/log
}

started() { (($(grep -c ' verdict=started ' "$dir/log") > 0)); }

# Numbers of jobs, steps and processes, times, and blanks that srun fills lines up with.
without_numbers() {
	without_waiting | sed -E 's/(StepId=|[Jj]ob |JOB |STEP |step |for job |CANCELLED AT )[0-9T:.+-]+/\1N/g; s/[0-9]{4}-[0-9-]+T[0-9:]+/TIME/g'
}

# Some of Slurm's own words about a step that ends come or do not come by chance, so a difference must show three times.
agree() { # FUNCTION ARGUMENT...
	agree_once "$@" 2>/dev/null || agree_once "$@" 2>/dev/null || agree_once "$@"
}

# The case is a function, which uses "${image[@]}" for srun's and sbatch's --container, and writes what else it has to say
# into files of the directory that it is started in.
agree_once() { # FUNCTION ARGUMENT...
	local side status file image
	[[ -n $listener ]] || listen
	for side in absent unused used; do
		image=()
		: >"$dir/log"
		case $side in
		absent) : >/etc/slurm/plugstack.conf.d/coracle.conf ;;
		unused) cp -a "$SUITE/coracle.conf" /etc/slurm/plugstack.conf.d/coracle.conf ;;
		# PATH and LD_LIBRARY_PATH would be the image's, and so the programs.
		used) image=(--container="$busybox" "--container-env=PATH,LD_LIBRARY_PATH") ;;
		esac
		rm -rf "$dir/work"
		install -d -o alice -g alice "$dir/work"
		cd "$dir/work" || return
		status=0
		"$@" >"$dir/out" 2>"$dir/err" 3>&- || status=$?
		{
			echo "status $status"
			echo '--- standard output' && without_numbers <"$dir/out"
			# Tasks and nodes write when they like.
			echo '--- standard error' && without_numbers <"$dir/err" | sort
			for file in *; do
				# The script has the image's name in it.
				[[ ! -f $file || $file == job.sh ]] || { echo "--- $file, $(stat -c '%A %U' "$file")" && without_numbers <"$file" | sort; }
			done
		} >"$dir/$side" 2>&1
		cd "$dir" || return
		if [[ $side == used ]]; then
			eventually started || { fail 'was in no container:' "$(<"$dir/log")" "$(<"$dir/used")"; return; }
		else
			! started || { fail 'was in a container:' "$(<"$dir/log")"; return; }
		fi
	done
	diff absent unused >difference || { fail "$* without the plugin < and with it, unused >" "$(<difference)"; return; }
	diff unused used >difference || fail "$* without a container < and in one >" "$(<difference)"
}

# On one node, so that its name is the same.
step() { # SRUN-ARGUMENT...
	alice env PATH="$TOOLS:/usr/bin:/bin" srun -w n1 "${image[@]}" "$@"
}

job() { # SBATCH-ARGUMENT...; the number is in $number
	number=$(alice env PATH="$TOOLS:/usr/bin:/bin" sbatch --parsable -w n1 "${image[@]}" "$@")
}

in_terminal() { # TERMINAL-ARGUMENT... -- SRUN-ARGUMENT...
	local steps=()
	while [[ $1 != -- ]]; do
		steps+=("$1")
		shift
	done
	# srun's own messages are apart, as they come at any time.
	"$BATS_TEST_DIRNAME/terminal.py" "${steps[@]}" -- \
		as -d "$PWD" alice env PATH="$TOOLS:/usr/bin:/bin" sh -c 'exec srun "$@" 2>srun.err' sh -w n1 "${image[@]}" "${@:2}"
}

# What a case found, for the assertion that it found anything: a comparison of two failures would prove nothing.
found() { # TEXT
	grep -qF -- "$1" "$dir/used" || fail "nowhere: $1" "in: $(<"$dir/used")"
}

@test "exit codes" {
	local code
	for code in 0 1 2 42 125 126 127 128 255; do
		agree step -n1 sh -c "exit $code"
		found "status $code"
	done
	agree step -n3 sh -c 'exit $SLURM_PROCID'
	found 'status 2'
}

@test "death by a signal" {
	local name
	for name in HUP INT ILL ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM; do
		agree step -n1 sh -c "kill -$name \$\$; sleep 10"
		found "status $((128 + $(kill -l "$name")))"
	done
	# A shell ignores this one, so it comes from outside and to another program.
	quit() {
		step -n1 sleep 1000 &
		eventually pgrep -u alice -x sleep >pid
		kill -QUIT "$(<pid)"
		rm pid
		wait $!
	}
	agree quit
	found 'status 131'
}

@test "a core file where there is to be one" {
	dumps() {
		alice sh -c 'ulimit -c unlimited; exec "$@"' sh env PATH="$TOOLS:/usr/bin:/bin" srun -w n1 "${image[@]}" -n1 \
			sh -c 'ulimit -c; kill -ABRT $$'
		local files
		files=$(ls)
		rm -f core*
		echo "${files//[0-9]/}"
	}
	agree dumps
	found unlimited
}

has_lines() { # COUNT TEXT FILE
	[[ $(grep -cx "$2" "$3") == "$1" ]]
}

# A job on the node whose step has the image; srun is the machine's.
signalled() { # SIGNAL
	local text="trap 'echo trapped' $1; touch ready.\$SLURM_PROCID; until test -e go; do sleep 0.1; done; exit 3"
	printf '%s\n' '#!/bin/sh' "srun -n2 ${image[*]} sh -c \"\$1\"" >job.sh
	number=$(alice env PATH="$TOOLS:/usr/bin:/bin" sbatch --parsable -w n1 -n2 -o out job.sh "$text")
	eventually test -e ready.0 -a -e ready.1
	scancel --signal="$1" "$number.0"
	eventually has_lines 2 trapped out
	touch go
	eventually ended "$number"
	job_field "$number" ExitCode
	rm ready.*
}

@test "signals that scancel sends to a step and to a batch script, and what traps do" {
	local name
	for name in USR1 USR2 HUP INT TERM CONT; do
		agree signalled "$name"
		found trapped
	done
	batched() {
		printf '%s\n' "#!$TOOLS/sh" 'trap "echo trapped" USR1' 'touch ready' 'until test -e go; do sleep 0.1; done' 'exit 4' >job.sh
		job -o out job.sh
		eventually test -e ready
		scancel --batch --signal=USR1 "$number"
		eventually has_lines 1 trapped out
		touch go
		eventually ended "$number"
		job_field "$number" ExitCode
	}
	agree batched
	found trapped
	found 4:0
}

@test "scancel of a job: TERM to its tasks, and KILL to who does not mind" {
	cancelled() {
		printf '%s\n' "#!$TOOLS/sh" 'trap "echo TERM" TERM' 'touch ready' 'while :; do sleep 0.1; done' >job.sh
		job -o out job.sh
		eventually test -e ready
		scancel "$@" "$number"
		eventually ended "$number"
		stepds_ended
		job_field "$number" JobState
		# How often the trap is told depends on the time, and what the shell says of its sleep.
		sed -i '/^slurmstepd/d; /^Terminated/d; /^Killed/d' out
		sort -u -o out out
	}
	agree cancelled
	found CANCELLED
	found TERM
	agree cancelled --full
	found CANCELLED
}

@test "standard input: a pipe, a file, nothing, one task's, each task's" {
	from_pipe() { echo word | step -n1 sh -c 'cat; echo end'; }
	agree from_pipe
	found word
	to_all() { echo word | step -n3 -l sh -c 'cat; echo end' | sort; }
	agree to_all
	found '2: word'
	to_one() { echo word | step -n3 -l --input=1 sh -c 'cat; echo end' | sort; }
	agree to_one
	found '1: word'
	from_nothing() { step -n1 sh -c 'cat; echo end' </dev/null; }
	agree from_nothing
	found end
	none() { echo word | step -n1 --input=none sh -c 'cat; readlink /proc/self/fd/0 | sed "s/[0-9]//g"; echo end'; }
	agree none
	found end
	file() { echo text >in.file; chmod 644 in.file; step -n1 --input=in.file sh -c 'cat; echo end'; }
	agree file
	found text
	# Not here: --input=in.%t, after which srun of 22.05 itself waits until it gives up.
	to_batch() { alice env PATH="$TOOLS:/usr/bin:/bin" sbatch --parsable -w n1 "${image[@]}" -o out >number <<<$'#!/bin/sh\nreadlink /proc/self/fd/0; cat; echo end'
		eventually ended "$(<number)"; rm number; }
	agree to_batch
	found /dev/null
	batch_file() { echo text >in.file; chmod 644 in.file; printf '%s\n' "#!$TOOLS/sh" cat >job.sh; job -i in.file -o out job.sh; eventually ended "$number"; }
	agree batch_file
	found text
	# A reader who goes away early.
	half() { yes 2>/dev/null | head -n 100000 | step -n1 head -n 1; }
	agree half
	found y
}

@test "standard output and error: apart, labelled, in files, and a mebibyte of any bytes" {
	apart() { step -n1 sh -c 'echo out; echo err >&2; echo out'; }
	agree apart
	found err
	labelled() { step -n3 -l sh -c 'echo out; echo err >&2' | sort; }
	agree labelled
	found '2: out'
	in_files() { step -n2 --output=out.%t --error=err.%t sh -c 'echo out $SLURM_PROCID; echo err $SLURM_PROCID >&2'; }
	agree in_files
	found 'err 1'
	together() { step -n1 --output=out.%N sh -c 'echo out; echo err >&2'; }
	agree together
	# Only one task's.
	of_one() { step -n3 --output=1 sh -c 'echo out $SLURM_PROCID'; }
	agree of_one
	found 'out 1'
	no_newline() { step -n1 -l printf abc; step -n1 printf abc; step -n1 -u printf 'a\nb'; }
	agree no_newline
	head -c 1048576 /dev/urandom >"$dir/bytes"
	chmod 644 "$dir/bytes"
	bytes() { step -n1 cat "$dir/bytes" | md5sum; step -n1 cat <"$dir/bytes" | md5sum; step -n1 --output=file cat "$dir/bytes"; md5sum <file; rm file; }
	agree bytes
	found "$(md5sum <"$dir/bytes")"
	# Who reads is gone. Not here: a closed standard input or output, at which srun of 22.05 itself waits for ever.
	gone() { step -n1 sh -c 'i=0; while test $i -lt 2000; do echo line $i; i=$((i+1)); done' | head -n 1; }
	agree gone
	found 'line 0'
	batched() { printf '%s\n' "#!$TOOLS/sh" 'echo out' 'echo err >&2' >job.sh; job -o out -e err job.sh; eventually ended "$number"; }
	agree batched
	found '--- err'
}

@test "a terminal: its size and its name, a new size, and the exit code" {
	needs python3
	size() { in_terminal 33x101 -- -n1 --pty sh -c 'test -t 0 && test -t 1 && test -t 2 && echo tty; stty size; exit 9'; }
	agree size
	found '33 101'
	found 'status 9'
	resized() {
		# srun tells the task its size once at the start, sooner or later.
		in_terminal 33x101 await=first resize=44x120 'await=WINCH 44 120' -- -n1 --pty \
			sh -c 'trap "echo WINCH \$(stty size)" WINCH; echo first; until test "$(stty size)" = "44 120"; do sleep 0.1; done; sleep 0.5' >screen
		local status=$?
		grep -v 'WINCH 33 101' screen | sort -u
		rm screen
		return "$status"
	}
	agree resized
	found 'WINCH 44 120'
	killed() { in_terminal 33x101 -- -n1 --pty sh -c 'kill -TERM $$'; }
	agree killed
	found 'status 143'
	settings() { in_terminal 33x101 -- -n1 --pty sh -c 'stty -a; tty | sed "s/[0-9]*//g"; echo $TERM'; }
	agree settings
	found 'rows 33'
	# Not a terminal: the same terminal, without --pty.
	plain() { in_terminal 33x101 -- -n1 sh -c 'test -t 0 || echo no tty; test -t 1 || echo no tty'; }
	agree plain
	found 'no tty'
}

@test "a terminal: Ctrl-C, Ctrl-backslash and Ctrl-D reach who is in the foreground" {
	needs python3
	interrupted() { in_terminal 24x80 await=ready 'send=\x03' -- -n1 --pty sh -c 'trap "echo trapped; exit 8" INT; echo ready; sleep 20'; }
	agree interrupted
	found 'status 8'
	dead() { in_terminal 24x80 await=ready 'send=\x03' -- -n1 --pty sh -c 'echo ready; exec sleep 20'; }
	agree dead
	found 'status 130'
	quit() { in_terminal 24x80 await=ready 'send=\x1c' -- -n1 --pty sh -c 'echo ready; exec sleep 20'; }
	agree quit
	found 'status 131'
	ended_input() { in_terminal 24x80 await=ready 'send=line\n\x04' -- -n1 --pty sh -c 'echo ready; cat; echo end'; }
	agree ended_input
	found end
}

@test "a terminal: job control of an interactive shell" {
	needs python3
	# It says when it has got the terminal.
	printf '%s\n' 'trap "echo cont" CONT' 'echo run' 'while :; do sleep 0.1; done' >"$dir/told"
	controlled() {
		in_terminal 24x200 'await=$ ' "send=set -m; PS1=rea''dy:\n" await=ready: "send=sh ../told\n" await=run 'send=\x1a' await=Stopped await=ready: \
			'send=bg\n' await=cont 'send=\n' await=ready: 'send=jobs\n' await=Running await=ready: 'send=fg\n' await=cont 'send=\x03' \
			await=ready: 'send=echo status $?; exit 7\n' 'await=status 130' -- -n1 --pty sh -i >screen
		local status=$?
		grep -oE 'run|Stopped|Running|cont|status [0-9]+' screen
		rm screen
		return "$status"
	}
	agree controlled
	found Running
	found 'status 7'
}

@test "what a task has of its process: umask, priority, limits, processors, signals, groups, session" {
	local list='ulimit -a; ulimit -Ha; umask; cut -d" " -f18,19 /proc/$$/stat; grep -E "^(Uid|Gid|Groups|Umask|Sig(Blk|Ign|Cgt)|ShdPnd|Threads|Cpus_allowed|Mems_allowed|Seccomp)" /proc/$$/status'
	attributes() { step "$@" sh -c "$list"; }
	agree attributes -n1
	found 'Cpus_allowed_list'
	agree attributes -n1 --propagate=NONE
	agree attributes -n1 --propagate=NOFILE
	changed() { alice sh -c 'umask 027; ulimit -n 777; ulimit -s 4096; ulimit -c 0; exec /usr/bin/nice -n 5 "$@"' sh env PATH="$TOOLS:/usr/bin:/bin" srun -w n1 "${image[@]}" -n1 "$@" sh -c "$list"; }
	agree changed
	found 777
	found 0027
	agree changed --propagate=NONE
	agree attributes -n1 --nice=7
	related() {
		# In place of numbers, which ones are the same: process, parent's, group, session, terminal.
		step -n1 sh -c 'set -- $(sed "s/.*) //" /proc/$$/stat); test $3 = $$ && echo leads a group; test $4 = $$ && echo leads a session; test $3 = $4 && echo group is session; echo tty $5 $6; cut -d" " -f18,19,38 /proc/$$/stat; cat /proc/$$/oom_score_adj /proc/$$/comm; tr "\0" " " </proc/$$/cmdline | head -c 20'
	}
	agree related
	pid() { step -n2 sh -c 'test $SLURM_TASK_PID = $$ && echo is mine'; }
	agree pid
	found 'is mine'
	files() { step -n1 sh -c 'for fd in /proc/$$/fd/*; do echo "${fd##*/} $(readlink $fd | sed "s/[0-9]//g") $(sed -n "s/flags://p" /proc/$$/fdinfo/${fd##*/})"; done'; }
	agree files
	agree step -n1 --chdir=/tmp sh -c 'pwd; readlink /proc/$$/cwd'
	found /tmp
	agree step -n1 sh -c 'pwd; readlink /proc/$$/cwd; echo $PWD $OLDPWD'
	# What seccomp and no_new_privs say, on purpose, differs: a container never gives more rights (SECURITY.md).
	run step -n1 --container="$busybox" grep NoNewPrivs /proc/self/status
	[[ $output == *1 ]] || fail "$output"
}

# Numbers that are each step's own.
OWN='^(SLURM_(JOB_?ID|STEP_?ID|TASK_PID|STEP_LAUNCHER_PORT|SRUN_COMM_PORT|JOB_START_TIME|JOB_END_TIME|LAUNCH_NODE_IPADDR)|TMPDIR_OF_JOB)='
# What a contained task knows about its container and its store; an srun inside needs the two that begin with SLURM_CORACLE. The last is
# Slurm's own record of the option that these cases are given.
OURS_ONLY='^(CORACLE_IMAGE|CORACLE_NAME|CORACLE_ALLOWED_DIR|SLURM_CORACLE_STEPS|SLURM_CORACLE_OUTER|SLURM_SPANK__SLURM_SPANK_OPTION_coracle_container_env)='
# Slurm's commands stand in front; and where the job has no PATH to keep, the image's is there.
OUR_PATH='s#^PATH=/run/coracle/slurm/bin:#PATH=#; \#^PATH=/usr/local/sbin:#d'

@test "the environment: Slurm's variables, the locale's, DISPLAY and whatever else" {
	environment() {
		alice env PATH="$TOOLS:/usr/bin:/bin" LC_ALL=de_DE.UTF-8 LC_TIME=C LANGUAGE=de:en TZ=Europe/Berlin DISPLAY=login:10.0 \
			XAUTHORITY=/home/alice/.Xauthority "ODD NAME=x" EMPTY= NEWLINE=$'a\nb' LD_LIBRARY_PATH=/opt/lib OMP_NUM_THREADS=3 \
			srun -w n1 "${image[@]}" "$@" "$TOOLS/env" | grep -vE "$OWN" | grep -vE "$OURS_ONLY" | sed "$OUR_PATH" | sort
	}
	agree environment -n1
	found DISPLAY=login:10.0
	found XAUTHORITY=/home/alice/.Xauthority
	agree environment -n1 --export=NONE
	agree environment -n1 --export=DISPLAY,WORD=x
	found DISPLAY=login:10.0
	agree environment -n2 -c2 --ntasks-per-node=2 --mem=100 --cpu-bind=none --distribution=block
	found SLURM_CPUS_PER_TASK=2
	batched() {
		printf '%s\n' "#!$TOOLS/sh" env >job.sh
		number=$(alice env PATH="$TOOLS:/usr/bin:/bin" DISPLAY=login:10.0 LC_ALL=C sbatch --parsable -w n1 "${image[@]}" -o out job.sh)
		eventually ended "$number"
		grep -vE "$OWN" out | grep -vE "$OURS_ONLY" | sed "$OUR_PATH" | sort
		rm out
	}
	agree batched
	found DISPLAY=login:10.0
}

@test "X11: the file of XAUTHORITY is there, in the home and in /tmp" {
	echo cookie >/home/alice/.Xauthority
	chown alice:alice /home/alice/.Xauthority
	chmod 600 /home/alice/.Xauthority
	reads() { alice env XAUTHORITY="$1" DISPLAY=login:10 PATH="$TOOLS:/usr/bin:/bin" srun -w n1 "${image[@]}" -n1 sh -c 'stat -c "%a %U" "$XAUTHORITY"; cat "$XAUTHORITY"; echo $DISPLAY'; }
	agree reads /home/alice/.Xauthority
	found cookie
	on-node n1 install -o alice -g alice -m 600 /home/alice/.Xauthority /tmp/.Xauthority-x
	agree reads /tmp/.Xauthority-x
	found cookie
	on-node n1 rm /tmp/.Xauthority-x
	rm /home/alice/.Xauthority
	# The sockets of a display of the node.
	on-node n1 sh -c 'mkdir -m 1777 /tmp/.X11-unix && echo socket >/tmp/.X11-unix/X7'
	agree step -n1 cat /tmp/.X11-unix/X7
	on-node n1 rm -r /tmp/.X11-unix
	found socket
}

@test "commands that cannot be started" {
	missing() { step -n1 no-such-command; }
	agree missing
	found 'no-such-command: No such file or directory'
	absolute() { step -n1 /no/such/command; }
	agree absolute
	relative() { step -n1 ./no-such-command; }
	agree relative
	plain() { echo text >plain; chmod 644 plain; step -n1 ./plain; }
	agree plain
	found 'Permission denied'
	directory() { mkdir directory; step -n1 ./directory; rmdir directory; }
	agree directory
	interpreter() { printf '#!/no/such/interpreter -x\n' >script; chmod 755 script; step -n1 ./script; }
	agree interpreter
	found 'bad interpreter'
	garbage() { head -c 100 /dev/zero >garbage; chmod 755 garbage; step -n1 ./garbage; rm garbage; }
	agree garbage
	empty() { : >empty; chmod 755 empty; step -n1 ./empty; }
	agree empty
	# A script without #! is none for execve(2).
	bare() { echo 'echo run' >bare; chmod 755 bare; step -n1 ./bare; }
	agree bare
	many() { step -n3 no-such-command; }
	agree many
	batched() { printf '#!/no/such/interpreter\n' >job.sh; job -o out job.sh; eventually ended "$number"; job_field "$number" ExitCode; }
	agree batched
}

@test "tasks that end early or badly: --kill-on-bad-exit, --wait, and without" {
	killed() { step -n3 --kill-on-bad-exit=1 sh -c 'test $SLURM_PROCID != 1 || exit 5; sleep 100'; }
	agree killed
	found 'status'
	waited() { step -n2 --wait=1 sh -c 'test $SLURM_PROCID != 1 || exit 0; sleep 100'; }
	agree waited
	patient() { step -n3 --kill-on-bad-exit=0 sh -c 'test $SLURM_PROCID != 1 || exit 5; sleep 0.5; echo went on'; }
	agree patient
	found 'went on'
	found 'status 5'
}

@test "--bcast, --multi-prog, and arguments as they are" {
	cast() {
		printf '%s\n' "#!$TOOLS/sh" 'echo sent $1; case $0 in */script) echo not copied;; esac' >script
		chmod 755 script
		mkdir -m 777 to
		step -n1 "--bcast=$1" ./script word
		rm -rf to slurm_bcast_*
		on-node n1 rm -f /tmp/coracle-cast
	}
	agree cast /tmp/coracle-cast
	found 'sent word'
	agree cast to/
	found 'sent word'
	programs() { printf '%s\n' '0 sh -c exit' '1 echo rank %t offset %o' '2 no-such-command' >programs; chmod 644 programs; step -n3 -l --multi-prog programs | sort; return "${PIPESTATUS[0]}"; }
	agree programs
	found '1: rank 1 offset 0'
	argument() { step -n1 "$@"; }
	agree argument printf '%s|' a '' 'b c' "d'e" $'f\ng' '*' '$HOME' '\n' 'ü'
	found "a||b c|d'e|f"
	agree argument -D "$TOOLS" ./echo here
	found here
	several() { step -n2 sh -c 'echo $0 $# "$@"' name one two; }
	agree several
	found 'name 2 one two'
}

@test "a job in a job: steps one after another and at once" {
	steps() {
		printf '%s\n' '#!/bin/sh' "srun ${image[*]} -n1 sh -c 'echo one; exit 3'" 'echo status $?' \
			"srun ${image[*]} -n2 -l sh -c 'echo two \$SLURM_STEP_ID'" 'echo status $?' \
			"srun ${image[*]} --overlap -n1 sh -c 'sleep 0.2; exit 4' & srun ${image[*]} --overlap -n1 sh -c 'exit 5'; echo status \$?; wait \$!; echo status \$?" >job.sh
		number=$(alice env PATH="$TOOLS:/usr/bin:/bin" sbatch --parsable -w n1 -n2 -o out job.sh)
		eventually ended "$number"
	}
	agree steps
	found 'status 3'
	found 'status 4'
}

@test "the time limit: the signal asked for, then TERM, then KILL" {
	# Slurm looks twice a minute, so the two are at it together, and only with the plugin loaded.
	local side names=() image
	listen
	for side in unused used; do
		image=()
		[[ $side == unused ]] || image=(--container="$busybox")
		install -d -o alice -g alice "$dir/$side.d"
		cd "$dir/$side.d"
		printf '%s\n' "#!$TOOLS/sh" 'trap "echo USR1" USR1' 'trap "echo TERM" TERM' 'touch ready' 'while :; do sleep 0.1; done' >job.sh
		job --signal=B:USR1@60 -t 1 -o out job.sh
		names+=("$number")
		eventually test -e ready
	done
	local end=$((SECONDS + 110))
	until ended "${names[0]}" && ended "${names[1]}"; do
		((SECONDS < end)) || { fail 'the time limit ended nothing'; return; }
		sleep 0.5
	done
	stepds_ended
	eventually started
	for side in 0 1; do job_field "${names[side]}" JobState; job_field "${names[side]}" ExitCode; done >states
	[[ $(<states) == $'TIMEOUT\n0:15\nTIMEOUT\n0:15' || $(sed -n 1,2p states) == $(sed -n 3,4p states) ]] || fail "$(<states)"
	# The shell tells of a child process that was killed only if that came before its own end.
	without_numbers <"$dir/unused.d/out" | sed '/^Killed$/d; /^Terminated$/d' >unused
	without_numbers <"$dir/used.d/out" | sed '/^Killed$/d; /^Terminated$/d' >used
	grep -qx USR1 used || fail "$(<used)"
	grep -qx TERM used || fail "$(<used)"
	diff unused used
}
