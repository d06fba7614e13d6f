# --container-writable and --container-overlay: writing into the image.
load support

@test "what tasks write is seen by the tasks of the node, and is gone at the end" {
	local before
	before=$(sha256sum "$busybox")
	good srun -n16 -N1 --container="$busybox" --container-writable=8m sh -c 'echo x >/mine.$SLURM_PROCID; until [ $(ls /mine.* | wc -l) = 16 ]; do sleep 0.1; done; [ $SLURM_PROCID = 0 ] && ls / | grep -c mine; true'
	prints 16
	good srun -n1 -w n1 --container="$busybox" --container-writable ls /
	has_not mine
	[[ $before == "$(sha256sum "$busybox")" ]]
}

@test "the nodes of a step have one each" {
	good srun -N2 --ntasks-per-node=2 --container="$busybox" --container-writable sh -c 'echo x >/on.$SLURMD_NODENAME; sleep 1; ls / | grep ^on'
	[[ $(grep -cx on.n1 <<<"$output") == 2 && $(grep -cx on.n2 <<<"$output") == 2 ]] || fail "$output"
}

@test "two steps of a node have one each" {
	good srun -n1 -w n1 --container="$busybox" --container-writable touch /first
	good srun -n1 -w n1 --container="$busybox" --container-writable ls /
	has_not first
}

@test "the limit is kept, and the task is told" {
	good srun -n1 --container="$busybox" --container-writable=1m sh -c 'dd if=/dev/zero of=/big bs=1k count=4000 2>&1; true'
	has 'No space left on device'
	good srun -n1 --container="$busybox" --container-writable=8m sh -c 'dd if=/dev/zero of=/big bs=1k count=4000 2>&1 && echo wrote'
	has_line wrote
}

@test "the site's limit counts without a size, and no size is above it" {
	configure $'version: 1\nuser_images: kernel\nwritable_limit: 1m\nbinds:\n- source: /scratch'
	good srun -n1 --container="$busybox" --container-writable sh -c 'dd if=/dev/zero of=/big bs=1k count=4000 2>&1; true'
	has 'No space left on device'
	run alice srun -n1 --container="$busybox" --container-writable=8m sh -c 'dd if=/dev/zero of=/big bs=1k count=4000 2>&1; true'
	has 'No space left on device' || { ((status == 125)) && has '1m'; }
}

@test "the step that asks for it is the one that has it, a job's steps have one each" {
	job_script job.sh 'touch /of-script; srun -n1 sh -c "ls /of-script 2>&1; touch /of-step"; ls /of-step /of-script 2>&1'
	run batch --container="$busybox" --container-writable job.sh
	output=$(<batch.out)
	has 'ls: /of-script: No such file'
	has 'ls: /of-step: No such file'
	has_line /of-script
}

@test "files of the image that are root's" {
	# Where the kernel maps the owner (idmapped mounts), these can be written too; the image file stays as it was.
	good srun -n1 --container="$busybox" --container-writable sh -c '(echo changed >/etc/image-only) 2>/dev/null && cat /etc/image-only || echo kept; (mkdir /etc/new) 2>/dev/null && echo made || echo not made; (rm /etc/group) 2>/dev/null; true'
	[[ $output == $'kept\nnot made' || $output == $'changed\nmade' ]] || fail "$output"
	good srun -n1 --container="$busybox" cat /etc/image-only
	prints "$MARK"
}

@test "what the user owns in the image can be changed, removed and replaced" {
	good srun -n1 --container="$IMG/hostile.sqsh" --container-writable sh -c 'cat /alices; echo new >>/alices; cat /alices; rm /alices; ls /alices 2>&1; mkdir /alices; ls -d /alices'
	prints $'mine\nmine\nnew\nls: /alices: No such file or directory\n/alices'
}

