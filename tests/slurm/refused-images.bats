# Files that are no image, or none that is run here: each with its own message.
load support

# What can be seen before the job queues is refused by the command, the rest by the nodes; both must know.
everywhere() { # KIND TEXT IMAGE
	at=submit refused "$1" "$2" srun -n1 --container="$3" true || return
	at=node refused_on_node "$@"
}

# The submit side is skipped: as if the file had become wrong after the job was submitted.
refused_on_node() { # KIND TEXT IMAGE
	refused "$1" "$2" srun -n2 --export="ALL,SLURM_CORACLE_REQUEST=2:image=$3" true
}

on_node() { # KIND TEXT IMAGE
	at=node refused "$1" "$2" srun -n2 --container="$3" true
}

@test "an image that is missing" {
	nodes=3 on_node_of_three image-missing '/no/such.sif: no such file on this node'
	on_node image-missing "$dir/missing.sif: no such file on this node" "$dir/missing.sif"
	on_node image-missing "$busybox/x: no such file on this node" "$busybox/x"
}

on_node_of_three() {
	at=node refused "$1" "$2" srun -N3 --container=/no/such.sif true
}

@test "a name that is longer than a path can be" {
	local long
	long=/scratch/$(printf 'x%.0s' {1..300})
	on_node image-missing 'the path is too long' "$long"
}

@test "an image that is missing on the submit side only is run" {
	on-node n2 install -m 644 "$busybox" /var/tmp/only-n2.sif
	good srun -n1 -w n2 --container=/var/tmp/only-n2.sif cat /etc/image-only
	on-node n2 rm /var/tmp/only-n2.sif
	prints "$MARK"
}

@test "a directory" {
	on_node policy '/etc: a directory, and the site runs only image files (directories: deny)' /etc
	on_node policy "$dir: a directory" "$dir"
}

@test "a FIFO is not waited for" {
	mkfifo pipe.sif
	chmod 666 pipe.sif
	at=submit refused image-type 'pipe.sif: no regular file' srun -n1 --container="$dir/pipe.sif" true
	refused_on_node image-type 'pipe.sif: a FIFO, not an image file' "$dir/pipe.sif"
}

@test "a socket" {
	perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0) && bind(S, sockaddr_un($ARGV[0])) or die' "$dir/socket.sif"
	chmod 777 socket.sif
	at=submit refused image-type 'socket.sif: no regular file' srun -n1 --container="$dir/socket.sif" true
	refused_on_node image-type 'socket.sif: a socket, not an image file' "$dir/socket.sif"
}

@test "devices" {
	at=submit refused image-type '/dev/null: no regular file' srun -n1 --container=/dev/null true
	refused_on_node image-type '/dev/null: a device, not an image file' /dev/null
	refused_on_node image-type '/dev/zero: a device, not an image file' /dev/zero
	refused_on_node image-type '/dev/loop5: a device, not an image file' /dev/loop5
}

@test "files of /proc and /sys" {
	refused_on_node image-type '/proc/version: a file of the kernel' /proc/version
	refused_on_node image-type '/proc/kmsg: a file of the kernel' /proc/kmsg
	refused_on_node image-type '/sys/kernel/uevent_seqnum: a file of the kernel' /sys/kernel/uevent_seqnum
	refused_on_node image-type '/proc/self/exe: the path leads through too many links, or through one of /proc' /proc/self/exe
	refused_on_node image-type "/proc/self/root$busybox: the path leads through too many links, or through one of /proc" "/proc/self/root$busybox"
}

@test "links that lead round and round" {
	ln -s round.sif round.sif
	on_node image-type 'round.sif: the path leads through too many links' "$dir/round.sif"
}

@test "a link to nowhere" {
	ln -s /no/such dangling.sif
	on_node image-missing 'dangling.sif: no such file on this node' "$dir/dangling.sif"
}

