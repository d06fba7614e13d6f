bats_require_minimum_version 1.5.0
load making

@test "a directory becomes a SIF whose files are root's, the same for root, a user, and a user with a range of ids" {
	small_tree tree
	export SOURCE_DATE_EPOCH=1700000000
	coracle build root.sif tree
	as_user coracle build user.sif tree
	as_ranged coracle build ranged.sif tree
	cmp root.sif user.sif
	cmp user.sif ranged.sif
	unsquashfs -o 32768 -lln root.sif | grep -c ' 0/0 ' >/dev/null
	run unsquashfs -o 32768 -lln root.sif
	[[ $output != *' 2001/'* && $output != *' 65534/'* ]]
}

@test "a file that is there stays as it is, without --force" {
	small_tree tree
	echo hsqs old >a.sif
	run coracle build a.sif tree
	[[ $status == 2 && $output == *'a.sif: is there already [usage]'*'--force'* ]]
	[[ $(cat a.sif) == 'hsqs old' ]]
	coracle build --force a.sif tree
	[[ $(wc -c <a.sif) -gt 100000 ]]
}

@test "compressor, level and block size are what was asked for" {
	local compression
	small_tree tree
	for compression in zstd gzip lz4 xz lzo; do
		coracle build --compression "$compression" --block-size 64K "$compression.sif" tree
		# Documentation/filesystems/squashfs.rst: the id of the compressor at 20, the size of a block at 12.
		read -r block id < <(tail -c +32769 "$compression.sif" | python3 -c '
import struct, sys
start = sys.stdin.buffer.read(96)
print(struct.unpack_from("<I", start, 12)[0], struct.unpack_from("<H", start, 20)[0])')
		[[ $block == 65536 ]]
		case $compression in gzip) [[ $id == 1 ]] ;; lzo) [[ $id == 3 ]] ;; xz) [[ $id == 4 ]] ;; lz4) [[ $id == 5 ]] ;; zstd) [[ $id == 6 ]] ;; esac
	done
	coracle build --level 19 best.sif tree
	[[ $(stat -c %s best.sif) -lt $(stat -c %s lz4.sif) ]]
	run coracle build --compression lz4 --level 3 none.sif tree
	[[ $status == 2 && $output == *'--level: lz4 has no levels'* && ! -e none.sif ]]
}

@test "a disk that is full leaves nothing" {
	small_tree tree
	mkdir small
	mount -t tmpfs -o size=300k small small
	run coracle build small/a.sif tree
	umount small
	[[ $status == 1 && $output == *'no space is left there [system]'* ]]
}

@test "an interrupt leaves nothing" {
	small_tree tree
	head -c 200000000 /dev/urandom >tree/random
	coracle build --processors 1 --compression xz a.sif tree &
	local pid=$!
	while [[ -z $(find /tmp -maxdepth 1 -name 'coracle-*') ]]; do sleep 0.01; done
	sleep 0.3
	kill -TERM "$pid"
	local status=0
	wait "$pid" || status=$?
	[[ $status == 143 && ! -e a.sif ]]
	run ! pgrep -f "$BATS_TEST_TMPDIR/tree"
}

@test "what is no file is not replaced, and a directory with the workshop in it is refused" {
	small_tree tree
	mkfifo fifo
	mknod null c 1 3
	for name in fifo null; do
		run coracle build --force "$name" tree
		[[ $status == 2 && $output == *"$name: something that is no file has that name [usage]"* ]]
	done
	[[ -p fifo && -c null ]]
	run env TMPDIR="$PWD/tree" coracle build a.sif tree
	[[ $status == 2 && $output == *'is in it, where images are made [usage]'*CORACLE_TMPDIR* && ! -e a.sif ]]
	mv tree -- -tree
	coracle build a.sif -- -tree
	[[ -s a.sif ]]
}

# What every way of packing it has to say of a tree that a user may not read all of.
lacks() { # PATH COMMAND...
	local path=$1
	shift
	run "$@"
	[[ $status == 1 && $output == *"coracle: $path: you may not read it, so the image would lack it [image-unreadable]"* ]] ||
		{ echo "$output"; return 1; }
	[[ $output == *'hint: build as a user who may read all of the directory'* && ! -e a.sif ]]
}

