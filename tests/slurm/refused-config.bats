# A coracle.yaml that is wrong, or that others than root could have written: no container starts until it is mended.
load support

FILE=/etc/coracle/coracle.yaml

broken() { # TEXT
	at=node refused config "$1" srun -n2 --container="$busybox" true || return
	# What needs no container is not stopped.
	good srun -n1 echo host || return
	prints host || return
	cleanup
	restore
	good srun -n1 --container="$busybox" cat /etc/image-only || return
	prints "$MARK"
}

cleanup() {
	chown root:root /etc/coracle /etc
	chmod 755 /etc/coracle /etc
	rm -f /etc/coracle/elsewhere.yaml
}

@test "an unknown key" {
	configure $'version: 1\nuser_images: kernel\nuser_image: deny'
	broken "$FILE:3:1: unknown field \`user_image\`, expected one of"
}

@test "a value of the wrong type" {
	configure $'version: 1\nuser_images: kernel\nstart_timeout: soon'
	broken "$FILE:3:16: start_timeout: invalid type: string \"soon\""
	configure $'version: 1\nuser_images: kernel\nbinds: /scratch'
	broken "$FILE:3:8: binds: invalid type"
}

@test "a value out of range" {
	configure $'version: 1\nuser_images: kernel\nstart_timeout: 46'
	broken "$FILE:3:1: \`start_timeout\` is 1 to 45 seconds, not 46"
}

@test "a version that is not known, and none" {
	configure $'version: 2\nuser_images: kernel'
	broken "$FILE:1:1: \`version\` 2 is not known, only 1 is"
	configure 'user_images: kernel'
	broken "$FILE:1:1: missing field \`version\`"
}

@test "a word that user_images does not know" {
	configure $'version: 1\nuser_images: allow'
	broken "$FILE:2:1: \`user_images\` is kernel, fuse or deny, not \"allow\""
}

@test "text that is no YAML" {
	configure $'version: 1\nuser_images: [kernel'
	broken "$FILE:"
	printf 'version: 1\n\tuser_images: kernel\n' >"$FILE"
	broken "$FILE:2:"
	head -c 3000 /dev/urandom >"$FILE"
	broken "$FILE"
}

@test "an empty file and a cut one" {
	: >"$FILE"
	broken "$FILE:1:1: missing field \`version\`"
	configure $'vers'
	broken "$FILE"
}

@test "a bind with a wrong source or target" {
	configure $'version: 1\nuser_images: kernel\nbinds:\n- source: scratch'
	broken "$FILE:4:3: binds[0]: \"scratch\" is not an absolute path"
	configure $'version: 1\nuser_images: kernel\nbinds:\n- source: /scratch\n  target: /proc/x'
	broken "$FILE:4:3: binds[0]: \"/proc/x\": nothing may"
}

@test "a file that its group may write" {
	chmod 664 "$FILE"
	broken "$FILE: writable by others than root (mode 0664)"
}

@test "a file that everybody may write" {
	chmod 646 "$FILE"
	broken "$FILE: writable by others than root (mode 0646)"
}

@test "a file of a user's" {
	chown alice "$FILE"
	broken "$FILE: belongs to user 2001, and must belong to root"
}

@test "a directory above it that others may write" {
	chmod 775 /etc/coracle
	broken '/etc/coracle: writable by others than root (mode 0775)'
	chmod 1777 /etc
	broken '/etc: writable by others than root (mode 1777)'
}

@test "a directory above it of a user's" {
	chown alice /etc/coracle
	broken '/etc/coracle: belongs to user 2001, and must belong to root'
}

@test "a symbolic link in place of the file" {
	mv "$FILE" /etc/coracle/elsewhere.yaml
	ln -s elsewhere.yaml "$FILE"
	broken "$FILE: a symbolic link where a regular file is wanted"
}

@test "a directory and a FIFO in place of the file" {
	rm "$FILE"
	mkdir "$FILE"
	broken "$FILE: not a regular file"
	rm "$FILE"
	mkfifo "$FILE"
	broken "$FILE: not a regular file"
}

@test "no file at all means that no user's image runs" {
	rm "$FILE"
	refused policy "user_images is not set in coracle.yaml" srun -n1 --container="$busybox" true
}

@test "a wrong argument of the plugin is refused by the command" {
	plugstack 'polcy=strict'
	at=submit refused config 'plugstack.conf: polcy=strict: unknown argument' srun -n2 --container="$busybox" true
	plugstack 'launcher=relative'
	at=submit refused config 'plugstack.conf: launcher=relative: an absolute path is wanted' srun -n2 --container="$busybox" true
	plugstack 'strict'
	at=submit refused config 'plugstack.conf: strict: not of the form key=value' srun -n2 --container="$busybox" true
}

@test "a wrong argument of the plugin on the node stops containers, and only those" {
	local contained bare
	contained=$(alice sbatch --parsable -H -o "$dir/contained.out" --container="$busybox" --wrap 'echo started')
	bare=$(alice sbatch --parsable -H -o "$dir/bare.out" --wrap 'echo host')
	plugstack 'polcy=strict'
	scontrol release "$contained" "$bare"
	eventually ended "$contained"
	eventually ended "$bare"
	output=$(<contained.out)
	said config 'plugstack.conf: polcy=strict: unknown argument'
	[[ $(job_field "$contained" ExitCode) == 125:0 && $(<bare.out) == host ]]
}

@test "config=PATH is the file that counts" {
	install -m 644 /dev/stdin /etc/coracle/elsewhere.yaml <<<$'version: 1\nuser_images: deny'
	plugstack 'config=/etc/coracle/elsewhere.yaml'
	refused policy '(user_images: deny)' srun -n1 --container="$busybox" true
}
