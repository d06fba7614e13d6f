# Loaded by the tests of devices, after support: what each task of a step can open of the make-believe GPUs.
# The same questions are asked of a bare step and of one in a container: the arguments of srun make the difference.
# shellcheck shell=bash disable=SC2034,SC2154

# What open says of a node that a task was not given: of a bare one EPERM, by its control group. In a container the node
# need not be there at all.
DENIED='EPERM'

setup_file() {
	install -m 755 /usr/local/bin/{try-open,cuda-probe,rocm-probe} "$IMG"
	cat >"$IMG/look" <<-'LOOK'
	#!/bin/sh
	# look PROGRAM TOGETHER MARKS DIRECTORY NODE...: what came of opening each, after who asks and what Slurm says it has.
	program=$1 together=$2 marks=$3 directory=$4
	shift 4
	who=$SLURMD_NODENAME/$SLURM_JOB_ID.${SLURM_STEP_ID:-batch}/$SLURM_PROCID
	# Slurm sets one of the two, and leaves alone what a user exports as the other. An interactive step, 4294967290, has
	# that of its job, as a batch script has.
	# Since 26.05 a batch script has the number -5.
	step=${SLURM_STEP_ID:--5}
	if [ "$step" -ge 0 ] && [ "$step" -lt 4294967290 ]; then granted=${SLURM_STEP_GPUS:--}; else granted=${SLURM_JOB_GPUS:--}; fi
	wait_for_all() {
		[ "$together" = 0 ] || : >"$marks/$1.$(echo "$who" | tr / _)"
		for try in $(seq 400); do
			[ "$(ls "$marks" | grep -c "^$1\.")" -lt "$together" ] || return 0
			sleep 0.05
		done
		echo "$who: the others never came"
	}
	wait_for_all begun
	if [ "$directory" != /dev ]; then
		echo $$ >"$marks/pid.$SLURM_PROCID"
		for try in $(seq 400); do [ ! -e "$directory/planted" ] || break; sleep 0.05; done
		for node; do shift; set -- "$@" "$directory/${node#/dev/}"; done
	fi
	"$program" "$@" | sed "s|^|$who $granted |"
	wait_for_all done
	LOOK
	chmod 755 "$IMG/look"
}

