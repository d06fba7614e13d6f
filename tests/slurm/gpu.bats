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
	has_line libnvidia-ptxjitcompiler.so.$RELEASE
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

@test "coracle run outside of a job shows what its user may open" {
	chmod 600 /dev/nvidia3
	run alice coracle run "$busybox" ls /dev
	chmod 666 /dev/nvidia3
	((status == 0)) || fail "$output"
	has_line nvidia0
	has_line nvidia7
	has_line nvidiactl
	if grep -qx nvidia3 <<<"$output"; then fail "$output"; fi
	run alice coracle run --gpu=none "$busybox" sh -c 'ls /dev; ls -d /run/coracle/gpu'
	has_not nvidia
}

@test "coracle run in a job shows the GPUs of the job" {
	job_script job.sh "coracle run $busybox sh -c 'ls -d /dev/nvidia[0-9]; echo \$NVIDIA_VISIBLE_DEVICES'"
	batch -N1 --gres=gpu:1 job.sh
	prints $'/dev/nvidia0\n0'
	batch -N1 job.sh
	has_not '/dev/nvidia0'
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
