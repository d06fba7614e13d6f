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
	head -c 1024 /dev/urandom >"$conf/slurm.key"
	chmod 600 "$conf/slurm.key"
}

# The examples of a site as they are, with a site.conf of this cluster's own. Each edit is for one thing that a throwaway
# cluster, or the kind that was asked for, has otherwise.
configure_slurm() {
	local track=${tracker%2} version=1 namespaces=JobContainerType=job_container/tmpfs
	local examples=$here/../../slurm-conf-examples
	[[ $tracker != cgroup2 ]] || version=2
	install -d -m 755 /var/log/slurm
	install -d -m 700 /var/spool/slurmctld
	install -m 644 -t "$conf" "$examples"/{slurm,cgroup,gres,job_container}.conf "$examples/namespace.yaml"
	[[ -e $conf/plugstack.conf ]] || install -m 644 -t "$conf" "$examples/${install:+${configless:+configless/}}plugstack.conf"
	[[ -z $facts ]] || echo 'required /usr/lib/coracle/spank_coracle_facts.so job_facts=prolog' >/etc/slurm/plugstack.conf.d/facts.conf
	site_conf >"$conf/site.conf"

	# Tests break nodes on purpose, and start the program themselves.
	edit slurm.conf HealthCheckProgram=/etc/slurm/health-check ''
	# The machine has fewer cores than a node says, and its memory is not what is tested. It may have no systemd.
	edit cgroup.conf ConstrainCores=yes ConstrainCores=no
	edit cgroup.conf ConstrainRAMSpace=yes ConstrainRAMSpace=no
	edit cgroup.conf CgroupPlugin=autodetect "CgroupPlugin=cgroup/v$version"$'\nCgroupMountpoint=/sys/fs/cgroup\nIgnoreSystemd=yes'
	# Slurm 20.11 has no cgroup plugins, and does not know these keys.
	[[ $release != 20.11 ]] || sed -i '/^CgroupPlugin=/d; /^IgnoreSystemd=/d' "$conf/cgroup.conf"
	if [[ $track != cgroup ]]; then # -w linuxproc
		edit slurm.conf ProctrackType=proctrack/cgroup "ProctrackType=proctrack/$track"
		edit slurm.conf TaskPlugin=task/affinity,task/cgroup TaskPlugin=task/none
	fi
	[[ $confine == yes ]] || edit cgroup.conf ConstrainDevices=yes ConstrainDevices=no # -u
	case $gpus in
	'') edit slurm.conf GresTypes=gpu '' && rm "$conf/gres.conf" ;;
	plain) ;;
	*) gres_conf "$gpus" >"$conf/gres.conf" ;; # -g
	esac
	if [[ -n $job_tmp ]]; then # -j
		# slurm.conf(5) of 25.11 has another name for it.
		# shellcheck disable=SC2072 # of releases, which are all of one length, strings compare as numbers do
		[[ $release < 25.11 ]] || namespaces=NamespaceType=namespace/tmpfs
		[[ $namespaces != Job* || $job_tmp == tmpfs ]] || die "-J: needs Slurm 25.11 or later, and this is $release"
		edit slurm.conf "#$namespaces" "${namespaces/%tmpfs/$job_tmp}"
		edit slurm.conf '#PrologFlags=Contain' PrologFlags=Contain
	fi
	[[ -z $configless ]] || edit slurm.conf '#SlurmctldParameters=enable_configless' SlurmctldParameters=enable_configless # -c
}

# A line of an example for another one, or for none.
edit() { # FILE LINE OTHER
	local text
	text=$'\n'$(<"$conf/$1")$'\n'
	[[ $text == *$'\n'"$2"$'\n'* ]] || die "slurm-conf-examples/$1: no line $2"
	text=${text/$'\n'"$2"$'\n'/$'\n'"$3"$'\n'}
	printf '%s' "${text#?}" >"$conf/$1"
}

site_conf() {
	local auth=${sack:+slurm}
	cat <<-CONF
	ClusterName=test
	SlurmctldHost=ctl(10.77.0.1)
	SlurmUser=root
	AuthType=auth/${auth:-munge}
	CredType=cred/${auth:-munge}
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
	NodeName=n[1-$nodes] CPUs=16 RealMemory=4000 ${gpus:+$(gres_of_node "$gpus")}
	PartitionName=main Nodes=n[1-$nodes] Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES
	PartitionName=other Nodes=n[1-$nodes] MaxTime=INFINITE State=UP OverSubscribe=YES
	$extra
	CONF
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
			"$BASH" "$here/node" "n$i" "10.77.0.$((10 + i))" "$cpus" "$preload" "${configless:+$conf}" "$sack" </dev/null &
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
