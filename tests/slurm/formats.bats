# The formats of images: each runs, is read-only, and leaves nothing; what is not run is refused by name.
load support

# As alice, from an image of any format.
runs_read_only() { # IMAGE
	good srun -n2 --container="$1" sh -c 'cat /etc/image-only; (echo x >/new) 2>&1; (echo x >/etc/image-only) 2>&1; true' || return
	[[ $(grep -cxF "$MARK" <<<"$output") == 2 ]] || { fail "$output"; return; }
	[[ $(grep -c 'Read-only file system\|Permission denied' <<<"$output") == 4 ]] || { fail "$output"; return; }
	# Read-only for its owner, too.
	good srun -n1 --container="$1" sh -c 'grep " / / " /proc/self/mountinfo' || return
	[[ $output == *' ro,nosuid,nodev'* ]] || { fail "$output"; return; }
	healthy
}

cleanup() {
	[[ -z ${disk:-} ]] || umount "$disk"
	rm -rf /opt/images/formats
}

# A copy below the site's image_paths.
trusted() { # FILE
	install -d -m 755 /opt/images/formats
	cp -a "$1" /opt/images/formats/
	chown -R root:root /opt/images/formats
}

allow_directories() {
	configure $'version: 1\nuser_images: kernel\ndirectories: allow\nimage_paths:\n- path: /opt/images'
}

@test "squashfs with each compressor, alone and in a SIF" {
	local how
	for how in gzip xz zstd lz4 lzo none; do
		runs_read_only "$IMG/busybox-$how.sif" || fail "$how" || return
	done
	runs_read_only "$IMG/busybox-zstd.sqsh"
}

@test "the images that Apptainer makes" {
	local image
	for image in busybox.sif busybox-xz.sif busybox-lz4.sif busybox-signed-pgp.sif; do
		real "$image"
		good srun -n1 --container="$dir/$image" sh -c 'ls -d /.singularity.d /bin/sh' || return
		has_line /.singularity.d
	done
}

# A task in an erofs, and whether its file is on a loop device meanwhile.
erofs_on_loop() { # IMAGE
	good srun -n1 -w n1 --container="$1" sh -c 'cat /etc/image-only; cat /sys/block/loop*/loop/backing_file' || return
	has_line "$MARK" && [[ $output == *"$1"* ]]
}

@test "an erofs of a user's, where its file can only be mounted by a loop device" {
	local image
	for image in busybox busybox-lz4; do
		runs_read_only "$IMG/$image.erofs" || return
		erofs_on_loop "$IMG/$image.erofs" || fail "$output" || return
	done
}

@test "an erofs on a disk is mounted without a loop device" {
	local image
	disk=$dir/disk
	mkdir "$disk"
	truncate -s 32M disk.img
	mke2fs -q -t ext4 disk.img
	mount -o loop disk.img "$disk"
	for image in busybox busybox-lz4; do
		install -o alice -m 644 "$IMG/$image.erofs" "$disk/"
		good srun -n2 --container="$disk/$image.erofs" sh -c 'cat /etc/image-only; (echo x >/new) 2>&1; true' || return
		[[ $(grep -cxF "$MARK" <<<"$output") == 2 ]] || fail "$output" || return
		! erofs_on_loop "$disk/$image.erofs" || fail "$output" || return
		has_line "$MARK"
	done
}

@test "an erofs of the site's" {
	trusted "$IMG/busybox.erofs"
	runs_read_only /opt/images/formats/busybox.erofs
}

