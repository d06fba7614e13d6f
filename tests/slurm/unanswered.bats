#!/usr/bin/env bats
# A user's FUSE file system that does not answer, or not always, on the paths that the user names: the start is refused in
# time, and whoever is left waiting is a process of the user's that no step, no node and no process of root's waits for.

load support

setup() {
	in_own_directory || return
	compiled unanswered.c unanswered -static || return
	place=$dir/fuse
	install -d -o alice "$place"
	limited 'user_images: kernel'
}

cleanup() {
	rm -f "$dir/slots"
	gone
}

limited() { # MORE-OF-CORACLE.YAML
	configure $'version: 1\nstart_timeout: 2\ndirectories: allow\nbinds:\n- source: /scratch\n'"$1"
}

# Mounted on the first node.
unanswered() { # WHICH [OPTIONS]
	on-node n1 "$dir/unanswered" "$place" 2001 "$1" "${2:-}" >served 2>&1 3>&- 4>&- &
	eventually shows_it
}

shows_it() { on-node n1 grep -q " $place .*fuse.unanswered" /proc/self/mountinfo; }

# With its server, all that waits for it ends.
gone() {
	pkill -KILL -x unanswered || true
	on-node n1 umount -l "$place" 2>/dev/null || true
}

# Processes of ours that are root's, and those of slurmstepd's that are anybody's.
none_of_roots() { ! pgrep -u 0 -x "$PROGRAMS" >/dev/null; }

# Refused in time; who is left waits for the file system, as the user, and nobody waits for them.
refused_in_time() { # KIND TEXT SRUN-ARGUMENT...
	local kind=$1 text=$2
	shift 2
	run alice srun -n1 -w n1 "$@" true
	((status == 125)) || { fail "status $status of: $*" "$output"; return; }
	said "$kind" "$text" || { fail "of: $*"; return; }
	{ eventually no_stepd && eventually none_of_roots && nodes_well; } || { fail "$(ps ax)" "$(sinfo)"; return; }
	[[ -z $(squeue --noheader) ]] || fail "$(squeue)"
}

LATE='the file system, or the user database, did not answer in time'

@test "a file system of the user's that answers nothing: image, directory image, bind and overlay" {
	local options
	for options in '' ,allow_other; do
		unanswered all "$options"
		refused_in_time timeout "$place/f.sif: $LATE" --container="$place/f.sif"
		refused_in_time timeout "$place/d: $LATE" --container="$place/d"
		refused_in_time timeout "$place/f.sif: $LATE" --container="$place/f.sif" --container-digest="sha256:$(printf '0%.0s' {1..64})"
		refused_in_time timeout "$place/d: $LATE" --container="$busybox" --container-bind="$place/d:/mnt"
		refused_in_time timeout "$place: $LATE" --container="$busybox" --container-bind="$place:/mnt"
		refused_in_time timeout "$place/d: $LATE" --container="$busybox" --container-overlay="$place/d"
		gone
	done
	healthy
}

@test "one that answers nothing, as the working directory in the container" {
	unanswered all
	refused_in_time timeout "$place/d: $LATE" --container="$busybox" --container-workdir="$place/d"
	refused_in_time timeout "$place: $LATE" --container="$busybox" --container-workdir="$place"
	gone
	unanswered access
	refused_in_time timeout "$place/d: $LATE" --container="$busybox" --container-workdir="$place/d"
	gone
	healthy
}

@test "one that does not answer look-ups, with another bind in it" {
	unanswered lookup ,allow_other
	refused_in_time timeout "/mnt/d: $LATE" --container="$busybox" --container-bind="$place:/mnt,/etc:/mnt/d"
	gone
	healthy
}

@test "one that does not answer root keeps nothing of root's" {
	unanswered root ,allow_other
	refused_in_time bind "$place/d: on a file system that a process of user 2001 serves (fuse.unanswered), which cannot keep an overlay" \
		--container="$busybox" --container-overlay="$place/d"
	has 'hint: use a directory on a disk of the node'
	good srun -n1 -w n1 --container="$busybox" --container-bind="$place:/mnt,/etc:/mnt/d" cat /etc/image-only
	prints "$MARK"
	good srun -n1 -w n1 --container="$busybox" --container-bind="$place/f:/mnt" --container-workdir="$place/d" sh -c 'pwd; cat /etc/image-only'
	prints "$place/d"$'\n'"$MARK"
	limited $'user_images: kernel\nbind_allow: [/scratch]\nbind_deny: [/opt]'
	good srun -n1 -w n1 --container="$busybox" --container-bind="$place/d:/mnt" cat /etc/image-only
	prints "$MARK"
	gone
	healthy
}

