# What a step with GPUs finds in its container by itself: the driver's files of the node, and variables that say what is
# there. Nothing that an image or a user brings along makes root run, follow or create anything.
bats_require_minimum_version 1.5.0
load support
load gpu

@test "a step with GPUs has the node's driver, and needs no variable for it" {
	glibc_image
	good srun -N1 --gres=gpu:2 --container="$img" sh -c "command -v nvidia-smi; nvidia-smi -L; $IMG/cuda-probe; echo \"\$LD_LIBRARY_PATH\"; echo \$NVIDIA_VISIBLE_DEVICES \$CUDA_VISIBLE_DEVICES"
	has_line /run/coracle/gpu/bin/nvidia-smi
	[[ $(grep -c '^GPU [01]: stand-in /dev/nvidia[01] ' <<<"$output") == 2 ]] || fail "$output"
	has_line 'tried=2 opened=2'
	has_line 'nodes nvidia-caps-imex-channels nvidia-modeset nvidia-uvm nvidia-uvm-tools nvidia0 nvidia1 nvidiactl'
	has_line 'library /run/coracle/gpu/lib/libcuda.so.1'
	has_line 'devices 2'
	has_line /run/coracle/gpu/lib
	has_line '0,1 0,1'
}

@test "the driver's files are the node's, read-only, and in front of whatever the job sets" {
	glibc_image
	good srun -N1 --gres=gpu:1 --container="$img" --container-env=LD_LIBRARY_PATH=/x bash -c \
		"echo \$LD_LIBRARY_PATH; sha256sum </run/coracle/gpu/lib/libcuda.so.1; readlink /run/coracle/gpu/lib/libcuda.so; ls /run/coracle/gpu/lib"
	has_line /run/coracle/gpu/lib:/x
	has_line "$(sha256sum <"$LIBS/libcuda.so.$RELEASE")"
	has_line libcuda.so.1
	has_line libnvidia-ml.so.1
	has_line "libnvidia-ptxjitcompiler.so.$RELEASE"
	run alice srun -N1 --gres=gpu:1 --container="$img" bash -c 'echo >/run/coracle/gpu/lib/libcuda.so.1'
	((status != 0)) || fail "$output"
	has 'Read-only file system'
	run alice srun -N1 --gres=gpu:1 --container="$img" --container-writable bash -c 'echo >/run/coracle/gpu/lib/libcuda.so.1'
	((status != 0)) || fail "$output"
	has 'Read-only file system'
}

@test "variables that an image or a user sets say nothing of GPUs" {
	image_tree
	image_env NVIDIA_VISIBLE_DEVICES=all CUDA_VISIBLE_DEVICES=7 ROCR_VISIBLE_DEVICES=7 GPU_DEVICE_ORDINAL=7 NVIDIA_DRIVER_CAPABILITIES=compute
	made
	local show='echo $NVIDIA_VISIBLE_DEVICES $CUDA_VISIBLE_DEVICES $ROCR_VISIBLE_DEVICES $GPU_DEVICE_ORDINAL'
	good srun -N1 --gres=gpu:2 --container="$img" sh -c "$show"
	prints '0,1 0,1 0,1 0,1'
	good env NVIDIA_VISIBLE_DEVICES=all CUDA_VISIBLE_DEVICES=6 srun -N1 --gres=gpu:2 --container="$img" sh -c "$show; $IMG/cuda-probe"
	has_line '0,1 0,1 0,1 0,1'
	has_line 'devices 2'
	good env NVIDIA_VISIBLE_DEVICES=all srun -N1 --gres=gpu:1 --container="$busybox" sh -c "$show"
	prints '0 0 0 0'
}

@test "a step without GPUs has none of the driver, and NVIDIA_VISIBLE_DEVICES says void if anybody has set it" {
	local look='echo "$NVIDIA_VISIBLE_DEVICES,$LD_LIBRARY_PATH,$CUDA_VISIBLE_DEVICES"; ls -d /run/coracle/gpu /dev/nvidia* /dev/nvidia-caps /dev/dri 2>/dev/null; true'
	good srun -N1 --container="$busybox" sh -c "$look"
	prints ',,'
	good env NVIDIA_VISIBLE_DEVICES=all srun -N1 --container="$busybox" sh -c "$look"
	prints 'void,,'
	image_tree
	image_env NVIDIA_VISIBLE_DEVICES=all
	made
	good srun -N1 --container="$img" sh -c "$look"
	prints 'void,,'
}

