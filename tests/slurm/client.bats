# The node's Slurm commands inside of images that have nothing of theirs: busybox-zstd.sif has no C library, bare.sif
# has not even an /etc, mpi.sif has one like the node's.
load support

bare=$IMG/bare.sif
mpi=$IMG/mpi.sif

# The same for each image; none of them has a command of Slurm of its own.
with_each_image() { # FUNCTION
	local image
	for image in "$busybox" "$bare" "$mpi"; do
		"$1" "$image" || { fail "in $image"; return; }
	done
}

asks() { # IMAGE
	job_script ask.sh 'squeue --noheader --format "queue %i %N"; scontrol --oneliner show job "$SLURM_JOB_ID"; sinfo --noheader --format "info %R"'
	batch -N2 --container="$1" ask.sh
	has_line "queue $job n[1-2]" && has "JobId=$job JobName=ask.sh UserId=alice(2001)" && has_line 'info main'
}

# bats test_tags=releases
@test "squeue, sinfo and scontrol answer inside any image" {
	with_each_image asks
}

starts_a_step() { # IMAGE
	job_script step.sh 'srun sh -c "echo \$SLURMD_NODENAME \$CORACLE_NAME"; srun -n1 -N1 sh -c "exit 7"; echo "status $?"'
	batch -N3 -n3 --container="$1" step.sh
	local node name
	name=$(basename "$1" .sif)
	for node in n1 n2 n3; do has_line "$node $name" || return; done
	has_line 'status 7'
}

@test "srun inside any image starts a step of the job on three nodes, in the same image" {
	with_each_image starts_a_step
}

sets_path_anew() { # IMAGE
	# What Debian's /etc/profile says to a user.
	printf '%s\n' 'PATH="/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"' 'export PATH' >"$dir/profile"
	job_script anew.sh ". $dir/profile; srun -n1 sh -c 'echo profile'; export PATH=/usr/bin:/bin; squeue --noheader --format 'short %i'
		sbatch --version | sed 's/^/sbatch /'"
	batch -n1 --container="$1" anew.sh
	has_line profile && has_line "short $job" && has 'sbatch slurm'
}

@test "the commands are found when a login shell or a script has set PATH anew" {
	with_each_image sets_path_anew
}

# What Debian's /etc/profile says to a user, in an image whose programs are in /bin, in /usr/bin, or in both by a link.
login_image() { # bin|usr|link
	local tree=$dir/$1
	cp -a "$IMG/tree" "$tree"
	printf '%s\n' 'PATH="/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"' 'export PATH' >"$tree/etc/profile"
	case $1 in
	usr) mkdir "$tree/usr" && mv "$tree/bin" "$tree/usr/bin" && ln -s usr/bin "$tree/bin" ;;
	link) mkdir "$tree/usr" && ln -s ../bin "$tree/usr/bin" ;;
	esac
	mksquashfs "$tree" "$dir/$1.sqsh" -noappend -quiet -no-progress -all-root >/dev/null
	chown -R alice "$tree"
}

@test "the commands are found in login shells, with an empty environment, and with a PATH of the script's" {
	local kind option mode
	job_script login.sh 'busybox ash -lc "srun -n1 echo ash"; sh -lc "srun -n1 echo sh"
		env -i sh -c "srun --version" | sed "s/^/empty /"; env -i /usr/bin/srun --version | sed "s/^/path /"
		PATH=/usr/bin:/bin; srun -n1 echo set; PATH=/usr/local/bin:/usr/bin:/bin:/opt/mine; export PATH; exec srun -n1 echo exported'
	job_script head.sh 'srun -n1 echo script'
	sed -i '1s,.*,#!/bin/sh -l,' head.sh
	configure $'version: 1\nuser_images: kernel\ndirectories: allow\nbinds:\n- source: /scratch'
	for kind in bin usr link; do
		login_image "$kind" || return
		for option in --container-home --container-writable=16m --no-container-home; do
			batch -n1 --container="$dir/$kind.sqsh" "$option" login.sh
			for mode in ash sh set exported; do has_line "$mode" || { fail "$kind $option"; return; }; done
			[[ $(grep -cE '^(empty|path) slurm' <<<"$output") == 2 ]] || { fail "$kind $option" "$output"; return; }
		done
		batch -n1 --container="$dir/$kind.sqsh" head.sh
		has_line script || { fail "$kind"; return; }
		batch -n1 --container="$dir/$kind" login.sh
		for mode in ash sh set exported; do has_line "$mode" || { fail "$kind as a directory"; return; }; done
	done
}

