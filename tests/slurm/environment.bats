# What tasks find in their environment, and what an image's scripts may do about it.
load support

env=$IMG/env.sif
sourcing=$IMG/sourcing.sif

# What an image's 90-environment.sh sources, and a task of that image that says what came of it.
script() { # TEXT
	printf '%s\n' "$1" >"$dir/env.sh"
	chmod 644 "$dir/env.sh"
}
on-all-nodes() { # SCRIPT
	local node
	for node in n1 n2 n3; do on-node "$node" sh -c "$1" || return; done
}
sourced() { # SRUN-ARGUMENT...
	good env ENV_SCRIPT="$dir/env.sh" srun "$@"
}

cleanup() {
	unset TMPDIR XDG_RUNTIME_DIR
	on-all-nodes 'rm -rf /srv/coracle-own* /tmp/coracle-own /run/user/2001'
}

@test "the table: host, image, what no image changes, and what Coracle sets" {
	good env LD_LIBRARY_PATH=/host/lib LD_PRELOAD= MINE=1 KEPT=hosts GONE=1 ASKED=1 LC_TIME=C \
		srun -n1 --container="$env" sh -c 'for name in PATH LD_LIBRARY_PATH LD_PRELOAD MINE IMAGE_SAYS KEPT GONE ANSWER ONLY_SHELL \
			LANG LC_ALL LC_TIME HOME USER PMIX_RANK CORACLE_IMAGE CORACLE_NAME CORACLE_DIGEST; do
			eval "echo $name=\${$name-unset}"; done | sed s,=/run/coracle/slurm/bin:,=,; [ "$SLURM_JOB_ID" -gt 0 ] && echo a job'
	prints "PATH=/opt/image/bin:/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin
LD_LIBRARY_PATH=/opt/image/lib
LD_PRELOAD=unset
MINE=1
IMAGE_SAYS=from the image
KEPT=hosts
GONE=unset
ANSWER=yes
ONLY_SHELL=unset
LANG=C.UTF-8
LC_ALL=unset
LC_TIME=C
HOME=/home/alice
USER=alice
PMIX_RANK=unset
CORACLE_IMAGE=$env
CORACLE_NAME=env
CORACLE_DIGEST=unset
a job"
	good srun -n1 --container="$env" sh -c 'echo $KEPT ${ANSWER-unset}'
	prints 'image default unset'
}

@test "an image that says nothing has the default PATH" {
	good env LD_LIBRARY_PATH=/host srun -n1 --container="$busybox" sh -c 'echo ${PATH#/run/coracle/slurm/bin:}; echo ${LD_LIBRARY_PATH-unset}'
	prints $'/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nunset'
}

@test "CORACLE_IMAGE, CORACLE_NAME and CORACLE_DIGEST are set, whatever the submitter has, and never read" {
	good env CORACLE_IMAGE=/no/such CORACLE_NAME=x CORACLE_DIGEST=sha256:x srun -n1 --container="$env" \
		sh -c 'echo $CORACLE_IMAGE $CORACLE_NAME ${CORACLE_DIGEST-unset}'
	prints "$env env unset"
	good env CORACLE_IMAGE=/no/such srun -n1 echo host
	prints host
}

@test "APPTAINERENV_ and SINGULARITYENV_ set variables, are not seen themselves, and do not touch Slurm's" {
	good env APPTAINERENV_A=1 SINGULARITYENV_A=2 SINGULARITYENV_B='x y' APPTAINERENV_IMAGE_SAYS=prefix APPTAINERENV_SLURM_JOB_ID=9 \
		APPTAINERENV_HOME=/x APPTAINERENV_PREPEND_PATH=/front APPTAINERENV_APPEND_PATH=/back \
		srun -n1 --container="$env" sh -c 'echo "$A|$B|$IMAGE_SAYS|$HOME|${PATH#/run/coracle/slurm/bin:}"; [ $SLURM_JOB_ID != 9 ] && echo right; env | grep -c "^APPTAINERENV_\|^SINGULARITYENV_"; true'
	prints $'1|x y|prefix|/home/alice|/front:/opt/image/bin:/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/back\nright\n0'
	good env APPTAINERENV_A=1 srun -n1 --container="$env" --container-env=A=2 sh -c 'echo $A'
	prints 2
}