@test "devices of the network are there without GPUs, the driver's own are not" {
	good srun -N1 --container="$busybox" sh -c "$IMG/try-open /dev/infiniband/uverbs0 /dev/infiniband/rdma_cm /dev/nvidiactl /dev/nvidia-uvm /dev/nvidia-caps-imex-channels/channel0"
	[[ ${lines[0]} =~ ^/dev/infiniband/uverbs0\ (ENXIO|ENODEV)$ ]] || fail "$output"
	has_line '/dev/nvidiactl ENOENT'
	has_line '/dev/nvidia-uvm ENOENT'
	has_line '/dev/nvidia-caps-imex-channels/channel0 ENOENT'
}

NOTHING='echo "$NVIDIA_VISIBLE_DEVICES,$CUDA_VISIBLE_DEVICES,$LD_LIBRARY_PATH"; ls -d /run/coracle/gpu /dev/nvidia* 2>/dev/null; true'

@test "none shows no GPU and no driver, by option, by variable and by the site's default" {
	good srun -N1 --gres=gpu:1 --container="$busybox" --container-gpu=none sh -c "$NOTHING"
	prints ',,'
	good env CORACLE_CONTAINER_GPU=none srun -N1 --gres=gpu:1 --container="$busybox" sh -c "$NOTHING"
	prints ',,'
	site 'options: {gpu: none}'
	good srun -N1 --gres=gpu:1 --container="$busybox" sh -c "$NOTHING"
	prints ',,'
	good srun -N1 --gres=gpu:1 --container="$busybox" --container-gpu=auto sh -c "$NOTHING"
	has_line '0,0,/run/coracle/gpu/lib'
	has_line /dev/nvidia0
	site ''
	good env CORACLE_CONTAINER_GPU=none srun -N1 --gres=gpu:1 --container="$busybox" --container-gpu=auto sh -c "$NOTHING"
	has_line /dev/nvidia0
}

@test "a site that does not list the option refuses it" {
	site 'user_options: [bind]'
	at=node refused policy '--container-gpu: the site does not let you use this option (user_options)' \
		srun -N1 --gres=gpu:1 --container="$busybox" --container-gpu=none true
	good srun -N1 --gres=gpu:1 --container="$busybox" ls /dev/nvidia0
}

@test "a word that is none is refused at submission" {
	at=submit refused usage 'some: ' srun -N1 --gres=gpu:1 --container="$busybox" --container-gpu=some true
	has 'auto or none'
	at=submit refused usage 'all: ' env CORACLE_CONTAINER_GPU=all srun -N1 --container="$busybox" true
}

@test "steps of a job, its script and its shell see the same" {
	glibc_image
	local see='ls /dev | grep nvidia | tr "\n" " "; nvidia-smi -L | tail -n 1; echo $NVIDIA_VISIBLE_DEVICES,$CUDA_VISIBLE_DEVICES,$LD_LIBRARY_PATH'
	local seen='nvidia-caps-imex-channels nvidia-modeset nvidia-uvm nvidia-uvm-tools nvidia0 nvidia1 nvidiactl tried=2 opened=2
0,1,0,1,/run/coracle/gpu/lib'
	job_script see.sh "$see"
	job_script job.sh "./see.sh; srun -n1 ./see.sh; srun -n1 --overlap --container=step ./see.sh
touch $dir/running; until [ -e $dir/seen ]; do sleep 0.1; done"
	job=$(alice sbatch --parsable -N1 --gres=gpu:2 --container="$img" -o "$dir/batch.out" job.sh)
	eventually test -e running || fail "$(<batch.out)"
	run alice coracle exec --job "$job" ./see.sh
	touch seen
	eventually ended "$job"
	((status == 0)) || fail "$output"
	prints "$seen"
	output=$(<batch.out)
	prints "$seen"$'\n'"$seen"$'\n'"$seen"
	good salloc -Q -N1 --gres=gpu:2 --container="$img" srun ./see.sh
	prints "$seen"
	needs script
	printf '%s\n' ./see.sh exit >typed
	chmod 644 typed
	run alice env SHELL=/bin/sh timeout 60 script -qec "salloc -Q -N1 --gres=gpu:2 --container=$img" /dev/null <typed
	output=$(tr -d '\r' <<<"$output")
	has "$seen"
}

