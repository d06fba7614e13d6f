# A user against the opening of images: each attack with its figures.
load support

cleanup() {
	[[ -z ${racer:-} ]] || kill "$racer" 2>/dev/null || true
	[[ -z ${racer:-} ]] || wait "$racer" 2>/dev/null || true
	rm -rf /opt/images
}

figures() { # TEXT
	echo "# $*" >&3
}

@test "a path that leads to a trusted image and to the user's own in turns never runs the user's own" {
	local tries=0 ran=0 refused=0 wrong=0
	configure $'version: 1\nuser_images: deny\nimage_paths:\n- path: /opt/images\nbinds:\n- source: /scratch'
	install -d /opt/images
	install -m 644 "$busybox" /opt/images/good.sif
	ln -s /opt/images/good.sif x.sif
	install -o alice -m 644 "$IMG/bare.sif" own.sif
	# renameat2(2) of x86_64, RENAME_EXCHANGE
	as -d "$dir" alice perl -e 'my ($one, $two) = @ARGV; syscall(316, -100, $one, -100, $two, 2) == 0 or die $! while 1' x.sif own.sif &
	racer=$!
	while ((tries < 30)); do
		tries=$((tries + 1))
		run alice srun -n1 --container="$dir/x.sif" cat /etc/image-only
		if [[ $status == 0 && $output == "$MARK" ]]; then
			ran=$((ran + 1))
		elif ((status == 125)); then
			refused=$((refused + 1))
		else
			wrong=$((wrong + 1))
			echo "$output" >&2
		fi
	done
	kill "$racer"
	wait "$racer" || true
	racer=''
	figures "exchanged paths: tries $tries, the trusted image $ran, refused $refused, anything else $wrong"
	((wrong == 0 && ran > 0 && refused > 0))
}

@test "files that are no files: none is opened, none is waited for" {
	local tries=0 kind
	truncate -s 8E holes.sif 2>/dev/null || truncate -s 15T holes.sif
	chmod 644 holes.sif
	refused image-format 'holes.sif: not an image' srun -n1 --container="$dir/holes.sif" true || return
	# With a superblock of a sound image that says it is as long as the file.
	cp "$CORACLE_IMAGES/crafted/sound.sqsh" long.sqsh
	truncate -s 15T long.sqsh
	chmod 644 long.sqsh
	printf '\000\000\000\000\000\017\000\000' | dd of=long.sqsh bs=1 seek=40 conv=notrunc status=none
	at=node refused image-format 'long.sqsh: damaged squashfs' srun -n1 --container="$dir/long.sqsh" true || return
	tries=2
	for kind in /proc/self/root/etc/passwd /proc/self/fd/0 /proc/self/fd/2 /proc/thread-self/exe; do
		at=node refused image-type '/proc' srun -n1 --export="ALL,SLURM_CORACLE_REQUEST=2:image=$kind" true || return
		tries=$((tries + 1))
	done
	figures "no image files: tries $tries, opened 0"
}

@test "a hard link to another's image is the other's image" {
	configure $'version: 1\nuser_images: deny\nimage_paths:\n- path: /opt/images\nbinds:\n- source: /scratch'
	install -d /opt/images
	install -m 644 "$busybox" "$dir/../roots-$BATS_SUITE_TEST_NUMBER.sif"
	ln "$dir/../roots-$BATS_SUITE_TEST_NUMBER.sif" mine.sif
	rm "$dir/../roots-$BATS_SUITE_TEST_NUMBER.sif"
	refused policy 'the site runs only images from its image_paths' srun -n1 --container="$dir/mine.sif" true
	# One that she may not read, in a directory of her own.
	configure $'version: 1\nuser_images: kernel\nbinds:\n- source: /scratch'
	chmod 600 mine.sif
	at=node refused image-unreadable 'permission denied' srun -n1 --container="$dir/mine.sif" true
	figures 'hard links to files of others: tries 2, ran 0'
}

@test "squashfs images with one wrong field each are refused before the kernel sees them" {
	local tries=0 file name
	configure $'version: 1\nuser_images: kernel\nbinds:\n- source: /scratch'
	for name in xattr-count-sign xattr-start-behind inodes-negative fragments-600 id-index-negative export-index-itself \
		root-behind inode-block-long inode-behind-directory used-negative; do
		file=$dir/$name.sqsh
		install -m 644 "$CORACLE_IMAGES/crafted/quick-$name.sqsh" "$file"
		at=node refused image-format "$name.sqsh: " srun -n1 --container="$file" true || return
		tries=$((tries + 1))
	done
	figures "crafted images: tries $tries, refused $tries"
}
