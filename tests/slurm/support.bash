# Loaded by each test file: running things as alice, and what must be true before and after every test.
# shellcheck shell=bash disable=SC2034,SC2154

# What every container shows of the image, and nothing else of the machine has.
MARK='coracle test image'

setup() {
	in_own_directory
}

# For a setup of a test file's own, too.
in_own_directory() {
	cd /scratch || return
	busybox=$IMG/busybox-zstd.sif
	# A directory of alice's for this test, on all nodes.
	dir=/scratch/t$BATS_SUITE_TEST_NUMBER
	rm -rf "$dir"
	install -d -o alice -g alice "$dir"
	cd "$dir" || return
}

teardown() {
	cleanup
	restore
	cd /scratch || return
	rm -rf "$dir"
	[[ -z $(squeue --noheader) ]] || scancel --user=alice 2>/dev/null || true
	healthy
}

# What a test file has to put right; it may define its own.
cleanup() { :; }

restore() {
	local file=/etc/coracle/coracle.yaml
	# A test may have put anything there, also what must not be opened.
	if [[ -L $file || ! -f $file ]] || ! cmp -s "$SUITE/coracle.yaml" "$file"; then
		rm -rf "$file"
		cp -a "$SUITE/coracle.yaml" "$file"
	fi
	cmp -s "$SUITE/coracle.conf" /etc/slurm/plugstack.conf.d/coracle.conf ||
		cp -a "$SUITE/coracle.conf" /etc/slurm/plugstack.conf.d/coracle.conf
	chown root:root /etc/coracle "$file"
	chmod 755 /etc/coracle
	chmod 644 "$file"
}

# The limit is far above what anything here takes: a command that hangs must not stop all tests.
alice() { # COMMAND...
	timeout --foreground 120 as -d "$PWD" alice "$@"
}

# Fails the test, and says why.
fail() { # TEXT...
	printf '%s\n' "$@" >&2
	return 1
}

# Without srun's two lines about a job that waits for its nodes. Whether they come depends on how soon slurmctld is done
# with the job before.
without_waiting() {
	sed -E '/^srun: job [0-9]+ (queued and waiting for resources|has been allocated resources)$/d'
}

# `run` as alice; the command has to end with 0.
good() { # COMMAND...
	run alice "$@"
	((status == 0)) || { fail "status $status of: $*" "$output"; return; }
	[[ $output == *'srun: job '* ]] || return 0
	output=$(without_waiting <<<"$output")
	mapfile -t lines < <(sed '/^$/d' <<<"$output")
}

# The output is exactly this.
prints() { # TEXT
	[[ $output == "$1" ]] || fail "wanted: $1" "found:  $output"
}

# The output has a line that is exactly this.
has_line() { # TEXT
	grep -qxF -- "$1" <<<"$output" || fail "no line: $1" "in: $output"
}

has() { # TEXT
	[[ $output == *"$1"* ]] || fail "nowhere: $1" "in: $output"
}

has_not() { # TEXT
	[[ $output != *"$1"* ]] || fail "should not be there: $1" "in: $output"
}

# Waits for something that another process does.
eventually() { # COMMAND...
	local end=$((SECONDS + 20))
	until "$@"; do
		((SECONDS < end)) || { fail "never came true: $*"; return; }
		sleep 0.05
	done
}

# What Slurm itself says when a step ends with an error or is ended, and a rank whose PMIx server goes first.
SLURMS_OWN='^(Submitted batch job [0-9]+|srun: error: n[0-9].*: tasks? [0-9,-]+: (Exited with exit code [0-9]+|Killed|Terminated)|srun: launch/slurm: .*|srun: Job step aborted.*|srun: Force Terminated .*|srun: (Terminating|job) .*|(srun|sbatch|salloc): error: spank: required plugin spank_coracle\.so: init(_post_opt)?\(\) failed.*|(srun|sbatch|salloc): error: Plug-in initialization failed\.?|(srun|sbatch|salloc): error: Plugin stack post-option processing failed\.?|(slurmstepd(-n[0-9])?:|\[[0-9T:.-]+\]) error: \*\*\* (STEP|JOB) .*|srun: StepId=.* aborted before step completely launched\.|srun: error: Timed out waiting for job step to complete|\[n[0-9]:[0-9]+\] PMIX ERROR: UNREACHABLE in file .*|)$'
# From 25.05 on, slurmstepd's lines begin with the time and not with its name.
OURS='^((slurmstepd(-n[0-9])?|srun|sbatch|salloc):|\[[0-9T:.-]+\]) error: coracle: '

