# The line about each step and node.
load support

# Writes each datagram that comes to SOCKET on NODE to FILE, as a line; the listener's pid is $listener.
listen() { # NODE SOCKET FILE
	on-node "$1" mkdir -p "$(dirname "$2")"
	on-node "$1" perl -MSocket -e '
		my ($path, $file) = @ARGV;
		unlink $path;
		socket(S, AF_UNIX, SOCK_DGRAM, 0) && bind(S, sockaddr_un($path)) or die "$path: $!";
		chmod 0666, $path;
		open(my $out, ">>", $file) or die;
		$out->autoflush(1);
		while (defined(recv(S, my $text, 65536, 0))) { $text =~ s/\n/|/g; print $out "$text\n"; }
	' "$2" "$3" 3>&- &
	listener=$!
	socket=$2
	eventually test -S "$2"
}

cleanup() {
	[[ -z ${listener:-} ]] || { kill "$listener"; wait "$listener"; } 2>/dev/null || true
	listener=''
	rm -f "${socket:-}" /run/systemd/journal/socket
	rmdir /run/systemd/journal /run/systemd 2>/dev/null || true
}

logged() { # COUNT
	[[ $(wc -l <"$dir/log") == "$1" ]]
}

MS='[0-9]+\.[0-9]{3}ms'

@test "syslog has one line for a step on a node, with all that was decided" {
	: >log
	listen n1 /dev/log "$dir/log"
	good srun -n4 -w n1 --container="$busybox" sh -c 'cat /etc/image-only >/dev/null; echo $SLURM_JOB_ID'
	local job=${lines[0]}
	eventually logged 1
	[[ $(<log) =~ ^'<30>coracle['[0-9]+']: job='$job' step=0 node=n1 uid=2001 image="'$busybox'" digest=- rule=user_images=kernel verdict=started '(.*)$ ]] || fail "$(<log)"
	local phases=${BASH_REMATCH[1]} phase
	for phase in open judge mount plan build; do
		[[ $phases =~ (^|\ )$phase=$MS($|\ ) ]] || fail "no $phase in $phases" || return
	done
}

@test "the digest that was asked for is in the line, and the rule that allowed a trusted image" {
	: >log
	listen n1 /dev/log "$dir/log"
	local hash
	hash=sha256:$(sha256sum "$busybox" | cut -d' ' -f1)
	good srun -n1 -w n1 --container="$busybox" --container-digest="$hash" true
	eventually logged 1
	grep -q " digest=$hash " log
	configure $'version: 1\nuser_images: deny\nimage_paths:\n- path: /opt/images'
	install -D -m 644 "$busybox" /opt/images/x.sif
	good srun -n1 -w n1 --container=/opt/images/x.sif true
	rm -r /opt/images
	eventually logged 2
	grep -q ' image="/opt/images/x.sif" digest=- rule=image_paths\[0\] verdict=started ' log || fail "$(<log)"
}

@test "a batch script and its steps have a line each" {
	: >log
	listen n1 /dev/log "$dir/log"
	job_script job.sh true
	batch -w n1 --container="$busybox" job.sh
	eventually logged 1
	grep -q " step=batch .* verdict=started " log || fail "$(<log)"
}

@test "a refusal is in the line, with its cause" {
	: >log
	listen n1 /dev/log "$dir/log"
	refused image-missing '/no/such.sif' srun -n4 -w n1 --container=/no/such.sif true
	eventually logged 1
	grep -q 'uid=2001 image="/no/such.sif" digest=- rule=- verdict=refused cause="coracle: /no/such.sif: no such file on this node \[image-missing\]"' log || fail "$(<log)"
	configure 'version: 7'
	refused config 'version' srun -n1 -w n1 --container="$busybox" true
	eventually logged 2
	grep -q 'verdict=refused cause="coracle: /etc/coracle/coracle.yaml:1:1: ' log || fail "$(<log)"
}

@test "a step without a container has no line" {
	: >log
	listen n1 /dev/log "$dir/log"
	good srun -n1 -w n1 true
	good srun -n1 -w n1 --container="$busybox" true
	eventually logged 1
	grep -q "image=\"$busybox\"" log
}

@test "the journal is used where there is one, with fields" {
	: >log
	listen n1 /run/systemd/journal/socket "$dir/log"
	good srun -n2 -w n1 --container="$busybox" true
	eventually logged 1
	[[ $(<log) == PRIORITY=6\|SYSLOG_IDENTIFIER=coracle\|MESSAGE=job=* ]] || fail "$(<log)"
	[[ $(<log) == *"|CORACLE_UID=2001|"*"|CORACLE_VERDICT=started|"* ]] || fail "$(<log)"
}

@test "log: none writes nothing, syslog goes past the journal" {
	: >log
	configure $'version: 1\nuser_images: kernel\nlog: none'
	listen n1 /dev/log "$dir/log"
	good srun -n1 -w n1 --container="$busybox" true
	configure $'version: 1\nuser_images: kernel\nlog: syslog'
	good srun -n1 -w n1 --container="$busybox" true
	eventually logged 1
	grep -q '^<30>coracle' log
}

@test "a name with control characters and line feeds is one line" {
	: >log
	listen n1 /dev/log "$dir/log"
	local name=$'a\e[2J\nverdict=started b".sif'
	run alice srun -n1 -w n1 --container="$dir/$name" true
	eventually logged 1
	grep -q 'verdict=refused' log
	! grep -q $'\e' log || fail "$(cat -v log)"
	[[ $(grep -o ' verdict=' log | wc -l) == 1 || $(<log) == *'\nverdict=started b\"'* ]] || fail "$(<log)"
}

@test "a logger that does not read holds up no job" {
	: >log
	listen n1 /dev/log "$dir/log"
	kill -STOP "$listener"
	for _ in 1 2 3; do good srun -n1 -w n1 --container="$busybox" true; done
	kill -CONT "$listener"
}

@test "a container is built once where PWD is where the step runs, with a PMIx server as without, and again elsewhere" {
	needs_pmix
	: >log
	listen n1 /dev/log "$dir/log"
	good srun -n1 -w n1 --container="$busybox" true
	good srun -n2 -w n1 --mpi=pmix --container="$busybox" sh -c 'test -d "$PMIX_SERVER_TMPDIR"'
	good srun -n2 -w n1 --mpi=pmix --container="$busybox" --container-writable=8m true
	eventually logged 3
	[[ $(grep -c 'verdict=started' log) == 3 && $(grep -c 'builds=' log) == 0 ]] || fail "$(<log)"
	good srun -n1 -w n1 --chdir=/var --container="$busybox" true
	eventually logged 4
	[[ $(grep -c ' builds=2 ' log) == 1 ]] || fail "$(<log)"
	# A server that is announced and does not come.
	good env SLURM_MPI_TYPE=pmix srun -n1 -w n1 --mpi=none --container="$busybox" --container-writable=8m ls /var
	has_not spool
}
