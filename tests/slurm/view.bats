# What a task sees.
load support

@test "the root is the image's, and read-only for its owner too" {
	good srun -n1 --container="$IMG/hostile.sqsh" sh -c 'cat /etc/image-only; ls -n /alices /file; (echo x >>/alices) 2>&1; (echo x >>/file) 2>&1; (touch /new) 2>&1; (mkdir /etc/new) 2>&1; (rm /alices) 2>&1; true'
	has_line "$MARK"
	# Root's files are hers where the kernel maps owners, and hers root's.
	has 2001
	[[ $(grep -c 'Read-only file system' <<<"$output") == 5 ]] || fail "$output"
	good srun -n1 --container="$busybox" sh -c 'cat /etc/image-only; (touch /x) 2>&1; (touch /etc/x) 2>&1; (touch /run/x) 2>&1; true'
	[[ $(grep -c 'Read-only file system\|Permission denied' <<<"$output") == 3 ]] || fail "$output"
}

@test "every mount is nosuid, and nodev but for /dev, single device nodes and terminals" {
	good srun -n1 --container="$busybox" cat /proc/self/mountinfo
	local place options
	while read -r _ _ _ _ place options _; do
		[[ ,$options, == *,nosuid,* ]] || fail "$place $options" || return
		[[ ,$options, != *,nodev,* ]] || continue
		[[ $place == /dev || $place == /dev/pts || -c $place ]] || fail "$place $options" || return
	done <<<"$output"
	[[ $(awk '$5 == "/dev" { print $6 }' <<<"$output") == ro,* ]] || fail "$output"
}

@test "programs can open terminals of their own: the kernel looks for them beside /dev/ptmx" {
	local open='exec 3<>/dev/ptmx && echo open'
	good sh -c "$open"
	good srun -n1 --container="$busybox" sh -c "$open"
	prints open
	job_script job.sh "$open"
	batch --container="$busybox" job.sh
	prints open
	good coracle exec "$busybox" sh -c "$open"
	prints open
	run coracle exec --user alice "$busybox" sh -c "$open"
	prints open
}

@test "/dev has what every program expects, and nothing of the node's besides" {
	good srun -n1 --container="$busybox" sh -c 'ls /dev; echo x >/dev/null; echo to stderr >/dev/stderr; head -c 3 /dev/zero | od -An -tx1; read -r word </dev/fd/0; echo $word' <<<'from stdin'
	has_line ' 00 00 00'
	has_line 'to stderr'
	has_line 'from stdin'
	local name
	for name in full null ptmx pts random shm stderr stdin stdout tty urandom zero; do has_line "$name" || return; done
	for name in fuse loop0 loop-control kvm kmsg; do
		[[ ! -e /dev/$name || $'\n'$output$'\n' != *$'\n'"$name"$'\n'* ]] || fail "$name" "$output" || return
	done
	run alice srun -n1 --container="$busybox" sh -c 'mknod /dev/x c 1 3 || touch /dev/x || rm /dev/null'
	((status != 0)) || fail "$output"
	has 'Read-only file system'
}

@test "no mount of the container is one that its node would see" {
	good srun -n1 --container="$busybox" cat /proc/self/mountinfo
	has_not ' shared:'
}

@test "/proc, /sys, /dev, /dev/shm, /tmp and /var/tmp are the node's" {
	for place in /tmp /var/tmp /dev/shm; do
		on-node n1 sh -c "echo here >$place/coracle-view; chmod 644 $place/coracle-view"
	done
	good srun -n1 -w n1 --container="$busybox" sh -c 'cat /etc/image-only
		for place in /tmp /var/tmp /dev/shm; do cat $place/coracle-view && echo mine >$place/coracle-mine; done
		ls -d /proc/self /sys/kernel /dev/null; echo x >/dev/null && echo null; head -c 1 /dev/zero | wc -c'
	has_line "$MARK"
	[[ $(grep -cx here <<<"$output") == 3 ]] || fail "$output"
	has_line /proc/self
	has_line /sys/kernel
	has_line null
	for place in /tmp /var/tmp /dev/shm; do
		on-node n1 grep -qx mine "$place/coracle-mine"
		on-node n1 rm "$place/coracle-mine" "$place/coracle-view"
	done
}

@test "the home is there and can be written to" {
	rm -f /home/alice/from-inside
	good srun -n1 --container="$busybox" sh -c 'cat /etc/image-only; echo $HOME; cd && pwd && echo x >from-inside'
	prints "$MARK
/home/alice
/home/alice"
	[[ $(</home/alice/from-inside) == x ]]
	rm /home/alice/from-inside
}