@test "the commands are found in login shells where squashfuse_ll reads the image" {
	needs_squashfuse
	local mode
	job_script login.sh 'busybox ash -lc "srun -n1 echo ash"; sh -lc "srun -n1 echo sh"'
	login_image link
	configure $'version: 1\nuser_images: fuse\nbinds:\n- source: /scratch'
	batch -n1 --container="$dir/link.sqsh" login.sh
	for mode in ash sh; do has_line "$mode" || return; done
}

@test "the commands are found in bash as a login shell" {
	job_script bash.sh 'bash -lc "srun -n1 echo one"; bash -lc "export PATH=/usr/bin; squeue --noheader --format two.%i"; env -i bash -lc "srun --version"'
	printf '%s\n' 'PATH="/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"' 'export PATH' >"$dir/profile"
	local option
	for option in --container-home --container-writable=16m; do
		batch -n1 --container="$IMG/mpi-bookworm.sif" --container-bind="$dir/profile:/etc/profile:ro" "$option" bash.sh
		has_line one && has_line "two.$job" && has 'slurm' || { fail "$option"; return; }
	done
}

@test "srun inside an image starts steps in another image and in none" {
	job_script steps.sh "ls -d /image-only; srun --container=$busybox cat /etc/image-only; srun --container=none /bin/sh -c 'echo none; ls -d /image-only $ETC_SLURM/slurm.conf || true'"
	batch --container="$bare" steps.sh
	has_line /image-only
	has_line "$MARK"
	has_line none
	has_line "$ETC_SLURM/slurm.conf"
	[[ $(grep -cx /image-only <<<"$output") == 1 ]] || fail "$output"
}

@test "the commands of the node itself are found in a step without an image" {
	job_script steps.sh 'srun -n1 --container=none /bin/sh -c "command -v srun; squeue --noheader --format %i"'
	batch --container="$bare" steps.sh
	has_line "$BIN_SLURM/srun"
	has_line "$job"
}

submits_and_cancels() { # IMAGE
	job_script submit.sh "id=\$(sbatch --hold --parsable -o /dev/null --wrap 'sleep 1000') && scancel \$id && scontrol --oneliner show job \$id
sbatch --wait -o $dir/second.out --container=$busybox --wrap 'cat /etc/image-only'"
	rm -f second.out
	batch -n1 --container="$1" submit.sh
	has JobState=CANCELLED && [[ $(<second.out) == "$MARK" ]]
}

@test "sbatch and scancel work inside any image" {
	with_each_image submits_and_cancels
}

@test "a job submitted inside an image has none, unless it is told" {
	job_script submit.sh "sbatch --wait -o $dir/second.out --wrap 'hostname; ls -d /image-only || true'"
	batch -n1 --container="$bare" submit.sh
	[[ $(<second.out) == n1*"'/image-only': No such file or directory" ]] || fail "$(<second.out)"
}

@test "a script inside can end its own job" {
	job_script end.sh 'echo begun; scancel "$SLURM_JOB_ID"; sleep 1000'
	job=$(alice sbatch --parsable -o "$dir/batch.out" --container="$bare" end.sh)
	eventually ended "$job"
	[[ $(job_field "$job" JobState) == CANCELLED && $(<batch.out) == begun* ]]
	healthy
}

@test "salloc inside an image gets a job whose steps run" {
	good srun -n1 --container="$busybox" salloc -n1 srun -n1 --container="$bare" ls -d /image-only
	has_line /image-only
}

ranks_meet() { # IMAGE
	batch -N3 -n6 --container="$1" --wrap "srun --mpi=pmix --container=$mpi /usr/bin/ring"
	has_line 'ring sum=15 ranks=6'
}

# bats test_tags=releases
@test "six ranks on three nodes meet by PMIx when srun itself is inside an image" {
	needs_pmix
	ranks_meet "$busybox"
	ranks_meet "$bare"
}

# bats test_tags=releases
@test "six ranks on three nodes meet by PMIx when srun itself is inside an image with a PMIx of its own" {
	needs_pmix
	# It is opened by the node's srun, where the node's would be, and this one is of Debian 12.
	since 22.05 || skip "not there: an image whose PMIx the C library of this tree's Debian can load"
	ranks_meet "$mpi"
}

@test "an inner step whose image is missing says so, and the script goes on" {
	job_script step.sh 'srun -n1 --container=/no/such.sif true; echo "status $?"'
	batch --container="$bare" step.sh
	node_said n1 'coracle: /no/such.sif: no such file on this node'
	has '[image-missing]'
	has_line 'status 125'
}