# TEXT and nothing else is our one line on the terminal, and one hint at most; the node is as before.
# nodes=N says on how many nodes; at=submit that the command itself refuses, at=node that the tasks do. The first node
# that refuses ends the step, so of a slower one nothing may be heard.
refused() { # KIND TEXT COMMAND...
	local kind=$1 text=$2
	shift 2
	run alice "$@"
	((status != 0)) || { fail "not refused: $*" "$output"; return; }
	said "$kind" "$text" || { fail "status $status of: $*"; return; }
	case $at in
	node) ((status == 125)) || some_were_killed || { fail "status $status, not 125, of: $*" "$output"; return; } ;;
	submit) [[ $output != *slurmstepd* ]] || { fail 'the node refused, not the command' "$output"; return; } ;;
	esac
	healthy
}

# The text of $output is a refusal: one line a node, one hint at most, nothing else but Slurm's own.
said() { # KIND TEXT
	local kind=$1 text=$2 lines hints others line
	lines=$(grep -E "$OURS" <<<"$output" | grep -vE "${OURS}hint: " || true)
	hints=$(grep -cE "${OURS}hint: " <<<"$output" || true)
	others=$(grep -vE "$OURS" <<<"$output" | grep -vE "$SLURMS_OWN" || true)
	[[ $(grep -c . <<<"$lines") == "${nodes:-1}" ]] || some_were_killed ||
		{ fail "not ${nodes:-1} line(s) of ours:" "$output"; return; }
	((hints <= ${nodes:-1})) || { fail 'more than one hint:' "$output"; return; }
	[[ -z $others ]] || { fail 'and this besides:' "$others" 'in:' "$output"; return; }
	while IFS= read -r line; do
		[[ $line == *" error: coracle: "*" [$kind]" ]] || { fail "not of kind [$kind]: $line"; return; }
		[[ $line == *"$text"* ]] || { fail "wanted: $text" "found:  $line"; return; }
	done <<<"$lines"
}

# Each of several nodes (nodes=N) has said one line of ours, or srun tells that its tasks were ended; at least one has.
some_were_killed() {
	local node silent=0
	((${nodes:-1} > 1)) || return
	for node in $(seq -f n%g "$nodes"); do
		if grep -qE "$(ours_of "$node")" <<<"$output"; then
			[[ $(grep -E "$(ours_of "$node")" <<<"$output" | grep -cv 'coracle: hint: ') == 1 ]] || return
		else
			# What it says while its step is being ended may be lost.
			grep -qE "^srun: error: $node: tasks? [0-9,-]+: (Killed|Exited with exit code 125)" <<<"$output" || return
			silent=$((silent + 1))
		fi
	done
	((silent < nodes))
}

# Our lines from one node: Slurm says its name in front of them, or they say it themselves.
ours_of() { # NODE
	echo "^slurmstepd-$1: error: coracle: |^\\[[0-9T:.-]+\\] error: coracle: .* \\(node $1\\) \\["
}

# Slurm's release in this cluster, as 22.05.
slurm_release() {
	srun --version | sed -E 's/^slurm(-wlm)? ([0-9]+\.[0-9]+).*/\2/'
}

# This Slurm is of that release or a later one.
since() { # RELEASE
	[[ ! $(slurm_release) < $1 ]]
}

# Debian builds Slurm without mpi/pmix in some releases. Nothing else may be missing.
needs_pmix() {
	srun --mpi=list 2>&1 | grep -qw pmix || skip "not there: Slurm $(slurm_release) of this tree has no mpi/pmix"
}

# Debian 11's squashfuse has no squashfuse_ll, by which users read images outside of jobs. Nothing else may be missing.
needs_squashfuse() {
	since 22.05 || type -P squashfuse_ll >/dev/null || skip 'not there: the squashfuse of this tree has no squashfuse_ll'
	needs squashfuse_ll
}

