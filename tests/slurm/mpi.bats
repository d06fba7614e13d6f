# MPI in images: every library that is in use finds its peers, and one that cannot says so.
bats_require_minimum_version 1.5.0
load support

RELEASES='bullseye bookworm trixie sid'

setup_file() {
	local release
	for release in $RELEASES; do
		[[ -e $IMG/mpi-$release.sif ]] || skip 'no images of other releases: tests/images/make-mpi-images'
	done
}

# srun as alice, with what makes six ranks on two cores start soon: Open MPI otherwise tries fabrics that are not there, for
# seconds, in which ranks that poll keep others from a core, and from the worker of the image's loop device.
ranks() { # SRUN-ARGUMENT...
	run alice env OMPI_MCA_pml=ob1 srun "$@"
}

good_ranks() { # SRUN-ARGUMENT...
	ranks "$@"
	((status == 0)) || fail "status $status of: $*" "$output"
}

# All ranks are of one world, in the image.
one_world() { # RANKS RELEASE
	has_line "ring sum=$(($1 * ($1 - 1) / 2)) ranks=$1" || return
	[[ $(grep -c " of $1 on n[123] in coracle mpi image of $2\$" <<<"$output") == "$1" ]] || fail "$output"
}

# The line for the user, and nothing more from us.
noted() { # TEXT
	[[ $(grep -c 'error: coracle: ' <<<"$output") == 1 ]] || { fail 'not one line of ours:' "$output"; return; }
	[[ $(grep 'error: coracle: ' <<<"$output") == *" error: coracle: note: $1" ]] ||
		fail "wanted: $1" "found:" "$output"
}

# bats test_tags=releases
@test "Open MPI 4.1, 5.0 and 6.0 with PMIx 4.0 to 7.0, across three nodes" {
	needs_pmix
	local release
	for release in $RELEASES; do
		good_ranks -N3 -n6 --mpi=pmix --container="$IMG/mpi-$release.sif" ring.openmpi || return
		one_world 6 "$release" || return
		has_not 'coracle: ' || return
	done
}

@test "MPICH 3.4, 4.2 and 5.0 with PMI-2 across three nodes, and 4.0 on one" {
	local release nodes
	for release in $RELEASES; do
		# Debian 12's MPICH 4.0.2 with UCX 1.13 spins in MPI_Finalize, on the bare nodes as well, once it has used TCP.
		[[ $release == bookworm ]] && nodes=1 || nodes=3
		good srun -N"$nodes" -n6 -O --mpi=pmi2 --container="$IMG/mpi-$release.sif" ring.mpich || return
		one_world 6 "$release" || return
		has_not 'coracle: ' || return
	done
}

# pyxis#139: there ranks end in MPI_Init ("psec: munge failed to create credential").
@test "an image without psec/munge starts, though the server asks for it" {
	needs_pmix
	good srun -n2 --mpi=pmix --container="$IMG/mpi-bullseye.sif" sh -c 'echo $PMIX_SECURITY_MODE'
	prints $'native\nnative'
	good_ranks -N3 -n6 --mpi=pmix --container="$IMG/mpi-bullseye.sif" ring.openmpi
	one_world 6 bullseye
	has_not Component
	# What Slurm's server has said, and what would come of it.
	ranks -N3 -n6 --mpi=pmix --container="$IMG/mpi-bullseye.sif" \
		env PMIX_SECURITY_MODE=munge,native ring.openmpi
	has 'Component: munge'
}

# bats test_tags=releases
@test "an image with psec/munge reaches munge" {
	needs_pmix
	since 22.05 || skip "not there: a psec/munge in the PMIx of this tree's Debian"
	good srun -n1 --mpi=pmix --container="$IMG/mpi-bookworm.sif" \
		sh -c 'echo $PMIX_SECURITY_MODE; test -S /run/munge/munge.socket.2 && echo there'
	prints $'munge,native\nthere'
	good_ranks -N3 -n6 --mpi=pmix --container="$IMG/mpi-bookworm.sif" env PMIX_MCA_psec=munge ring.openmpi
	one_world 6 bookworm
}

