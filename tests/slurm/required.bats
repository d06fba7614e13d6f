#!/usr/bin/env bats
# What of Slurm's own runs a user's programs on the node under `required: yes`, and what a site can do about it.

load support

setup() {
	in_own_directory || return
	plugstack defaults=on
	configure $'version: 1\nuser_images: kernel\nrequired: yes\nbinds:\n- source: /scratch'
}

cleanup() {
	sed -i '/^alice:/d' /etc/shadow
	rm -f /home/alice/.profile /home/alice/.bash_profile
	[[ ! -e $SUITE/slurm.conf ]] || slurm_conf_as_before
}

# alice's login files, which say where they run; su(1) wants to know of her account.
login_files() {
	sed -i '/^alice:/d' /etc/shadow
	echo 'alice:*:19000:0:99999:7:::' >>/etc/shadow
	echo "stat -c %d:%i / >>$dir/login" >/home/alice/.profile
	cp /home/alice/.profile /home/alice/.bash_profile
}

# The five ways in which slurmd is asked for the environment of a login.
# shellcheck disable=SC2034 # variables are for batch
login_environment() { # WAY
	rm -f login
	variables=()
	case $1 in
	*_GET_USER_ENV) variables=("$1=1") && set -- ;;
	esac
	batch "$@" -w n1 --container="$busybox" --wrap 'cat /etc/image-only'
	prints "$MARK"
}
WAYS='--export=NONE --export=A=1 --get-user-env=20L SBATCH_GET_USER_ENV SLURM_GET_USER_ENV'

starts_no_login() {
	login_environment --export=NONE && [[ ! -e login ]]
}

@test "slurmd runs a user's login files on the node, unless GetEnvTimeout=0" {
	local way
	login_files
	for way in $WAYS; do
		login_environment "$way"
		[[ $(<login) == "$(stat -c %d:%i /)" ]] || fail "$way: $(cat login)"
	done
	slurm_conf GetEnvTimeout=0
	# slurmd reads it a little later.
	eventually starts_no_login
	for way in $WAYS; do
		login_environment "$way"
		[[ ! -e login ]] || fail "$way: $(<login)"
	done
	healthy
}

@test "no option, variable, script or component of a step brings a TaskEpilog of its user's" {
	local said='--task-epilog: runs on the node, and the site runs nothing outside of containers (required: yes)'
	job_script evil.sh "stat -c %d:%i / >>$dir/evil"
	at=submit refused policy "$said" srun -n1 --container="$busybox" --task-epilog="$dir/evil.sh" true
	at=submit refused policy "$said" env SLURM_TASK_EPILOG="$dir/evil.sh" srun -n1 --container="$busybox" true
	at=submit refused policy "$said" srun -n1 --container="$busybox" true : -n1 --container="$busybox" --task-epilog="$dir/evil.sh" true
	good sbatch --wait -o "$dir/out" --export="ALL,SLURM_TASK_EPILOG=$dir/evil.sh" --container="$busybox" --wrap 'srun true || echo refused'
	output=$(<out)
	has "$said"
	has_line refused
	[[ ! -e evil ]] || fail "$(<evil)"
}