@test "no setuid program and no device works that was written" {
	good srun -n1 --container="$busybox" --container-writable sh -c 'mkdir /d && cp /bin/busybox /d && chmod 4755 /d/busybox && /d/busybox grep -E "^(Uid|NoNewPrivs)" /proc/self/status; mknod /null c 1 3 2>&1 || true'
	has 'Uid:	2001	2001	2001	2001'
	has 'NoNewPrivs:	1'
	has 'not permitted'
}

@test "with every kind of image" {
	local image
	for image in "$IMG/busybox.erofs" "$IMG/overlays.sif" "$IMG/bare.sif" "$IMG/busybox-zstd.sqsh"; do
		good srun -n2 --container="$image" --container-writable=4m sh -c 'echo $SLURM_PROCID >/f.$SLURM_PROCID && cat /f.$SLURM_PROCID' || { fail "$image"; return; }
		has_line 0
		has_line 1
	done
	configure $'version: 1\nuser_images: fuse\nbinds:\n- source: /scratch'
	good srun -n1 --container="$busybox" --container-writable=4m sh -c 'echo x >/f && cat /f'
	prints x
}

# A directory of alice's on a file system of its own kind, seen by all nodes.
cleanup() {
	local node
	for node in n1 n2 n3; do
		while on-node "$node" umount /var/tmp/coracle-overlay 2>/dev/null; do :; done
		on-node "$node" rm -rf /var/tmp/coracle-overlay /var/tmp/coracle.ext4
	done
	rm -rf /var/tmp/overlays.*
}

# A disk of n1's, with a directory of alice's and one of bob's.
a_disk() {
	on-node n1 sh -c 'mkdir -p /var/tmp/coracle-overlay && mount -t tmpfs -o mode=755 disk /var/tmp/coracle-overlay &&
		install -d -o alice -g alice /var/tmp/coracle-overlay/alice && install -d -o bob -g bob /var/tmp/coracle-overlay/bob &&
		install -d -o root -m 777 /var/tmp/coracle-overlay/anyones && touch /var/tmp/coracle-overlay/file && chown alice /var/tmp/coracle-overlay/file'
	kept=/var/tmp/coracle-overlay/alice
}

@test "overlay: what is written is kept for the next job, what was removed too" {
	a_disk
	good srun -n4 -w n1 --container="$IMG/hostile.sqsh" --container-overlay="$kept" sh -c 'echo one >/mine.$SLURM_PROCID; [ $SLURM_PROCID != 0 ] || rm /alices; echo $(id -u)'
	good srun -n1 -w n1 --container="$IMG/hostile.sqsh" --container-overlay="$kept" sh -c 'cat /mine.0 /mine.3; ls /alices 2>&1; echo two >>/mine.0'
	prints $'one\none\nls: /alices: No such file or directory'
	job_script job.sh 'cat /mine.0; cat /etc/image-only'
	batch -w n1 --container="$IMG/hostile.sqsh" --container-overlay="$kept" job.sh
	prints $'one\ntwo\n'"$MARK"
	[[ $(on-node n1 ls "$kept") == $'upper\nwork' ]]
	on-node n1 test -c "$kept/upper/alices"
	good srun -n1 -w n1 --container="$IMG/hostile.sqsh" ls /alices
}

@test "overlay: nothing below it belongs to anybody but the user" {
	a_disk
	good srun -n1 -w n1 --container="$busybox" --container-overlay="$kept" sh -c 'mkdir /a /a/b; echo >/a/b/c'
	[[ -z $(on-node n1 find "$kept" ! -user alice ! -path "$kept/work/*") ]] || fail "$(on-node n1 find "$kept" ! -user alice -ls)"
}

@test "overlay: what an image says of set-user-id, capabilities and devices does not come into the directory" {
	a_disk
	# What is root's in the image is alice's where the kernel can map owners, and what is hers root's: one of the two is
	# root's own in any case. To move a file is to copy it up.
	good srun -n1 -w n1 --container="$IMG/hostile.sqsh" --container-overlay="$kept" sh -c 'cd /bin; for file in busybox-*; do
		mv $file moved-$file; cp moved-$file copied-$file; done 2>/dev/null; mv /devices/null /devices/moved 2>/dev/null; echo x >/f; ls /f'
	run on-node n1 find "$kept/upper" -type f -perm /6000 ! -user alice
	prints ''
	run on-node n1 find "$kept/upper" ! -type d ! -type f ! -type l -exec stat -c %t,%T {} +
	! grep -qvxE '(0,0)?' <<<"$output" || fail "$output"
	run on-node n1 getfattr -R -d -m security.capability "$kept/upper"
	has_not capability
}