@test "a module that the image's PMIx lacks is not asked for" {
	needs_pmix
	# As with a server of PMIx 5, which this Slurm does not have.
	ranks -n2 --mpi=pmix --container="$IMG/mpi-bullseye.sif" env PMIX_GDS_MODULE=shmem2,hash ring.openmpi
	has 'Component: shmem2'
	good srun -n1 --mpi=pmix --container="$IMG/mpi-bullseye.sif" sh -c 'echo $PMIX_GDS_MODULE'
	local known
	# Of what this node's server says, the words that PMIx 4.0 knows.
	known=$(alice srun -n1 --mpi=pmix sh -c 'echo $PMIX_GDS_MODULE' | tr , '\n' | grep -xE 'ds21|ds12|hash' | paste -sd,)
	[[ $known == *hash ]]
	prints "$known"
}

@test "only the server of this step is visible" {
	needs_pmix
	local other
	good sbatch --parsable -n1 -w n1 -o /dev/null --wrap "srun --mpi=pmix sh -c 'touch $dir/in; sleep 1000'"
	other=$output
	eventually test -e "$dir/in"
	ls -d /var/spool/slurmd.n1/pmix."$other".0
	good srun -n1 -w n1 --mpi=pmix --container="$busybox" sh -c 'echo /var/spool/* /var/spool/slurmd.n1/*'
	[[ $output =~ ^/var/spool/slurmd.n1\ /var/spool/slurmd.n1/pmix\.([0-9]+)\.0$ ]] || fail "$output"
	[[ ${BASH_REMATCH[1]} != "$other" ]] || fail "$output"
	alice scancel "$other"
}

# bats test_tags=releases
@test "the socket of PMI-2 stays open" {
	good srun -n2 --mpi=pmi2 --container="$busybox" sh -c 'test -S /proc/self/fd/$PMI_FD && echo open'
	prints $'open\nopen'
}

@test "a clean environment keeps what MPI needs" {
	needs_pmix
	good_ranks -N3 -n6 --mpi=pmix --container-clean-env --container="$IMG/mpi-trixie.sif" ring.openmpi
	one_world 6 trixie
	good srun -N3 -n6 --mpi=pmi2 --container-clean-env --container="$IMG/mpi-trixie.sif" ring.mpich
	one_world 6 trixie
}

@test "mpirun inside of one node, in a step and in a job script" {
	local release
	for release in bookworm trixie; do
		good srun -N1 -n1 -c2 --container="$IMG/mpi-$release.sif" mpirun.openmpi --oversubscribe -n 2 ring.openmpi || return
		one_world 2 "$release" || return
		job_script job.sh 'mpirun.openmpi ring.openmpi'
		batch -N1 -n2 --container="$IMG/mpi-$release.sif" job.sh
		one_world 2 "$release" || return
		job_script job.sh 'mpiexec.hydra -launcher fork ring.mpich'
		batch -N1 -n2 --container="$IMG/mpi-$release.sif" job.sh
		one_world 2 "$release" || return
	done
}

@test "MPICH in a step with PMIx: each rank is alone, and the user is told" {
	needs_pmix
	ranks -N3 -n6 --mpi=pmix --container="$IMG/mpi-bookworm.sif" ring.mpich
	[[ $(grep -cx 'ring sum=0 ranks=1' <<<"$output") == 6 ]] || fail "$output"
	noted 'ring.mpich: MPICH 4.0 speaks PMI-2, and this step has PMIx, so each of its 6 tasks will be rank 0 of 1: srun --mpi=pmi2 is for it'
}

@test "Open MPI 5 without PMIx: each rank is alone, and the user is told" {
	needs_pmix
	run alice srun -N3 -n6 --mpi=none --container="$IMG/mpi-trixie.sif" ring.openmpi
	[[ $(grep -cx 'ring sum=0 ranks=1' <<<"$output") == 6 ]] || fail "$output"
	noted 'ring.openmpi: Open MPI 5.0 speaks PMIx, and this step has no PMI, so each of its 6 tasks will be rank 0 of 1: srun --mpi=pmix is for it'
}

