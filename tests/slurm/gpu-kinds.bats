# GPUs of each kind in containers: whole ones, parts of NVIDIA's, and AMD's, on both versions of cgroups.
bats_require_minimum_version 1.5.0
load support
load gpu

kind() {
	if [[ -e /dev/kfd ]]; then echo amd; elif [[ -e /dev/nvidia-caps/nvidia-cap12 ]]; then echo mig; else echo plain; fi
}

is() { # KIND
	[[ $(kind) == "$1" ]] || skip "not on a node of kind $1"
}

@test "a step with whole GPUs counts them" {
	is plain
	good srun -N1 --gres=gpu:2 --container="$IMG/mpi-bookworm.sif" sh -c "nvidia-smi -L; $IMG/cuda-probe"
	has_line 'tried=2 opened=2'
	has_line 'devices 2'
}

@test "each task that is bound to a GPU counts one" {
	is plain
	good srun -N1 -n2 --gpus-per-task=1 --container="$IMG/mpi-bookworm.sif" sh -c "$IMG/cuda-probe >$dir/\$SLURM_PROCID.out"
	grep -qx 'devices 1' 0.out || fail "$(<0.out)"
	grep -qx 'device 0 stand-in /dev/nvidia0' 0.out || fail "$(<0.out)"
	grep -qx 'devices 1' 1.out || fail "$(<1.out)"
	grep -qx 'device 0 stand-in /dev/nvidia1' 1.out || fail "$(<1.out)"
}

@test "a part of a GPU comes with its two capabilities and its GPU, and no other part's" {
	is mig
	good srun -N1 --gres=gpu:1g.10gb:1 --container="$busybox" sh -c 'ls -d /dev/nvidia[0-9] /dev/nvidia-caps/*; echo $NVIDIA_VISIBLE_DEVICES; ls /run/coracle/gpu/lib/libcuda.so.1'
	prints '/dev/nvidia-caps/nvidia-cap12
/dev/nvidia-caps/nvidia-cap13
/dev/nvidia0
0
/run/coracle/gpu/lib/libcuda.so.1'
	good srun -N1 --gres=gpu:1g.10gb:3 --container="$busybox" sh -c 'ls -d /dev/nvidia[0-9] /dev/nvidia-caps/*'
	prints '/dev/nvidia-caps/nvidia-cap12
/dev/nvidia-caps/nvidia-cap13
/dev/nvidia-caps/nvidia-cap147
/dev/nvidia-caps/nvidia-cap148
/dev/nvidia-caps/nvidia-cap21
/dev/nvidia-caps/nvidia-cap22
/dev/nvidia0
/dev/nvidia1'
}

@test "a specification is used for a part of a GPU, and its nodes are no others" {
	is mig
	install -D -m 644 "$BATS_TEST_DIRNAME/../gpus/nvidia.yaml" /etc/cdi/nvidia.yaml
	site 'gpu: {driver: cdi}'
	good srun -N1 --gres=gpu:1g.10gb:1 --container="$busybox" sh -c 'ls -d /dev/nvidia[0-9] /dev/nvidia-caps/*; readlink /run/coracle/gpu/lib/libnvidia-opticalflow.so'
	prints '/dev/nvidia-caps/nvidia-cap12
/dev/nvidia-caps/nvidia-cap13
/dev/nvidia0
libnvidia-opticalflow.so.1'
	good srun -N1 --gres=gpu:a100:2 --container="$busybox" sh -c 'ls -d /dev/nvidia[0-9] /dev/nvidia-caps 2>/dev/null; echo $NVIDIA_VISIBLE_DEVICES'
	prints '/dev/nvidia2
/dev/nvidia3
0,1'
}

@test "AMD's GPUs come with the driver's node and the links to them, and with nothing of the node's files" {
	is amd
	good srun -N1 --gres=gpu:1 --container="$busybox" sh -c "$IMG/rocm-probe; ls /dev/kfd /dev/dri/renderD*; ls /dev/dri/by-path; echo \$ROCR_VISIBLE_DEVICES,\$CUDA_VISIBLE_DEVICES,\$NVIDIA_VISIBLE_DEVICES,\$LD_LIBRARY_PATH"
	has_line 'devices 1'
	has_line /dev/kfd
	has_line /dev/dri/renderD128
	has_not renderD129
	has_line 'pci-0000:03:00.0-render'
	has_not 'pci-0000:04'
	grep -qE '^0,.*,,$' <<<"$output" || fail "$output"
	good srun -N1 --container="$busybox" sh -c 'ls -d /dev/kfd /dev/dri /run/coracle/gpu 2>/dev/null; true'
	prints ''
}
