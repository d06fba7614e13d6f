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