@test "wrong options of an inner step are refused by srun itself" {
	job_script step.sh "srun -n1 --container=$busybox --container-bind=/tmp:x:y:z true; echo \"status \$?\""
	batch --container="$bare" step.sh
	has 'srun: error: coracle: /tmp:x:y:z: '
	has '[usage]'
	has_not 'status 0'
}

@test "the loader variables of the image do not reach the node's client, but the tasks that it starts" {
	mkdir libraries
	echo 'no library' >libraries/libslurmfull.so
	job_script preload.sh 'export LD_PRELOAD=/no/such.so LD_AUDIT=/no/audit.so LD_LIBRARY_PATH=$PWD/libraries
squeue --noheader --format "queue %i"; srun -n1 env'
	batch --container="$bare" preload.sh
	has_line "queue $job"
	has_line LD_PRELOAD=/no/such.so
	has_line LD_AUDIT=/no/audit.so
	has_line "LD_LIBRARY_PATH=$dir/libraries"
	has_not SLURM_CORACLE_LD
	has_not ld.so
}

@test "sattach inside an image shows what a step writes" {
	job_script attach.sh 'srun -n1 sh -c "until test -e seen; do echo from the step; touch begun; sleep 0.1; done" >/dev/null &
until test -e begun; do sleep 0.1; done
sattach "$SLURM_JOB_ID.0" >attached &
until test -s attached; do sleep 0.1; done
touch seen; wait; head -n 1 attached'
	batch --container="$busybox" attach.sh
	prints 'from the step'
}

@test "srun --pty inside an image has a terminal" {
	needs script
	good script -qec "srun -n1 --pty --container=$bare srun --overlap --pty sh -c 'tty; ls -d /image-only'" /dev/null
	has /dev/pts/
	has /image-only
}

@test "the controller is found by its name alone" {
	cp -a "$ETC_SLURM/site.conf" "$SUITE/site.conf"
	sed -i 's/^SlurmctldHost=ctl(.*)/SlurmctldHost=ctl/' "$ETC_SLURM/site.conf"
	good srun -n1 --container="$bare" squeue --noheader --format 'queue %u'
	has_line 'queue alice'
}

@test "of two Slurms on a node, the commands inside are those of the step's own" {
	[[ $BIN_SLURM != /usr/bin ]] || skip "not there: this Slurm $(slurm_release) is in /usr, which is looked at first"
	cp /bin/true /usr/bin/srun
	good srun -n1 --container="$bare" sh -c 'command -v srun; srun --version'
	has_line /run/coracle/slurm/bin/srun
	has "slurm $(slurm_release)"
}

cleanup() {
	[[ $BIN_SLURM == /usr/bin ]] || rm -f /usr/bin/srun
	[[ ! -e $SUITE/site.conf ]] || mv "$SUITE/site.conf" "$ETC_SLURM/site.conf"
}

@test "the node's directories are read-only inside, also for who may write them" {
	good srun -n1 --container="$bare" sh -c 'grep " /run/coracle/host/usr " /proc/self/mountinfo'
	[[ $output == *' /run/coracle/host/usr ro,nosuid,nodev'* ]] || fail "$output"
	run alice srun -n1 --container="$bare" sh -c 'touch /run/coracle/host/usr/mine /run/coracle/slurm/mine'
	[[ $(grep -c 'Read-only file system' <<<"$output") == 2 && ! -e /usr/mine ]] || fail "$output"
}

@test "slurm_client: none leaves them all out" {
	configure 'version: 1
user_images: kernel
slurm_client: none'
	good srun -n1 --container="$bare" sh -c 'ls -d /run/coracle/host /run/coracle/slurm/bin '"$ETC_SLURM"'; command -v srun || echo no srun'
	has_line 'no srun'
	[[ $(grep -c 'No such file' <<<"$output") == 3 ]] || fail "$output"
}

@test "a slurm_client that is not there refuses" {
	configure 'version: 1
user_images: kernel
slurm_client:
  bin: /opt/no/bin'
	refused config 'slurm_client.bin: /opt/no/bin is not a directory with srun on this node' srun -n1 --container="$busybox" true
}

@test "an image of musl runs its own programs, and the node's Slurm commands" {
	job_script job.sh '/usr/bin/says; cat /etc/image-only; srun -n1 /usr/bin/says; squeue --noheader --format "queue %i"; scontrol show job $SLURM_JOB_ID | grep -o "JobId=[0-9]*"'
	batch --container="$IMG/musl.sif" job.sh
	prints "musl
coracle musl test image
musl
queue $job
JobId=$job"
}
