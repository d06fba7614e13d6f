# coracle explain says what a step gets, and the step gets that.
bats_require_minimum_version 1.5.0
load support

cleanup() {
	[[ -z ${listener:-} ]] || { kill "$listener"; wait "$listener"; } 2>/dev/null || true
	listener=''
	on-node n1 rm -f /dev/log
	rm -rf /opt/images
}

# Writes what comes to /dev/log of n1 to $dir/log.
listen() {
	: >"$dir/log"
	on-node n1 perl -MSocket -e '
		unlink "/dev/log";
		socket(S, AF_UNIX, SOCK_DGRAM, 0) && bind(S, sockaddr_un("/dev/log")) or die "/dev/log: $!";
		chmod 0666, "/dev/log";
		open(my $out, ">>", $ARGV[0]) or die;
		$out->autoflush(1);
		print $out "$text\n" while defined(recv(S, $text, 65536, 0));
	' "$dir/log" 3>&- &
	listener=$!
	eventually test -S /dev/log
}

plan_logged() { grep -q ' plan="enter' "$dir/log"; }

# The lines of a plan in $output.
plan_of_output() {
	grep -E '^(image  [a-z]|upper  |layer  |copy   |link   |mount  |enter  )' <<<"$output" | grep -v '^image   '
}

# explain as alice on n1 prints the plan that a step with the same options logs.
same_plan() { # SRUN-OPTION...
	: >"$dir/log"
	run on-node n1 timeout --foreground 120 as -d "$PWD" alice coracle explain "$@"
	((status == 0)) || { fail "status $status" "$output"; return; }
	plan_of_output >explained
	grep -q '^enter  ' explained || { fail "no plan in $output"; return; }
	# explain has -n in the same words.
	good srun -w n1 "$@" true || return
	eventually plan_logged || return
	sed -n 's/^.* job=[0-9]* step=0 node=n1 plan="\(.*\)"$/\1/p' log >logged
	diff explained logged || fail "$(<log)"
}

CONFIG=$'version: 1\nuser_images: kernel\nlog_plan: yes\nbinds:\n- source: /scratch'

@test "the plan is that of the step" {
	install -d -o alice data
	configure "$CONFIG"
	listen
	same_plan --container="$busybox"
	same_plan --container="$IMG/bare.sif" --container-bind="$dir/data:/mnt/d:ro,tmpfs:/x:1m" --no-container-home
	same_plan --container="$IMG/busybox-zstd.sqsh" --container-writable=4m --container-entrypoint
	same_plan --container="$IMG/overlay.sif" --container-workdir=/etc
	same_plan -n2 --container="$busybox"
	configure $'version: 1\nuser_images: fuse\nlog_plan: yes'
	same_plan --container="$busybox"
}

@test "plans are not logged unless the site wants them" {
	configure $'version: 1\nuser_images: kernel'
	listen
	good srun -n1 -w n1 --container="$busybox" true
	eventually grep -q ' verdict=started' log
	! grep ' plan="' log || fail "$(<log)"
}

@test "image, digest and verdict, and the rule that decides" {
	configure "$CONFIG"
	good coracle explain --container="$busybox"
	[[ ${lines[0]} == "image   $busybox" ]] || fail "$output"
	[[ ${lines[1]} =~ ^'holds   sif:squashfs+zstd offset='[0-9]+' size='[0-9]+', in '$(stat -c %s "$busybox")' bytes'$ ]] || fail "$output"
	[[ ${lines[2]} == 'policy  allowed by user_images=kernel, read by the kernel' ]] || fail "$output"
	local digest
	digest=sha256:$(sha256sum "$busybox" | cut -d' ' -f1)
	good coracle explain --container="$busybox@$digest"
	has_line "digest  $digest"
	has_line "CORACLE_DIGEST=$digest  (coracle)"
	configure $'version: 1\nuser_images: deny\nimage_paths:\n- path: /opt/images'
	install -D -m 644 "$busybox" /opt/images/x.sif
	good coracle explain --container=/opt/images/x.sif
	has_line 'policy  allowed by image_paths[0], read by the kernel'
	run -125 alice coracle explain --container="$busybox"
	has "coracle: $busybox: the site runs only images from its image_paths (user_images: deny) [policy]"
	has_line "image   $busybox"
	has_not 'mount  '
	run -125 alice coracle explain --container="$busybox@sha256:12"
	has '[usage]'
	run -125 alice coracle explain --container="$busybox" --container-digest=sha256:0000000000000000000000000000000000000000000000000000000000000000
	has '[digest]'
	configure $'version: 1\nuser_images: fuse'
	good coracle explain --container="$busybox"
	has_line 'policy  allowed by user_images=fuse, read by squashfuse_ll, as the user'
}

