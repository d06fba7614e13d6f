# What fast MPI needs of a node: devices, limits, memory that ranks share and may read from each other.
load support

cleanup() {
	rm -rf /dev/infiniband
	rm -f /dev/{hfi1_0,cxi0,xpmem,knem}
}

# As drivers make them. Without a driver, opening one says ENXIO; where the mount forbids devices, EACCES.
make_devices() {
	mkdir -p /dev/infiniband
	mknod -m 666 /dev/infiniband/uverbs0 c 231 192
	mknod -m 666 /dev/infiniband/rdma_cm c 10 249
	mknod -m 666 /dev/hfi1_0 c 242 0
	mknod -m 666 /dev/cxi0 c 243 0
	mknod -m 666 /dev/xpmem c 10 248
	mknod -m 600 /dev/knem c 10 247
}

DEVICES='/dev/infiniband/uverbs0 /dev/infiniband/rdma_cm /dev/hfi1_0 /dev/cxi0 /dev/xpmem /dev/knem'

@test "devices of the network are there when the node has them, with the node's rights, and open" {
	good srun -n1 --container="$busybox" sh -c "for file in /dev/infiniband $DEVICES; do [ ! -e \$file ] || echo \$file; done"
	prints ''
	make_devices
	good srun -n1 --container="$busybox" sh -c "for device in $DEVICES; do stat -c '%n %A %t:%T' \$device; cat \$device 2>&1; done; true"
	prints '/dev/infiniband/uverbs0 crw-rw-rw- e7:c0
cat: can'"'"'t open '"'"'/dev/infiniband/uverbs0'"'"': No such device or address
/dev/infiniband/rdma_cm crw-rw-rw- a:f9
cat: can'"'"'t open '"'"'/dev/infiniband/rdma_cm'"'"': No such device
/dev/hfi1_0 crw-rw-rw- f2:0
cat: can'"'"'t open '"'"'/dev/hfi1_0'"'"': No such device or address
/dev/cxi0 crw-rw-rw- f3:0
cat: can'"'"'t open '"'"'/dev/cxi0'"'"': No such device or address
/dev/xpmem crw-rw-rw- a:f8
cat: can'"'"'t open '"'"'/dev/xpmem'"'"': No such device
/dev/knem crw------- a:f7
cat: can'"'"'t open '"'"'/dev/knem'"'"': Permission denied'
	run on-node n1 timeout --foreground 60 as -d "$dir" alice coracle explain --mpi --container="$busybox"
	has_line 'node    devices of a fast network: InfiniBand and RoCE, Omni-Path, Slingshot, XPMEM, KNEM'
}

@test "limits are those of a step on the node" {
	local limits outside
	limits='ulimit -a; ulimit -Ha'
	good bash -c "ulimit -l 48; ulimit -s 4096; ulimit -n 777; srun -n1 bash -c '$limits'"
	[[ $output == *' 48'* && $output == *4096* && $output == *777* ]] || fail "$output"
	outside=$output
	good bash -c "ulimit -l 48; ulimit -s 4096; ulimit -n 777; srun -n1 --container=$IMG/mpi-bookworm.sif bash -c '$limits'"
	prints "$outside"
}

@test "ranks of a node share /dev/shm, and those of another node do not see it" {
	good srun -N2 -n4 -w n1,n2 --ntasks-per-node=2 --container="$busybox" sh -c '
		echo "$SLURMD_NODENAME" >"/dev/shm/'"${dir##*/}"'.$SLURM_LOCALID"
		for try in $(seq 200); do [ -e "/dev/shm/'"${dir##*/}"'.$((1 - SLURM_LOCALID))" ] && break; sleep 0.05; done
		cat "/dev/shm/'"${dir##*/}"'.$((1 - SLURM_LOCALID))"'
	[[ $(sort <<<"$output") == $'n1\nn1\nn2\nn2' ]] || fail "$output"
	on-node n1 sh -c "rm /dev/shm/${dir##*/}.*"
	on-node n2 sh -c "rm /dev/shm/${dir##*/}.*"
}

@test "a rank reads another's memory" {
	good srun -N1 -n2 --container="$busybox" --container-bind="$IMG/cma:/cma" sh -c '
		case $SLURM_LOCALID in 0) /cma give '"$dir"'/c;; 1) /cma take '"$dir"'/c;; esac'
	prints "read from the other's memory"
	# In a user namespace of its own, as other runtimes make one for each task, it could not.
	rm "$dir"/c*
	good srun -N1 -n2 --container="$busybox" --container-bind="$IMG/cma:/cma" sh -c '
		case $SLURM_LOCALID in 0) /cma give '"$dir"'/c;; 1) unshare -U /cma take '"$dir"'/c;; esac'
	prints 'process_vm_readv: Operation not permitted'
}

@test "Open MPI copies long messages once, from rank to rank" {
	needs_pmix
	local release setting
	for release in bookworm trixie; do
		case $release in
		bookworm) setting='OMPI_MCA_btl_vader_single_copy_mechanism=cma,OMPI_MCA_btl=self\,vader' ;;
		*) setting='OMPI_MCA_smsc=cma,OMPI_MCA_btl=self\,sm' ;;
		esac
		good srun -N1 -n2 --mpi=pmix --container="$IMG/mpi-$release.sif" --container-bind="$IMG/count-cma.so:/count-cma.so" \
			--container-env="LD_PRELOAD=/count-cma.so,$setting,OMPI_MCA_pml=ob1" exchange.openmpi || return
		has_line 'exchange ranks=2 wrong=0' || return
		grep -qE '^single copies [0-9]+$' <<<"$output" || { fail "$release: no single copies" "$output"; return; }
	done
}