@test "a step without GPUs that joins a container with them opens none" {
	job_script job.sh "sleep 0; srun -n1 --overlap --gres=none --container=step $IMG/try-open /dev/nvidia0 /dev/nvidia1"
	batch -N1 --gres=gpu:1 --container="$busybox" job.sh
	prints '/dev/nvidia0 EPERM
/dev/nvidia1 ENOENT'
}

@test "coracle run outside of a job has the node's devices, and the driver of those that its user may open" {
	chmod 600 /dev/nvidia3
	run alice coracle run "$busybox" sh -c 'ls /dev; ls /run/coracle/gpu/lib; echo $NVIDIA_VISIBLE_DEVICES'
	chmod 666 /dev/nvidia3
	((status == 0)) || fail "$output"
	has_line nvidia3
	has_line fuse
	has_line libcuda.so.1
	has_line 0,1,2,3,4,5,6
	run alice coracle run --gpu=none "$busybox" sh -c 'ls -d /run/coracle/gpu'
	((status != 0)) || fail "$output"
}

@test "coracle run in a job opens the GPUs of the job" {
	job_script job.sh "coracle run $busybox sh -c '$IMG/try-open /dev/nvidia[0-1]; echo \$NVIDIA_VISIBLE_DEVICES' 2>&1"
	batch -N1 --gres=gpu:1 job.sh
	prints $'/dev/nvidia0 ENXIO\n/dev/nvidia1 EPERM\n0'
	batch -N1 job.sh
	has_line '/dev/nvidia0 EPERM'
}

# --- What is said of it

@test "explain says which GPUs a container would show, where their driver is from, and why there are none" {
	glibc_image
	good coracle explain --container="$img"
	has_line 'gpu     NVIDIA: /dev/nvidia0'
	has_line 'gpu     NVIDIA: /dev/nvidia7'
	has "gpu     driver from the loader's list: "
	good coracle explain --container="$img" --container-gpu=none
	has_line "gpu     none: that was asked for, or is the site's default"
	has_not NVIDIA
	job_script job.sh "coracle explain --container=$img | grep ^gpu"
	batch -N1 --gres=gpu:2 job.sh
	[[ $(grep -c NVIDIA: <<<"$output") == 2 ]] || fail "$output"
	batch -N1 job.sh
	prints 'gpu     none: Slurm gives this job none, or they are not yours to open'
}

@test "doctor says what a node has for GPUs, and its status what is missing" {
	run on-node n1 coracle doctor
	((status == 0)) || fail "$output"
	has_line 'ok       gres      slurm.conf has GresTypes=gpu'
	has_line 'ok       gres      gpu: /dev/nvidia7'
	has_line "ok       cgroups   of devices: version 1; Slurm's rules (ConstrainDevices=yes)"
	has "ok       driver    NVIDIA: from the loader's list: "
	mv /dev/nvidia7 /dev/gone
	run on-node n1 coracle doctor
	mv /dev/gone /dev/nvidia7
	((status == 1)) || fail "$status" "$output"
	has_line 'error    gres      gpu: gres.conf names /dev/nvidia7: not there'
	mkdir -p /etc/cdi
	stand_in_cdi
	sed -i 's/update-ldcache/brew-coffee/' /etc/cdi/nvidia.yaml
	run on-node n1 coracle doctor
	((status == 1)) || fail "$status" "$output"
	has 'error    driver '
	has brew-coffee
}

@test "the example of a job with a GPU shows the one that Slurm gave" {
	cp "$busybox" img.sif
	cp "$BATS_TEST_DIRNAME/../../slurm-conf-examples/jobs/gpu.sh" .
	chown alice img.sif gpu.sh
	batch gpu.sh
	[[ $(grep -c '^/dev/nvidia[0-9]' <<<"$output") == 1 ]] || fail "$output"
}

# --- Specifications (CDI)

