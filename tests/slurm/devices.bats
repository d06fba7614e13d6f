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

of_a_step() {
	look -N1 "${container[@]}"
	opened_just -
	counts 1 1
	look -N2 -n4 --ntasks-per-node=2 --gres=gpu:2 "${container[@]}"
	opened_just 0,1
	opened_as_granted
	counts 4 1
	look -N1 --gres=gpu:1 "${container[@]}"
	opened_just 0
	opened_as_granted
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

@test "a task that is bound to one unit opens that one only" {
	bare_and_contained of_each_task
}

of_two_jobs() {
	local command together=2 first second
	look_command
	alice srun -N1 -w n1 --gres=gpu:1 "${container[@]}" "${command[@]}" >first 2>&1 &
	first=$!
	alice srun -N1 -w n1 --gres=gpu:1 "${container[@]}" "${command[@]}" >second 2>&1 &
	second=$!
	wait "$first" || fail "$(cat first)"
	wait "$second" || fail "$(cat second)"
	output=$(cat first second)
	opened_as_granted
	counts 2 2
}

@test "of two jobs on a node each opens its own" {
	bare_and_contained of_two_jobs
}

of_two_steps() {
	local command together=2
	look_command
	job_script job.sh "srun -n1 --exact --gres=gpu:1 ${container[*]} ${command[*]} &
		srun -n1 --exact --gres=gpu:1 ${container[*]} ${command[*]} & wait"
	batch -N1 -n2 --gres=gpu:2 job.sh
	opened_as_granted
	counts 2 2
}

@test "of two steps at the same time each opens its own" {
	bare_and_contained of_two_steps
}

of_a_batch_script() {
	local command
	look_command
	job_script job.sh "exec ${command[*]}"
	batch -N1 --gres=gpu:1 "${container[@]}" job.sh
	opened_just 0
	opened_as_granted
	batch -N1 "${container[@]}" job.sh
	opened_just -
}

@test "a batch script opens what its job was given" {
	bare_and_contained of_a_batch_script
}

of_a_step_without() {
	local command
	look_command
	job_script job.sh "srun --gres=none ${container[*]} ${command[*]}"
	batch -N1 --gres=gpu:2 job.sh
	opened_just -
}

@test "a step that wants none opens none of its job's" {
	bare_and_contained of_a_step_without
}

with_exports() {
	local variables=(SLURM_STEP_GPUS=1 SLURM_JOB_GPUS=1) command
	look_command
	good env "${variables[@]}" srun -N1 "${container[@]}" "${command[@]}"
	opened_just -
	opened_as_granted
	good env "${variables[@]}" srun -N1 --gres=gpu:1 "${container[@]}" "${command[@]}"
	opened_just 0
	opened_as_granted
	job_script job.sh "exec ${command[*]}"
	batch -N1 "${container[@]}" job.sh
	opened_just -
	opened_as_granted
	batch -N1 --gres=gpu:1 "${container[@]}" job.sh
	opened_just 0
	opened_as_granted
}

@test "what a user exports as Slurm's word gives nothing" {
	bare_and_contained with_exports
}

@test "a task that gets at the nodes in another way opens no more" {
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