# slurmstepd of NODE has said a line with TEXT. From 25.05 on only our own lines name the node.
node_said() { # NODE TEXT
	local lines
	lines=$(grep -E "^slurmstepd-$1: error: |^\[[0-9T:.-]+\] error: " <<<"$output" | grep -F -- "$2")
	[[ -n $lines ]] || { fail "$1 did not say: $2" "in: $output"; return; }
	! since 25.05 || [[ $lines != *'error: coracle: '* || $lines == *"(node $1)"* ]] || fail "not of $1: $lines"
}

# The refusal of a batch job: in its output file, and the job has failed.
refused_batch() { # KIND TEXT SBATCH-ARGUMENT...
	local kind=$1 text=$2 job
	shift 2
	job=$(alice sbatch --parsable -o "$dir/batch.out" "$@") || { fail "sbatch itself refused: $*"; return; }
	eventually ended "$job" || return
	[[ $(job_field "$job" JobState) == FAILED ]] || { fail "not FAILED: $(job_field "$job" JobState)"; return; }
	[[ $(job_field "$job" ExitCode) == 125:0 ]] || { fail "not 125: $(job_field "$job" ExitCode)"; return; }
	output=$(<"$dir/batch.out")
	said "$kind" "$text" && healthy
}

# A batch job that runs to its end; $output is what it wrote, $job its number. sbatch has the variables=(NAME=VALUE...).
batch() { # SBATCH-ARGUMENT...
	job=$(alice env "${variables[@]}" sbatch --parsable -o "$dir/batch.out" "$@") || { fail "sbatch: $*"; return; }
	eventually ended "$job" || return
	output=$(<"$dir/batch.out")
	[[ $(job_field "$job" JobState) == COMPLETED ]] || fail "job is $(job_field "$job" JobState)" "$output"
}

# A script of alice's in the test's directory.
job_script() { # NAME TEXT
	printf '%s\n' '#!/bin/sh' "$2" >"$dir/$1"
	chown alice:alice "$dir/$1"
	chmod 755 "$dir/$1"
}

job_field() { # JOB FIELD
	scontrol --oneliner show job "$1" | tr ' ' '\n' | sed -n "s/^$2=//p"
}

ended() { # JOB
	[[ $(job_field "$1" JobState) =~ ^(COMPLETED|FAILED|CANCELLED|TIMEOUT|NODE_FAIL)$ ]]
}