@test "plain scripts need no process: nothing of the image runs before the task" {
	good srun -n4 --container="$IMG/shell-less-plain.sif" /bin/env
	[[ $(grep -cx IMAGE_SAYS=plain <<<"$output") == 4 ]] || fail "$output"
	has_not 'coracle: note'
}

@test "an image without a shell: what is not plain is named once a node, and the job runs" {
	good srun -N2 -n8 --container="$IMG/shell-less-logic.sif" /bin/env
	[[ $(grep -c "coracle: note: $IMG/shell-less-logic.sif: /.singularity.d/env/50-logic.sh: line 1: .* is not a plain export, and the image has no /bin/sh" <<<"$output") == 2 ]] || fail "$output"
	[[ $(grep -cx IMAGE_SAYS=plain <<<"$output") == 8 ]]
	[[ $(grep -cx AFTER=yes <<<"$output") == 8 ]]
	! grep -q ^FROM_COMMAND= <<<"$output" || fail "$output"
}

@test "scripts with logic run in the image's shell, as the user, inside, once for a node and step" {
	script "echo \"\$(id -u) \$(cat /etc/image-only) \$(hostname)\" >>$dir/ran
case x in x) export CASE=matched;; esac
export WHO=\$(id -u)-\$(id -g)
for i in 1 2 3; do COUNT=\$COUNT\$i; done; export COUNT"
	chown alice "$dir"
	sourced -N2 --ntasks-per-node=8 --container="$sourcing" sh -c 'echo "$CASE $WHO $COUNT $FIRST $LAST ${HELD-unset}"'
	[[ $(grep -cx 'matched 2001-2001 123 plain last held unset' <<<"$output") == 16 ]] || fail "$output"
	[[ $(sort ran) == "2001 $MARK n1
2001 $MARK n2" ]] || fail "$(<ran)"
}

@test "scripts run once for a batch job, and once for a step with another working directory or with MPI" {
	needs_pmix
	script "echo ran >>$dir/ran"
	batch -n4 --export=ALL,ENV_SCRIPT="$dir/env.sh" --container="$sourcing" --wrap 'srun -n4 true'
	[[ $(grep -c ran ran) == 1 ]] || fail "batch and its step: $(<ran)"
	rm ran
	sourced -n4 --chdir=/tmp --container="$sourcing" true
	[[ $(grep -c ran ran) == 1 ]] || fail "chdir: $(<ran)"
	rm ran
	sourced -n4 --mpi=pmix --container="$sourcing" true
	[[ $(grep -c ran ran) == 1 ]] || fail "pmix: $(<ran)"
}

@test "scripts have no rights that the task has not" {
	script 'export UIDS="$(grep Uid /proc/self/status)" CAPS="$(grep CapEff /proc/self/status)" NNP="$(grep NoNewPrivs /proc/self/status)" GROUPS_="$(id -G)"
(touch /etc/new) 2>/dev/null && export WROTE=1'
	good srun -n1 --container="$sourcing" id -G
	local groups=$output
	sourced -n1 --container="$sourcing" sh -c 'echo $UIDS; echo $CAPS; echo $NNP; echo $GROUPS_; echo ${WROTE-no}'
	prints "Uid: 2001 2001 2001 2001
CapEff: 0000000000000000
NoNewPrivs: 1
$groups
no"
}

@test "a script that exits, or fails, is named" {
	script 'exit 3'
	refused image-format "its environment scripts (/.singularity.d/env/90-environment.sh /.singularity.d/env/99-last.sh) ended the shell with status 3" \
		env ENV_SCRIPT="$dir/env.sh" srun -n4 --container="$sourcing" true
	script 'exit 0'
	refused image-format 'ended the shell with status 0' env ENV_SCRIPT="$dir/env.sh" srun -n4 --container="$sourcing" true
	script 'kill -9 $$'
	refused image-format 'ended the shell' env ENV_SCRIPT="$dir/env.sh" srun -n4 --container="$sourcing" true
	script 'if then'
	refused image-format 'ended the shell with status' env ENV_SCRIPT="$dir/env.sh" srun -n4 --container="$sourcing" true
	script 'exec /bin/true'
	refused image-format 'ended the shell' env ENV_SCRIPT="$dir/env.sh" srun -n4 --container="$sourcing" true
	script 'false; nosuchcommand; cd /nowhere; export FINE=1'
	sourced -n1 --container="$sourcing" sh -c 'echo $FINE'
	prints 1
}

@test "what a script prints is seen by nobody, a hundred megabytes of it neither" {
	script 'echo noise; echo noise >&2; head -c 100000000 /dev/zero; head -c 1000000 /dev/zero >&2; export DONE=1'
	sourced -n1 --container="$sourcing" sh -c 'echo $DONE'
	prints 1
}

@test "a script cannot fill the environment with what is no environment" {
	script 'head -c 100000000 /dev/zero >&3'
	run alice env ENV_SCRIPT="$dir/env.sh" srun -n1 --container="$sourcing" sh -c 'echo $DONE'
	((status == 125)) || fail "$status $output"
	said image-format 'its environment scripts' || said system environment
	script 'printf "FORGED=1\0" >&3; exit 0'
	run alice env ENV_SCRIPT="$dir/env.sh" srun -n1 --container="$sourcing" sh -c 'echo ${FORGED-unset}'
	healthy
}

@test "what a script leaves running is gone" {
	script 'sleep 1000 & (setsid sleep 1001 </dev/null >/dev/null 2>&1 &) ; export DONE=1'
	sourced -n1 --container="$sourcing" sh -c 'echo $DONE'
	prints 1
	eventually no_sleep
}
no_sleep() { ! pgrep -u alice -x sleep >/dev/null && ! pgrep -u alice busybox >/dev/null; }

@test "many variables, a value with newlines, a long one, and one with every byte" {
	script 'i=0; while [ $i -lt 1000 ]; do export V$i=value$i; i=$((i+1)); done
export LINES_="one
two
  three"
export LONG=$(head -c 100000 /dev/zero | tr "\0" x)
export BYTES=$(printf "\001\002\377\n\t;$\\x\"\047=,")'
	sourced -n2 --container="$sourcing" sh -c 'if [ $SLURM_PROCID = 1 ]; then env | grep -c ^V; echo "$LINES_"; echo ${#LONG}; printf %s "$BYTES" | od -An -tx1; fi'
	prints "1000
one
two
  three
100000
 01 02 ff 0a 09 3b 24 5c 78 22 27 3d 2c"
}

@test "an environment that no program can have is refused, not cut" {
	script 'x=$(head -c 100000 /dev/zero | tr "\0" x); i=0; while [ $i -lt 60 ]; do export BIG$i=$x; i=$((i+1)); done'
	run alice env ENV_SCRIPT="$dir/env.sh" srun -n1 --container="$sourcing" true
	((status != 0)) || fail "$output"
	said image-format 'its environment scripts'
	healthy
}

@test "a long value in a plain script of the host's and from the host passes" {
	local value
	value=$(head -c 100000 /dev/zero | tr '\0' y)
	good env VALUE="$value" TWO=$'a\nb' srun -n1 --container="$env" sh -c 'echo ${#VALUE}; echo "$TWO"'
	prints $'100000\na\nb'
}

@test "what a script does to Slurm's variables, to the user's and to the locale is undone" {
	script 'export SLURM_JOB_ID=1 SLURM_PROCID=77 PMI_RANK=3 HOME=/x LANG=xx LC_ALL=xx USER=root; unset SLURM_NTASKS HOME2; cd /; PWD=/; umask 0'
	sourced -n2 --container="$sourcing" sh -c '[ $SLURM_PROCID = 1 ] || exit 0; [ $SLURM_JOB_ID != 1 ] && echo job; echo "$SLURM_NTASKS $HOME $LANG ${LC_ALL-unset} $USER ${PMI_RANK-unset}"; pwd; umask'
	has_line job
	has_line '2 /home/alice C.UTF-8 unset alice unset'
	has_line "$dir"
	has_line 0022
}

@test "a script that changes after the container's directory does not matter to the task's" {
	script 'cd /etc; export PWD OLDPWD'
	sourced -n1 --container="$sourcing" sh -c 'pwd; echo $PWD'
	prints "$dir"$'\n'"$dir"
}

@test "an unreadable script is named" {
	refused image-format 'its /.singularity.d/env/50-secret.sh cannot be read' srun -n4 --container="$IMG/env-unreadable.sqsh" true
	refused image-format 'its /.singularity.d/env/90-long.sh cannot be read' srun -n1 --container="$IMG/env-long.sqsh" true
}

@test "a FIFO, a directory, a device and a dangling link that are called like scripts are none" {
	good srun -n1 --container="$IMG/env-fifo.sqsh" sh -c 'echo $FOUND'
	prints yes
}

@test "a scripts directory that is missing is nothing bad" {
	good srun -n1 --container="$IMG/env-missing.sqsh" sh -c 'cat /etc/image-only; echo $PATH'
	has_line "$MARK"
}

@test "enroot's /etc/environment" {
	good srun -n1 --container="$IMG/enroot.sqsh" sh -c 'echo "${PATH#/run/coracle/slurm/bin:}|$IMAGE_SAYS|$SINGLE|$LITERAL"'
	prints '/opt/enroot/bin:/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin|from enroot|a b|$HOME'
	batch --container="$IMG/enroot.sqsh" --wrap 'echo $PATH'
	prints /run/coracle/slurm/bin:/opt/enroot/bin:/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin
}

@test "real images of Apptainer's" {
	real busybox.sif
	good srun -n1 --container="$dir/busybox.sif" sh -c 'echo "$PATH"; env | grep -c ^SINGULARITY; true'
	has /bin
}

# A node with a step whose script hangs: what scancel does and what becomes of the node.
hangs() { # SLEEP
	script "touch $dir/in; $1"
	alice env ENV_SCRIPT="$dir/env.sh" sbatch --parsable -o "$dir/batch.out" --container="$sourcing" --wrap true >id
	job=$(<id)
	eventually test -e in
	local begun=$SECONDS
	scancel "$job"
	eventually ended "$job"
	healthy || return
	((SECONDS - begun < 15)) || fail "it took $((SECONDS - begun)) s"
}

@test "scancel ends a job whose environment script hangs, and the node is well" {
	hangs 'sleep 1000'
	hangs 'trap "" TERM INT HUP; while :; do sleep 1 || true; done'
	hangs 'while :; do :; done'
}

@test "scancel ends an MPI step whose environment script hangs on all nodes" {
	needs_pmix
	script "touch $dir/in; sleep 1000"
	alice env ENV_SCRIPT="$dir/env.sh" srun -N3 -n6 --mpi=pmix --job-name=hang --container="$sourcing" true >out 2>&1 3>&- &
	local step=$!
	eventually test -e in
	scancel --name=hang
	wait "$step" && fail "$(<out)"
	healthy
}

@test "a script that takes longer than start_timeout may, on the way to MPI too" {
	needs_pmix
	configure $'version: 1\nuser_images: kernel\nstart_timeout: 1\nbinds:\n- source: /scratch'
	script 'sleep 3; export DONE=1'
	sourced -n1 --container="$sourcing" sh -c 'echo $DONE'
	prints 1
	sourced -n1 --mpi=pmix --container="$sourcing" sh -c 'echo $DONE'
	prints 1
}

@test "a script that hangs is refused after its limit" {
	needs_pmix
	script 'sleep 1000'
	refused timeout "its environment scripts (/.singularity.d/env) did not end within 60 s" env ENV_SCRIPT="$dir/env.sh" srun -n4 --mpi=pmix --container="$sourcing" true
}

@test "clean: what Slurm, MPI, locale and terminal need passes, and nothing else" {
	good env MINE=1 TZ=UTC http_proxy=p LC_TIME=C OMP_NUM_THREADS=4 CORACLE_CONTAINER_BIND=/opt:/mnt APPTAINERENV_P=1 \
		srun -n1 --container="$env" --container-clean-env sh -c 'echo "${MINE-unset} $TZ $http_proxy $LC_TIME ${OMP_NUM_THREADS-unset} ${CORACLE_CONTAINER_BIND-unset} $P $IMAGE_SAYS $CORACLE_NAME $HOME"; [ $SLURM_JOB_ID -gt 0 ] && echo job'
	prints $'unset UTC p C unset unset 1 from the image env /home/alice\njob'
}

@test "clean: MPI ranks find each other" {
	needs_pmix
	good env MINE=1 srun -N3 -n6 --mpi=pmix --container="$IMG/mpi.sif" --container-clean-env /usr/bin/ring
	has_line 'ring sum=15 ranks=6'
	batch -N3 -n6 --container="$IMG/mpi.sif" --container-clean-env --wrap 'srun --mpi=pmix /usr/bin/ring'
	has_line 'ring sum=15 ranks=6'
}

@test "the environment of a job's step in the same image is the script's, with the user's changes" {
	job_script job.sh 'export PATH=/mine:$PATH MINE=2 IMAGE_SAYS=changed; unset LD_LIBRARY_PATH
srun -n1 sh -c "echo \$PATH; echo \$MINE \$IMAGE_SAYS \${LD_LIBRARY_PATH-unset} \$CORACLE_NAME"'
	batch --container="$env" job.sh
	prints $'/mine:/run/coracle/slurm/bin:/opt/image/bin:/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin\n2 changed unset env' || prints $'/run/coracle/slurm/bin:/mine:/run/coracle/slurm/bin:/opt/image/bin:/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin\n2 changed unset env'
}

@test "a site's default variable is the site's: explained so, less than the user's, and taken back in none" {
	configure $'version: 1\nuser_images: kernel\nbinds:\n- source: /scratch\noptions:\n  env: [SITES=site, BOTH=site, FROM_HOST]'
	good env FROM_HOST=host coracle explain --container="$busybox" --container-env=BOTH=mine,MINE=1
	has_line 'SITES=site  (site)'
	has_line 'BOTH=mine  (--container-env)'
	has_line 'MINE=1  (--container-env)'
	has_line 'FROM_HOST=host  (host)'
	job_script job.sh 'echo $SITES $BOTH $MINE; srun -n1 --container=none sh -c "echo \${SITES-unset} \$BOTH \$MINE"'
	batch --export=ALL,SITES= --container="$busybox" --container-env=BOTH=mine,MINE=1 job.sh
	prints $'site mine 1\nmine 1'
	batch --container="$busybox" job.sh
	prints $'site site\nunset'
}

# Says which of the two variables there are, and whether something can be made where they say.
SAYS_DIRECTORIES='for name in TMPDIR XDG_RUNTIME_DIR; do eval "value=\${$name-unset}"; echo "$name=$value"; [ "$value" = unset ] || touch "$value/made" || exit 9; done; mktemp >/dev/null && echo mktemp'

@test "TMPDIR and XDG_RUNTIME_DIR: a directory of the user's own is shown" {
	configure $'version: 1\nuser_images: kernel\nbinds:\n- source: /scratch/none\n  required: false'
	local own=/srv/coracle-own run=/run/user/2001 wanted
	on-all-nodes "install -d -o alice -g alice -m 700 $own $run && install -d -o bob -g bob $own-bob && install -d -m 1777 $own-all"
	wanted="TMPDIR=$own"$'\n'"XDG_RUNTIME_DIR=$run"$'\n'mktemp
	good env TMPDIR=$own XDG_RUNTIME_DIR=$run srun -n1 --container="$busybox" sh -c "$SAYS_DIRECTORIES"
	prints "$wanted"
	export TMPDIR=$own XDG_RUNTIME_DIR=$run
	# shellcheck disable=SC2034 # for batch
	variables=("TMPDIR=$own" "XDG_RUNTIME_DIR=$run")
	batch --container="$busybox" --wrap "$SAYS_DIRECTORIES; srun -n1 sh -c '$SAYS_DIRECTORIES'; srun -n1 --container=none sh -c 'echo \$TMPDIR'"
	prints "$wanted"$'\n'"$wanted"$'\n'$own
	# Not from one container into the next, of another image.
	batch --container="$busybox" --wrap "srun -n1 --container=$env sh -c '$SAYS_DIRECTORIES'"
	prints "$wanted"
	good env TMPDIR=$own XDG_RUNTIME_DIR=$run coracle exec "$busybox" sh -c "$SAYS_DIRECTORIES"
	prints "$wanted"
	good env TMPDIR=$own XDG_RUNTIME_DIR=$run srun -n1 --container="$busybox" --container-clean-env sh -c "$SAYS_DIRECTORIES"
	prints "TMPDIR=$own"$'\n'"XDG_RUNTIME_DIR=unset"$'\n'mktemp
	good env TMPDIR=$own coracle explain --container="$busybox"
	has_line "mount  $own -> $own rw,nosuid,nodev"
	has_line "TMPDIR=$own  (host)"
	# Anybody's, of another user, and missing.
	local wrong
	for wrong in $own-all $own-bob $own-none relative /proc/self /etc; do
		good env TMPDIR="$wrong" XDG_RUNTIME_DIR="$wrong" srun -n1 --container="$busybox" sh -c "$SAYS_DIRECTORIES"
		# Slurm gives a task without TMPDIR one.
		prints $'TMPDIR=/tmp\nXDG_RUNTIME_DIR=unset\nmktemp' || { fail "$wrong"; return; }
		good env TMPDIR="$wrong" coracle exec "$busybox" sh -c "$SAYS_DIRECTORIES"
		prints $'TMPDIR=unset\nXDG_RUNTIME_DIR=unset\nmktemp' || { fail "exec $wrong"; return; }
	done
	# One that can be made is, by Slurm, as without a container.
	good env TMPDIR=/tmp/coracle-own XDG_RUNTIME_DIR=/tmp/coracle-own srun -n1 --container="$busybox" sh -c "$SAYS_DIRECTORIES"
	prints $'TMPDIR=/tmp/coracle-own\nXDG_RUNTIME_DIR=/tmp/coracle-own\nmktemp'
	# What every container shows, and what was asked for.
	good env TMPDIR=/var/tmp srun -n1 --container="$busybox" sh -c 'echo $TMPDIR'
	prints /var/tmp
	good env TMPDIR=$own-none coracle exec --env=TMPDIR "$busybox" sh -c 'echo $TMPDIR'
	prints $own-none
	good env TMPDIR=$own-none srun -n1 --container="$busybox" --container-env=TMPDIR=/tmp sh -c 'echo $TMPDIR'
	prints /tmp
	good env TMPDIR=$own-all srun -n1 --container=none sh -c 'echo $TMPDIR'
	prints $own-all
	# One that the image's variables ask for is the image's.
	good env TMPDIR=$own-none APPTAINERENV_TMPDIR=/opt coracle exec "$busybox" sh -c 'echo $TMPDIR'
	prints /opt
}

@test "TMPDIR: what is bound below it keeps its place, and the site's bounds hold" {
	configure $'version: 1\nuser_images: kernel\nbinds:\n- source: /scratch/none\n  required: false'
	local own=/srv/coracle-own
	on-all-nodes "install -d -o alice -g alice -m 700 $own $own/run $own/real && ln -sfn real $own/link"
	# The job stands in it.
	cd /tmp
	good env TMPDIR=$own srun -n1 --chdir=$own/run --container="$busybox" sh -c 'pwd; echo $TMPDIR; mktemp >/dev/null && echo mktemp'
	prints $own/run$'\n'$own$'\n'mktemp
	# A bind whose place it does not have.
	good env TMPDIR=$own srun -n1 --container="$busybox" --container-bind=/etc:$own/etc:ro sh -c "ls $own/etc/slurm >/dev/null && echo bound; echo \${TMPDIR-unset}"
	prints $'bound\n/tmp'
	cd "$dir"
	configure $'version: 1\nuser_images: kernel\nbind_allow: [/scratch]'
	good env TMPDIR=$own srun -n1 --container="$busybox" sh -c 'echo ${TMPDIR-unset}'
	prints /tmp
	configure $'version: 1\nuser_images: kernel\nbind_allow: [/srv]'
	good env TMPDIR=$own srun -n1 --container="$busybox" sh -c 'echo ${TMPDIR-unset}'
	prints $own
	configure $'version: 1\nuser_images: kernel\nbind_deny: [/srv]'
	good env TMPDIR=$own srun -n1 --container="$busybox" sh -c 'echo ${TMPDIR-unset}'
	prints /tmp
}

@test "a step of a job with --export=NONE has its image's environment, whether the script was inside or not" {
	local scope wanted=$'/opt/image/bin:/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin\n/opt/image/lib\nfrom the image\nunset'
	export MINE=1
	for scope in all steps; do
		job_script job.sh 'srun -n1 /bin/sh -c "echo \$PATH; echo \$LD_LIBRARY_PATH; echo \$IMAGE_SAYS; echo \${MINE-unset}" | sed "s:^/run/coracle/slurm/bin.::"'
		batch --export=NONE --container="$env" --container-scope="$scope" job.sh
		prints "$wanted" || fail "$scope" || return
	done
	batch --container="$env" --wrap 'srun -n1 --export=MINE=2 /bin/sh -c "echo \$IMAGE_SAYS \$MINE"'
	prints 'from the image 2'
}
