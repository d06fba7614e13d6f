# Whose rights open the image, and whose a task has.
load support

ALLOWED='you may not read it: permission denied'

@test "an image that only another user may read is refused, though root could read it" {
	install -o bob -m 600 "$busybox" bobs.sif
	refused image-unreadable "bobs.sif: $ALLOWED" srun -n1 --container=bobs.sif true
}

@test "an image in a directory that the user may not enter is refused" {
	install -d -o bob -m 700 bobs
	cp "$busybox" bobs/x.sif
	chmod 644 bobs/x.sif
	refused image-unreadable "bobs/x.sif: $ALLOWED" srun -n1 --container=bobs/x.sif true
}

@test "root's own image with mode 0600 is refused" {
	install -m 600 "$busybox" roots.sif
	refused image-unreadable "roots.sif: $ALLOWED" srun -n1 --container="$dir/roots.sif" true
}

@test "an image that only a supplementary group may read is run" {
	install -o bob -g proj -m 640 "$busybox" group.sif
	good srun -n1 --container=group.sif cat /etc/image-only
	prints "$MARK"
	run as -d "$dir" bob srun -n1 --container=group.sif true
	((status == 0)) || fail "$output"
}

@test "an image of a group that the user is not in is refused" {
	install -o bob -g bob -m 640 "$busybox" group.sif
	refused image-unreadable "group.sif: $ALLOWED" srun -n1 --container=group.sif true
}

@test "an image that a POSIX ACL opens for the user is run, and one that it closes is refused" {
	needs setfacl
	install -o bob -m 600 "$busybox" acl.sif
	setfacl -m u:alice:r acl.sif
	good srun -n1 --container=acl.sif cat /etc/image-only
	prints "$MARK"
	install -o bob -m 644 "$busybox" closed.sif
	setfacl -m u:alice:- closed.sif
	refused image-unreadable "closed.sif: $ALLOWED" srun -n1 --container=closed.sif true
}

# A file system that lets only alice in, as one that squashes root does (fuse(4), allow_other).
alices_fuse() { # MOUNTPOINT
	mkdir "$dir/tree"
	cp "$busybox" "$dir/tree/x.sif"
	mksquashfs "$dir/tree" "$dir/fuse.sqsh" -noappend -quiet -no-progress -all-root >/dev/null
	install -d -o alice "$1"
	setpriv --reuid=alice --regid=alice --init-groups --inh-caps=+sys_admin --ambient-caps=+sys_admin \
		squashfuse_ll -f "$dir/fuse.sqsh" "$1" >"$dir/fuse.log" 2>&1 3>&- &
	fuse=$!
	eventually alice test -e "$1/x.sif"
	! ls "$1" 2>/dev/null
}

cleanup() {
	[[ -z ${fuse:-} ]] || { kill -CONT "$fuse"; kill "$fuse"; wait "$fuse" || true; fuse=''; } 2>/dev/null
	! mountpoint -q "$dir/fuse" || umount --lazy "$dir/fuse"
}

@test "an image that root may not read and the user may is run" {
	# The file server of a site that squashes root. The file system is root's own: what a user serves is refused.
	install -d -o alice "$dir/export" "$dir/fuse"
	install -o alice -m 600 "$busybox" "$dir/export/x.sif"
	python3 "$BATS_TEST_DIRNAME/squash_root.py" "$dir/export" "$dir/fuse" 3>&- 4>&- >"$dir/fuse.log" 2>&1 &
	fuse=$!
	eventually mountpoint -q "$dir/fuse"
	! cat "$dir/fuse/x.sif" >/dev/null 2>&1 || fail 'root may read it'
	good srun -N2 --container="$dir/fuse/x.sif" cat /etc/image-only
	prints "$MARK"$'\n'"$MARK"
}

@test "an image on a file system that does not answer is refused in time" {
	configure $'version: 1\nuser_images: kernel\nstart_timeout: 2'
	job_script job.sh 'echo started'
	alices_fuse "$dir/fuse"
	job=$(alice sbatch --parsable -H -o "$dir/batch.out" --container="$dir/fuse/x.sif" job.sh)
	kill -STOP "$fuse"
	scontrol release "$job"
	eventually ended "$job"
	kill -CONT "$fuse"
	output=$(<batch.out)
	said timeout "$dir/fuse/x.sif: the file system, or the user database, did not answer in time"
	[[ $(job_field "$job" ExitCode) == 125:0 ]]
}