@test "mounts of the image's /etc/fstab are told of" {
	configure "$CONFIG"
	cp -a "$IMG/tree" tree
	printf '# comment\n' >tree/etc/fstab
	mksquashfs tree quiet.sqsh -noappend -quiet -no-progress -all-root >/dev/null
	printf '/data /mnt/data none bind\ntmpfs /run tmpfs\n' >>tree/etc/fstab
	mksquashfs tree told.sqsh -noappend -quiet -no-progress -all-root >/dev/null
	good coracle explain --container="$dir/quiet.sqsh"
	has_not fstab
	good coracle explain --container="$dir/told.sqsh"
	has_line "note    mounts of the image's /etc/fstab are not made: /mnt/data and 1 more; --container-bind makes them"
	run coracle explain --json --container="$dir/told.sqsh"
	[[ $(python3 -c 'import json, sys; print(len(json.load(sys.stdin)["notes"]))' <<<"$output") == 1 ]] || fail "$output"
	# Nobody is told of it in each step.
	good srun -n1 --container="$dir/told.sqsh" true
	prints ''
}

@test "the environment is that of the step, with its origins" {
	good env FROM_HERE=1 coracle explain -n2 --container="$busybox" --container-env=SET=2
	has_line 'FROM_HERE=1  (host)'
	has_line 'SET=2  (--container-env)'
	has_line "CORACLE_IMAGE=$busybox  (coracle)"
	has_line 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin  (default)'
	good env FROM_HERE=1 coracle explain --container="$busybox" --container-clean-env
	has_not $'\nFROM_HERE=1'
}

@test "a job script gets the Slurm commands, unless it stays on the node; a step of several tasks does not" {
	good coracle explain --container="$busybox" --script
	has ' -> /run/coracle/host/usr ro,nosuid,nodev'
	has 'PATH=/run/coracle/slurm/bin:'
	good coracle explain --ntasks=2 --container="$busybox"
	has_not /run/coracle/host
	good coracle explain --container="$busybox" --script --container-scope=steps
	prints 'scope   steps: the job script runs on the node'
}

@test "root may ask for somebody else, and nobody else may" {
	install -o alice -m 600 "$busybox" mine.sif
	run coracle explain --user alice --container="$dir/mine.sif"
	((status == 0)) || fail "$output"
	has 'mount  /home/alice -> /home/alice rw,nosuid,nodev'
	has_line 'HOME=/home/alice  (host)'
	run -125 coracle explain --user bob --container="$dir/mine.sif"
	has '[image-unreadable]'
	run -125 alice coracle explain --user bob --container="$busybox"
	has 'only root can be somebody else'
	run -125 alice coracle explain
	run -125 alice coracle explain --container=none
	run -125 alice coracle explain --container=step
	healthy
}

@test "doctor of a node without GPUs says so, and ends with its reader" {
	run on-node n1 coracle doctor
	((status == 0)) || fail "$output"
	has_line 'ok       gres      slurm.conf has no GresTypes'
	has 'Slurm gives no devices here'
	run alice bash -c 'coracle doctor | read -r first; coracle doctor --config /nonexistent | grep -c "/nonexistent: not there"'
	prints 1
}