@test "a specification says which files there are, and what they are called" {
	glibc_image
	stand_in_cdi
	echo '{"vulkan": "stand-in"}' >icd.json
	install -D -m 644 icd.json /usr/share/vulkan/icd.d/nvidia_icd.json
	install -d /run/nvidia-persistenced
	perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0) and bind(S, pack_sockaddr_un("/run/nvidia-persistenced/socket")) or die $!'
	good srun -N1 --gres=gpu:2 --container="$img" bash -c "$IMG/cuda-probe; nvidia-smi -L; cd /run/coracle/gpu/lib
		for link in libcuda.so libnvidia-opticalflow.so libGLX_indirect.so.0 nvidia-drm_gbm.so; do echo \$link \$(readlink \$link); done
		cat /usr/share/vulkan/icd.d/nvidia_icd.json; ls -d /lib/firmware/nvidia/$RELEASE/*; test -S /run/nvidia-persistenced/socket && echo socket
		echo \$NVIDIA_VISIBLE_DEVICES"
	has_line 'library /run/coracle/gpu/lib/libcuda.so.1'
	has_line 'devices 2'
	has_line 'tried=2 opened=2'
	has_line 'libcuda.so libcuda.so.1'
	has_line 'libnvidia-opticalflow.so libnvidia-opticalflow.so.1'
	has_line 'libGLX_indirect.so.0 libGLX_nvidia.so.0'
	has_line '0,1'
	has_line "/lib/firmware/nvidia/$RELEASE/gsp_ga10x.bin"
	has_line '{"vulkan": "stand-in"}'
	has_line socket
}

@test "the variables of a specification are set, those of others are not" {
	small_cdi '  env: [NVIDIA_STANDIN=yes, LD_PRELOAD=/evil.so, CUDA_VISIBLE_DEVICES=5, PATH=/evil, NVIDIA_VISIBLE_DEVICES=void]' | cdi
	good srun -N1 --gres=gpu:1 --container="$busybox" sh -c 'echo "$NVIDIA_STANDIN,$LD_PRELOAD,$CUDA_VISIBLE_DEVICES,$NVIDIA_VISIBLE_DEVICES"; ls /run/coracle/gpu/lib'
	has_line 'yes,,0,0'
	has_line libcuda.so.1
	has_not libnvidia-ml
}

@test "of two directories of specifications the one for what changes counts" {
	stand_in_cdi
	small_cdi '  env: [NVIDIA_STANDIN=run]' | cdi /var/run/cdi/nvidia.yaml
	good srun -N1 --gres=gpu:1 --container="$busybox" sh -c 'echo $NVIDIA_STANDIN; ls /run/coracle/gpu/lib'
	has_line run
	has_line libcuda.so.1
	has_not libnvidia-ml
}

@test "a part of the node's GPUs that no specification has is given all the same" {
	small_cdi '  env: [NVIDIA_STANDIN=yes]' | cdi
	good srun -N1 --gres=gpu:3 --container="$busybox" sh -c 'echo $NVIDIA_STANDIN $NVIDIA_VISIBLE_DEVICES; ls -d /dev/nvidia[0-9]'
	prints $'yes 0,1,2\n/dev/nvidia0\n/dev/nvidia1\n/dev/nvidia2'
}

@test "a site that wants specifications refuses a step whose GPU has none, and no other step" {
	site 'gpu: {driver: cdi}'
	at=node refused config ': /dev/nvidia0: gpu.driver is cdi in coracle.yaml, and no specification has this device' \
		srun -N1 --gres=gpu:1 --container="$busybox" true
	has 'hint: no container with a GPU starts on this node before'
	good srun -N1 --container="$busybox" cat /etc/image-only
	prints "$MARK"
	good srun -N1 --gres=gpu:1 --container="$busybox" --container-gpu=none cat /etc/image-only
	prints "$MARK"
	stand_in_cdi
	good srun -N1 --gres=gpu:1 --container="$busybox" ls /run/coracle/gpu/lib/libcuda.so.1
}

@test "a site can give nothing but the nodes, or what the loader knows whatever specifications say" {
	small_cdi '  hooks: [{hookName: createContainer, path: /no/such/hook}]' | cdi
	site 'gpu: {driver: none}'
	good srun -N1 --gres=gpu:1 --container="$busybox" sh -c 'ls -d /dev/nvidia[0-9] /dev/nvidiactl; ls /run/coracle/gpu/lib 2>/dev/null; echo $NVIDIA_VISIBLE_DEVICES,$LD_LIBRARY_PATH'
	prints $'/dev/nvidia0\n/dev/nvidiactl\n0,'
	site 'gpu: {driver: libraries}'
	good srun -N1 --gres=gpu:1 --container="$busybox" ls /run/coracle/gpu/lib
	has_line libnvidia-ml.so.1
}

@test "a site can name further libraries, programs and files, and one that the node lacks is left out" {
	site "gpu:
  libraries: [libz.so, $LIBS/libutil.so.1, libnone.so]
  programs: [perl, nosuch]
  files: [/etc/services]"
	good srun -N1 --gres=gpu:1 --container="$busybox" sh -c 'ls /run/coracle/gpu/lib /run/coracle/gpu/bin; ls -l /etc/services'
	has_line libz.so.1
	has_line perl
	has_not libutil
	has_not nosuch
	has /etc/services
}

@test "a specification that is older than the driver is passed over for what the loader knows" {
	small_cdi '  env: [NVIDIA_STANDIN=yes]' | sed "s/$RELEASE/535.1.1/g" | cdi
	good srun -N1 --gres=gpu:1 --container="$busybox" ls /run/coracle/gpu/lib
	has_line libnvidia-ml.so.1
	has_not 535.1.1
	site 'gpu: {driver: cdi}'
	at=node refused config 'most of its libraries are not on this node' srun -N1 --gres=gpu:1 --container="$busybox" true
}

# --- Hostile specifications, and files of the node that are not root's

@test "a specification that others could have written is refused" {
	stand_in_cdi
	chmod 666 /etc/cdi/nvidia.yaml
	at=node refused config '/etc/cdi/nvidia.yaml' srun -N1 --gres=gpu:1 --container="$busybox" true || return
	has writable
	chmod 644 /etc/cdi/nvidia.yaml
	chown alice /etc/cdi/nvidia.yaml
	at=node refused config '/etc/cdi/nvidia.yaml' srun -N1 --gres=gpu:1 --container="$busybox" true || return
	chown root /etc/cdi/nvidia.yaml
	chmod 777 /etc/cdi
	at=node refused config '/etc/cdi' srun -N1 --gres=gpu:1 --container="$busybox" true || return
	chmod 755 /etc/cdi
	rm /etc/cdi/nvidia.yaml
	cp "$BATS_TEST_DIRNAME/../gpus/nvidia.yaml" hers.yaml
	chown alice hers.yaml
	ln -s "$dir/hers.yaml" /etc/cdi/nvidia.yaml
	at=node refused config 'yaml' srun -N1 --gres=gpu:1 --container="$busybox" true || return
	good srun -N1 --container="$busybox" true
}

@test "a specification that makes no sense is refused with its place" {
	printf '%s\n' 'cdiVersion: 0.6.0' 'kind: nvidia.com/gpu' 'devices: []' 'containerEdit: {}' | cdi
	at=node refused config '/etc/cdi/nvidia.yaml:4:1' srun -N1 --gres=gpu:1 --container="$busybox" true || return
	small_cdi '  env: []' | sed 's/0.6.0/2.0.0/' | cdi
	at=node refused config 'cdiVersion "2.0.0" is not known' srun -N1 --gres=gpu:1 --container="$busybox" true || return
	printf '%s\n' 'a: &a [x]' 'b: *a' | cdi
	at=node refused config 'anchors and aliases' srun -N1 --gres=gpu:1 --container="$busybox" true || return
	mkfifo /etc/cdi/fifo.yaml
	rm /etc/cdi/nvidia.yaml
	at=node refused config '/etc/cdi/fifo.yaml' srun -N1 --gres=gpu:1 --container="$busybox" true || return
}

@test "no program that a specification names is run, and an unknown one is refused by name" {
	printf '%s\n' '#!/bin/sh' "id -u >>$dir/hooked" >hook
	chmod 755 hook
	chmod 777 .
	small_cdi "  hooks: [{hookName: createContainer, path: $dir/hook, args: [hook, now]}]" | cdi
	at=node refused config "/etc/cdi/nvidia.yaml: wants $dir/hook to be run (hook now), and what for is not known" \
		srun -N1 --gres=gpu:1 --container="$busybox" true || return
	mv hook nvidia-cdi-hook
	small_cdi "  hooks: [{hookName: createContainer, path: $dir/nvidia-cdi-hook, args: [nvidia-cdi-hook, update-ldcache, --folder, /]}]" | cdi
	good srun -N1 --gres=gpu:1 --container="$busybox" ls /run/coracle/gpu/lib/libcuda.so.1
	small_cdi "  hooks: [{hookName: createContainer, path: $dir/nvidia-cdi-hook, args: [nvidia-cdi-hook, new-thing]}]" | cdi
	at=node refused config 'new-thing' srun -N1 --gres=gpu:1 --container="$busybox" true || return
	[[ ! -e hooked ]] || fail "run as $(<hooked)"
}

@test "a specification puts nothing where the container's own is, nor makes links there" {
	small_cdi "  - {hostPath: /etc/services, containerPath: /proc/sys/kernel/core_pattern}
  - {hostPath: /etc/services, containerPath: /etc/passwd}
  - {hostPath: /etc/services, containerPath: /run/coracle/inside}
  - {hostPath: /etc/services, containerPath: /../../$dir/out}
  - {hostPath: /etc/shadow, containerPath: /etc/shadow}
  hooks: [{hookName: createContainer, path: /usr/bin/nvidia-cdi-hook, args: [nvidia-cdi-hook, create-symlinks, --link, '/etc/shadow::/etc/evil', --link, '../../evil::$dir/evil']}]" | cdi
	run alice srun -N1 --gres=gpu:1 --container="$busybox" sh -c 'cat /proc/self/mountinfo; id -un; ls -l /etc/evil'
	[[ ! -e evil && ! -e out ]] || fail 'made on the node'
	if ((status == 125)); then
		[[ $(grep -cE "$OURS" <<<"$output") -ge 1 ]] || fail "$output"
	else
		has_not ' /proc/sys/kernel/core_pattern '
		has_line alice
	fi
}

# Without the library there are still all others.
without_cuda() { # WHAT
	good srun -N1 --gres=gpu:1 --container="$busybox" ls /run/coracle/gpu/lib
	has_not libcuda.so || fail "$1"
	has_line libnvidia-ml.so.1 || fail "$1"
}

@test "libraries that others than root could have written are left out" {
	chown alice "$LIBS/libcuda.so.$RELEASE"
	without_cuda 'of another owner'
	chown root "$LIBS/libcuda.so.$RELEASE"
	chmod 777 "$LIBS/libcuda.so.$RELEASE"
	without_cuda 'writable'
	rm "$LIBS/libcuda.so.$RELEASE"
	install -o alice -m 755 "$SUITE/gpu/libcuda.so.$RELEASE" hers.so
	ln -s "$dir/hers.so" "$LIBS/libcuda.so.$RELEASE"
	without_cuda 'a link to a file of hers'
	rm "$LIBS/libcuda.so.$RELEASE"
	mkfifo "$LIBS/libcuda.so.$RELEASE"
	without_cuda 'a FIFO'
	rm "$LIBS/libcuda.so.$RELEASE"
	head -c 100000 /dev/urandom >"$LIBS/libcuda.so.$RELEASE"
	without_cuda 'nonsense'
	# By a specification, too.
	chown alice "$LIBS/libcuda.so.$RELEASE"
	stand_in_cdi
	without_cuda 'in a specification'
}

@test "a library that turns into a user's file and back is never that file" {
	local tries=0 wrong=0 ran=0 racer hers
	install -o alice -m 755 "$SUITE/gpu/libnvidia-cfg.so.$RELEASE" hers.so
	echo hers >>hers.so
	hers=$(sha256sum <hers.so)
	(while :; do
		ln -sfn "$dir/hers.so" "$LIBS/new.so" && mv -T "$LIBS/new.so" "$LIBS/libcuda.so.1"
		ln -sfn "libcuda.so.$RELEASE" "$LIBS/new.so" && mv -T "$LIBS/new.so" "$LIBS/libcuda.so.1"
	done) 3>&- &
	racer=$!
	while ((tries < 12)); do
		tries=$((tries + 1))
		run alice srun -N1 --gres=gpu:1 --container="$IMG/mpi-bookworm.sif" sha256sum /run/coracle/gpu/lib/libcuda.so.1
		[[ $output != *"${hers%% *}"* ]] || wrong=$((wrong + 1))
		[[ $status != 0 ]] || ran=$((ran + 1))
	done
	kill "$racer"
	wait "$racer" || true
	rm -f "$LIBS/new.so"
	echo "# a library that others put in turns: tries $tries, the node's $ran, theirs $wrong" >&3
	((wrong == 0))
}

# --- Hostile images

@test "an image whose directories are links out gets nothing made on the node" {
	local what place target=$dir/out tries=0 refused=0
	install -d -m 777 "$target"
	stand_in_cdi
	install -d /etc/vulkan/icd.d
	echo '{}' >/etc/vulkan/icd.d/nvidia_icd.json
	site 'gpu: {files: [/etc/vulkan/icd.d/nvidia_icd.json]}'
	for what in run run/coracle run/coracle/gpu/lib lib/firmware usr/lib/firmware etc/vulkan usr/share/vulkan dev/shm usr/lib/x86_64-linux-gnu; do
		for place in "$target" "../../../../../../..$target"; do
			image_tree
			rm -rf "$dir/tree/$what"
			mkdir -p "$dir/tree/${what%/*}"
			rm -rf "$dir/tree/$what"
			ln -s "$place" "$dir/tree/$what"
			made
			run alice srun -N1 --gres=gpu:1 --container="$img" sh -c 'cat /etc/image-only; ls /dev/nvidia0'
			if ((status == 125)); then
				[[ $output == *': coracle: '* ]] || fail "$what -> $place: no message" "$output" || return
			else
				((status == 0)) || fail "$what -> $place:" "$output" || return
				has_line "$MARK" || return
			fi
			[[ -z $(ls -A "$target") ]] || fail "$what -> $place: made $(ls "$target")" || return
			tries=$((tries + 1)) refused=$((refused + (status == 125)))
		done
	done
	echo "# images with links out: tries $tries, refused $refused, made on the node 0" >&3
	healthy
}

@test "what an image or a user preloads runs as that user only" {
	printf '%s\n' '#include <fcntl.h>' '#include <stdio.h>' '#include <unistd.h>' \
		'__attribute__((constructor)) static void begin(void)' '{' \
		'	char line[64]; int n = snprintf(line, sizeof line, "%d %d\n", (int)getuid(), (int)geteuid());' \
		'	int fd = open(WHERE, O_WRONLY | O_APPEND | O_CREAT, 0666);' '	if (write(fd, line, n) < 0) _exit(1);' '	close(fd);' '}' >evil.c
	compile -shared -fPIC -DWHERE="\"$dir/uids\"" -o evil.so evil.c
	: >uids
	chown alice uids
	image_tree
	image_env LD_PRELOAD=/proc/self/cwd/evil.so LD_AUDIT=/proc/self/cwd/evil.so
	made
	stand_in_cdi
	good srun -N1 -n2 --gres=gpu:1 --container="$img" nvidia-smi -L
	has 'stand-in /dev/nvidia0'
	[[ $(sort -u uids) == '2001 2001' ]] || fail "$(sort uids | uniq -c)"
	: >uids
	glibc_image
	good env LD_PRELOAD=/proc/self/cwd/evil.so srun -N1 --gres=gpu:1 --container="$img" true
	good srun -N1 --gres=gpu:1 --container="$img" --container-env=LD_PRELOAD=/proc/self/cwd/evil.so true
	[[ $(sort -u uids) == '2001 2001' ]] || fail "$(sort uids | uniq -c)"
	echo "# preloaded: as root 0 times, as the user $(wc -l <uids) times" >&3
}

@test "an image whose loader's list or C library is no file, or huge, does not stop its steps" {
	local what file
	for file in etc/ld.so.cache usr/lib/x86_64-linux-gnu/libc.so.6; do
		for what in fifo directory huge loop nonsense zero; do
			unsquashfs -quiet -no-progress -force -dest "$dir/tree" "$CORACLE_IMAGES/busybox-none.sqsh" >/dev/null
			rm -rf "$dir/tree/$file"
			mkdir -p "$dir/tree/${file%/*}"
			case $what in
			fifo) mkfifo "$dir/tree/$file" ;;
			directory) mkdir "$dir/tree/$file" ;;
			huge) truncate -s 300M "$dir/tree/$file" ;;
			loop) ln -s "${file##*/}" "$dir/tree/$file" ;;
			nonsense) head -c 70000 /dev/urandom >"$dir/tree/$file" ;;
			zero) ln -s /dev/zero "$dir/tree/$file" ;;
			esac
			made
			run alice srun -N1 --gres=gpu:1 --container="$img" cat /etc/image-only
			[[ $status == 0 && $output == "$MARK" ]] || fail "/$file, $what:" "$output" || return
		done
	done
	healthy
}

