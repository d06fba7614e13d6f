# The GPUs that a task may open, where Slurm confines it: those that it was given. Run on clusters with GPUs of each kind
# and both versions of cgroups; a unit is what Slurm deals out, a GPU or a part of one.
load support
load devices

@test "the stand-in of the driver finds what its task may open, and these checks see what is wrong" {
	good srun -N1 --gres=gpu:2 sh -c 'try-open /dev/nvidia[0-9] /dev/dri/renderD* | grep -c ENXIO; nvidia-smi -L | tail -n 1; cuda-probe; rocm-probe'
	local opened=${lines[0]}
	if [[ -e /dev/kfd ]]; then
		has_line "devices $opened"
	else
		has_line "tried=8 opened=$opened"
		has_line 'library /usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15'
		has_line 'device 0 stand-in /dev/nvidia0'
	fi
	look -N1 --gres=gpu:1
	opened_just 0
	(figure() { :; }; ! opened_just -)
	(figure() { :; }; ! opened_just 1)
	(figure() { :; }; ! opened_just 0,1)
}

@test "a task opens what its step was given, and nothing else" {
	bare_and_contained of_a_step
}

of_each_task() {
	look -N1 -n2 --gpus-per-task=1 --gpu-bind=single:1 "${container[@]}"
	opened_just 0 '*/0'
	opened_just 1 '*/1'
	counts 2 1
	look -N1 -n2 --gpus-per-task=1 "${container[@]}"
	opened_just 0 '*/0'
	opened_just 1 '*/1'
	look -N1 -n2 --gres=gpu:2 --gpu-bind=map_gpu:1,0 "${container[@]}"
	opened_just 1 '*/0'
	opened_just 0 '*/1'
	look -N1 -n2 --gres=gpu:2 --gpu-bind=mask_gpu:0x3,0x2 "${container[@]}"
	opened_just 0,1 '*/0'
	opened_just 1 '*/1'
}

# bats test_tags=releases
@test "a task that is bound to one unit opens that one only" {
	bare_and_contained of_each_task
}

@test "of two jobs on a node each opens its own" {
	bare_and_contained of_two_jobs
}

@test "of two steps at the same time each opens its own" {
	bare_and_contained of_two_steps
}

@test "a batch script opens what its job was given" {
	bare_and_contained of_a_batch_script
}

@test "a step that wants none opens none of its job's" {
	bare_and_contained of_a_step_without
}

@test "what a user exports as Slurm's word gives nothing" {
	bare_and_contained with_exports
}

# bats test_tags=releases
@test "a task that gets at the nodes in another way opens no more" {
	# shellcheck disable=SC2034 # for opened_just
	local DENIED=EPERM
	look_planted n1 1 --gres=gpu:1 --container="$busybox"
	opened_just 0
	counts 1 1
	look_planted n1 2 --gres=gpu:2 --gpu-bind=map_gpu:1,0 --container="$busybox"
	opened_just 1 '*/0'
	opened_just 0 '*/1'
	counts 2 1
	look_planted n1 1 --container="$busybox"
	opened_just -
	counts 1 1
}
