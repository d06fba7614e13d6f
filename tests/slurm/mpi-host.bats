# The host's Open MPI in place of an image's: where it fits, programs get it wherever they look; where not, nothing starts.
bats_require_minimum_version 1.5.0
load support

cleanup() {
	rm -f "$IMG/made.sqsh"
}

# A directory of the host's libraries, and what its Open MPI says of itself.
setup_file() {
	local program=$CORACLE_IMAGES/ring
	LIBS=$(dirname "$(realpath "$(ldd "$program" | awk '$1 == "libmpi.so.40" { print $3 }')")")
	HOSTS=$(sed -n 's/^Version: //p' "$LIBS/pkgconfig/ompi.pc")
	export LIBS HOSTS
}

# coracle.yaml with the host's Open MPI as a profile, and these lines.
profiles() { # TEXT
	configure "version: 1
user_images: kernel
directories: allow
mpi:
  openmpi:
    libraries: [$LIBS/libmpi.so.40]
    dependencies:
    - $LIBS/libopen-rte.so.40
    - $LIBS/libopen-pal.so.40
    - $LIBS/libmca_common_sm.so.40
    - $LIBS/libmca_common_monitoring.so.50
    - $LIBS/libpmix.so.2
    folders:
    - $LIBS/openmpi/lib/openmpi3
    - ${PMIX:-$LIBS/pmix2/lib/pmix}
    - /usr/share/openmpi
    - {source: /etc/openmpi, target: /etc/openmpi}
    env: ['OMPI_MCA_btl=self,vader,tcp', OMPI_MCA_pml=ob1, SITE_MPI=of the host]
$1"
}

# Without Debian's mirror there are no such images; where the tests must work, that is a failure.
image() { # RELEASE
	img=$IMG/mpi-$1.sif
	[[ -e $img ]] && return
	[[ -z ${CORACLE_MUST_WORK:-} ]] || { fail "$img is missing"; return; }
	skip "$img is missing: make-mpi-images makes it"
}

# An image of what is in $dir/tree.
made() {
	mksquashfs "$dir/tree" "$IMG/made.sqsh" -noappend -quiet -no-progress -all-root >/dev/null
	rm -rf "$dir/tree"
	img=$IMG/made.sqsh
}

# A program of alice's. The cluster has a command `as` that is not the assembler.
compile() { # OUT MPICC-ARGUMENT...
	needs mpicc || return
	PATH=/usr/bin:/bin mpicc -O2 -o "$@" "$BATS_TEST_DIRNAME/../images/mpi-version.c"
}

@test "an image of a newer release runs with the host's Open MPI" {
	needs_pmix
	image trixie
	profiles ''
	good srun --mpi=pmix --container="$img" /usr/bin/mpi-version.openmpi
	has_not "$HOSTS"
	good srun --mpi=pmix --container="$img" --container-mpi=openmpi /usr/bin/mpi-version.openmpi
	has_line "Open MPI v$HOSTS"
	has "coracle: note: MPI profile openmpi: the image's libmpi.so.40.40.7 is newer than the host's libmpi.so.40.30.4: it may have functions more"
	has "coracle: note: MPI profile openmpi: the image's libmpi_mpifh.so.40 needs its libopen-pal.so.80, and the profile has neither"
}

@test "six ranks on three nodes pass a message around with the host's Open MPI" {
	needs_pmix
	image trixie
	profiles ''
	good srun -N3 -n6 --mpi=pmix --container="$img" --container-mpi=openmpi /usr/bin/ring.openmpi
	has_line 'ring sum=15 ranks=6'
	[[ $(grep -c ' on n[123] in coracle mpi image of trixie$' <<<"$output") == 6 ]] || fail "$output"
}

@test "the host's is in front of the image's for each way to look for it" {
	image trixie
	profiles ''
	good srun --container="$img" --container-mpi=openmpi bash -c \
		'echo "$LD_LIBRARY_PATH"; echo "$SITE_MPI"; ls /run/coracle/mpi/lib; sha256sum </run/coracle/mpi/lib/libmpi.so.40'
	has_line /run/coracle/mpi/lib
	has_line 'of the host'
	has_line libopen-pal.so.40
	has_line "$(sha256sum <"$LIBS/libmpi.so.40")"
	# Whatever else is set, it stays in front.
	good srun --container="$img" --container-mpi=openmpi --container-env=LD_LIBRARY_PATH=/x,SITE_MPI=mine \
		bash -c 'echo "$LD_LIBRARY_PATH $SITE_MPI"'
	prints '/run/coracle/mpi/lib:/x mine'
	# And nobody can change it.
	run alice srun --container="$img" --container-mpi=openmpi bash -c 'echo >/run/coracle/mpi/lib/libmpi.so.40'
	((status != 0)) || fail "$output"
	has 'Read-only file system'
}

