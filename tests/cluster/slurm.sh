# Sourced by cluster: the network, munge and Slurm.
# shellcheck shell=bash disable=SC2154,SC2034

network() {
	local i
	hostname ctl
	ip link set lo up
	ip link add br0 type bridge
	ip addr add 10.77.0.1/24 dev br0
	ip link set br0 up
	{
		echo '127.0.0.1 localhost'
		echo '10.77.0.1 ctl'
		for ((i = 1; i <= nodes; i++)); do echo "10.77.0.$((10 + i)) n$i"; done
	} >/etc/hosts
}

start_munge() {
	rm -rf /etc/munge /var/lib/munge /var/log/munge
	install -d -o munge -g munge -m 700 /etc/munge /var/lib/munge /var/log/munge
	install -d -o munge -g munge -m 755 /run/munge
	head -c 1024 /dev/urandom >/etc/munge/munge.key
	chown munge:munge /etc/munge/munge.key
	chmod 400 /etc/munge/munge.key
	setpriv --reuid=munge --regid=munge --init-groups munged || fail_with_log munged /var/log/munge/munged.log
}

# The key of auth/slurm.
make_key() {
	head -c 1024 /dev/urandom >/etc/slurm/slurm.key
	chmod 600 /etc/slurm/slurm.key
}

configure_slurm() {
	local task=task/none track=${tracker%2} version=1 container=JobContainerType=job_container/tmpfs auth=munge
	[[ -z $sack ]] || auth=slurm
	# slurm.conf(5) of 25.11 has another name for it.
	[[ $release < 25.11 ]] || container=NamespaceType=namespace/tmpfs
	[[ $tracker != cgroup2 ]] || version=2
	install -d -m 755 /var/log/slurm
	install -d -m 700 /var/spool/slurmctld
	[[ $track != cgroup ]] || task=task/affinity,task/cgroup
	[[ -e /etc/slurm/plugstack.conf ]] || echo 'include /etc/slurm/plugstack.conf.d/*.conf' >/etc/slurm/plugstack.conf
	[[ -z $facts ]] || echo 'required /usr/lib/coracle/spank_coracle_facts.so job_facts=prolog' >/etc/slurm/plugstack.conf.d/facts.conf
	cat >/etc/slurm/slurm.conf <<-CONF
	ClusterName=test
	SlurmctldHost=ctl(10.77.0.1)
	SlurmUser=root
	AuthType=auth/$auth
	CredType=cred/$auth
	ProctrackType=proctrack/$track
	TaskPlugin=$task
	MpiDefault=none
	LaunchParameters=use_interactive_step
	SelectType=select/cons_tres
	SelectTypeParameters=CR_Core
	JobAcctGatherType=jobacct_gather/none
	SlurmctldPidFile=/run/slurmctld.pid
	SlurmdPidFile=/run/slurmd.%n.pid
	SlurmdSpoolDir=/var/spool/slurmd.%n
	StateSaveLocation=/var/spool/slurmctld
	SlurmctldLogFile=/var/log/slurm/slurmctld.log
	SlurmdLogFile=/var/log/slurm/%n.log
	SlurmdDebug=debug
	SlurmdParameters=config_overrides
	ReturnToService=2
	${configless:+SlurmctldParameters=enable_configless
	#}PlugStackConfig=/etc/slurm/plugstack.conf
	${gpus:+GresTypes=gpu}
	${job_tmp:+$container
	PrologFlags=Contain}
	NodeName=n[1-$nodes] CPUs=16 RealMemory=4000 ${gpus:+$(gres_of_node "$gpus")}
	PartitionName=main Nodes=n[1-$nodes] Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES
	PartitionName=other Nodes=n[1-$nodes] MaxTime=INFINITE State=UP OverSubscribe=YES
	$extra
	CONF
	# The machine has fewer cores than a node says, and its memory is not what is tested.
	cat >/etc/slurm/cgroup.conf <<-CONF
	CgroupPlugin=cgroup/v$version
	CgroupMountpoint=/sys/fs/cgroup
	IgnoreSystemd=yes
	ConstrainCores=no
	ConstrainDevices=$confine
	ConstrainRAMSpace=no
	CONF
	# Slurm 20.11 has no cgroup plugins, and does not know these keys.
	[[ $release != 20.11 ]] || sed -i '/^CgroupPlugin=/d; /^IgnoreSystemd=/d' /etc/slurm/cgroup.conf
	[[ -z $gpus ]] || gres_conf "$gpus" >/etc/slurm/gres.conf
	if [[ -n $job_tmp ]]; then
		printf '%s\n' AutoBasePath=true BasePath=/var/spool/job_container >/etc/slurm/job_container.conf
	fi
}

start_slurm() {
	local i cpus first preload=''
	[[ $tracker != cgroup2 ]] || preload=/usr/local/lib/unified.so
	slurmctld 2>/var/log/slurm/start.log || fail_with_log slurmctld /var/log/slurm/{start,slurmctld}.log
	# Linux 6.18 refuses (EINVAL) to bind the file of a mount namespace whose number is lower than ours. Each CPU deals
	# out numbers of its own, so ours are made where they are lowest now; then they may run anywhere.
	cpus=$(taskset -cp $$)
	cpus=${cpus##*: }
	first=$(cpu_of_lowest_namespace)
	install -d -m 755 /run/cluster
	for ((i = 1; i <= nodes; i++)); do
		setsid taskset -c "$first" unshare --mount --net --uts --ipc --propagation slave -- \
			"$BASH" "$here/node" "n$i" "10.77.0.$((10 + i))" "$cpus" "$preload" "$configless" "$sack" </dev/null &
		node_pids[i]=$!
		echo $! >"/run/cluster/n$i.pid"
	done
}

cpu_of_lowest_namespace() {
	local cpu last
	last=$(($(nproc --all) - 1))
	for cpu in $(seq 0 "$last"); do
		# NS_GET_MNTNS_ID of ioctl_nsfs(2); 0 where the kernel does not know it, and then any CPU will do.
		taskset -c "$cpu" unshare --mount perl -e 'open my $ns, "<", "/proc/self/ns/mnt"; my $id = pack "Q", 0;
			ioctl $ns, 0x8008b705, $id; print unpack("Q", $id), " $ARGV[0]\n"' "$cpu" 2>/dev/null || true
	done | sort -n | awk 'NR == 1 { print $2 }'
}

await_nodes() {
	local i idle deadline=$((SECONDS + 40))
	while idle=$(sinfo --noheader --partition main --states idle --format %D 2>/dev/null || true); [[ $idle != "$nodes" ]]; do
		for ((i = 1; i <= nodes; i++)); do
			if ! kill -0 "${node_pids[i]}" 2>/dev/null || grep -qs '\] fatal: ' "/var/log/slurm/n$i.log"; then
				fail_with_log "slurmd of n$i" "/var/log/slurm/n$i.log"
			fi
		done
		if ((SECONDS > deadline)); then
			sinfo --Node --long >&2 || true
			fail_with_log "the nodes" /var/log/slurm/*.log
		fi
		sleep 0.05
	done
}

fail_with_log() { # WHAT LOG...
	local log
	for log in "${@:2}"; do
		[[ ! -e $log ]] || { echo "--- $log"; tail -n 8 "$log"; } >&2
	done
	die "$1: did not start"
}
