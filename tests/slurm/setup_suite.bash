# Run by bats once before the tests of a cluster: images where all nodes see them, and how the nodes are when all is well.
# shellcheck shell=bash

setup_suite() {
	[[ -d ${CORACLE_IMAGES:-} ]] || { echo 'CORACLE_IMAGES: not set: start with tests/slurm/run' >&2; return 1; }
	[[ -e /run/cluster/n1.pid ]] || { echo 'not in a test cluster: start with tests/slurm/run' >&2; return 1; }
	export SUITE=/run/suite IMG=/scratch/img REAL
	REAL=$(realpath "$BATS_TEST_DIRNAME/../../../shared/images" 2>/dev/null) || REAL=''
	# Directory of slurm.conf and directory of Slurm's commands.
	ETC_SLURM=$(dirname "$(scontrol show config | sed -n 's/^SLURM_CONF *= //p')")
	BIN_SLURM=$(dirname "$(type -P srun)")
	export ETC_SLURM BIN_SLURM
	mkdir -p "$SUITE" "$IMG"
	cp "$CORACLE_IMAGES"/*.sif "$CORACLE_IMAGES"/*.erofs "$CORACLE_IMAGES"/{busybox-zstd,enroot}.sqsh "$IMG"
	cp "$CORACLE_IMAGES"/{cma,count-cma.so} "$IMG"
	cp -a "$CORACLE_IMAGES"/tree "$IMG"
	chmod 755 "$IMG"
	if [[ -e /etc/coracle/coracle.yaml ]]; then
		cp -a /etc/coracle/coracle.yaml "$SUITE/coracle.yaml"
		cp -a /etc/slurm/plugstack.conf.d/coracle.conf "$SUITE/coracle.conf"
	fi
	hostile_images
	odd_environments
	. "$BATS_TEST_DIRNAME/support.bash"
	mounts_of_all >"$SUITE/mounts"
}

# Images that no honest person makes, on the tree of an honest one.
hostile_images() {
	local tree
	tree=$(mktemp -d)
	unsquashfs -quiet -no-progress -force -dest "$tree" "$CORACLE_IMAGES/busybox-none.sqsh" >/dev/null
	mkdir "$tree/devices" "$tree/plain"
	ln -s ../../../tmp/coracle-x "$tree/escape"
	ln -s /tmp/coracle-x "$tree/out"
	ln -s loop "$tree/loop"
	echo file >"$tree/file"
	cp "$tree/bin/busybox" "$tree/bin/busybox-as-root"
	cp "$tree/bin/busybox" "$tree/bin/busybox-as-group"
	cp "$tree/bin/busybox" "$tree/bin/busybox-as-alice"
	cp "$tree/bin/busybox" "$tree/bin/busybox-with-caps"
	echo mine >"$tree/alices"
	# The attribute security.capability of `setcap cap_setuid+ep` (capabilities(7), VFS_CAP_REVISION_2).
	setfattr -n security.capability -v 0x0100000280000000000000000000000000000000 "$tree/bin/busybox-with-caps"
	mksquashfs "$tree" "$IMG/hostile.sqsh" -noappend -quiet -no-progress -all-time 0 \
		-p 'bin/busybox-as-root m 4755 0 0' -p 'bin/busybox-as-group m 2755 0 0' \
		-p 'devices/null c 666 0 0 1 3' -p 'devices/mem c 666 0 0 1 1' \
		-p 'bin/busybox-as-alice m 4755 2001 2001' -p 'alices m 666 2001 2001' >/dev/null

	# One each whose /proc, /sys or /dev is not what it should be.
	rm -rf "$tree/proc" && ln -s tmp "$tree/proc"
	pack_wrong proc "$tree"
	rm "$tree/proc" && mkdir "$tree/proc" && rm -rf "${tree:?}/dev" && ln -s ../../tmp/coracle-x "$tree/dev"
	pack_wrong dev "$tree"
	rm "$tree/dev" && mkdir "$tree/dev" && rm -rf "$tree/sys" && echo >"$tree/sys"
	pack_wrong sys "$tree"
	rm -rf "$tree"
}

# Environment scripts that are no files, cannot be read, or are not there.
odd_environments() {
	local tree
	tree=$(mktemp -d)
	unsquashfs -quiet -no-progress -force -dest "$tree" "$CORACLE_IMAGES/busybox-none.sqsh" >/dev/null
	mkdir -p "$tree/.singularity.d/env"
	echo 'export SECRET=1' >"$tree/.singularity.d/env/50-secret.sh"
	mksquashfs "$tree" "$IMG/env-unreadable.sqsh" -noappend -quiet -no-progress \
		-p '.singularity.d/env/50-secret.sh m 600 1 1' >/dev/null
	rm "$tree/.singularity.d/env/50-secret.sh"
	echo 'export FOUND=yes' >"$tree/.singularity.d/env/90-found.sh"
	mkfifo "$tree/.singularity.d/env/50-fifo.sh"
	mkdir "$tree/.singularity.d/env/60-directory.sh"
	ln -s /no/such "$tree/.singularity.d/env/70-dangling.sh"
	ln -s /dev/zero "$tree/.singularity.d/env/80-zero.sh"
	mksquashfs "$tree" "$IMG/env-fifo.sqsh" -noappend -quiet -no-progress -all-root >/dev/null
	rm -rf "$tree/.singularity.d/env"
	echo '#!/bin/sh' >"$tree/.singularity.d/runscript"
	mksquashfs "$tree" "$IMG/broken-runscript.sqsh" -noappend -quiet -no-progress -all-root >/dev/null
	rm "$tree/.singularity.d/runscript"
	mksquashfs "$tree" "$IMG/env-missing.sqsh" -noappend -quiet -no-progress -all-root >/dev/null
	mkdir "$tree/.singularity.d/env"
	head -c 1100000 /dev/zero | tr '\0' '#' >"$tree/.singularity.d/env/90-long.sh"
	mksquashfs "$tree" "$IMG/env-long.sqsh" -noappend -quiet -no-progress -all-root >/dev/null
	rm -rf "$tree"
}

pack_wrong() { # NAME TREE
	mksquashfs "$2" "$IMG/wrong-$1.sqsh" -noappend -quiet -no-progress -all-root -no-xattrs >/dev/null
}