@test "another user's home is not there" {
	good srun -n1 --container="$busybox" ls /home
	prints alice
}

@test "the working directory is the one that the job was started in" {
	mkdir deep
	mkdir -m 777 deep/er
	cd deep/er
	good srun -n1 --container="$busybox" sh -c 'pwd; cat /etc/image-only; echo x >made'
	prints "$dir/deep/er"$'\n'"$MARK"
	[[ $(<made) == x ]]
	good srun -n1 --chdir="$dir" --container="$busybox" pwd
	prints "$dir"
	cd /home/alice
	good srun -n1 --container="$busybox" pwd
	prints /home/alice
}

@test "a working directory that the image lacks is made" {
	local directory
	for directory in /srv/coracle-new/a/b /coracle-top /usr/share/coracle-new /opt/coracle-new; do
		install -d -m 777 "$directory"
		echo data >"$directory/file"
		good srun -n1 --chdir="$directory" --container="$busybox" sh -c 'pwd; cat file; cat /etc/image-only'
		rm -r "$directory"
		prints "$directory"$'\n'"data"$'\n'"$MARK"
	done
}

@test "a working directory of the operating system's is the image's where it has one" {
	good srun -n1 --chdir=/etc --container="$busybox" sh -c 'pwd; cat image-only'
	prints /etc$'\n'"$MARK"
	good srun -n1 --chdir=/ --container="$busybox" sh -c 'pwd; cat etc/image-only'
	prints /$'\n'"$MARK"
}

@test "a working directory that the user may not enter is never left for another one silently" {
	install -d -o bob -m 700 private
	run alice srun -n1 --chdir="$dir/private" --container="$busybox" pwd
	# Slurm itself goes to /tmp, loudly, before anything of ours runs.
	((status != 0)) || has "couldn't chdir to \`$dir/private'"
}

@test "a working directory that is not on the node is never left for another one silently" {
	run alice srun -n1 --chdir=/no/such/directory --container="$busybox" pwd
	((status != 0)) || has "couldn't chdir to \`/no/such/directory'"
}

@test "a working directory through a symbolic link of the node is reached" {
	mkdir -m 777 real
	ln -s real link
	good srun -n1 --chdir="$dir/link" --container="$busybox" sh -c '/bin/busybox pwd; touch here; cat /etc/image-only'
	has "$MARK"
	[[ -e real/here ]]
	ln -s "$dir/real" /home/alice/coracle-link
	good srun -n1 --chdir=/home/alice/coracle-link --container="$busybox" sh -c 'touch there; cat /etc/image-only'
	rm /home/alice/coracle-link
	prints "$MARK"
	[[ -e real/there ]]
}

@test "a working directory by way of /proc leads nowhere outside" {
	local number
	for number in 0 1 2 3 5 7 9 12 20 100; do
		run alice srun -n1 --chdir="/proc/self/fd/$number" --container="$busybox" sh -c 'pwd; ls -d ../../../../../../sbin/slurmd /usr/sbin/slurmd'
		has_not bin/srun$'\n'
		[[ $output != *$'\n/usr/sbin/slurmd' ]]
	done
}

@test "climbing from the root and from process 1 leads nowhere outside" {
	good srun -n1 --container="$busybox" sh -c 'cd ../../../../../..; cat etc/image-only; ls -d bin/busybox; ls /proc/1/root/ 2>&1 | grep -v denied; ls usr/sbin/slurmd /../usr/sbin/slurmd 2>&1 | grep -vi "no such"; true'
	prints "$MARK"$'\n'"bin/busybox"
}

@test "hosts and resolv.conf are the node's" {
	good srun -n1 --container="$busybox" sh -c 'cat /etc/image-only; cat /etc/hosts'
	prints "$MARK"$'\n'"$(</etc/hosts)"
	if [[ -e /etc/resolv.conf ]]; then
		good srun -n1 --container="$busybox" cat /etc/resolv.conf
		prints "$(</etc/resolv.conf)"
	fi
}

# The nodes are in India. An image zone.sqsh whose own time zone is a link to one of its files, and a directory likewise.
zones() {
	[[ -e $SUITE/localtime || -L $SUITE/localtime ]] || cp -a /etc/localtime "$SUITE/localtime"
	ln -sfn /usr/share/zoneinfo/Asia/Kolkata /etc/localtime
	[[ $(date +%z) == +0530 ]]
	cp -a "$IMG/tree" zone
	mkdir -p zone/usr/share/zoneinfo/Etc
	cp -L /usr/share/zoneinfo/Etc/UTC zone/usr/share/zoneinfo/Etc/UTC
	ln -s /usr/share/zoneinfo/Etc/UTC zone/etc/localtime
	mksquashfs zone zone.sqsh -noappend -quiet -no-progress -all-root >/dev/null
	chown -R alice:alice zone
}

