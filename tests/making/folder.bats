bats_require_minimum_version 1.5.0
load making

@test "a folder becomes a SIF whose files are root's, the same for root, a user, and a user with a range of ids" {
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
	echo old >a.sif
	run coracle build a.sif tree
	[[ $status == 2 && $output == *'a.sif: is there already [usage]'*'--force'* ]]
	[[ $(cat a.sif) == old ]]
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

@test "what is no file is not replaced, and a folder with the workshop in it is refused" {
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