# Bytes written over a copy of an image.
patched() { # FROM TO OFFSET BYTES-AS-PRINTF [OFFSET BYTES]...
	local from=$1 to=$2
	shift 2
	cp "$from" "$to"
	while (($#)); do
		# shellcheck disable=SC2059
		printf "$2" | dd of="$to" bs=1 seek="$1" conv=notrunc status=none
		shift 2
	done
}

# coracle.yaml with this text; restored after the test.
configure() { # TEXT
	printf '%s\n' "$1" >/etc/coracle/coracle.yaml
}

plugstack() { # ARGUMENTS
	echo "required /usr/lib/coracle/spank_coracle.so $1" >/etc/slurm/plugstack.conf.d/coracle.conf
}

# More lines for slurm.conf, until slurm_conf_as_before: in setup_file and teardown_file. A slurmd has read them a little
# later than the controller.
slurm_conf() { # LINE...
	[[ -e $SUITE/slurm.conf ]] || cp -a "$ETC_SLURM/slurm.conf" "$SUITE/slurm.conf"
	{ cat "$SUITE/slurm.conf"; printf '%s\n' "$@"; } >"$ETC_SLURM/slurm.conf"
	scontrol reconfigure
}

slurm_conf_as_before() {
	cp -a "$SUITE/slurm.conf" "$ETC_SLURM/slurm.conf"
	scontrol reconfigure
}

node_pid() { # NODE
	cat "/run/cluster/$1.pid"
}

mounts_of() { # PID
	cut -d' ' -f3- "/proc/$1/mountinfo"
}

mounts_of_all() {
	local node
	echo ctl
	mounts_of $$
	for node in n1 n2 n3; do
		echo "$node"
		mounts_of "$(node_pid "$node")"
	done
}

# The loop devices on files of this cluster; another cluster's, or the machine's own, are not ours.
loops() {
	local ours
	ours=" $(cut -d' ' -f3 /proc/self/mountinfo "/proc/$(node_pid n1)/mountinfo" "/proc/$(node_pid n2)/mountinfo" \
		"/proc/$(node_pid n3)/mountinfo" | sort -u | tr '\n' ' ') "
	losetup --list --noheadings --raw --output BACK-MAJ:MIN,NAME,BACK-FILE | while read -r device rest; do
		# It is padded with blanks, which are escaped.
		device=${device//\\x20/}
		[[ $ours != *" $device "* ]] || echo "$rest"
	done
}

no_loops() { [[ -z $(loops) ]]; }
# coracle, coracle-launcher and coracle-verify as pgrep knows them: by 15 characters, with a pattern of no more.
PROGRAMS='cor.*(le|he|fy)'
no_launcher() { ! pgrep -x "$PROGRAMS" >/dev/null; }
# Of images that squashfuse_ll reads; by its own name and that of the process that guards it.
no_squashfuse() { ! pgrep -x squashfuse_ll >/dev/null; }
no_watch() { ! pgrep -x coracle-watch >/dev/null; }
no_stepd() { ! pgrep -x slurmstepd >/dev/null; }
# About 1 in 40 killed PMIx steps, bare or contained, leaves a slurmstepd that waits for a lock in PMIx_server_finalize
# for ever (libpmix 4.2.2). One that has no task, and nothing of ours on its stacks, is ended here and told of.
stepds_ended() {
	local pid stacks
	eventually no_stepd 2>/dev/null && return
	for pid in $(pgrep -x slurmstepd); do
		stacks=$(eu-stack -m -p "$pid" 2>/dev/null)
		if [[ $stacks != *PMIx_server_finalize* || $stacks == *coracle* ]] || pgrep -P "$pid" >/dev/null; then
			fail "a slurmstepd is left: $pid" "$stacks"
			return
		fi
		echo "# slurmstepd $pid hung in PMIx_server_finalize, and was ended" >&3
		kill -KILL "$pid"
	done
	eventually no_stepd
}
no_tasks() { ! pgrep -u 2001,2002 >/dev/null; }
same_mounts() { mounts_of_all | cmp -s - "$SUITE/mounts"; }
nodes_well() { [[ -z $(sinfo --noheader --Node --states drain,down,fail,no_respond,unknown) ]]; }

# Nothing of ours is left, and no node has been hurt. Waits for what ends by itself in a moment.
healthy() {
	local what node bad=''
	if ! nodes_well; then
		bad=$(sinfo --noheader --Node --format '%N %T %E' --partition main)
		for node in n1 n2 n3; do scontrol update nodename="$node" state=resume 2>/dev/null; done
		fail 'a node was hurt:' "$bad"
		return
	fi
	stepds_ended || bad=' no_stepd'
	for what in no_tasks no_launcher no_squashfuse no_watch no_loops same_mounts; do
		eventually "$what" || bad+=" $what"
	done
	if [[ -n $bad ]]; then
		fail "left behind: $(pgrep -la coracle; pgrep -la -u 2001,2002)" "$(loops)" \
			"$(mounts_of_all | diff "$SUITE/mounts" -)"
		# The next test must not suffer for it. These users exist in the cluster only, which sees its own processes only.
		for what in $(pgrep -u 2001,2002) $(pgrep -x slurmstepd); do kill -KILL "$what" 2>/dev/null; done
		return 1
	fi
}

# A program of this directory's, compiled into the test's. The cluster has another "as" than gcc means.
compiled() { # SOURCE PROGRAM COMPILER-ARGUMENT...
	needs gcc || return
	PATH=/usr/bin:/bin gcc -O2 -Wall -Werror -o "$dir/$2" "$BATS_TEST_DIRNAME/$1" "${@:3}"
}

# What must be there for a test: where the tests must work, it is a failure that it is not.
needs() { # TOOL...
	local tool
	for tool; do
		type "$tool" >/dev/null 2>&1 && continue
		[[ -z ${CORACLE_MUST_WORK:-} ]] || { fail "$tool is missing"; return; }
		skip "$tool is missing"
	done
}

# An image made by Apptainer; these lie beside the repository and may be absent.
real() { # NAME
	[[ -n $REAL && -e $REAL/$1 ]] || skip "$1 is not there: the images made by Apptainer lie beside the repository"
	cp "$REAL/$1" "$dir/$1"
	chmod 644 "$dir/$1"
}