# Changes of zones and of runtime_directory.
cleanup() {
	[[ ! -e $SUITE/localtime && ! -L $SUITE/localtime ]] || cp -a --remove-destination "$SUITE/localtime" /etc/localtime
}

# Of the image, without the name of a zone as a variable.
SAYS_ZONE='date +%z; TZ=/usr/share/zoneinfo/Etc/UTC date +%z'

@test "the time zone is the node's: over an image's link, and not over the zone that it names" {
	zones
	configure $'version: 1\nuser_images: kernel\ndirectories: allow\nbinds:\n- source: /scratch'
	local image options reader
	for image in zone.sqsh zone; do
		for options in -- --container-writable=8m --container-bind=/opt:/mnt; do
			[[ $options != -- ]] || options=-n1
			good srun -n1 "$options" --container="$dir/$image" sh -c "$SAYS_ZONE"
			prints $'+0530\n+0000' || { fail "$image $options"; return; }
		done
	done
	batch --container="$dir/zone.sqsh" --wrap "$SAYS_ZONE; srun -n1 sh -c '$SAYS_ZONE'"
	prints $'+0530\n+0000\n+0530\n+0000'
	for reader in kernel fuse; do
		configure $'version: 1\nuser_images: '"$reader"$'\nbinds:\n- source: /scratch'
		good srun -n1 --container="$dir/zone.sqsh" sh -c "$SAYS_ZONE"
		prints $'+0530\n+0000'
	done
	good coracle exec "$dir/zone.sqsh" sh -c "$SAYS_ZONE"
	prints $'+0530\n+0000'
	run coracle exec "$dir/zone.sqsh" sh -c "$SAYS_ZONE"
	prints $'+0530\n+0000'
	# A zone of the user's own is meant as it was.
	good env TZ=XXX-3 srun -n1 --container="$dir/zone.sqsh" date +%z
	prints +0300
	run alice coracle explain --container="$dir/zone.sqsh"
	has_line 'mount  /etc/localtime -> /etc/localtime ro,nosuid,nodev'
	has_not 'layer  file /etc/localtime'
}

@test "the time zone in an image without any, with a directory of that name, and on a node without" {
	zones
	good srun -n1 --container="$busybox" sh -c 'date +%z; cat /etc/image-only'
	prints $'+0530\n'"$MARK"
	good coracle exec --writable "$busybox" date +%z
	prints +0530
	rm zone/etc/localtime && mkdir zone/etc/localtime
	mksquashfs zone directory.sqsh -noappend -quiet -no-progress -all-root >/dev/null
	good srun -n1 --container="$dir/directory.sqsh" sh -c 'date +%z; ls -d /etc/localtime/.'
	prints $'+0000\n/etc/localtime/.'
	rm /etc/localtime
	good srun -n1 --container="$dir/zone.sqsh" sh -c 'readlink /etc/localtime'
	prints /usr/share/zoneinfo/Etc/UTC
	ln -s /no/such /etc/localtime
	good srun -n1 --container="$dir/zone.sqsh" sh -c 'readlink /etc/localtime'
	prints /usr/share/zoneinfo/Etc/UTC
	ln -sfn /usr/share/zoneinfo /etc/localtime
	good srun -n1 --container="$dir/zone.sqsh" sh -c 'readlink /etc/localtime'
	prints /usr/share/zoneinfo/Etc/UTC
}

@test "the time zone of a writable image can be replaced, as a package of zones does, and the change is kept" {
	zones
	local replace='date +%z; ln -sfn /usr/share/zoneinfo/Etc/UTC /etc/localtime.new && mv -f /etc/localtime.new /etc/localtime && readlink /etc/localtime && date +%z'
	good srun -n1 --container="$dir/zone.sqsh" --container-writable=8m sh -c "$replace"
	prints $'+0530\n/usr/share/zoneinfo/Etc/UTC\n+0000'
	good srun -n1 --container="$busybox" --container-writable=8m sh -c 'date +%z; rm /etc/localtime && date +%z'
	prints $'+0530\n+0000'
	on-node n1 sh -c 'mkdir -p /var/tmp/zone && mount -t tmpfs -o mode=755 zone /var/tmp/zone && install -d -o alice -g alice /var/tmp/zone/kept'
	good srun -n1 -w n1 --container="$dir/zone.sqsh" --container-overlay=/var/tmp/zone/kept date +%z || { on-node n1 umount /var/tmp/zone; return 1; }
	prints +0530 || { on-node n1 umount /var/tmp/zone; return 1; }
	[[ -z $(on-node n1 ls -A /var/tmp/zone/kept/upper) ]] || fail "$(on-node n1 ls -lA /var/tmp/zone/kept/upper)"
	on-node n1 umount /var/tmp/zone
	on-node n1 rmdir /var/tmp/zone
}