# singularity#5203: there srun hung.
@test "Open MPI 4 without PMIx ends, all of it, and the user is told before" {
	needs_pmix
	local type offer
	for type in none:'no PMI' pmi2:PMI-2; do
		offer=${type#*:}
		run alice srun -N3 -n6 --mpi="${type%%:*}" --container="$IMG/mpi-bookworm.sif" ring.openmpi
		((status != 0 && status != 124)) || { fail "status $status"; return; }
		has_not 'ring sum' || return
		noted "ring.openmpi: Open MPI 4.1 speaks PMIx, and this step has $offer, so MPI_Init will fail: srun --mpi=pmix is for it" || return
		healthy || return
	done
}

@test "MPICH 5 with PMIx ends, all of it, and the user is told before" {
	needs_pmix
	ranks -N3 -n6 --mpi=pmix --container="$IMG/mpi-sid.sif" ring.mpich
	((status != 0 && status != 124)) || fail "status $status"
	has 'MPI_Init will fail: srun --mpi=pmi2 is for it'
	healthy
}

# By alice, on n1; by root where users have nothing that reads images.
explains() {
	local who=()
	! type -P squashfuse_ll >/dev/null || who=(as -d "$dir" alice)
	on-node n1 timeout --foreground 60 "${who[@]}" coracle explain --mpi "$@"
}

@test "a name with a line break in an image makes no line of explain" {
	local forged=$'x\nnode    FORGED'
	unsquashfs -quiet -no-progress -dest tree "$IMG/busybox-zstd.sqsh" >/dev/null
	mkdir -p tree/opt/a/lib
	unsquashfs -quiet -no-progress -offset 32768 -dest one "$IMG/mpi-bullseye.sif" usr/lib/x86_64-linux-gnu/libmpi.so.40.30.0 >/dev/null ||
		unsquashfs -quiet -no-progress -offset 4096 -dest one "$IMG/mpi-bullseye.sif" usr/lib/x86_64-linux-gnu/libmpi.so.40.30.0 >/dev/null
	cp one/usr/lib/x86_64-linux-gnu/libmpi.so.40.30.0 "tree/opt/a/lib/$forged"
	ln -s "$forged" tree/opt/a/lib/libmpi.so.40
	mksquashfs tree forged.sqsh -noappend -quiet -no-progress -all-root >/dev/null
	chmod 644 forged.sqsh
	run explains --container="$dir/forged.sqsh"
	((status == 0)) || fail "$output"
	has FORGED
	[[ $(grep -c '^node    FORGED' <<<"$output") == 0 ]] || fail "$output"
}

@test "a look at MPI that gets no answer refuses no start" {
	needs_pmix
	# A list of the loader's with more places of one library than anybody looks at.
	unsquashfs -quiet -no-progress -dest tree "$IMG/busybox-zstd.sqsh" >/dev/null
	mkdir -p tree/opt
	local number
	for number in {1..300}; do mkdir -p "tree/opt/p$number/lib" && ln -s /bin/busybox "tree/opt/p$number/lib/libpmix.so.2"; done
	mksquashfs tree many.sqsh -noappend -quiet -no-progress -all-root >/dev/null
	chmod 644 many.sqsh
	good srun -n2 --mpi=pmix --container="$dir/many.sqsh" \
		--container-env="LD_LIBRARY_PATH=$(printf '/opt/p%d/lib:' {1..300})" sh -c 'echo $PMIX_SECURITY_MODE'
	prints $'native\nnative'
}

@test "nobody is told anything of a single task, a script, or a program without MPI" {
	good srun -n1 --mpi=none --container="$IMG/mpi-trixie.sif" ring.openmpi
	has_not 'coracle: note'
	good srun -n2 --mpi=none --container="$IMG/mpi-trixie.sif" true
	prints ''
	printf '%s\n' '#!/bin/sh' 'echo script' >"$dir/script"
	chmod 755 "$dir/script"
	good srun -n2 --mpi=none --container="$IMG/mpi-trixie.sif" "$dir/script"
	prints $'script\nscript'
}

@test "a program that is no ELF file, or a damaged one, runs into its own trouble" {
	needs_pmix
	head -c 4096 /dev/urandom >"$dir/noise"
	printf '\177ELF\2\1\1\0' >"$dir/cut"
	chmod 755 "$dir/noise" "$dir/cut"
	run alice srun -n2 --mpi=pmix --container="$IMG/mpi-trixie.sif" "$dir/noise"
	has 'Exec format error'
	has_not 'coracle: '
	run alice srun -n2 --mpi=pmix --container="$IMG/mpi-trixie.sif" "$dir/cut"
	has 'Exec format error'
	has_not 'coracle: '
}

@test "a rank that dies before the others have started ends the step" {
	needs_pmix
	ranks -N3 -n6 --mpi=pmix --kill-on-bad-exit=1 --container="$IMG/mpi-trixie.sif" \
		sh -c '[ $SLURM_PROCID != 5 ] || exit 7; exec ring.openmpi'
	((status != 0 && status != 124)) || fail "status $status" "$output"
	has_not 'ring sum'
	healthy
}

@test "explain --mpi says what the image has, what the node offers, and what comes of both" {
	needs_pmix
	run explains --container="$IMG/mpi-bullseye.sif"
	((status == 0)) || fail "$output"
	local types
	[[ $output =~ $'\nnode    srun --mpi='([^$'\n']+)'; none if not said'$'\n' ]] || fail "$output"
	types=${BASH_REMATCH[1]}
	[[ $types =~ \|pmix\ \(PMIx\ [0-9.]+[a-z0-9]*\)\|pmix_v[0-9] ]] || fail "$types"
	[[ "|$types|" == *'|none|'* && "|$types|" == *'|pmi2|'* ]] || fail "$types"
	for line in \
		'image   Open MPI 4.1.0 (/usr/lib/x86_64-linux-gnu/libmpi.so.40.30.0)' \
		'  yes   srun --mpi=pmix  starts' \
		'  no    srun --mpi=pmi2  MPI_Init would end each task' \
		'image   MPICH 3.4.1 (/usr/lib/x86_64-linux-gnu/libmpich.so.12.1.10)' \
		'  no    srun --mpi=pmix  each task would be rank 0 of 1, a world of its own' \
		'  yes   srun --mpi=pmi2  starts' \
		'image   PMIx 4.0.0rc3 (/usr/lib/x86_64-linux-gnu/pmix2/lib/libpmix.so.2.3.0), without psec/munge: its tasks are not asked for it'; do
		has_line "$line" || return
	done
	run explains --container="$busybox"
	((status == 0)) || fail "$output"
	has_line 'image   no MPI library where the loader looks, or below /opt and /usr/local'
	# The same as data.
	run --separate-stderr explains --json --container="$IMG/mpi-bullseye.sif"
	((status == 0)) && [[ -z $stderr ]] || fail "$output $stderr"
	python3 - "$output" <<-'PYTHON'
		import json, sys
		[line] = sys.argv[1].splitlines()
		found = json.loads(line)
		node, image = found["mpi_start"]["node"], found["mpi_start"]["image"]
		assert found["version"] == 1 and "plan" not in found and image["error"] is None, found
		assert {"none", "pmi2", "pmix"} <= set(node["types"]) and node["pmix"] and node["default"] in (None, "none"), node
		verdicts = {library["name"]: {type["type"]: type["verdict"] for type in library["types"]} for library in image["libraries"]}
		assert verdicts["Open MPI 4.1.0"] == {"pmix": "starts", "pmi2": "fails", "none": "fails"}, verdicts
		assert verdicts["MPICH 3.4.1"] == {"pmix": "alone", "pmi2": "starts", "none": "alone"}, verdicts
		assert not any(library["unserved"] for library in image["libraries"]), image
		[pmix] = image["pmix"]
		assert pmix["release"].startswith("4.0") and pmix["munge"] is False and pmix["path"].startswith("/usr/lib/"), pmix
	PYTHON
}

# What happened to a step of two ranks, in the words of explain.
outcome() {
	case $status.$(grep -c '^ring sum=1 ranks=2$' <<<"$output").$(grep -c '^ring sum=0 ranks=1$' <<<"$output") in
	0.1.0) echo 'starts' ;;
	0.0.2) echo 'each task would be rank 0 of 1, a world of its own' ;;
	[1-9]*.0.0) [[ $status == 124 ]] && echo 'hangs' || echo 'MPI_Init would end each task' ;;
	*) echo "status $status: $output" ;;
	esac
}

@test "what explain --mpi foretells is what happens, for eight libraries under three kinds of PMI" {
	local release library family type foretold happened count=0 types='pmix pmi2 none'
	# Where Slurm has no mpi/pmix there is nothing to foretell of it.
	srun --mpi=list 2>&1 | grep -qw pmix || types='pmi2 none'
	for release in $RELEASES; do
		run explains --container="$IMG/mpi-$release.sif"
		((status == 0)) || { fail "$output"; return; }
		printf '%s\n' "$output" >explained
		for library in openmpi:'Open MPI' mpich:MPICH; do
			family=${library#*:}
			for type in $types; do
				foretold=$(sed -n "/^image   $family /,/^image/s/^  [yn].*--mpi=$type *//p" explained)
				ranks -N1 -n2 --mpi="$type" --container="$IMG/mpi-$release.sif" "ring.${library%%:*}"
				happened=$(outcome)
				[[ $foretold == "$happened" ]] ||
					{ fail "$release $library --mpi=$type: foretold: $foretold" "happened: $happened"; return; }
				((count += 1))
			done
		done
	done
	((count == 8 * $(wc -w <<<"$types")))
}