@test "an image that brings Coracle's own directory gains nothing" {
	image_tree
	mkdir -p "$dir"/tree/run/coracle/gpu/{lib,bin}
	echo 'NVIDIA_VISIBLE_DEVICES=0,1,2,3' >"$dir/tree/run/coracle/gpu/environment"
	echo 'LD_PRELOAD=/evil.so' >>"$dir/tree/run/coracle/gpu/environment"
	echo 'SLURM_JOB_ID=1' >>"$dir/tree/run/coracle/gpu/environment"
	cp "$dir/tree/bin/busybox" "$dir/tree/run/coracle/gpu/bin/nvidia-smi"
	made
	good srun -N1 --gres=gpu:1 --container="$img" sh -c 'echo $NVIDIA_VISIBLE_DEVICES,$LD_PRELOAD; cat /run/coracle/gpu/environment; ! cmp -s /run/coracle/gpu/bin/nvidia-smi /bin/busybox'
	has_line 0,
	has_line 'NVIDIA_VISIBLE_DEVICES=0'
	good srun -N1 --container="$img" sh -c 'echo $SLURM_JOB_ID,$LD_PRELOAD; ls /dev /run/coracle'
	if grep -q '^1,' <<<"$output"; then fail "$output"; fi
	has_not nvidia
	# Nothing of Coracle's own is over it where Slurm's commands are left out.
	site 'slurm_client: none'
	good srun -N1 --container="$img" sh -c 'echo $SLURM_JOB_ID; ls /dev'
	if grep -qx 1 <<<"$output"; then fail "$output"; fi
	has_not nvidia
}

