# --container-bind
load support

@test "a directory and a file are bound, read-write and read-only" {
	mkdir -m 777 data
	echo words >data/file
	good srun -n1 --container="$busybox" --container-bind="$dir/data:/mnt/in:ro" --container-bind="$dir/data/file:/mnt/one" \
		--container-bind="$dir/data:/out" sh -c 'cat /etc/image-only /mnt/in/file /mnt/one; (touch /mnt/in/no) 2>&1; echo x >/out/made'
	prints "$MARK
words
words
touch: /mnt/in/no: Read-only file system"
	[[ $(<data/made) == x ]]
}

@test "several binds in one option, and a bind without a target" {
	mkdir -m 777 a b
	touch a/in-a b/in-b
	good srun -n1 --container="$busybox" --container-bind="$dir/a:/mnt/a,$dir/b:/mnt/b:ro" ls /mnt/a /mnt/b /etc/image-only
	has_line in-a
	has_line in-b
	install -d -m 755 /opt/coracle-bind
	touch /opt/coracle-bind/there
	good srun -n1 --container="$busybox" --container-bind=/opt/coracle-bind ls /opt/coracle-bind /etc/image-only
	rm -r /opt/coracle-bind
	has_line there
}

@test "a relative source is one from the working directory" {
	mkdir -m 777 rel
	touch rel/file
	good srun -n1 --container="$busybox" --container-bind=rel:/mnt/rel ls /mnt/rel /etc/image-only
	has_line file
}

@test "a bind over a directory of the image hides what the image has there" {
	mkdir -m 777 over
	touch over/mine
	good srun -n1 --container="$busybox" --container-bind="$dir/over:/root" ls /root /etc/image-only
	has_line mine
	good srun -n1 --container="$busybox" --container-bind="$dir/over/mine:/etc/os-release" sh -c 'cat /etc/image-only /etc/os-release'
	prints "$MARK"
}

@test "CORACLE_CONTAINER_BIND binds, and the command line wins over it" {
	mkdir -m 777 env line
	touch env/from-env line/from-line
	good env CORACLE_CONTAINER_BIND="$dir/env:/mnt/b" srun -n1 --container="$busybox" ls /mnt/b /etc/image-only
	has_line from-env
	good env CORACLE_CONTAINER_BIND="$dir/env:/mnt/b" srun -n1 --container="$busybox" --container-bind="$dir/line:/mnt/b" ls /mnt/b /etc/image-only
	has_line from-line
	has_not from-env
	job_script job.sh 'ls /mnt/b /etc/image-only'
	job=$(alice env CORACLE_CONTAINER_BIND="$dir/env:/mnt/b" sbatch --parsable -o "$dir/batch.out" --container="$busybox" job.sh)
	eventually ended "$job"
	grep -qx from-env batch.out
}

@test "a bind's mounts below it are there too, without setuid programs and devices" {
	mkdir -m 777 outer
	mkdir -m 777 outer/inner
	mount -t tmpfs -o mode=777,suid,dev inner outer/inner
	cp "$(type -P busybox)" outer/inner/busybox
	chmod 4755 outer/inner/busybox
	mknod -m 666 outer/inner/null c 1 3
	run alice srun -n1 --container="$busybox" --container-bind="$dir/outer:/mnt/o" sh -c 'cat /etc/image-only
		/mnt/o/inner/busybox grep Uid /proc/self/status; (: >/mnt/o/inner/null) 2>&1; true'
	umount outer/inner
	has_line "$MARK"
	has_line 'Uid:	2001	2001	2001	2001'
	has 'ermission denied'
}

@test "a source that the node lacks is refused" {
	refused bind '/no/such: does not exist on this node' srun -n1 --container="$busybox" --container-bind=/no/such:/mnt true
}

@test "a source that only root may open is refused" {
	install -d -m 700 roots
	mkdir roots/below
	refused bind "$dir/roots/below: you may not use it on this node: permission denied" \
		srun -n1 --container="$busybox" --container-bind="$dir/roots/below:/mnt" true
}

@test "wrong syntax is refused before the job queues" {
	local bind
	at=submit refused usage '--container-bind: its value is missing' srun -n1 --container="$busybox" --container-bind= true
	for bind in : /tmp: :/mnt /tmp:/mnt:rx /tmp:/mnt:ro:x /tmp::ro '/tmp:/mnt,:'; do
		run alice srun -n1 --container="$busybox" --container-bind="$bind" true
		((status == 1)) || fail "status $status of $bind: $output" || return
		said usage 'SRC[:DST[:ro|rw]] is wanted' || return
	done
}

@test "a target that is not absolute or has .. in it is refused before the job queues" {
	local target
	for target in mnt ../mnt ./mnt /mnt/../etc /mnt/./x /..; do
		at=submit refused usage "$target" srun -n1 --container="$busybox" --container-bind="/tmp:$target" true || return
	done
}

@test "the system's own places are no targets" {
	local target
	for target in / /proc /proc/self /sys /sys/kernel /dev /dev/shm /dev/null //proc /proc/; do
		at=submit refused bind 'nothing may be bound over' srun -n1 --container="$busybox" --container-bind="/tmp:$target" true || return
	done
}