@test "a program that names the directory of the image's own library (DT_RPATH) gets the host's" {
	needs_pmix
	needs readelf
	image trixie
	profiles ''
	compile rpath -Wl,--disable-new-dtags,-rpath,/usr/lib/x86_64-linux-gnu
	readelf -d rpath | grep -q '(RPATH)'
	good srun --mpi=pmix --container="$img" --container-mpi=openmpi env -u LD_LIBRARY_PATH ./rpath
	has_line "Open MPI v$HOSTS"
}

@test "an image whose glibc is too old is refused, and both versions are named" {
	image bullseye
	profiles ''
	at=node refused mpi "MPI profile openmpi does not fit: the host's libmpi.so.40." \
		srun --container="$img" --container-mpi=openmpi true
	[[ $output =~ needs\ GLIBC_2\.[0-9]+,\ the\ image\'s\ libc\.so\.6\ has\ up\ to\ GLIBC_2\.3[01]\ \[mpi\] ]] || fail "$output"
	has 'hint: --container-mpi=none runs with the image'
	nodes=3 refused mpi 'has up to GLIBC_2.3' srun -N3 --container="$img" --container-mpi=openmpi true
}

@test "an image with another MPI alone is refused, and both are named" {
	local libs=usr/lib/x86_64-linux-gnu
	image bookworm
	# Its squashfs is the first object, behind the descriptors.
	unsquashfs -quiet -no-progress -dest "$dir/tree" -offset 32768 "$img" lib lib64 usr/lib64 \
		$libs/libc.so.6 $libs/libmpich.so.12 $libs/libmpich.so.12.2.2 >/dev/null
	[[ -e $dir/tree/$libs/libmpich.so.12 ]]
	made
	profiles ''
	at=node refused mpi "the image has libmpich.so.12, the host libmpi.so.40" \
		srun --container="$img" --container-mpi=openmpi true
}

@test "an image with musl is refused by name" {
	profiles ''
	at=node refused mpi "the image is made with musl (/lib/ld-musl-" \
		srun --container="$IMG/musl.sif" --container-mpi=openmpi true
	at=node refused mpi "the image has no glibc for $(uname -m)" \
		srun --container="$busybox" --container-mpi=openmpi true
}

@test "auto takes the first profile that fits, and none where none does" {
	needs_pmix
	image bookworm
	profiles $'options: {mpi: auto}'
	good srun --mpi=pmix --container="$img" bash -c 'echo "$SITE_MPI $LD_LIBRARY_PATH"; /usr/bin/mpi-version.openmpi'
	prints "of the host /run/coracle/mpi/lib"$'\n'"Open MPI v$HOSTS"
	good srun --container="$img" --container-mpi=none bash -c 'echo "<$LD_LIBRARY_PATH>"'
	prints '<>'
	# A newer one may have more than the host's.
	image trixie
	good srun --mpi=pmix --container="$img" /usr/bin/mpi-version.openmpi
	has_not "$HOSTS"
	good srun --container="$IMG/musl.sif" /usr/bin/says
	prints musl
	good srun --container="$busybox" cat /etc/image-only
	prints "$MARK"
	image bullseye
	good srun --container="$img" env
	has_not LD_LIBRARY_PATH
}

@test "steps inherit the profile of their job, and none takes it away again" {
	needs_pmix
	image trixie
	profiles ''
	job_script job.sh 'srun --mpi=pmix /usr/bin/mpi-version.openmpi
srun --mpi=pmix --container-mpi=none bash -c "echo LD=\$LD_LIBRARY_PATH; /usr/bin/mpi-version.openmpi"'
	sed -i 1s:/sh:/bash: job.sh
	# shellcheck disable=SC2034 # for batch
	variables=(CORACLE_CONTAINER_MPI=openmpi)
	batch --container="$img" job.sh
	has_line "Open MPI v$HOSTS"
	has_line 'LD='
	[[ $(grep -c "$HOSTS" <<<"$output") == 1 ]] || fail "$output"
}

@test "a profile that is not there is refused, and those that are there are named" {
	profiles ''
	at=node refused usage 'cray: no such MPI profile; coracle.yaml of this node has openmpi' \
		srun --container="$busybox" --container-mpi=cray true
	at=submit refused usage '../x: not a profile of MPI: its name, auto or none is wanted' \
		srun --container="$busybox" --container-mpi=../x true
	profiles 'options: {mpi: cray}'
	at=node refused config 'options.mpi: there is no profile cray below mpi' srun --container="$busybox" true
}

@test "a file of a profile that a node lacks is named" {
	image trixie
	configure $'version: 1\nuser_images: kernel\nmpi:\n  odd: {libraries: [/opt/odd/libmpi.so.40]}'
	at=node refused system 'MPI profile odd: /opt/odd/libmpi.so.40 is not on this node' \
		srun --container="$img" --container-mpi=odd true
	good srun --container="$img" --container-mpi=auto true
}

@test "an image without any MPI gets the host's for a program from elsewhere" {
	needs_pmix
	local file
	compile version
	# What the host's files need beside the profile, each at its place.
	while read -r file; do
		[[ $file == */lib@(mpi|open-|mca_|pmix)* ]] || install -D "$file" "$dir/tree$file"
	done < <(ldd version "$LIBS/libpmix.so.2" | grep -oE '/[^ ]+\.so[^ ]*' | sort -u)
	made
	profiles ''
	good srun --mpi=pmix --container="$img" --container-mpi=openmpi ./version
	# What single components need besides, this image lacks, and they say so.
	has_line "Open MPI v$HOSTS"
	# A directory above what Slurm's commands need shows it to them.
	PMIX=$LIBS/pmix2 profiles ''
	good srun --mpi=pmix --container="$img" --container-mpi=openmpi ./version
	has_line "Open MPI v$HOSTS"
}

@test "a user option that the site does not list is refused" {
	profiles 'user_options: [bind]'
	at=node refused policy '--container-mpi: the site does not let you use this option (user_options)' \
		srun --container="$busybox" --container-mpi=auto true
}

@test "explain says what takes whose place, and why another does not" {
	image trixie
	profiles ''
	run on-node n1 as -d "$PWD" alice coracle explain --container="$img" --container-mpi=auto
	((status == 0)) || fail "$output"
	has "mpi     not openmpi: the image's libmpi.so.40.40.7 is newer than the host's libmpi.so.40.30.4"
	run on-node n1 as -d "$PWD" alice coracle explain --container="$img" --container-mpi=openmpi
	((status == 0)) || fail "$output"
	has_line 'mpi     openmpi, which fits'
	has "mpi     $LIBS/libmpi.so.40 (libmpi.so.40.30.4) as libmpi.so.40 in place of "
	has 'libmpi.so.40.40.'
	has 'mpi     of the image: '
	has 'libc.so.6 (GLIBC_2.'
	has "mount  $LIBS/libmpi.so.40 -> /run/coracle/mpi/lib/libmpi.so.40 ro,nosuid,nodev,nested"
	image bullseye
	run on-node n1 as -d "$PWD" alice coracle explain --container="$img" --container-mpi=auto
	((status == 0)) || fail "$output"
	has "mpi     not openmpi: MPI profile openmpi does not fit: the host's libmpi.so.40."
	has_line "mpi     the image's own: auto finds no profile that fits"
}

@test "config check says what a profile has and what it needs of images" {
	profiles $'  odd:\n    libraries: [/opt/odd/libmpi.so.12]\n    folders: [/opt/odd]'
	run on-node n1 coracle config check
	((status == 0)) || fail "$output"
	has "mpi.openmpi: $LIBS/libmpi.so.40 is libmpi.so.40 (libmpi.so.40.30.4)"
	has 'mpi.openmpi: images must have glibc with GLIBC_2.'
	has 'libhwloc.so.15'
	has "mpi.openmpi: components in $LIBS/openmpi/lib/openmpi3 need "
	has 'coracle: warning: /etc/coracle/coracle.yaml:'
	has 'mpi.odd: /opt/odd/libmpi.so.12 is not on this node'
}