@test "the user's other steps start, and a variable that names one names the cause" {
	unanswered all
	good env PWD="$dir" XAUTHORITY="$place/f" srun -n1 -w n1 --container="$busybox" cat /etc/image-only
	prints "$MARK"
	gone
	healthy
}

@test "a batch job is refused, too" {
	unanswered all
	local job
	job=$(alice sbatch --parsable -w n1 -o "$dir/batch.out" --container="$busybox" --container-bind="$place/d:/mnt" --wrap true)
	eventually ended "$job"
	[[ $(job_field "$job" ExitCode) == 125:0 ]] || fail "$(job_field "$job" ExitCode)"
	output=$(<"$dir/batch.out")
	said timeout "$place/d: $LATE"
	gone
	healthy
}

@test "a mount point whose name is no UTF-8 is nobody's hindrance" {
	place=$dir/$(printf 'm\377')
	install -d -o alice "$place"
	on-node n1 "$dir/unanswered" "$place" 2001 none '' >served 2>&1 3>&- 4>&- &
	eventually on-node n1 grep -qa "fuse.unanswered" /proc/self/mountinfo
	run as -d "$dir" bob srun -Q -n1 -w n1 --container="$busybox" cat /etc/image-only
	((status == 0)) || fail "$output"
	prints "$MARK"
	good srun -n1 -w n1 --container="$IMG/busybox.erofs" --container-writable cat /etc/image-only
	prints "$MARK"
	limited $'user_images: fuse\nbind_deny: [/opt]'
	good srun -n1 -w n1 --container="$busybox" --container-bind="$dir:/mnt" cat /etc/image-only
	prints "$MARK"
	gone
	healthy
}

# Takes COUNT places of alice's on the first node, as processes that wait would hold them, until the file slots is gone.
take_places() { # COUNT
	on-node n1 python3 - "$1" "$dir/slots" 3>&- 4>&- <<-'PYTHON' &
	import fcntl, os, struct, sys, time
	count, flag = int(sys.argv[1]), sys.argv[2]
	held, index = [], 0
	while len(held) < count:
	    file = os.open("/run/coracle/opener-slots/2001", os.O_RDWR)
	    lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, index, 1, 0)
	    index += 1
	    try:
	        fcntl.fcntl(file, 37, lock)  # F_OFD_SETLK
	    except BlockingIOError:
	        os.close(file)
	        continue
	    held.append(file)
	open(flag, "w").close()
	while os.path.exists(flag):
	    time.sleep(0.05)
	PYTHON
	eventually test -e "$dir/slots"
}

@test "processes that wait are counted, and a user has at most 256 of them on a node" {
	unanswered all
	refused_in_time timeout "$place/f.sif: $LATE" --container="$place/f.sif"
	refused_in_time timeout "$place/f.sif: $LATE" --container="$place/f.sif"
	[[ $(pgrep -u alice -x "$PROGRAMS" | wc -l) == 2 ]] || fail "$(ps ax)"
	# With these two, all but one.
	take_places 253
	good srun -n1 -w n1 --container="$busybox" cat /etc/image-only
	prints "$MARK"
	refused_in_time timeout "$place/f.sif: $LATE" --container="$place/f.sif"
	refused_in_time system 'user 2001: 256 processes that open files for you wait on this node' --container="$busybox"
	has 'hint: a file system does not answer: one of your own (fusermount3 -u DIR), or one of the site'
	run as -d "$dir" bob srun -Q -n1 -w n1 --container="$busybox" cat /etc/image-only
	prints "$MARK"
	good srun -n1 -w n2 --container="$busybox" cat /etc/image-only
	prints "$MARK"
	# With the server, the three that wait are gone.
	gone
	eventually no_launcher
	good srun -n1 -w n1 --container="$busybox" cat /etc/image-only
	prints "$MARK"
	rm slots
	healthy
}
