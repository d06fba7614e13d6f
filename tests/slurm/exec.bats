# coracle exec: the path that a job takes, without Slurm.
bats_require_minimum_version 1.5.0
load support

@test "a command runs inside the image" {
	run coracle exec "$busybox" cat /etc/image-only
	((status == 0)) && prints "$MARK"
	run coracle exec "$busybox" sh -c 'grep -E "^(Cap...|NoNewPrivs):" /proc/self/status; cat /etc/image-only'
	[[ $(grep -c 0000000000000000 <<<"$output") == 5 ]] || fail "$output"
	has_line 'NoNewPrivs:	1'
}

@test "the exit status and the signal are the command's" {
	run coracle exec "$busybox" sh -c 'exit 7'
	((status == 7))
	run coracle exec "$busybox" sh -c 'kill -TERM $$'
	((status == 143))
	run coracle exec "$busybox" true
	((status == 0))
}

@test "127 is not found, 126 is not executable" {
	run -127 coracle exec "$busybox" coracle-no-such-command
	has 'coracle: coracle-no-such-command: '
	run coracle exec "$busybox" /etc/image-only
	((status == 126))
	has 'coracle: /etc/image-only: '
	run coracle exec "$busybox" /etc
	((status == 126))
}

@test "125 is ours" {
	run coracle exec /no/such.sif true
	((status == 125))
	[[ ${lines[0]} == 'coracle: /no/such.sif: no such file on this node [image-missing]' ]] || fail "$output"
	run coracle exec "$busybox"
	((status == 125))
	[[ ${lines[0]} == 'coracle: exec: the command is missing [usage]' ]] || fail "$output"
	run coracle exec --no-such-option "$busybox" true
	((status == 125))
	run coracle exec --digest sha256:12 "$busybox" true
	((status == 125))
	run coracle exec --bind /no/such:/mnt "$busybox" true
	((status == 125))
	[[ ${lines[0]} == 'coracle: /no/such: does not exist on this node [bind]' ]] || fail "$output"
	run coracle exec none true
	((status == 125))
}

@test "a wrong command is 2, help and version are 0" {
	run coracle nonsense
	((status == 2))
	run coracle
	((status == 2))
	run coracle --help
	((status == 0)) && has 'exec'
	run coracle --version
	((status == 0)) && [[ $output == coracle\ [0-9]* ]]
	run coracle exec --help
	((status == 0)) && has '--bind'
}

@test "prepare is not for people" {
	run coracle prepare </dev/null
	((status == 2))
	[[ $output == 'coracle: prepare: '*'[usage]' ]] || fail "$output"
	run coracle prepare --config /etc/coracle/coracle.yaml 3</dev/null
	((status == 2))
	for program in launcher verify; do
		run "/usr/lib/coracle/coracle-$program" </dev/null
		((status == 2)) && has 'is the command for people' || fail "$program: $status" "$output"
	done
}

@test "a plugin line that names the command instead of the launcher starts containers, too" {
	plugstack 'launcher=/usr/bin/coracle'
	good srun -n2 --container="$busybox" cat /etc/image-only
	prints "$MARK"$'\n'"$MARK"
	plugstack ''
}

@test "--user opens the image as that user and is that user" {
	run coracle exec --user alice "$busybox" sh -c 'id; cat /etc/image-only'
	has_line 'uid=2001(alice) gid=2001(alice) groups=2001(alice),3001(proj)'
	has_line "$MARK"
	install -o bob -m 600 "$busybox" bobs.sif
	run coracle exec --user alice "$dir/bobs.sif" true
	((status == 125))
	has '[image-unreadable]'
	run coracle exec --user coracle-nobody "$busybox" true
	((status == 125))
	[[ ${lines[0]} == 'coracle: coracle-nobody: no such user [usage]' ]] || fail "$output"
}

@test "--plan prints what would be done, and does nothing" {
	run coracle exec --plan "$busybox"
	((status == 0))
	[[ ${lines[0]} == 'image  sif:squashfs+zstd '* ]] || fail "$output"
	has_line 'mount  /tmp -> /tmp rw,nosuid,nodev'
	has_line 'enter  no_new_privs, no capabilities'
}

@test "options of the command are the command's, and --bind makes things visible" {
	mkdir data
	touch data/found
	run coracle exec -B "$dir/data:/mnt/d" "$busybox" ls -1 /mnt/d
	prints found
	run coracle exec "$busybox" ls --help
	has BusyBox
}

@test "standard input, output and the terminal are the command's" {
	run bash -c "echo word | coracle exec $busybox cat"
	prints word
}

@test "the site's configuration counts, and --config names another" {
	configure $'version: 1\nuser_images: deny'
	run coracle exec "$busybox" true
	((status == 125))
	has '(user_images: deny) [policy]'
	install -m 644 /dev/stdin /etc/coracle/other.yaml <<<$'version: 1\nuser_images: kernel'
	run coracle exec --config /etc/coracle/other.yaml "$busybox" cat /etc/image-only
	rm /etc/coracle/other.yaml
	prints "$MARK"
}