@test "an erofs that is cut, or says nonsense" {
	local source=$IMG/busybox.erofs
	head -c 8192 "$source" >cut.erofs
	patched "$source" bits.erofs 1036 '\040'
	patched "$source" devices.erofs 1110 '\001\000'
	patched "$source" features.erofs 1104 '\000\000\000\200'
	chmod 644 ./*.erofs
	at=node refused image-format 'cut.erofs: truncated: the erofs ends at byte' srun -n1 --container="$dir/cut.erofs" true
	at=node refused image-format 'bits.erofs: damaged erofs: a block size of 2^32 bytes' srun -n1 --container="$dir/bits.erofs" true
	at=node refused image-format 'devices.erofs: an erofs with parts in other files' srun -n1 --container="$dir/devices.erofs" true
	at=node refused image-format 'features.erofs: an erofs with features that are not known (0x80000000)' srun -n1 --container="$dir/features.erofs" true
}

@test "an erofs whose tree is nonsense hurts nothing" {
	cp "$IMG/busybox.erofs" wrong.erofs
	head -c 100000 /dev/urandom | dd of=wrong.erofs bs=1 seek=1152 conv=notrunc status=none
	chmod 644 wrong.erofs
	run alice srun -n1 --container="$dir/wrong.erofs" cat /etc/image-only
	((status != 0)) && has_not "$MARK"
	healthy
}

@test "overlay partitions of a SIF lie above its root, the last on top" {
	good srun -n2 --container="$IMG/overlay.sif" sh -c 'cat /etc/topmost /one /etc/image-only'
	[[ $(sort <<<"$output" | uniq -c | awk '{ print $1 }' | sort -u) == 2 ]] || fail "$output"
	has_line 'overlay one'
	has_line 'only in one'
	has_line "$MARK"
	# The second hides the first's file and, with a whiteout, one of the image.
	good srun -n1 --container="$IMG/overlays.sif" sh -c 'cat /etc/topmost /one /two; ls /etc/image-only 2>&1; ls /bin/busybox; (touch /one) 2>&1; true'
	has_line 'overlay two'
	has_line 'only in one'
	has_line 'only in two'
	has_line /bin/busybox
	has '/etc/image-only: No such file or directory'
	has 'Read-only file system'
	has_not "$MARK"
	healthy
}

@test "a SIF with overlay partitions and mount points that it lacks" {
	install -d -m 777 data
	echo bound >data/file
	good srun -n1 --container="$IMG/overlays.sif" --container-bind="$dir/data:/new/deep" cat /new/deep/file /etc/topmost
	prints bound$'\n''overlay two'
	healthy
}

@test "an ext3 overlay partition is mounted for the site's images only" {
	at=node refused policy 'overlay-ext3.sif: its overlay partition is an ext3' srun -n1 --container="$IMG/overlay-ext3.sif" true
	trusted "$IMG/overlay-ext3.sif"
	good srun -n1 --container=/opt/images/formats/overlay-ext3.sif sh -c 'cat /etc/topmost /etc/image-only; ls -d /upper /work 2>/dev/null; (touch /etc/topmost) 2>&1; true'
	has_line 'overlay three'
	has_line "$MARK"
	has_not /upper
	[[ $output == *'Read-only file system'* || $output == *'Permission denied'* ]]
	healthy
}

@test "a directory is refused unless the site allows it" {
	at=node refused policy "tree: a directory, and the site runs only image files (directories: deny)" \
		srun -n2 --container="$IMG/tree" true
	allow_directories
	runs_read_only "$IMG/tree"
	good srun -n1 --container="$IMG/tree" sh -c 'cat /etc/image-only; touch /home/alice/x && rm /home/alice/x && id -u'
	prints "$MARK"$'\n'2001
}

@test "a directory below image_paths runs where users' images do not" {
	configure $'version: 1\nuser_images: deny\ndirectories: allow\nimage_paths:\n- path: /opt/images'
	at=node refused policy '(user_images: deny)' srun -n1 --container="$IMG/tree" true
	trusted "$IMG/tree"
	good srun -n1 --container=/opt/images/formats/tree cat /etc/image-only
	prints "$MARK"
	chmod 775 /opt/images/formats/tree
	at=node refused policy '(user_images: deny)' srun -n1 --container=/opt/images/formats/tree true
}

@test "a directory has no digest" {
	allow_directories
	at=node refused digest 'tree: a directory, which has no digest' \
		srun -n1 --container="$IMG/tree" --container-digest="sha256:$(printf '0%.0s' {1..64})" true
}

@test "a directory, or a part of it, that is not the user's to see" {
	allow_directories
	install -d -o bob -m 700 private
	at=node refused image-unreadable 'private: you may not read it' srun -n1 --container="$dir/private" true
	cp -a "$IMG/tree" mine
	chmod 700 mine/etc
	chown root mine/etc
	at=node refused image-unreadable 'mine: a directory above /etc/' srun -n1 --container="$dir/mine" true
}

@test "links of a directory lead nowhere outside of it" {
	allow_directories
	cp -a "$IMG/tree" mine
	ln -s ../../../../../etc/shadow mine/out
	rm mine/etc/passwd && ln -s /etc/shadow mine/etc/passwd
	echo "the tree's own" >mine/etc/shadow
	chown -R alice mine
	good srun -n1 --container="$dir/mine" sh -c 'cat /out; grep -c "^alice:" /etc/passwd; ls -d /etc/slurm 2>/dev/null; true'
	prints "the tree's own"$'\n'1 || has "the tree's own"
	rm -rf mine/proc && ln -s /tmp mine/proc
	at=node refused image-format '/proc: in the image this must be a plain directory' srun -n1 --container="$dir/mine" true
}

@test "other file systems below a directory are not in the container" {
	allow_directories
	cp -a "$IMG/tree" mine
	on-node n1 mount -t tmpfs other "$dir/mine/root"
	on-node n1 touch "$dir/mine/root/there"
	good srun -n1 -w n1 --container="$dir/mine" sh -c 'cat /etc/image-only; ls /root'
	on-node n1 umount "$dir/mine/root"
	prints "$MARK"
}

@test "a directory that its owner changes meanwhile is run or refused, and never shows the node" {
	allow_directories
	cp -a "$IMG/tree" mine
	chown -R alice mine
	alice sh -c "until test -e '$dir/stop'; do mv '$dir/mine/etc' '$dir/mine/etc2'; ln -s / '$dir/mine/etc'; rm '$dir/mine/etc'; mv '$dir/mine/etc2' '$dir/mine/etc'; done" 3>&- >/dev/null 2>&1 &
	# While etc is the link, /etc of the container is the image's own root, which has an /etc/usr, too: only what
	# the node alone has tells them apart.
	local spinner=$! shown=''
	for _ in {1..8}; do
		run alice srun -Q -n1 --container="$dir/mine" sh -c 'ls -d /usr/sbin/slurmd /etc/usr/sbin/slurmd /etc/coracle /etc/etc/coracle /var/lib/munge /etc/var/lib/munge 2>/dev/null; echo ran'
		((status != 0)) || [[ $output == ran ]] || shown+=$output$'\n'
	done
	touch stop
	wait "$spinner"
	[[ -z $shown ]] || fail "$shown"
}

@test "a directory of the kernel's own" {
	allow_directories
	at=node refused image-type "/proc/sys: a file of the kernel's own" srun -n1 --container=/proc/sys true
}

# One file, in an image that has nothing else: no /bin/sh, no /etc, no directory at all.
@test "a static binary alone, in every format" {
	mkdir alone
	cp "$(type -P busybox)" alone/true
	mksquashfs alone alone.sqsh -noappend -quiet -no-progress -all-root >/dev/null
	mkfs.erofs --quiet alone.erofs alone >/dev/null
	allow_directories
	local image
	for image in "$dir/alone.sqsh" "$dir/alone.erofs" "$dir/alone"; do
		good srun -n2 --container="$image" /true || fail "$image" || return
		run alice srun -n1 --container="$image" /bin/sh -c true
		((status != 0)) && has 'No such file or directory'
		healthy || return
	done
}

# What an image's /etc and /etc/passwd may be.
etc_of() { # NAME COMMANDS
	rm -rf tree
	cp -a "$IMG/tree" tree
	(cd tree && eval "$2")
	mksquashfs tree "$1.sqsh" -noappend -quiet -no-progress -all-root >/dev/null
}

@test "account files that are missing, or links" {
	etc_of none 'rm -r etc'
	etc_of dangling 'ln -sf /no/where etc/passwd'
	etc_of absolute 'mv etc/passwd pw; ln -s /pw etc/passwd'
	etc_of relative 'mv etc/passwd pw; ln -s ../pw etc/passwd'
	etc_of chain 'mv etc real; ln -s real etc'
	local name
	for name in none dangling absolute relative chain; do
		good srun -n1 --container="$dir/$name.sqsh" /bin/busybox sh -c 'whoami; grep -c ^root: /etc/passwd' || fail "$name" || return
		prints alice$'\n'1 || fail "$name" || return
	done
	etc_of outside 'ln -sf ../../../../../etc/passwd-of-the-node etc/passwd'
	at=node refused bind '/etc/passwd: the symbolic link /etc/passwd of the image leads out of it' \
		srun -n1 --container="$dir/outside.sqsh" /bin/busybox true
	etc_of directory 'rm etc/passwd; mkdir etc/passwd'
	at=node refused bind '/etc/passwd: the image has a directory there' srun -n1 --container="$dir/directory.sqsh" true
}

@test "a squashfs of enroot's kind: lzo, data not compressed, /dev empty" {
	mksquashfs "$IMG/tree" enroot.sqsh -noappend -quiet -no-progress -all-root -comp lzo -noD >/dev/null
	runs_read_only "$dir/enroot.sqsh"
}