# --- glibc

# A library of the driver that wants a newer glibc than the image has.
modern_driver() {
	printf '%s\n' '#include <dlfcn.h>' 'void *f(void) { return dlopen("x", 1); }' >modern.c
	compile -shared -fPIC -Wl,-soname,libnvidia-ngx.so.1 -o "$LIBS/libnvidia-ngx.so.$RELEASE" modern.c
	readelf -V "$LIBS/libnvidia-ngx.so.$RELEASE" | grep -q GLIBC_2.34
}

@test "an image whose glibc is too old for the driver is told so once, and runs" {
	needs readelf
	glibc_image bullseye
	modern_driver
	good srun -N2 -n4 --gres=gpu:1 --container="$img" sh -c 'echo ran'
	[[ $(grep -cx ran <<<"$output") == 4 ]] || fail "$output"
	[[ $(grep -c "coracle: note: the driver of this node's GPUs needs GLIBC_2.34, $img has GLIBC_2.3[01]: its libraries cannot be loaded" <<<"$output") == 1 ]] || fail "$output"
	good srun -N1 --container="$img" true
	prints ''
	good srun -N1 --gres=gpu:1 --container="$img" --container-gpu=none true
	prints ''
}

@test "an image with a new enough glibc, or with none, is told nothing" {
	needs readelf
	modern_driver
	good srun -N1 --gres=gpu:1 --container="$busybox" true
	prints ''
	good srun -N1 --gres=gpu:1 --container="$IMG/musl.sif" true
	prints ''
	glibc_image
	good srun -N1 --gres=gpu:1 --container="$img" true
	prints ''
}

