# Sourced by cluster: its first process, number 1 of the process namespace. When this one ends the kernel ends all others.
# shellcheck shell=bash disable=SC2154,SC2034

inside() { # COMMAND...
	local status=0 name
	trap 'exit 130' INT
	trap 'exit 143' TERM
	trap thaw EXIT
	# A Slurm around us must not be talked to.
	for name in $(compgen -e | grep -E '^(SLURM|SBATCH|SALLOC|SQUEUE|SINFO|SCANCEL|PMI|PMIX|OMPI|CORACLE_CONTAINER)' || true); do
		unset "$name"
	done
	export PATH=${slurm:+$slurm/sbin:$slurm/bin:}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH
	umask 022
	node_pids=()

	enter_root
	add_people
	network
	release=$(slurmctld -V | sed -E 's/^slurm(-wlm)? ([0-9]+\.[0-9]+).*/\2/')
	# shellcheck disable=SC2072 # of releases, which are all of one length, strings compare as numbers do
	[[ ! $release < 24.05 ]] || sack=''
	if [[ -n $sack ]]; then make_key; else start_munge; fi
	configure_slurm
	start_slurm
	await_nodes

	trap : INT QUIT
	if (($# == 0)); then
		greet
		set -- bash
	fi
	"$@" || status=$?
	exit "$status"
}

# A step that is suspended by the freezer would not die with us.
thaw() {
	local file
	for file in /sys/fs/cgroup/freezer/slurm*/uid_*/job_*/freezer.state /sys/fs/cgroup/freezer/slurm*/uid_*/job_*/step_*/freezer.state; do
		[[ ! -e $file ]] || echo THAWED >"$file"
	done
}

greet() {
	cat <<-GREETING
	A Slurm $(sinfo --version | cut -d' ' -f2) of its own: this is ctl, the nodes are n1 to n$nodes, the partitions main (default) and other.
	  as alice srun -N$nodes hostname    run as alice (also in group proj) or bob; starts in /scratch, which all nodes share
	  on-node n1 ps ax              run as root inside n1; /tmp, /var/tmp, /dev/shm and /run/coracle are each node's own
	  $conf, /var/log/slurm    configuration and logs
	What is written here, anywhere, goes to memory and is gone with this shell; the machine itself is not changed.
	GREETING
}
