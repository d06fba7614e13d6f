# Sourced by tests/cluster/cluster: what a node with GPUs has in /dev, and what Slurm is told of it.
# No driver stands behind these nodes: where one may be opened, open answers ENXIO, and where not, EPERM.
# shellcheck shell=bash

# As the drivers number theirs; those that the kernel deals out (caps, uvm, kfd) are from the top, where few are dealt.
declare -A majors=([nvidia]=195 [uvm]=510 [caps]=511 [imex]=509 [kfd]=508 [drm]=226 [infiniband]=231)

# A MIG unit is opened by its GPU's node and by two capabilities: that of its GPU instance, and that of its compute
# instance. The driver numbers them 9 for each instance, 135 for each GPU.
MIG_UNITS=('0 12 13' '0 21 22' '1 147 148' '1 156 157')

die_of_major() { # NAME
	die "-g: character major ${majors[$1]} ($1) belongs to a driver of this kernel, see /proc/devices: its devices must not be opened here"
}

device_nodes() { # KIND DEV
	local name
	for name in "${!majors[@]}"; do
		! awk -v major="${majors[$name]}" '/^Block/ { exit } $1 == major { found = 1 } END { exit !found }' /proc/devices ||
			die_of_major "$name"
	done
	# The machine's own, if it has any, are not the cluster's.
	rm -rf "$2"/nvidia* "$2"/kfd "$2"/dri "$2"/infiniband
	case $1 in
	plain | part | mig) nvidia_nodes "$1" "$2" ;;
	amd) amd_nodes "$2" ;;
	esac
	mkdir "$2/infiniband"
	mknod -m 666 "$2/infiniband/uverbs0" c "${majors[infiniband]}" 192
	mknod -m 666 "$2/infiniband/rdma_cm" c "${majors[infiniband]}" 255
}

nvidia_nodes() { # KIND DEV
	local i unit
	for i in {0..7}; do mknod -m 666 "$2/nvidia$i" c "${majors[nvidia]}" "$i"; done
	mknod -m 666 "$2/nvidiactl" c "${majors[nvidia]}" 255
	mknod -m 666 "$2/nvidia-modeset" c "${majors[nvidia]}" 254
	mknod -m 666 "$2/nvidia-uvm" c "${majors[uvm]}" 0
	mknod -m 666 "$2/nvidia-uvm-tools" c "${majors[uvm]}" 1
	mkdir "$2/nvidia-caps" "$2/nvidia-caps-imex-channels"
	mknod -m 666 "$2/nvidia-caps-imex-channels/channel0" c "${majors[imex]}" 0
	# To configure MIG, and to watch all of it: root's.
	for i in 1 2; do mknod -m 400 "$2/nvidia-caps/nvidia-cap$i" c "${majors[caps]}" "$i"; done
	[[ $1 == mig ]] || return 0
	for unit in "${MIG_UNITS[@]}"; do
		for i in ${unit#* }; do mknod -m 444 "$2/nvidia-caps/nvidia-cap$i" c "${majors[caps]}" "$i"; done
	done
}

amd_nodes() { # DEV
	local i slot
	mknod -m 666 "$1/kfd" c "${majors[kfd]}" 0
	mkdir -p "$1/dri/by-path"
	for i in 0 1; do
		slot=pci-0000:0$((i + 3)):00.0
		mknod -m 666 "$1/dri/card$i" c "${majors[drm]}" "$i"
		mknod -m 666 "$1/dri/renderD$((128 + i))" c "${majors[drm]}" $((128 + i))
		ln -s "../card$i" "$1/dri/by-path/$slot-card"
		ln -s "../renderD$((128 + i))" "$1/dri/by-path/$slot-render"
	done
}

gres_of_node() { # KIND
	case $1 in
	plain) echo Gres=gpu:8 ;;
	part) echo Gres=gpu:4 ;;
	mig) echo Gres=gpu:1g.10gb:4,gpu:a100:6 ;;
	amd) echo Gres=gpu:2 ;;
	esac
}

# gres.conf of the kinds that are not the example's.
gres_conf() { # KIND
	local unit gpu instance compute
	case $1 in
	part) echo 'Name=gpu File=/dev/nvidia[4-7]' ;;
	mig)
		for unit in "${MIG_UNITS[@]}"; do
			read -r gpu instance compute <<<"$unit"
			echo "Name=gpu Type=1g.10gb MultipleFiles=/dev/nvidia$gpu,/dev/nvidia-caps/nvidia-cap$instance,/dev/nvidia-caps/nvidia-cap$compute"
		done
		echo 'Name=gpu Type=a100 File=/dev/nvidia[2-7]'
		;;
	amd) echo 'Name=gpu File=/dev/dri/renderD[128-129] Flags=amd_gpu_env' ;;
	esac
}
