# GPUs where Slurm does not confine: a bare task opens all of the node's, and Slurm's variables are a hint.
load support
load devices

@test "a bare task opens all of the node's GPUs, whatever its step was given" {
	local all
	all=$(units | awk '{ printf "%s%d", separator, NR - 1; separator = "," }')
	look -N1
	opened_just "$all"
	look -N1 --gres=gpu:1
	opened_just "$all"
	counts 1 1
}

# Where Slurm confines, the variable says 0 to both.
@test "Slurm tells each task which unit it is bound to" {
	look -N1 -n2 --gres=gpu:2 --gpu-bind=map_gpu:1,0
	[[ $(awk '{ print $1, $2 }' <<<"$output" | sed 's|.*/||' | sort -u) == $'0 1\n1 0' ]] || fail "$output"
}

@test "in a container a task opens what its step was given, and nothing else" {
	contained of_a_step
}

# Of what their step has they open all, and their variables say which are theirs.
@test "tasks in a container that are bound to single units open no more than their step's" {
	look -N1 -n2 --gpus-per-task=1 --container="$busybox"
	DENIED='EPERM|ENOENT' opened_just 0,1
	counts 2 2
	look -N1 -n2 --gres=gpu:2 --gpu-bind=map_gpu:1,0 --container="$busybox"
	DENIED='EPERM|ENOENT' opened_just 0,1
	counts 2 2
}

@test "of two jobs in containers on a node each opens its own" {
	contained of_two_jobs
}

@test "of two steps in containers at the same time each opens its own" {
	contained of_two_steps
}

@test "a batch script in a container opens what its job was given" {
	contained of_a_batch_script
}

@test "a step in a container that wants none opens none of its job's" {
	contained of_a_step_without
}

@test "in a container what a user exports as Slurm's word gives nothing" {
	contained with_exports
}

@test "a task in a container that gets at the nodes in another way opens no more than its step's" {
	local DENIED=EPERM
	look_planted n1 1 --gres=gpu:1 --container="$busybox"
	opened_just 0
	look_planted n1 2 --gres=gpu:2 --container="$busybox"
	opened_just 0,1
	counts 2 1
	look_planted n1 1 --container="$busybox"
	opened_just -
	look_planted n1 1 --gres=gpu:1 --container="$busybox" --container-gpu=none
	opened_just -
}

of_joined_steps() {
	local command
	look_command
	job_script job.sh "srun -n1 --overlap --gres=gpu:2 --container=step ${command[*]}"
	batch -N1 --gres=gpu:2 --container="$busybox" job.sh
	opened_just 0,1
	job_script job.sh "srun -n1 --overlap --gres=gpu:1 --container=step ${command[*]}"
	batch -N1 --gres=gpu:2 --container="$busybox" job.sh
	opened_as_granted
	job_script job.sh "srun -n1 --overlap --gres=none --container=step ${command[*]}"
	batch -N1 --gres=gpu:2 --container="$busybox" job.sh
	opened_just -
}

@test "a step that joins its job's container opens what it was given itself" {
	contained of_joined_steps
}

# A bare job that has the first GPU of n1 until it is let go; its srun is $first.
hold_the_first() {
	job_script hold.sh "touch $dir/held; until [ -e $dir/done ]; do sleep 0.1; done"
	alice srun -N1 -w n1 --gres=gpu:1 ./hold.sh 3>&- &
	first=$!
	eventually test -e held
}

let_it_go() {
	touch 'done'
	wait "$first"
}

@test "the variables of a step that joins a container count what that shows" {
	[[ ! -e /dev/kfd && ! -e /dev/nvidia-caps/nvidia-cap12 ]] || skip 'the CUDA program counts whole GPUs of NVIDIA'"'"'s'
	local first
	hold_the_first
	job_script job.sh "$IMG/cuda-probe; srun -n1 --overlap --container=step $IMG/cuda-probe"
	batch -N1 -w n1 --gres=gpu:1 --container="$IMG/mpi-bookworm.sif" job.sh || { let_it_go; return 1; }
	let_it_go
	[[ $(grep -cx 'devices 1' <<<"$output") == 2 ]] || fail "$output"
}

no_groups() { [[ -z $(find /sys/fs/cgroup -name 'coracle_*' -print -quit 2>/dev/null) ]]; }

@test "after its steps no control group of Coracle's own is left" {
	good srun -N1 -n2 --gres=gpu:1 --container="$busybox" true
	good srun -N1 --container="$busybox" true
	run alice srun -N1 --gres=gpu:1 --container="$busybox" sh -c 'kill -KILL $$'
	((status == 137)) || fail "status $status" "$output"
	eventually no_groups
}

# What the task's variables say, in the order of their names, and how many devices a CUDA program finds.
VARIABLES='env | grep -E "^(CUDA_VISIBLE_DEVICES|ROCR_VISIBLE_DEVICES|GPU_DEVICE_ORDINAL|NVIDIA_VISIBLE_DEVICES)=" | sort | tr "\n" " "; echo'