# One line a unit that Slurm deals out, in the order of their numbers: its nodes.
units() {
	local line kind first last prefix i
	while read -r line; do
		for kind in ${line%%#*}; do
			case $kind in
			MultipleFiles=*) kind=${kind#*=}; echo "${kind//,/ }" ;;
			File=*\[*) # PREFIX[FIRST-LAST]
				prefix=${kind#*=} prefix=${prefix%%\[*}
				kind=${kind#*\[} kind=${kind%\]}
				first=${kind%-*} last=${kind#*-}
				for ((i = first; i <= last; i++)); do echo "$prefix$i"; done
				;;
			esac
		done
	done <"$ETC_SLURM/gres.conf"
}

# All nodes that are some unit's.
dealt_nodes() {
	units | tr ' ' '\n' | sort -u
}

# The command of a step: "${command[@]}" is to be given to srun. together=N: N tasks, of whatever steps, open them at the
# same time; directory=DIRECTORY: not those in /dev.
look_command() {
	local nodes
	mapfile -t nodes < <(dealt_nodes)
	install -d -o alice -g alice "$dir/marks"
	rm -f "$dir"/marks/*
	command=("$IMG/look" "$IMG/try-open" "${together:-0}" "$dir/marks" "${directory:-/dev}" "${nodes[@]}")
}

# A step, each task of which tries all nodes; a line of $output is "WHERE/JOB.STEP/TASK UNITS NODE RESULT".
look() { # SRUN-ARGUMENT...
	local command
	look_command
	good srun "$@" "${command[@]}"
}

# As look, but the tasks try nodes that root of the node has made in a directory of theirs, whatever is in their /dev.
# Only for steps in a container: a bare task has the node's own mounts.
look_planted() { # NODE TASKS SRUN-ARGUMENT...
	local command directory=/var/tmp node=$1 tasks=$2 step i nodes pids=()
	shift 2
	mapfile -t nodes < <(dealt_nodes)
	look_command
	alice srun -w "$node" -n "$tasks" "$@" "${command[@]}" >planted.out 2>&1 &
	step=$!
	for ((i = 0; i < tasks; i++)); do
		eventually test -s "marks/pid.$i" || { wait "$step"; cat planted.out >&2; return 1; }
		pids+=("$(<"marks/pid.$i")")
	done
	# Tasks of a step may share a mount namespace; a line for each, with one of its processes.
	for i in "${pids[@]}"; do echo "$(readlink "/proc/$i/ns/mnt") $i"; done | sort -u -k1,1 >namespaces
	while read -r _ i; do
		on-node "$node" plant-nodes "$i" "$directory" "${nodes[@]}" </dev/null || return
	done <namespaces
	wait "$step" || { fail "$(<planted.out)"; return; }
	output=$(sed "s|$directory/|/dev/|" planted.out)
}

# All tasks that $output tells of, or those whose WHO matches, have opened each node of these units (their numbers with
# commas, or - for none), and no other.
opened_just() { # UNITS [WHO]
	local who path result wanted tried=0 wrong=0 missing=0 lines=0
	wanted=" $(nodes_of "$1" | tr '\n' ' ')"
	while read -r who _ path result; do
		# shellcheck disable=SC2053
		[[ $who == ${2:-*} ]] || continue
		lines=$((lines + 1)) tried=$((tried + 1))
		if [[ $wanted == *" $path "* ]]; then
			[[ $result == ENXIO ]] || { missing=$((missing + 1)); echo "$who could not open $path: $result" >&2; }
		elif [[ ! $result =~ ^($DENIED)$ ]]; then
			wrong=$((wrong + 1))
			echo "$who opened $path: $result" >&2
		fi
	done <<<"$output"
	figure "$tried" "$wrong"
	((lines && !wrong && !missing)) || fail "of $lines nodes $wrong wrongly opened, $missing given and not opened:" "$output"
}

nodes_of() { # UNITS
	local i all
	mapfile -t all < <(units)
	for i in ${1//[,-]/ }; do tr ' ' '\n' <<<"${all[i]}"; done | sort -u
}

# Each task has opened what Slurm's variable says, and no other.
opened_as_granted() {
	local who granted
	while read -r who granted; do
		opened_just "$granted" "$who" || return
	done < <(awk '{ print $1, $2 }' <<<"$output" | sort -u)
}

# How many tasks $output tells of, and how many different grants they had.
counts() { # TASKS GRANTS
	local tasks grants
	tasks=$(awk '{ print $1 }' <<<"$output" | sort -u | wc -l)
	grants=$(awk '{ print $2 }' <<<"$output" | sort -u | wc -l)
	((tasks == $1 && grants == $2)) || fail "wanted $1 tasks with $2 grants, not $tasks with $grants:" "$output"
}

# Counted in a file, as a check may run in a subshell.
figure() { # TRIED WRONG
	echo "$1 $2" >>"$BATS_TEST_TMPDIR/figure"
}

cleanup() {
	[[ ! -e $BATS_TEST_TMPDIR/figure ]] ||
		awk '{ tried += $1; wrong += $2 } END { print "# devices tried: " tried ", wrongly opened: " wrong }' "$BATS_TEST_TMPDIR/figure" >&3
}

# The same in a bare step and in a container; what is run uses "${container[@]}". Not to be called where `set -e` is off.
bare_and_contained() { # COMMAND...
	local container=() DENIED=EPERM
	echo 'in a bare step:'
	"$@"
	container=(--container="$busybox") DENIED='EPERM|ENOENT'
	echo 'in a container:'
	"$@"
}

# As bare_and_contained, where Slurm confines no bare step.
contained() { # COMMAND...
	local container=(--container="$busybox") DENIED='EPERM|ENOENT'
	"$@"
}

# The questions themselves.

of_a_step() {
	look -N1 "${container[@]}"
	opened_just -
	counts 1 1
	look -N2 -n4 --ntasks-per-node=2 --gres=gpu:2 "${container[@]}"
	opened_just 0,1
	opened_as_granted
	counts 4 1
	look -N1 --gres=gpu:1 "${container[@]}"
	opened_just 0
	opened_as_granted
}

of_two_jobs() {
	local command together=2 first second
	look_command
	alice srun -N1 -w n1 --gres=gpu:1 "${container[@]}" "${command[@]}" >first 2>&1 &
	first=$!
	alice srun -N1 -w n1 --gres=gpu:1 "${container[@]}" "${command[@]}" >second 2>&1 &
	second=$!
	wait "$first" || fail "$(cat first)"
	wait "$second" || fail "$(cat second)"
	output=$(cat first second)
	opened_as_granted
	counts 2 2
}

of_two_steps() {
	local command together=2
	look_command
	job_script job.sh "srun -n1 --exact --gres=gpu:1 ${container[*]} ${command[*]} &
		srun -n1 --exact --gres=gpu:1 ${container[*]} ${command[*]} & wait"
	batch -N1 -n2 --gres=gpu:2 job.sh
	opened_as_granted
	counts 2 2
}

of_a_batch_script() {
	local command
	look_command
	job_script job.sh "exec ${command[*]}"
	batch -N1 --gres=gpu:1 "${container[@]}" job.sh
	opened_just 0
	opened_as_granted
	batch -N1 "${container[@]}" job.sh
	opened_just -
}

of_a_step_without() {
	local command
	look_command
	job_script job.sh "srun --gres=none ${container[*]} ${command[*]}"
	batch -N1 --gres=gpu:2 job.sh
	opened_just -
}

with_exports() {
	local variables=(SLURM_STEP_GPUS=1 SLURM_JOB_GPUS=1) command
	look_command
	good env "${variables[@]}" srun -N1 "${container[@]}" "${command[@]}"
	opened_just -
	opened_as_granted
	good env "${variables[@]}" srun -N1 --gres=gpu:1 "${container[@]}" "${command[@]}"
	opened_just 0
	opened_as_granted
	job_script job.sh "exec ${command[*]}"
	batch -N1 "${container[@]}" job.sh
	opened_just -
	opened_as_granted
	batch -N1 --gres=gpu:1 "${container[@]}" job.sh
	opened_just 0
	opened_as_granted
}
