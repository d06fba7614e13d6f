# TaskProlog and --task-prolog, TaskEpilog and --task-epilog: docs/admin/configure.md says where they run.
# bats file_tags=releases
load support

DIRECTORY=/etc/slurm/prolog.d

setup_file() {
	mkdir -p "$DIRECTORY"
	script task-prolog 'echo print known'
	script task-epilog :
	slurm_conf TaskProlog="$DIRECTORY/task-prolog" TaskEpilog="$DIRECTORY/task-epilog"
	# The nodes read their configuration a little later than the controller.
	local node
	for node in n1 n2 n3; do eventually known "$node"; done
}

known() { # NODE
	[[ $(as -d /scratch alice srun -n1 -w "$1" true) == known ]]
}

teardown_file() {
	slurm_conf_as_before
	rm -rf "$DIRECTORY"
}

# One of the site's scripts.
script() { # NAME TEXT
	printf '%s\n' '#!/bin/sh' "$2" >"$DIRECTORY/$1"
	chmod 755 "$DIRECTORY/$1"
}

cleanup() {
	script task-prolog :
	script task-epilog :
}

# What docs/admin/configure.md tells sites to do.
bind_directory() {
	awk -v directory="$DIRECTORY" '{ print } /^binds:/ { print "- source: " directory; print "  mode: ro" }' "$SUITE/coracle.yaml" \
		>/etc/coracle/coracle.yaml
}

WHERE='if test -e /etc/image-only; then where=inside; else where=host; fi'

@test "TaskProlog runs inside the container when its directory is bound, and export, unset and print count" {
	bind_directory
	script task-prolog "$WHERE
echo print prolog \$where \$SLURM_SCRIPT_CONTEXT \$SLURM_PROCID
echo export WORD=two words
echo unset LANG"
	good srun -n1 --container="$busybox" sh -c 'cat /etc/image-only; echo "<$WORD> <${LANG-unset}>"'
	prints "prolog inside prolog_task 0"$'\n'"$MARK"$'\n<two words> <unset>'
}

@test "TaskProlog runs once for each task, and for a batch script" {
	bind_directory
	script task-prolog "$WHERE
echo print \$where \$SLURM_PROCID"
	good srun -N2 -n4 --container="$busybox" true
	for i in 0 1 2 3; do has_line "inside $i"; done
	job_script job.sh 'cat /etc/image-only'
	batch --container="$busybox" job.sh
	prints "inside 0"$'\n'"$MARK"
}

@test "TaskProlog of a step without a container runs on the node" {
	script task-prolog "$WHERE
echo print prolog \$where"
	good srun -n1 true
	prints 'prolog host'
}

# Slurm 20.11 looks at no status of a prolog: it says nothing, and the task runs.
ended_by_prolog() { # STATUS TEXT
	if since 22.05; then
		((status == $1)) || { fail "status $status"; return; }
		has "$2" && has_not started
	else
		((status == 0)) && prints started
	fi
}

@test "a TaskProlog that fails ends its task, which does not start" {
	bind_directory
	script task-prolog 'exit 3'
	run alice srun -n1 --container="$busybox" echo started
	ended_by_prolog 3 'TaskProlog failed status=3'
	local contained
	contained=$(grep -v '^srun' <<<"$output" | sed 's/^\[[0-9T:.-]*\]//')
	run alice srun -n1 echo started
	[[ $(grep -v '^srun' <<<"$output" | sed 's/^\[[0-9T:.-]*\]//') == "$contained" ]] || fail "bare: $output" "contained: $contained"
}

@test "a TaskProlog is seen inside without a word in coracle.yaml" {
	script task-prolog 'echo print prolog from $(cat /etc/image-only)'
	good srun -n1 --container="$busybox" echo started
	prints "prolog from $MARK"$'\n'started
}

@test "a TaskProlog whose interpreter the image lacks ends the task" {
	bind_directory
	printf '#!/bin/bash\necho print prolog\n' >"$DIRECTORY/task-prolog"
	run alice srun -n1 --container="$busybox" echo started
	ended_by_prolog "$status" ''
	! since 22.05 || ((status != 0)) || fail "$output"
}

@test "--task-prolog from the home directory runs inside, after TaskProlog" {
	bind_directory
	script task-prolog 'echo print site; echo export WORD=site'
	printf '%s\n' '#!/bin/sh' "$WHERE" 'echo print user $where $WORD $HOME' 'echo export WORD=user' >/home/alice/task-prolog
	chmod 755 /home/alice/task-prolog
	good srun -n1 --task-prolog=/home/alice/task-prolog --container="$busybox" sh -c 'cat /etc/image-only; echo "<$WORD>"'
	rm /home/alice/task-prolog
	prints $'site\nuser inside site /home/alice\n'"$MARK"$'\n<user>'
}

@test "--task-prolog that fails ends its task" {
	bind_directory
	job_script prolog.sh 'exit 4'
	run alice srun -n1 --task-prolog="$dir/prolog.sh" --container="$busybox" echo started
	ended_by_prolog 4 '--task-prolog failed status=4'
}

@test "TaskEpilog and --task-epilog run on the node, as the user, with or without a container" {
	bind_directory
	local text="$WHERE
echo \$where \$(id -u) \$SLURM_SCRIPT_CONTEXT \${CORACLE_NAME-no image}"
	script task-epilog "{ $text; } >>$dir/site"
	job_script epilog.sh "{ $text; } >>$dir/user"
	good srun -n1 --task-epilog="$dir/epilog.sh" --container="$busybox" true
	cat "$dir"/site "$dir"/user >contained
	rm "$dir"/site "$dir"/user
	good srun -n1 --task-epilog="$dir/epilog.sh" true
	cat "$dir"/site "$dir"/user >bare
	[[ $(<contained) == $'host 2001 epilog_task no image\nhost 2001 epilog_task no image' ]] || fail "$(<contained)"
	diff bare contained
}

@test "a TaskEpilog that fails does not change the exit status of the step" {
	bind_directory
	script task-epilog 'exit 5'
	good srun -n1 --container="$busybox" cat /etc/image-only
	has_line "$MARK"
	# 20.11 says nothing, and before 23.11 it is wait(2)'s status: 256 times the exit status.
	! since 22.05 || node_said n1 "--task-epilog failed status=$(since 23.02 && echo 5 || echo 1280)"
}

@test "TaskEpilog runs after a task that was refused or killed, too" {
	bind_directory
	script task-epilog "echo epilog >>$dir/site"
	at=node refused image-missing '/no/such.sif: no such file on this node' srun -n1 --container=/no/such.sif true
	[[ $(<site) == epilog ]]
	run alice srun -n1 --container="$busybox" sh -c 'kill -KILL $$'
	[[ $(<site) == $'epilog\nepilog' ]]
}
