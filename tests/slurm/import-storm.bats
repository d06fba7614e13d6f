# What a file server is asked for an image on it does not depend on how many ranks of a node read what is in it.
load support

servers=()

cleanup() {
	((${#servers[@]} == 0)) || end_servers
	rmdir /net 2>/dev/null || true
}

start_servers() {
	local node
	servers=()
	mkdir -p /net
	for node in n1 n2 n3; do
		on-node "$node" /usr/bin/python3 "$BATS_TEST_DIRNAME/counted_directory.py" "$dir/served" /net "$dir/counts.$node" 3>&- 4>&- &
		servers+=($!)
	done
	for node in n1 n2 n3; do eventually serves "$node"; done
}

# Looked for where looking asks the server nothing.
serves() { grep -q ' /net ' "/proc/$(node_pid "$1")/mountinfo"; }
gone() { ! serves "$1" || on-node "$1" umount /net 2>/dev/null; }

end_servers() {
	local node
	for node in n1 n2 n3; do eventually gone "$node"; done
	wait "${servers[@]}"
	servers=()
}

# How often servers that nobody has asked before are asked by a step in which each rank of EACH a node reads all files.
asked() { # EACH DIRECTORY SRUN-ARGUMENT...
	local each=$1 directory=$2
	shift 2
	start_servers
	good srun -N3 -n$((3 * each)) "$@" sh -c "cat $directory/* | wc -c"
	[[ $(sort <<<"$output" | uniq -c | tr -s ' ') == " $((3 * each)) 200000" ]] || fail "$output"
	count=$(cat "$dir"/counts.n? | od -An -v -t u8 -w8 | awk '{ all += $1 } END { print all }')
	end_servers
}

@test "eight ranks a node ask the server for an image as often as one does, and for a tree more often" {
	local number one eight
	unsquashfs -quiet -no-progress -dest image "$CORACLE_IMAGES/busybox-none.sqsh" >/dev/null
	mkdir -p image/package served
	for number in {1..200}; do printf '%1000s' "$number" >image/package/"$number.py"; done
	cp -a image/package served/tree
	mksquashfs image served/image.sqsh -noappend -quiet -no-progress -all-root -comp zstd >/dev/null
	chmod -R a+rX served

	asked 1 /net/tree
	one=$count
	asked 8 /net/tree
	eight=$count
	# Otherwise this proves nothing.
	((eight > 3 * one)) || fail "tree: $one and $eight"
	((one > 3 * 600)) || fail "tree: $one"

	asked 1 /package --container=/net/image.sqsh
	one=$count
	asked 8 /package --container=/net/image.sqsh
	eight=$count
	echo "image: $one and $eight"
	((eight <= one + 15)) || fail "image: $one and $eight"
	((one < 3 * 100)) || fail "image: $one"
}
