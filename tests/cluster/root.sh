# Sourced by cluster: the root file system. It looks like the machine's, and what is written to it goes to memory.
# shellcheck shell=bash disable=SC2154,SC2034

enter_root() {
	local root=$work/root cwd=$PWD dir
	mount -t tmpfs -o mode=755 cluster "$work"
	mkdir "$root" "$work/layers"
	overlay "$base" "$root"
	[[ $base == / ]] || show_repository "$root"
	# The overlay shows the machine's root file system only, not what else is mounted on it.
	for dir in $(printf '%s\n' "$(mount_of "$here")" "$(mount_of "$cwd")" | sort -u); do
		case $dir in
		/ | /proc* | /sys* | /dev* | /run*) ;;
		*) mkdir -p "$root$dir" && overlay "$dir" "$root$dir" ;;
		esac
	done
	mount_kernel_directories "$root"
	forget_coracle "$root"
	if [[ -n $install ]]; then
		cp -a --no-preserve=ownership "$install/." "$root"
		# What is installed makes no choice for a site; the example does.
		install -D -m 644 "$here/../../slurm-conf-examples/coracle.yaml" "$root/etc/coracle/coracle.yaml"
	fi
	if [[ $tracker == cgroup2 ]]; then
		gcc -O2 -Wall -shared -fPIC -o "$root/usr/local/lib/unified.so" "$here/unified.c" || die "$here/unified.c: does not compile"
	fi
	[[ -z $driver ]] || cp -a --no-preserve=ownership "$driver/usr/." "$root/usr"

	mkdir "$root/.outside"
	cd "$root" || exit
	pivot_root . .outside
	cd /
	# Debian 11 may have mount(8) in /bin only.
	hash -r
	umount --lazy /.outside
	rmdir /.outside
	[[ $(stat --file-system --format %T /) == overlayfs ]] || die "still on the machine's root file system"
	# A mount made on the login node shows on every node, as a file server's would.
	mount --make-rshared /
	[[ -z $driver ]] || ldconfig
	cd "$cwd" 2>/dev/null || cd /
}

# A tree of another release has neither the tests nor a test runner that is new enough.
show_repository() { # ROOT
	local dir
	for dir in "$(realpath "$here/../..")" "$(realpath "$here/../../../shared" 2>/dev/null || true)" "${CORACLE_IMAGES:-}"; do
		[[ -d $dir ]] || continue
		mkdir -p "$1$dir"
		overlay "$dir" "$1$dir"
	done
	cp -a --parents /usr/bin/bats /usr/lib/bats-core /usr/libexec/bats-core "$1"
}

mount_of() { # FILE
	findmnt --noheadings --output TARGET --target "$1"
}

overlay() { # DIR TARGET
	local layer
	layer=$(mktemp -d "$work/layers/XXXXXX")
	mkdir "$layer/upper" "$layer/work"
	chmod --reference="$1" "$layer/upper"
	mount -t overlay -o "lowerdir=$1,upperdir=$layer/upper,workdir=$layer/work" overlay "$2"
}

mount_kernel_directories() { # ROOT
	local i controllers base
	mount -t proc -o nosuid,nodev,noexec proc "$1/proc"
	mount -t sysfs -o nosuid,nodev,noexec sysfs "$1/sys"
	mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$1/run"

	# A copy of /dev: devtmpfs is one for all, so a node made or a mode changed there would be the machine's.
	# The kernel adds loop devices to devtmpfs only, hence some in reserve.
	mount -t tmpfs -o mode=755,nosuid dev "$1/dev"
	cp -a --one-file-system /dev/. "$1/dev"
	for ((i = 0; i < 64; i++)); do
		[[ -e $1/dev/loop$i ]] || mknod -m 660 "$1/dev/loop$i" b 7 "$i"
	done
	[[ ! -e $1/dev/fuse ]] || chmod 666 "$1/dev/fuse"
	mkdir -p "$1/dev/pts" "$1/dev/shm"
	mount --bind /dev/pts "$1/dev/pts"
	mount -t tmpfs -o mode=1777,nosuid,nodev shm "$1/dev/shm"
	[[ -z $gpus ]] || device_nodes "$gpus" "$1/dev"

	if [[ $tracker == cgroup2 ]]; then
		mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$1/sys/fs/cgroup"
		# systemd would have made it.
		mkdir "$1/sys/fs/cgroup/system.slice" "$1/sys/fs/cgroup/login"
		echo 0 >"$1/sys/fs/cgroup/login/cgroup.procs"
		return
	fi
	# slurmd wants to see cgroups even where it makes none.
	mount -t tmpfs -o mode=755,nosuid,nodev,noexec cgroup "$1/sys/fs/cgroup"
	while IFS=: read -r _ controllers _; do
		base=${controllers#name=}
		[[ -n $controllers && -e /sys/fs/cgroup/$base/cgroup.procs ]] || continue
		mkdir "$1/sys/fs/cgroup/$base"
		mount -t cgroup -o "nosuid,nodev,noexec,$controllers" cgroup "$1/sys/fs/cgroup/$base"
	done </proc/self/cgroup
}

# What the machine itself has installed must not help a test, nor disturb it.
forget_coracle() { # ROOT
	rm -rf "$1/usr/bin/coracle" "$1/usr/lib/coracle" "$1/etc/coracle" "$1/var/lib/coracle"
	rm -rf "$1/etc/slurm" "$1/etc/slurm-llnl" "$1$conf"
	mkdir -p "$1/etc/slurm/plugstack.conf.d" "$1$conf"
}

add_people() {
	local dir
	echo 'passwd: files
group: files
shadow: files
hosts: files' >/etc/nsswitch.conf
	sed -i -E '/^(alice|bob|coracle):/d; /^[^:]*:[^:]*:(200[12]|990):/d' /etc/passwd
	sed -i -E '/^(alice|bob|coracle):/d' /etc/shadow
	sed -i -E '/^(alice|bob|coracle|proj):/d; /^[^:]*:[^:]*:(200[12]|990|3001):/d' /etc/group
	echo 'alice:x:2001:2001::/home/alice:/bin/bash
bob:x:2002:2002::/home/bob:/bin/bash
coracle:x:990:990::/:/usr/sbin/nologin' >>/etc/passwd
	# su(1) lets nobody in who has no line here, and slurmd asks it for a user's environment (sbatch --export=NAME).
	printf '%s:*:20000:0:99999:7:::\n' alice bob coracle >>/etc/shadow
	echo 'alice:x:2001:
bob:x:2002:
coracle:x:990:
proj:x:3001:alice' >>/etc/group
	for dir in alice:2001 bob:2002; do
		mkdir -p "/home/${dir%:*}"
		mount -t tmpfs -o "mode=700,uid=${dir#*:},gid=${dir#*:}" home "/home/${dir%:*}"
	done
	mkdir -p /scratch
	mount -t tmpfs -o mode=1777 scratch /scratch
	install -m 755 "$here/bin/as" "$here/bin/on-node" /usr/local/bin
	[[ -z $slurm ]] || sed -i "s#PATH=/usr/local/bin#PATH=$slurm/bin:/usr/local/bin#" /usr/local/bin/as
}