@test "overlay: by variable, and relative" {
	a_disk
	good env CORACLE_CONTAINER_OVERLAY="$kept" srun -n1 -w n1 --container="$busybox" sh -c 'echo x >/f && cat /f'
	prints x
	on-node n1 test -e "$kept/upper/f"
}

@test "overlay: what cannot be used is refused" {
	a_disk
	local top=/var/tmp/coracle-overlay
	same_mounts() { :; } # the disk is there
	refused bind "/no/such: does not exist on this node" srun -n1 -w n1 --container="$busybox" --container-overlay=/no/such true
	has 'coracle: hint: make it before: mkdir, on a disk of the node'
	refused bind "$top/file: not a directory" srun -n1 -w n1 --container="$busybox" --container-overlay=$top/file true
	refused bind "$top/bob: cannot be used as an overlay: permission denied" srun -n1 -w n1 --container="$busybox" --container-overlay=$top/bob true
	refused bind "/etc: cannot be used as an overlay: permission denied" srun -n1 -w n1 --container="$busybox" --container-overlay=/etc true
	refused bind /proc/self srun -n1 -w n1 --container="$busybox" --container-overlay=/proc/self true
	on-node n1 chmod 700 $top/bob
	refused bind "$top/bob" srun -n1 -w n1 --container="$busybox" --container-overlay=$top/bob true
	job_script job.sh true
	refused_batch bind '/no/such: does not exist on this node' --container="$busybox" --container-overlay=/no/such job.sh
}

@test "overlay: upper and work that lead elsewhere, or are no directories, are refused" {
	a_disk
	on-node n1 sh -c "install -d -o root -m 755 /var/tmp/coracle-overlay/roots; ln -s ../roots $kept/upper; mkdir $kept/work; chown -h alice $kept/upper $kept/work"
	same_mounts() { :; } # the disk is there
	refused bind "$kept" srun -n1 -w n1 --container="$busybox" --container-overlay="$kept" true
	on-node n1 sh -c "rm $kept/upper; touch $kept/upper; chown alice $kept/upper"
	refused bind "$kept" srun -n1 -w n1 --container="$busybox" --container-overlay="$kept" true
	[[ -z $(on-node n1 ls /var/tmp/coracle-overlay/roots) ]]
}

@test "overlay: two steps at once on a node are refused by name" {
	a_disk
	alice srun -n1 -w n1 --container="$busybox" --container-overlay="$kept" sh -c "touch $dir/in; until test -e $dir/go; do sleep 0.1; done" 3>&- &
	local step=$!
	eventually test -e in
	run alice srun -n1 -w n1 --container="$busybox" --container-overlay="$kept" true
	touch go
	wait "$step"
	((status == 125)) || fail "$status $output"
	said bind "$kept: is written to by another container on this node"
	good srun -n1 -w n1 --container="$busybox" --container-overlay="$kept" true
}

@test "overlay: a step with a PMIx server, and one that starts elsewhere, have no other container in the way" {
	needs_pmix
	a_disk
	good srun -n2 -w n1 --mpi=pmix --container="$busybox" --container-overlay="$kept" sh -c 'test -d "$PMIX_SERVER_TMPDIR" && echo server'
	prints $'server\nserver'
	# /var is the image's own, and PWD is not.
	good srun -n1 -w n1 --chdir=/var --container="$busybox" --container-overlay="$kept" pwd
	prints /var
	good srun -n2 -w n1 --chdir=/var --mpi=pmix --container="$busybox" --container-overlay="$kept" true
}