# --- devices: of coracle.yaml

@test "a site adds and takes away devices by pattern, and gives none that are Slurm's" {
	site "devices:
- path: /dev/fus?
- {path: /dev/infiniband/rdma*, rule: deny}
- {path: '/dev/nvidia*'}"
	good srun -N1 --container="$busybox" sh -c 'ls -d /dev/fuse /dev/infiniband/* /dev/nvidia*; cat /dev/fuse 2>&1; true'
	has_line /dev/fuse
	has_line /dev/infiniband/uverbs0
	has_not rdma_cm
	has_not /dev/nvidia0
	has_line /dev/nvidiactl
	site ''
	good srun -N1 --container="$busybox" sh -c 'ls -d /dev/fuse /dev/infiniband/*; true'
	has_line /dev/infiniband/rdma_cm
	if grep -qx /dev/fuse <<<"$output"; then fail "$output"; fi
}

@test "a pattern that is none is refused with its place" {
	site "devices:
- path: /dev/fuse
- path: /etc/passwd"
	run on-node n1 coracle config check
	((status != 0)) || fail "$output"
	has 'coracle.yaml:7:'
	has '"/etc/passwd" is no path below /dev'
	at=node refused config '"/etc/passwd" is no path below /dev' srun -N1 --container="$busybox" true
	site 'gpu: {driver: vendor}'
	run on-node n1 coracle config check
	((status != 0)) || fail "$output"
	has 'coracle.yaml:5:'
	site 'gpu: {libraries: [cuda]}'
	run on-node n1 coracle config check
	((status != 0)) || fail "$output"
	has "neither a library's name"
}