@test "a directory that cannot be read as a whole becomes no image, and the first path is named" {
	local who
	small_tree tree
	mkdir tree/closed tree/etc/deep
	echo secret | tee tree/closed/file tree/etc/deep/key >tree/etc/deep/z
	chmod 600 tree/etc/deep/*
	for who in as_user as_ranged as_plain_user; do lacks tree/etc/deep/key "$who" coracle build a.sif tree; done
	chmod 700 tree/closed
	for who in as_user as_ranged as_plain_user; do lacks tree/closed "$who" coracle build a.sif tree; done
	printf 'Bootstrap: localimage\nFrom: tree\n' >x.def
	lacks tree/closed as_user coracle build a.sif x.def
	printf 'Bootstrap: scratch\n%%files\n\ttree/closed/* /\n' >x.def
	run as_user coracle build a.sif x.def
	[[ $status == 1 && $output == *ermission* && ! -e a.sif ]] || { echo "$output"; return 1; }
	# One's own files are read, whatever their mode says, where the kernel lets root of a namespace do so.
	chown -R 2001:2001 tree/closed tree/etc
	chmod 0 tree/closed/file
	as_user coracle build a.sif tree
	[[ $(unsquashfs -o 32768 -cat a.sif closed/file) == secret ]]
	rm a.sif
	lacks tree/closed/file as_plain_user coracle build a.sif tree
	coracle build a.sif tree
	[[ $(unsquashfs -o 32768 -cat a.sif etc/deep/z) == secret ]]
}

@test "a file that turns out to be unreadable while it is packed is an error" {
	local closed
	small_tree tree
	# Root may read it, by its mode, and the kernel gives out nothing.
	closed=$(find /sys/devices/system /sys/bus -perm 0200 -type f 2>/dev/null | head -n 1)
	[[ $closed ]]
	: >tree/etc/file
	mount --bind "$closed" tree/etc/file
	run coracle build a.sif tree
	umount tree/etc/file
	[[ $status == 1 && $output == *"Failed to read file "*tree/etc/file*'[system]'*'hint: an image has all of a directory'* ]] ||
		{ echo "$output"; return 1; }
	[[ ! -e a.sif ]]
}

@test "too few descriptors are not the directory's fault" {
	local path=deep limit said=
	small_tree deep
	for _ in 1 2 3 4 5 6; do path+=/d; mkdir "$path"; done
	# Somewhere between these the first that fails is one for reading.
	for limit in 6 7 8 9 10 11 12 13 14; do
		run bash -c "ulimit -n $limit; exec coracle build out.sif deep"
		[[ $status != 0 ]] || break
		[[ $output != *'[image-'* ]] || { echo "at $limit: $output"; return 1; }
		[[ $output != *'Too many open files'* && $output != *'too many open files'* ]] || said=yes
		rm -rf /tmp/coracle-* out.sif
	done
	[[ -n $said ]] || { echo "never short of them: $output"; return 1; }
}

@test "mounts of an image's /etc/fstab are told of, and its comments are not" {
	small_tree tree
	echo '# UNCONFIGURED FSTAB FOR BASE SYSTEM' >tree/etc/fstab
	run coracle build quiet.sif tree
	[[ $status == 0 && $output != *fstab* ]]
	echo '/data /mnt/data none bind 0 0' >>tree/etc/fstab
	tar -C tree -cf tree.tar .
	for source in tree tree.tar; do
		run coracle build --force told.sif "$source"
		[[ $status == 0 && $output == *"coracle: note: mounts of the image's /etc/fstab are not made: /mnt/data; --container-bind makes them"* ]]
	done
}

@test "times that a squashfs cannot keep are clamped, also those of a directory, and it stays as it is" {
	small_tree tree
	touch -d 1960-01-01 tree/etc/old
	touch -d 2200-01-01 tree/etc/late
	ln -s gone tree/etc/link
	touch -h -d 1950-01-01 tree/etc/link
	touch -d 1955-01-01 tree
	printf 'Bootstrap: localimage\nFrom: tree\n%%post\n\ttouch -d "1962-01-01 00:00" /etc/posted\n' >x.def
	coracle build a.sif tree
	as_user coracle build b.sif tree
	as_user coracle build c.sif x.def
	for image in a b c; do
		run env TZ=UTC unsquashfs -o "$(at_root $image.sif)" -lln $image.sif
		[[ $output == *'1970-01-01 00:00 squashfs-root/etc/old'* && $output == *'2106-02-07 06:28 squashfs-root/etc/late'* ]] ||
			{ echo "$image: $output"; return 1; }
		[[ $output == *'1970-01-01 00:00 squashfs-root/etc/link -> gone'* ]]
	done
	[[ $output == *'1970-01-01 00:00 squashfs-root/etc/posted'* ]]
	run env TZ=UTC unsquashfs -o 32768 -lln a.sif
	[[ $output == *'1970-01-01 00:00 squashfs-root'$'\n'* ]]
	[[ $(stat -c %Y tree/etc/old) == -315619200 ]]
}

at_root() { # SIF
	python3 -c '
import sys
data = open(sys.argv[1], "rb").read(1 << 20)
print(next(at for at in range(32768, len(data), 4096) if data[at:at + 4] == b"hsqs"))' "$1"
}

@test "what is made is said: the name, the digest and the size" {
	small_tree tree
	run --separate-stderr coracle build a.sif tree
	[[ $status == 0 && -z $stderr && $output =~ ^'a.sif sha256:'$(sha256sum a.sif | cut -d' ' -f1)' '[0-9.]+' '[KM]iB$ ]] || { echo "$output"; return 1; }
	run coracle -s build b.sif tree
	[[ $status == 0 && -z $output && -s b.sif ]]
	coracle build c.sif tree >/dev/full || [[ -s c.sif ]]
}

# A command on a terminal: what it wrote there, a line for each carriage return.
on_terminal() { # NAME COMMAND
	script -qefc "stty cols 100; setpriv --reuid $1 --regid $1 --init-groups env HOME=$CORACLE_SCRATCH/home/$1 USER=$1 $2" /dev/null | tr '\r' '\n' | sed 's/\x1b\[[0-9;?]*[A-Za-z]//g'
}

@test "on a terminal the progress of packing is shown, elsewhere nothing, and nothing at all with --quiet" {
	local who flag
	small_tree tree
	head -c 12000000 /dev/urandom >tree/random
	for who in user ranged root; do
		on_terminal "$who" 'coracle build --processors 1 --compression xz a.sif tree' >shown
		grep -qE '^packing a\.sif \[[^]]*\] [1-9][0-9]?% [0-9]+s' shown || { tail -3 shown; return 1; }
		grep -qE '^a\.sif sha256:[0-9a-f]{64} 1[0-9]\.[0-9] MiB$' shown || { tail -3 shown; return 1; }
		unsquashfs -o 32768 -cat a.sif random | cmp - tree/random
		rm a.sif
		for flag in '--quiet build' '-q build' '--silent build' '-s build'; do
			on_terminal "$who" "coracle $flag a.sif tree" >shown
			[[ ! -s shown && -s a.sif ]] || { tail -3 shown; return 1; }
			rm a.sif
		done
	done
	run --separate-stderr coracle build --processors 1 --compression xz a.sif tree
	[[ $status == 0 && -z $stderr && ${#lines[@]} == 1 && $output == 'a.sif sha256:'* ]]
	rm a.sif
	# Without a terminal of its own to count for, mksquashfs works all the same.
	run on_terminal root "unshare --mount sh -c 'mount -t tmpfs none /dev/pts && exec coracle build a.sif tree'"
	[[ $output == *'a.sif sha256:'* && $output != *packing* ]] || { echo "$output"; return 1; }
	# What is wrong is said in its line.
	mkdir small
	mount -t tmpfs -o size=1m,mode=1777 small small
	run on_terminal user 'coracle build small/a.sif tree'
	umount small
	[[ $output == *'coracle: '*': no space is left there [system]'* ]] || { tail -3 <<<"$output"; return 1; }
}

@test "--force replaces an image and nothing else, whichever way it was named" {
	local force
	small_tree tree
	coracle build a.sif tree
	printf 'Bootstrap: localimage\nFrom: a.sif\n' >my.def
	cp my.def recipe
	cp my.def kept
	ln -s recipe link
	echo text >notes.txt
	for force in '' --force; do
		run coracle build $force my.def a.sif
		[[ $status == 2 && $output == *'my.def: what is made is a SIF, and .def is the name of something else [usage]'*'the image to make comes first'* ]]
		for name in recipe link; do
			run coracle build $force "$name" a.sif
			[[ $status == 2 && $output == *"$name: is there already, and is no image, which alone --force replaces [usage]"*'the image to make comes first'* ]] ||
				{ echo "$output"; return 1; }
		done
		run coracle build $force notes.txt tree
		[[ $status == 2 && $output == *'notes.txt: is there already, and is no image'*'remove it first'* ]]
		run coracle pull $force --plain-http docker://127.0.0.1:1/a notes.txt
		[[ $status == 2 && $output == *'notes.txt: is there already, and is no image'* ]]
		run coracle build $force a.sif a.sif
		[[ $status == 2 && $output == *'a.sif: it is the source, too [usage]'* ]]
		run coracle build $force tree a.sif
		[[ $status == 2 && $output == *'tree: a directory of that name is there [usage]'* ]]
	done
	run coracle build recipe missing.sif
	[[ $status == 1 && $output == *'missing.sif: no such file or directory [image-missing]'*'the image to make comes first'* ]]
	cmp my.def kept
	cmp recipe kept
	[[ -L link && $(cat notes.txt) == text ]]
	: >empty.sif
	coracle build --force empty.sif tree
	ln -s a.sif image-link
	coracle build --force image-link tree
	[[ ! -L image-link && -s empty.sif && -s a.sif ]]
}

@test "names of other formats, and Apptainer's sandbox, are refused" {
	local words
	small_tree tree
	for name in z.sqsh z.SQUASHFS z.tar z.tar.gz; do
		run coracle build "$name" tree
		[[ $status == 2 && $output == *"$name: what is made is a SIF, and ."*'is the name of something else [usage]'* && ! -e $name ]]
		run coracle pull --plain-http docker://127.0.0.1:1/a "$name"
		[[ $status == 2 && $output == *'is the name of something else [usage]'* ]]
	done
	for words in '-s box tree' '--sandbox box tree' '-Fs box tree' 'box tree -s' '-s box/ tree'; do
		# shellcheck disable=SC2086 # several words
		run coracle build $words
		[[ $status == 2 && $output == *'--sandbox: no directory is made here: an image is one file [usage]'*'hint: leave it out'* && ! -e box ]] ||
			{ echo "$words: $output"; return 1; }
	done
}

@test "what a killed build has left is removed by the next one, and what another works in is not" {
	local first second left
	small_tree tree
	head -c 100000000 /dev/urandom >tree/random
	printf 'Bootstrap: localimage\nFrom: tree\n%%post\n\techo begun >/begun\n\tsleep 600\n' >x.def
	setpriv --reuid ranged --regid ranged --init-groups env HOME="$CORACLE_SCRATCH/home/ranged" coracle build a.sif x.def &
	first=$!
	setpriv --reuid ranged --regid ranged --init-groups env HOME="$CORACLE_SCRATCH/home/ranged" coracle build b.sif x.def &
	second=$!
	until (($(find /tmp -path '/tmp/coracle-*/begun' 2>/dev/null | wc -l) == 2)); do
		kill -0 "$first" && kill -0 "$second"
		sleep 0.05
	done
	kill -KILL "$first"
	wait "$first" || true
	# The user's other processes of it end with it.
	until (($(locked) == 1)); do sleep 0.05; done
	(($(find /tmp -maxdepth 1 -name 'coracle-*' | wc -l) == 2))
	as_user coracle build other.sif oci-archive:none.tar || true
	(($(find /tmp -maxdepth 1 -name 'coracle-*' | wc -l) == 2))
	rm tree/random
	as_ranged coracle build c.sif tree
	left=$(find /tmp -maxdepth 1 -name 'coracle-*')
	[[ -s c.sif && $(wc -l <<<"$left") == 1 && -e $left/stage-0/begun ]] || { echo "$left"; return 1; }
	kill -TERM "$second"
	wait "$second" || true
}

# How many directories of builds are locked.
locked() {
	local directory count=0
	for directory in /tmp/coracle-*; do
		flock --nonblock "$directory" true || count=$((count + 1))
	done
	echo "$count"
}