@test "an empty file, text, and random bytes" {
	: >empty.sif
	echo 'hello' >text.sif
	head -c 1000000 /dev/urandom >random.sif
	head -c 1000000 /dev/zero >zero.sif
	chmod 644 ./*.sif
	local name
	for name in empty text random zero; do
		everywhere image-format "$name.sif: not an image: it starts neither like a SIF nor like a squashfs or erofs" "$dir/$name.sif"
	done
	everywhere image-format "ring: not an image" "$(install -m 755 "$CORACLE_IMAGES/ring" "$dir/ring" && echo "$dir/ring")"
}

@test "random bytes behind a right beginning" {
	{ head -c 128 "$busybox"; head -c 1000000 /dev/urandom; } >sif.sif
	{ printf hsqs; head -c 1000000 /dev/urandom; } >squash.sqsh
	chmod 644 sif.sif squash.sqsh
	local name
	for name in sif.sif squash.sqsh; do
		on_node image-format "$name: " "$dir/$name" || return
	done
}

@test "a SIF that is cut, at each border of its headers" {
	local length
	# The header, its table of eight descriptors, the first descriptor's end, the data, its superblock, and short of the end.
	for length in 42 64 100 127; do
		cut_at "$length" 'truncated: the SIF header ends at byte 128' || return
	done
	for length in 128 129 4095 4096 4097 4680 4681 8775; do
		cut_at "$length" 'truncated: the descriptor table ends at byte 8776' || return
	done
	for length in 8776 32767 32768 32800 32864 65536; do
		cut_at "$length" 'truncated: the root partition ends at byte' || return
	done
	cut_at $(($(stat -c %s "$busybox") - 4096)) 'truncated: the root partition ends at byte' || return
	cut_at $(($(stat -c %s "$busybox") - 1)) 'truncated: the root partition ends at byte'
}

cut_at() { # LENGTH TEXT
	head -c "$1" "$busybox" >"$dir/cut$1.sif"
	chmod 644 "$dir/cut$1.sif"
	on_node image-format "cut$1.sif: $2" "$dir/cut$1.sif"
}

@test "a SIF that is cut before its magic is no image" {
	local length
	for length in 1 32 41; do
		head -c "$length" "$busybox" >"cut$length.sif"
		chmod 644 "cut$length.sif"
		at=submit refused image-format "cut$length.sif: not an image" srun -n1 --container="$dir/cut$length.sif" true || return
	done
}

@test "a squashfs that is cut" {
	local length
	for length in 64 95; do
		head -c "$length" "$IMG/busybox-zstd.sqsh" >"cut$length.sqsh"
		chmod 644 "cut$length.sqsh"
		on_node image-format "cut$length.sqsh: " "$dir/cut$length.sqsh" || return
	done
	for length in 96 4096 500000; do
		head -c "$length" "$IMG/busybox-zstd.sqsh" >"cut$length.sqsh"
		chmod 644 "cut$length.sqsh"
		on_node image-format "cut$length.sqsh: truncated: the squashfs ends at byte" "$dir/cut$length.sqsh" || return
	done
}

# Offsets in a SIF of mksif: the header's fields, then those of the first descriptor (pkg/sif of apptainer/sif).
wrong() { # KIND TEXT OFFSET BYTES...
	local kind=$1 text=$2
	shift 2
	patched "$busybox" "$dir/wrong.sif" "$@"
	chmod 644 "$dir/wrong.sif"
	on_node "$kind" "wrong.sif: $text" "$dir/wrong.sif"
}

MAX='\377\377\377\377\377\377\377\177'
MINUS='\377\377\377\377\377\377\377\377'

@test "a SIF of another version" {
	wrong image-format 'damaged SIF: version "02", only "01" is known' 42 '02'
}

@test "a SIF for another architecture" {
	wrong image-arch 'made for aarch64, this node is x86_64' 4305 '04'
	wrong image-arch 'made for riscv64, this node is x86_64' 4305 '12'
	wrong image-arch 'made for the unknown architecture "77"' 4305 '77'
}

@test "a SIF without a primary system partition" {
	wrong image-format 'damaged SIF: no primary system partition' 4301 '\003'
	wrong image-format 'damaged SIF: no primary system partition' 4100 '\000'
	wrong image-format 'damaged SIF: no primary system partition' 4096 '\005'
}

@test "a SIF with two primary system partitions" {
	cp "$busybox" wrong.sif
	dd if="$busybox" of=wrong.sif bs=1 skip=4096 seek=$((4096 + 585)) count=585 conv=notrunc status=none
	on_node image-format 'wrong.sif: damaged SIF: more than one primary system partition' "$dir/wrong.sif"
}

@test "a SIF with an overlay partition that cannot be read" {
	cp "$busybox" wrong.sif
	dd if="$busybox" of=wrong.sif bs=1 skip=4096 seek=$((4096 + 585)) count=585 conv=notrunc status=none
	printf '\004' | dd of=wrong.sif bs=1 seek=$((4096 + 585 + 205)) conv=notrunc status=none
	printf '\002' | dd of=wrong.sif bs=1 seek=$((4096 + 585 + 201)) conv=notrunc status=none
	on_node image-format 'wrong.sif: overlay partition 1: damaged SIF: it does not start like an ext3' "$dir/wrong.sif"
	printf '\005' | dd of=wrong.sif bs=1 seek=$((4096 + 585 + 201)) conv=notrunc status=none
	on_node image-format 'wrong.sif: overlay partition 1: encrypted squashfs, only squashfs and ext3' "$dir/wrong.sif"
}

@test "a SIF with another filesystem, or an unknown one" {
	wrong image-format 'the root filesystem is ext3, only squashfs is run' 4297 '\002'
	wrong image-format 'the root filesystem is raw data' 4297 '\004'
	wrong image-format 'the root filesystem is of unknown type 99' 4297 '\143'
	wrong image-format 'the root filesystem is of unknown type -1' 4297 '\377\377\377\377'
}

@test "an encrypted SIF" {
	wrong image-encrypted 'the root filesystem is encrypted' 4297 '\005'
	wrong image-encrypted 'the root filesystem is encrypted' 4297 '\006'
}

@test "the encrypted image of Apptainer" {
	real busybox-enc-pass.sif
	on_node image-encrypted 'busybox-enc-pass.sif: the root filesystem is encrypted' "$dir/busybox-enc-pass.sif"
}

@test "archives that are no image files" {
	real oci-archive.tar
	real docker-archive.tar
	everywhere image-format 'oci-archive.tar: not an image' "$dir/oci-archive.tar"
	everywhere image-format 'docker-archive.tar: not an image' "$dir/docker-archive.tar"
}

@test "offsets and sizes that overflow, are negative or pass the end" {
	wrong image-format 'damaged SIF: the root partition ends past the largest possible file' 4113 "$MAX" 4121 "$MAX"
	wrong image-format 'damaged SIF: the root partition is -1' 4113 "$MINUS"
	wrong image-format 'damaged SIF: the root partition is -1' 4121 "$MINUS"
	wrong image-format 'truncated: the root partition ends at byte' 4113 '\000\000\000\000\001'
	wrong image-format 'truncated: the root partition ends at byte' 4121 '\000\000\000\000\001'
	wrong image-format 'damaged squashfs' 4113 '\000\170'
	wrong image-format 'damaged squashfs' 4121 '\140\000\000\000\000'
	wrong image-format 'damaged squashfs' 4121 '\000\000\000\000\000'
}

@test "a table of descriptors that overflows, is negative, passes the end or has a wrong number" {
	wrong image-format 'damaged SIF: the descriptor table is -1' 96 "$MINUS"
	wrong image-format 'truncated: the descriptor table ends at byte' 96 '\000\000\000\000\001'
	wrong image-format 'damaged SIF: the descriptor table ends past the largest possible file' 96 "$MAX"
	wrong image-format 'damaged SIF: 0 descriptors' 88 '\000'
	wrong image-format 'damaged SIF: -1 descriptors' 88 "$MINUS"
	wrong image-format 'damaged SIF: 9223372036854775807 descriptors, 1 to 4096 are possible' 88 "$MAX"
	wrong image-format 'damaged SIF: a descriptor table of 4680 bytes does not fit its number of entries' 88 '\011'
	wrong image-format 'damaged SIF: a descriptor table of 9223372036854775807 bytes does not fit' 104 "$MAX"
}

# The squashfs of that SIF starts at byte 32768.
@test "a squashfs with an unknown compressor, version, block size or table" {
	wrong image-format 'damaged squashfs: unknown compressor 9' 32788 '\011'
	wrong image-format 'damaged squashfs: compressed with lzma' 32788 '\002'
	wrong image-format 'damaged squashfs: version 3.0, only 4.0 is known' 32796 '\003'
	wrong image-format 'damaged squashfs: a block size of' 32780 '\001'
	wrong image-format 'damaged squashfs: it has no inodes' 32772 '\000\000\000\000'
	wrong image-format 'damaged squashfs: its inode table starts at byte' 32832 "$MAX"
	wrong image-format 'truncated: the squashfs ends at byte' 32808 "$MAX"
	wrong image-format 'damaged squashfs: it does not start like one' 32768 'xxxx'
}

@test "a squashfs whose tables are nonsense is refused, and hurts nothing" {
	local at
	# Behind a right superblock: the tables of inodes, directories, fragments and ids are random.
	cp "$busybox" wrong.sif
	at=$(($(stat -c %s wrong.sif) - 60000))
	head -c 60000 /dev/urandom | dd of=wrong.sif bs=1 seek="$at" conv=notrunc status=none
	run alice srun -n2 --container="$dir/wrong.sif" cat /etc/image-only
	((status != 0)) && has_not "$MARK"
	healthy
}