@test "the variables of a job that has not the first GPU count what it sees" {
	[[ ! -e /dev/kfd && ! -e /dev/nvidia-caps/nvidia-cap12 ]] || skip 'the CUDA program counts whole GPUs of NVIDIA'"'"'s'
	local first
	hold_the_first
	good srun -N1 -w n1 --gres=gpu:1 --container="$IMG/mpi-bookworm.sif" sh -c "$VARIABLES; $IMG/cuda-probe; nvidia-smi -L; echo \$SLURM_STEP_GPUS"
	let_it_go
	has_line 'CUDA_VISIBLE_DEVICES=0 GPU_DEVICE_ORDINAL=0 NVIDIA_VISIBLE_DEVICES=0 ROCR_VISIBLE_DEVICES=0 '
	has_line 'devices 1'
	has_line 'tried=1 opened=1'
	has_line "device 0 stand-in $(nodes_of 1)"
	has_line 1
}

@test "the variables of tasks that are bound to single GPUs count what they see" {
	[[ ! -e /dev/kfd && ! -e /dev/nvidia-caps/nvidia-cap12 ]] || skip 'the CUDA program counts whole GPUs of NVIDIA'"'"'s'
	local task
	good srun -N1 -n2 --gres=gpu:2 --gpu-bind=map_gpu:1,0 --container="$IMG/mpi-bookworm.sif" sh -c \
		"{ $VARIABLES; $IMG/cuda-probe; } >$dir/\$SLURM_PROCID.out"
	for task in 0 1; do
		output=$(<"$task.out")
		has "CUDA_VISIBLE_DEVICES=$((1 - task)) GPU_DEVICE_ORDINAL=$((1 - task)) NVIDIA_VISIBLE_DEVICES=0,1 ROCR_VISIBLE_DEVICES=$((1 - task)) "
		has_line 'devices 1'
		has_line "device 0 stand-in $(nodes_of $((1 - task)))"
	done
}

# Both jobs of the two tests before at once: of GPUs 1 and 2 the second task has the second.
@test "the variables of bound tasks of a job that has not the first GPU count what they see" {
	[[ ! -e /dev/kfd && ! -e /dev/nvidia-caps/nvidia-cap12 ]] || skip 'the CUDA program counts whole GPUs of NVIDIA'"'"'s'
	local first task
	hold_the_first
	good srun -N1 -w n1 -n2 --gpus-per-task=1 --container="$IMG/mpi-bookworm.sif" sh -c \
		"{ $VARIABLES; $IMG/cuda-probe; } >$dir/\$SLURM_PROCID.out"
	let_it_go
	for task in 0 1; do
		output=$(<"$task.out")
		has "CUDA_VISIBLE_DEVICES=$task "
		has_line 'devices 1'
		has_line "device 0 stand-in $(nodes_of $((1 + task)))"
	done
}

@test "without GPUs or with --container-gpu=none no variable tells of any" {
	good srun -N1 --container="$busybox" env
	has_not CUDA_VISIBLE_DEVICES
	good srun -N1 --gres=gpu:1 --container="$busybox" --container-gpu=none env
	has_not CUDA_VISIBLE_DEVICES=
	has_not GPU_DEVICE_ORDINAL=
}

@test "a bare step's variables and devices are what Slurm makes them while containers run beside it" {
	local all
	all=$(units | awk '{ printf "%s%d", separator, NR - 1; separator = "," }')
	job_script both.sh "srun -n1 --exact --gres=gpu:1 --container=$busybox sh -c 'touch $dir/inside; until [ -e $dir/looked ]; do sleep 0.1; done' &
		until [ -e $dir/inside ]; do sleep 0.1; done
		srun -n1 --exact --gres=gpu:1 sh -c 'echo \$CUDA_VISIBLE_DEVICES\$ROCR_VISIBLE_DEVICES; exec \"\$@\"' sh $(look_command; echo "${command[*]}") >$dir/look.out
		touch $dir/looked; wait"
	batch -N1 -n2 --gres=gpu:2 both.sh
	output=$(sed 1d look.out)
	opened_just "$all"
	[[ $(head -n 1 look.out) =~ 1 ]] || fail "$(<look.out)"
}

@test "a step whose image squashfuse reads opens what it was given, and reads its image" {
	needs squashfuse
	local DENIED='EPERM|ENOENT'
	configure $'version: 1\nuser_images: fuse\nbinds:\n- source: /scratch'
	look -N1 --gres=gpu:1 --container="$busybox"
	opened_just 0
	look -N1 -n2 --container="$busybox"
	opened_just -
	good srun -N1 --gres=gpu:1 --container="$busybox" cat /etc/image-only
	prints "$MARK"
}

@test "coracle exec into a job opens what the job was given" {
	# shellcheck disable=SC2034 # for opened_just
	local command DENIED='EPERM|ENOENT'
	look_command
	job_script job.sh "touch $dir/running; until [ -e $dir/done ]; do sleep 0.1; done"
	job=$(alice sbatch --parsable -N1 --gres=gpu:1 --container="$busybox" -o "$dir/batch.out" job.sh)
	eventually test -e running || fail "$(<batch.out)"
	run alice coracle exec --job "$job" "${command[@]}"
	touch 'done'
	eventually ended "$job"
	((status == 0)) || fail "$output"
	opened_just 0
}

@test "a terminal in a container works where Coracle makes the rules" {
	needs script
	run alice script -qec "srun -Q -N1 --gres=gpu:1 --pty --container=$busybox sh -c 'tty; echo through >/dev/tty; echo x >/dev/null && echo null'" /dev/null </dev/null
	output=$(tr -d '\r' <<<"$output")
	has /dev/pts/
	has_line through
	has_line null
}