@test "two binds for one place are refused" {
	at=submit refused bind '/mnt: two binds for the same place' \
		srun -n1 --container="$busybox" --container-bind=/tmp:/mnt,/var/tmp:/mnt true
	at=submit refused bind '/mnt: two binds for the same place' \
		srun -n1 --container="$busybox" --container-bind=/tmp:/mnt --container-bind=/tmp:/mnt:ro true
	run alice sbatch --container="$busybox" --container-bind=/tmp:/mnt,tmpfs:/mnt --wrap true
	((status == 1)) && said bind '/mnt: two binds for the same place'
}

@test "the same bind given twice, and empty items, are no contradiction" {
	mkdir -m 777 data
	touch data/found
	good srun -n1 --container="$busybox" --container-bind="$dir/data:/mnt/in,,$dir/data:/mnt/in:rw," \
		--container-bind="$dir/data/:/mnt/in/" ls /mnt/in
	prints found
	good env CORACLE_CONTAINER_BIND=",$dir/data:/mnt/in," srun -n1 --container="$busybox" ls /mnt/in
	prints found
	good env CORACLE_CONTAINER_BIND=, srun -n1 --container="$busybox" sh -c 'test ! -e /mnt/in && echo none'
	prints none
	at=submit refused usage "a path inside the container must be absolute" \
		env CORACLE_CONTAINER_BIND="$dir/data:in," srun -n1 --container="$busybox" true
}

@test "a backslash makes a colon or a comma part of a name" {
	mkdir -m 777 'a:b,c' d\\
	touch 'a:b,c/odd' 'd\/back'
	good srun -n1 --container="$busybox" --container-bind="$dir/a\:b\,c:/mnt/x\:y:ro,$dir/d\\\\:/mnt/d" \
		sh -c 'ls "/mnt/x:y" /mnt/d'
	prints $'/mnt/d:\nback\n\n/mnt/x:y:\nodd'
	good coracle exec --bind "a\:b\,c:/mnt/z" "$busybox" ls /mnt/z
	prints odd
	at=submit refused usage 'not a bind: SRC[:DST[:ro|rw]] is wanted' \
		srun -n1 --container="$busybox" --container-bind="$dir/a:b:/mnt/x:ro" true
	has 'coracle: hint: a colon or a comma in a name has a backslash in front'
}

@test "too many binds are refused" {
	local list
	list=$(printf '/tmp:/mnt/%d,' {1..129})
	at=submit refused usage '129' srun -n1 --container="$busybox" --container-bind="${list%,}" true
}

@test "a target through a link of the image that leads out of it is refused, and nothing is made on the node" {
	refused bind 'the symbolic link /escape of the image leads out of it' \
		srun -n1 --container="$IMG/hostile.sqsh" --container-bind=/scratch:/escape true
	refused bind 'the symbolic link /out of the image leads out of it' \
		srun -n1 --container="$IMG/hostile.sqsh" --container-bind=/scratch:/out true
	refused bind 'the symbolic link /out of the image leads out of it' \
		srun -n1 --container="$IMG/hostile.sqsh" --container-bind=/scratch:/out/deeper true
	refused bind 'too many levels of symbolic links' srun -n1 --container="$IMG/hostile.sqsh" --container-bind=/scratch:/loop true
	on-node n1 test ! -e /tmp/coracle-x
}

@test "a target below another bind that is not there is refused, and nothing is made in it" {
	mkdir -m 777 outer
	run alice srun -n1 --container="$busybox" --container-bind="$dir/outer:/mnt/o,/tmp:/mnt/o/inner" true
	((status == 125)) || fail "$status $output"
	said bind /mnt/o/inner
	[[ ! -e outer/inner ]]
}

@test "a target below another bind that is there is bound" {
	mkdir -m 777 outer outer/inner other
	touch other/found
	good srun -n1 --container="$busybox" --container-bind="$dir/outer:/mnt/o,$dir/other:/mnt/o/inner" ls /mnt/o/inner /etc/image-only
	has_line found
}

@test "a link in a bound directory is not followed out of the container" {
	mkdir -m 777 outer
	ln -s /tmp/coracle-x outer/link
	run alice srun -n1 --container="$busybox" --container-bind="$dir/outer:/mnt/o,/scratch:/mnt/o/link" true
	((status == 125)) || fail "$status $output"
	said bind /mnt/o/link
	on-node n1 test ! -e /tmp/coracle-x
}

@test "a directory over a file and a file over a directory are refused" {
	touch one
	refused bind '/file: the image has a file there, a directory cannot be bound over it' \
		srun -n1 --container="$IMG/hostile.sqsh" --container-bind=/scratch:/file true
	refused bind '/plain: the image has a directory there, a file cannot be bound over it' \
		srun -n1 --container="$IMG/hostile.sqsh" --container-bind="$dir/one:/plain" true
	refused bind '/file is a file in the image' \
		srun -n1 --container="$IMG/hostile.sqsh" --container-bind=/scratch:/file/below true
}

@test "a source by way of /proc is refused" {
	run alice srun -n1 --container="$busybox" --container-bind=/proc/1/root:/mnt true
	((status == 125)) || fail "$status $output"
	said bind /proc/1/root
	run alice srun -n1 --container="$busybox" --container-bind=/proc/self/root:/mnt sh -c 'ls /mnt/usr/bin/srun'
	((status == 125)) || fail "$status $output"
}