@test "the time zone is not mounted where the node's own /etc is shown" {
	zones
	good srun -n1 --container="$busybox" --container-bind=/etc:/etc:ro sh -c 'readlink /etc/localtime'
	prints /usr/share/zoneinfo/Asia/Kolkata
	good coracle explain --container="$busybox" --container-bind=/etc:/etc:ro
	has_not '-> /etc/localtime'
	good srun -n1 --container="$busybox" --container-bind="$dir/zone.sqsh:/etc/localtime" sh -c 'head -c 4 /etc/localtime'
	prints hsqs
}

@test "munge's socket is there" {
	good srun -n1 --container="$busybox" sh -c 'cat /etc/image-only; test -S /run/munge/munge.socket.2 && echo socket'
	prints "$MARK"$'\n'socket
}

@test "the image's own directory of programs is what PATH finds" {
	# Slurm's commands are in /usr/bin of a step of one task.
	good srun -n2 --container="$busybox" sh -c 'ls /usr/bin /usr/sbin 2>/dev/null; cat /etc/image-only'
	prints "$MARK"$'\n'"$MARK"
}

@test "what is mounted on the node later appears inside, and nothing goes back" {
	install -d -m 777 late
	alice srun -n1 -w n1 --container="$busybox" sh -c "touch $dir/in; until test -e $dir/late/arrived; do sleep 0.1; done; cat $dir/late/arrived; cat /etc/image-only" >out 2>&1 3>&- &
	local step=$!
	eventually test -e in
	on-node n1 mount -t tmpfs late "$dir/late"
	on-node n1 sh -c "echo from the node >$dir/late/arrived"
	wait "$step" || { on-node n1 umount "$dir/late"; cat out; return 1; }
	on-node n1 umount "$dir/late"
	[[ $(without_waiting <out) == "from the node"$'\n'"$MARK" ]] || fail "$(<out)"
}

@test "the site's binds are there, and one that the node lacks is left out" {
	good srun -n1 --container="$busybox" sh -c 'cat /etc/image-only; test -d /scratch && echo scratch; test -e /gpfs || echo none'
	prints "$MARK"$'\n'"scratch"$'\n'none
	configure $'version: 1\nuser_images: kernel\nbinds:\n- source: /etc\n  target: /site/etc\n  mode: ro\n- source: /scratch'
	good srun -n1 --container="$busybox" sh -c 'cat /etc/image-only; test -d /site/etc/slurm && echo site; (touch /site/etc/x) 2>&1; true'
	has_line site
	has 'Read-only file system'
}

@test "a required bind of the site that the node lacks is refused, with the key" {
	configure $'version: 1\nuser_images: kernel\nbinds:\n- source: /no/such/site'
	refused bind '/no/such/site: does not exist on this node (binds[0] of coracle.yaml)' srun -n1 --container="$busybox" true
}

@test "files of an image in the places of the kernel's settings are covered, for root as for a user" {
	cp -a "$IMG/tree" tree
	touch tree/proc/{sys,sysrq-trigger,irq,bus,fs}
	mksquashfs tree settings.sqsh -noappend -quiet -no-progress -all-root >/dev/null
	local user
	for user in root alice; do
		run timeout 120 as -d "$PWD" "$user" srun -n1 --container="$dir/settings.sqsh" sh -c 'cat /etc/image-only; ls -d /proc/sys/kernel/. /proc/fs/.'
		prints "$MARK"$'\n/proc/fs/.\n/proc/sys/kernel/.' || { fail "$user"; return; }
		run timeout 120 as -d "$PWD" "$user" coracle exec "$dir/settings.sqsh" ls -d /proc/sys/kernel/.
		prints /proc/sys/kernel/. || { fail "exec $user"; return; }
	done
}

@test "an image whose /proc, /dev or /sys is no plain directory is refused" {
	local what
	for what in proc dev sys; do
		refused image-format "/$what: in the image this must be a plain directory, or missing" srun -n1 --container="$IMG/wrong-$what.sqsh" true
	done
	on-node n1 test ! -e /tmp/coracle-x
}