@test "overlay: inherited by the steps of a job it cannot serve both" {
	a_disk
	job_script job.sh 'touch /by-script; srun -n1 ls /by-script; echo "status $?"'
	job=$(alice sbatch --parsable -w n1 -o "$dir/batch.out" --container="$busybox" --container-overlay="$kept" job.sh)
	eventually ended "$job"
	output=$(<batch.out)
	has 'is written to by another container on this node'
}

@test "overlay: in /scratch, twice" {
	mkdir overlay
	chown alice overlay
	# A tmpfs that all nodes see: it can keep an overlay.
	good srun -n1 --container="$busybox" --container-overlay="$dir/overlay" sh -c 'echo x >/f && cat /f'
	prints x
	good srun -n1 --container="$busybox" --container-overlay="$dir/overlay" cat /f
	prints x
}

# Others' files in a directory of alice's, which she may move and not remove.
others_files() { # DIRECTORY
	on-node n1 sh -c "install -d -o alice $1; install -d -m 755 $1/F $1/F/G $1/F/H; for file in F/own F/G/deep; do install -m 600 /dev/null $1/\$file; done
		install -d -o bob -m 700 $1/bobs; install -o bob -m 600 /dev/null $1/bobs/own"
}

all_there() { # DIRECTORY
	[[ $(on-node n1 find "$1" -mindepth 1 -printf '%P\n' | sort | tr '\n' ' ') == 'F F/G F/G/deep F/H F/own bobs bobs/own ' ]] ||
		fail "$(on-node n1 find "$1")"
}

@test "overlay: what of others its user has put into the kernel's work directory stays, at each depth and by each name" {
	a_disk
	local at
	same_mounts() { :; } # the disk is there
	for at in work work/work work/index work/work/a work/work/work/work; do
		others_files $kept.project
		on-node n1 sh -c "install -d -o alice $kept $kept/upper; as alice mkdir -p $(dirname $kept/$at); mv $kept.project $kept/$at"
		refused bind "$kept/work: cannot be emptied with your rights: " srun -n1 -w n1 --container="$busybox" --container-overlay="$kept" true || return
		all_there $kept/$at || return
		[[ $(on-node n1 ls -A "$kept") == $'.coracle.lock\nupper\nwork' ]] || fail "$(on-node n1 ls -lA "$kept")" || return
		on-node n1 rm -rf "$kept"
	done
}

@test "overlay: what is left in work of an earlier overlay is removed, and what was kept is there" {
	a_disk
	# As the kernel leaves it, with temporary files of one that was killed.
	on-node n1 as -d "$kept" alice sh -c 'mkdir -p upper work/work/x work/index && echo kept >upper/file && touch work/work/#1f work/work/x/y &&
		ln -s /etc/passwd work/work/link && mkfifo work/work/fifo && chmod 0 work/work/x work/work'
	good srun -n1 -w n1 --container="$busybox" --container-overlay="$kept" cat /file
	prints kept
	[[ $(on-node n1 find "$kept/work" -printf '%P:%u:%m ') == ':alice:755 work:alice:0 ' ]] || fail "$(on-node n1 find "$kept" -ls)"
	[[ $(on-node n1 ls -A "$kept") == $'.coracle.lock\nupper\nwork' ]]
	on-node n1 as -d "$kept" alice sh -c 'chmod 700 work/work && rm -r work upper .coracle.lock'
	[[ -z $(on-node n1 ls -A "$kept") ]]
}

@test "overlay: a work that leads elsewhere is removed itself, and not what it leads to" {
	a_disk
	on-node n1 as alice sh -c "mkdir $kept/mine && touch $kept/mine/file && ln -s mine $kept/work"
	good srun -n1 -w n1 --container="$busybox" --container-overlay="$kept" true
	on-node n1 test -e "$kept/mine/file"
	[[ $(on-node n1 stat -c %F "$kept/work") == directory ]]
}

