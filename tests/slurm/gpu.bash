# Loaded by the tests of what a GPU brings into a container, after support: images for them, and the node's own files.
# shellcheck shell=bash disable=SC2034,SC2154

LIBS=/usr/lib/x86_64-linux-gnu
RELEASE=550.54.15

setup_file() {
	install -m 755 /usr/local/bin/{try-open,cuda-probe,rocm-probe} "$IMG"
	mkdir -p "$SUITE/gpu/etc"
	cp -a $LIBS/lib*nvidia*.so.* $LIBS/libcuda.so* $LIBS/libnvcuvid.so* $LIBS/libnvoptix.so* "$SUITE/gpu"
	cp -a /etc/ld.so.cache "$SUITE/gpu/etc"
}

cleanup() {
	rm -rf /etc/cdi /var/run/cdi /run/nvidia-persistenced /etc/vulkan /usr/share/vulkan "$IMG"/made.sqsh
	rm -f $LIBS/libcuda.so* $LIBS/libnvidia-*
	cp -a "$SUITE/gpu"/lib* $LIBS
	cp -a "$SUITE/gpu/etc/ld.so.cache" /etc/ld.so.cache
}

site() { # TEXT
	configure "version: 1
user_images: kernel
directories: allow
binds: [{source: /scratch}]
$1"
}

# $dir/tree: a small image with a shell, and with the node's own glibc for the programs that tests run.
image_tree() {
	local file
	unsquashfs -quiet -no-progress -force -dest "$dir/tree" "$CORACLE_IMAGES/busybox-none.sqsh" >/dev/null
	for file in /lib64/ld-linux-x86-64.so.2 $LIBS/libc.so.6; do
		install -D "$file" "$dir/tree$file"
	done
}

# An image of it, of which everything is root's.
made() { # MKSQUASHFS-ARGUMENT...
	mksquashfs "$dir/tree" "$IMG/made.sqsh" -noappend -quiet -no-progress -all-root "$@" >/dev/null
	rm -rf "$dir/tree"
	img=$IMG/made.sqsh
}

# What the image itself sets.
image_env() { # LINE...
	mkdir -p "$dir/tree/.singularity.d/env"
	printf 'export %s\n' "$@" >"$dir/tree/.singularity.d/env/90-environment.sh"
	chmod 755 "$dir/tree/.singularity.d/env/90-environment.sh"
}

glibc_image() {
	img=$IMG/mpi-${1:-bookworm}.sif
	[[ -e $img ]] && return
	[[ -z ${CORACLE_MUST_WORK:-} ]] || { fail "$img is missing"; return; }
	skip "$img is missing: make-mpi-images makes it"
}

# The specification of the stand-in, whose first two GPUs are divided, and here are whole as well.
stand_in_cdi() {
	install -d /etc/cdi
	sed '/^devices:/a\
- {name: "0", containerEdits: {deviceNodes: [{path: /dev/nvidia0}]}}\
- {name: "1", containerEdits: {deviceNodes: [{path: /dev/nvidia1}]}}' "$BATS_TEST_DIRNAME/../gpus/nvidia.yaml" >/etc/cdi/nvidia.yaml
	chmod 644 /etc/cdi/nvidia.yaml
}

# A specification that is read from the input.
cdi() { # [FILE]
	local file=${1:-/etc/cdi/nvidia.yaml}
	mkdir -p "${file%/*}"
	cat >"$file"
	chmod 644 "$file"
}

# A specification of the first two GPUs with one library and this besides for all.
small_cdi() { # TEXT
	printf '%s\n' 'cdiVersion: 0.6.0' 'kind: nvidia.com/gpu' 'devices:' \
		'- {name: "0", containerEdits: {deviceNodes: [{path: /dev/nvidia0}]}}' \
		'- {name: "1", containerEdits: {deviceNodes: [{path: /dev/nvidia1}]}}' \
		'containerEdits:' '  deviceNodes: [{path: /dev/nvidiactl}, {path: /dev/nvidia-uvm}]' '  mounts:' \
		"  - {hostPath: $LIBS/libcuda.so.$RELEASE, containerPath: $LIBS/libcuda.so.$RELEASE}" "$1"
}

# A library of the cluster, which has a command `as` that is not the assembler.
compile() { # GCC-ARGUMENT...
	needs gcc || return
	PATH=/usr/bin:/bin gcc -O2 "$@"
}