@test "a task has the same ids and groups as without a container" {
	good srun -n1 sh -c 'grep -E "^(Uid|Gid|Groups):" /proc/self/status'
	local bare=$output
	good srun -n1 --container="$busybox" sh -c 'grep -E "^(Uid|Gid|Groups):" /proc/self/status; cat /etc/image-only'
	prints "$bare"$'\n'"$MARK"
	has 2001
	has 3001
}

@test "a task has no capability in any set, and no_new_privs" {
	good srun -n1 --container="$busybox" sh -c 'grep -E "^(Cap|NoNewPrivs)" /proc/self/status; cat /etc/image-only'
	prints "CapInh:	0000000000000000
CapPrm:	0000000000000000
CapEff:	0000000000000000
CapBnd:	0000000000000000
CapAmb:	0000000000000000
NoNewPrivs:	1
$MARK"
}

@test "root's own step has no capability either" {
	run srun -n1 --container="$busybox" sh -c 'grep -E "^(Cap...|NoNewPrivs):" /proc/self/status; cat /etc/image-only'
	((status == 0)) || fail "$output"
	[[ $(grep -c 0000000000000000 <<<"$output") == 5 ]] || fail "$output"
	has_line "$MARK"
}

@test "a batch script has no capability, and no_new_privs" {
	job_script job.sh 'cat /etc/image-only; grep -E "^(Cap...|NoNewPrivs):" /proc/self/status'
	batch --container="$busybox" job.sh
	has_line "$MARK"
	[[ $(grep -c 0000000000000000 <<<"$output") == 5 ]] || fail "$output"
	has_line 'NoNewPrivs:	1'
}

@test "setuid and setgid programs and file capabilities of an image give nothing" {
	good srun -n1 --container="$IMG/hostile.sqsh" sh -c 'ls -l /bin/busybox-as-root /bin/busybox-as-group
		for program in as-root as-group with-caps; do
			busybox-$program grep -E "^(Uid|Gid|CapEff):" /proc/self/status || exit
		done; cat /etc/image-only'
	has_line "$MARK"
	has '-rwsr-xr-x'
	has 'r-s'
	[[ $(grep -cx 'Uid:	2001	2001	2001	2001' <<<"$output") == 3 ]] || fail "$output"
	[[ $(grep -cx 'Gid:	2001	2001	2001	2001' <<<"$output") == 3 ]] || fail "$output"
	[[ $(grep -cx 'CapEff:	0000000000000000' <<<"$output") == 3 ]] || fail "$output"
}

@test "device nodes of an image do not open" {
	good srun -n1 --container="$IMG/hostile.sqsh" sh -c 'test -c /devices/null && test -c /devices/mem && cat /etc/image-only
		cat /devices/null; head -c 1 /devices/mem; echo x >/devices/null; true'
	has_line "$MARK"
	[[ $(grep -c 'Permission denied' <<<"$output") == 3 ]] || fail "$output"
}

@test "passwd and group have the user's lines and root's" {
	good srun -n1 --container="$busybox" sh -c 'cat /etc/passwd; echo --; cat /etc/group; echo --; id'
	prints "root:x:0:0:root:/root:/bin/sh
alice:x:2001:2001::/home/alice:/bin/bash
--
root:x:0:
alice:x:2001:
proj:x:3001:
--
uid=2001(alice) gid=2001(alice) groups=2001(alice),3001(proj)"
}

@test "another task of the user cannot look into slurmstepd or the launcher" {
	good srun -n1 --container="$busybox" sh -c 'cat /etc/image-only
		for pid in $(pidof slurmstepd slurmd); do
			readlink /proc/$pid/exe /proc/$pid/root /proc/$pid/fd/0 && echo seen; (: </proc/$pid/environ) && echo read
		done 2>/dev/null; true'
	prints "$MARK"
}