@test "overlay: names that are exchanged all the time lead to no file of others'" {
	a_disk
	cat >exchange.py <<-'PYTHON'
		import ctypes, os, sys
		libc = ctypes.CDLL(None)
		one, other, stop = (name.encode() for name in sys.argv[1:])
		while not os.path.exists(stop):
		    for _ in range(1000):
		        libc.renameat2(-100, one, -100, other, 2)
	PYTHON
	local exchanger
	others_files $kept.project
	on-node n1 sh -c "install -d -o alice $kept/upper $kept/work $kept/work/work $kept.decoy $kept.decoy/work; mv $kept.project $kept.decoy/work/work"
	on-node n1 as -d "$dir" alice python3 exchange.py "$kept/work" "$kept/decoy" "$dir/stop" 3>&- &
	exchanger=$!
	on-node n1 mv $kept.decoy "$kept/decoy"
	same_mounts() { :; } # the disk is there
	for _ in 1 2 3 4 5 6 7 8; do
		alice srun -n1 -w n1 --container="$busybox" --container-overlay="$kept" true || true
	done
	touch stop
	wait "$exchanger"
	on-node n1 sh -c "cd $kept && find . -name F -exec mv {}/../ $kept.found \\; 2>/dev/null; true"
	[[ $(on-node n1 find "$kept" "$kept.found" '(' -name own -o -name deep ')' 2>/dev/null | wc -l) == 3 ]] || fail "$(on-node n1 find "$kept")"
}

@test "overlay: a lock that others hold on the user's directories keeps nobody out" {
	a_disk
	local holders=() name
	on-node n1 as alice mkdir "$kept/upper" "$kept/work"
	for name in . upper work; do
		on-node n1 as bob flock -x "$kept/$name" sh -c "until test -e $dir/go; do sleep 0.1; done" 3>&- &
		holders+=($!)
	done
	eventually on-node n1 sh -c "! flock -n $kept true && ! flock -n $kept/upper true && ! flock -n $kept/work true"
	good srun -n1 -w n1 --container="$busybox" --container-overlay="$kept" cat /etc/image-only
	prints "$MARK"
	touch go
	wait "${holders[@]}"
	run on-node n1 as bob flock -n "$kept/.coracle.lock" true
	((status != 0))
	[[ $(on-node n1 stat -c %U:%a "$kept/.coracle.lock") == alice:600 ]]
}

@test "overlay: a lock file that is not its user's alone, or no file, is refused" {
	a_disk
	local made
	same_mounts() { :; } # the disk is there
	for made in 'install -m 600 -o bob /dev/null' 'install -m 666 -o alice /dev/null' 'ln -s /etc/passwd' 'as alice mkfifo -m 600' 'as alice mkdir'; do
		on-node n1 sh -c "rm -rf $kept/.coracle.lock; $made $kept/.coracle.lock"
		run alice srun -n1 -w n1 --container="$busybox" --container-overlay="$kept" true
		((status == 125)) || fail "$made: $status $output" || return
		said bind "$kept" || fail "$made" || return
	done
}

@test "overlay: a step and coracle exec of the same user keep each other out" {
	a_disk
	alice srun -n1 -w n1 --container="$busybox" --container-overlay="$kept" sh -c "touch $dir/in; until test -e $dir/go; do sleep 0.1; done" 3>&- &
	local step=$! why="$kept: is written to by another container on this node"
	eventually test -e in
	run on-node n1 as -d "$dir" alice coracle exec --overlay "$kept" "$busybox" true
	touch go
	wait "$step"
	((status == 125)) || fail "$status $output"
	has "coracle: $why [bind]"
	rm -f in go
	on-node n1 as -d "$dir" alice coracle exec --overlay "$kept" "$busybox" sh -c "touch $dir/in; until test -e $dir/go; do sleep 0.1; done" 3>&- &
	step=$!
	eventually test -e in
	run alice srun -n1 -w n1 --container="$busybox" --container-overlay="$kept" true
	touch go
	wait "$step"
	((status == 125)) || fail "$status $output"
	said bind "$why"
	on-node n1 as -d "$dir" alice coracle exec --overlay "$kept" "$busybox" true
}
