bats_require_minimum_version 1.5.0
load making

# One keyring for all tests: alice and bob sign; carol's key has a passphrase.
setup_file() {
	# Not below /tmp, which each test looks through; and short, for the agent's socket.
	export GNUPGHOME=$CORACLE_SCRATCH/gnupg KEYS=$CORACLE_SCRATCH/keys
	mkdir -m 700 "$GNUPGHOME" "$KEYS"
	local name
	for name in alice bob; do
		gpg --batch --quiet --passphrase '' --quick-gen-key "$name <$name@example.org>" ed25519 sign never
		gpg --export "$name" >"$KEYS/$name.pub"
		gpg --batch --armor --export-secret-keys "$name" >"$KEYS/$name.asc"
	done
	gpg --batch --export-secret-keys alice >"$KEYS/alice.bin"
	gpg --batch --quiet --pinentry-mode loopback --passphrase 'open sesame' \
		--quick-gen-key 'carol <carol@example.org>' rsa2048 sign never
	gpg --batch --pinentry-mode loopback --passphrase 'open sesame' --armor --export-secret-keys carol >"$KEYS/carol.asc"
	gpg --export carol >"$KEYS/carol.pub"
}

teardown_file() {
	gpgconf --kill gpg-agent
	rm -rf "$GNUPGHOME" "$KEYS"
}

key_of() { # NAME
	gpg --with-colons --list-keys "$1@example.org" | sed -n 's/^fpr:*\([0-9A-F]*\):$/\1/p' | head -n 1
}

image() { # NAME
	small_tree tree
	coracle build "$1" tree
}

# Nothing may have become of an image that is refused.
refused() { # TEXT IMAGE COMMAND...
	local text=$1 image=$2 before
	shift 2
	before=$(sha256sum <"$image")
	run "$@"
	[[ $status == 1 || $status == 2 ]] || { echo "$status: $output"; return 1; }
	[[ $output == *"$text"* ]] || { echo "wanted: $text, said: $output"; return 1; }
	[[ $(sha256sum <"$image") == "$before" ]]
}

@test "gpg signs with a key of its keyring, the default one or that of -u" {
	image a.sif
	run -0 coracle sign a.sif
	[[ $output == "a.sif: group 1 signed by $(key_of alice)" ]]
	coracle verify --key "$KEYS/alice.pub" a.sif
	image b.sif
	run -0 coracle sign -u bob@example.org b.sif
	[[ $output == *"$(key_of bob)"* ]]
	coracle verify --key "$KEYS/bob.pub" b.sif
	run -1 coracle verify --key "$KEYS/alice.pub" b.sif
	run -0 coracle inspect b.sif
	[[ $output == *"of group 1 by $(key_of bob) (not checked: coracle verify checks it)"* ]]
}

@test "a key file signs, armoured or binary" {
	image a.sif
	run -0 coracle sign --key "$KEYS/alice.asc" a.sif
	[[ $output == "a.sif: group 1 signed by $(key_of alice)" ]]
	coracle verify --key "$KEYS/alice.pub" a.sif
	image b.sif
	coracle sign --key "$KEYS/alice.bin" b.sif
	coracle verify --key "$KEYS/alice.pub" b.sif
}

@test "a signing subkey signs for its key, by gpg and from a file" {
	local home=$CORACLE_SCRATCH/sub fingerprint
	mkdir -m 700 "$home"
	export GNUPGHOME=$home
	gpg --batch --quiet --passphrase '' --quick-gen-key 'sub <sub@example.org>' ed25519 cert never
	fingerprint=$(key_of sub)
	gpg --batch --quiet --passphrase '' --quick-add-key "$fingerprint" ed25519 sign never
	gpg --export >sub.pub
	gpg --batch --export-secret-keys >sub.sec
	image a.sif
	coracle sign a.sif
	coracle sign --key sub.sec a.sif
	gpgconf --kill gpg-agent
	rm -r "$home"
	[[ $(coracle verify --key sub.pub a.sif) == *"$fingerprint"* ]]
	[[ $(coracle sif list a.sif | grep -c "by $fingerprint") == 2 ]]
}

@test "what others have signed stays, and stays good" {
	image a.sif
	coracle sign --key "$KEYS/alice.asc" a.sif
	cp a.sif before.sif
	coracle sign -u bob@example.org a.sif
	coracle sign --key "$KEYS/carol.asc" --passphrase-file <(echo 'open sesame') a.sif
	coracle verify --key "$KEYS/alice.pub" --key "$KEYS/bob.pub" --key "$KEYS/carol.pub" a.sif
	# All behind the table is as it was.
	cmp <(tail -c +32177 before.sif) <(tail -c +32177 a.sif | head -c "$(($(stat -c %s before.sif) - 32176))")
	# Once more with the same key: as Apptainer does, another signature.
	coracle sign --key "$KEYS/alice.asc" a.sif
	[[ $(coracle sif list a.sif | grep -c "by $(key_of alice)") == 2 ]]
	coracle verify --key "$KEYS/alice.pub" --key "$KEYS/bob.pub" --key "$KEYS/carol.pub" a.sif
}

@test "an image in use stays as it is; its mode, and a link to it, too" {
	image real.sif
	chmod 640 real.sif
	ln -s real.sif link.sif
	local before number
	before=$(sha256sum <real.sif) number=$(stat -c %i real.sif)
	exec 7<real.sif
	coracle sign --key "$KEYS/alice.asc" link.sif
	[[ $(sha256sum <&7) == "$before" ]]
	exec 7<&-
	[[ -L link.sif && $(stat -c %a real.sif) == 640 && $(stat -c %i real.sif) != "$number" ]]
	coracle verify --key "$KEYS/alice.pub" real.sif
}

@test "each group of objects gets a signature" {
	image a.sif
	python3 - <<-'EOF'
		import struct
		data = bytearray(open('a.sif', 'rb').read())
		at = 4096 + 585
		struct.pack_into('<iBIIIqqq', data, at, 0x4007, 1, 2, 0xf0000005, 0, len(data), 5, 5)
		open('a.sif', 'wb').write(data + b'hello')
	EOF
	run -0 coracle sign --key "$KEYS/alice.asc" a.sif
	[[ $output == *'group 1 signed by'*'group 5 signed by'* ]]
	coracle verify --key "$KEYS/alice.pub" a.sif
}

@test "a passphrase comes from a file or the terminal, and a wrong one is said" {
	image a.sif
	echo wrong >wrong
	refused 'the passphrase does not open it [usage]' a.sif coracle sign --key "$KEYS/carol.asc" --passphrase-file wrong a.sif
	refused 'no such file' a.sif coracle sign --key "$KEYS/carol.asc" --passphrase-file none a.sif
	refused 'there is no terminal to ask for that [usage]' a.sif setsid --wait coracle sign --key "$KEYS/carol.asc" a.sif
	coracle sign --key "$KEYS/carol.asc" --passphrase-file /dev/fd/3 a.sif 3<<<'open sesame'
	coracle verify --key "$KEYS/carol.pub" a.sif
	cat >type.py <<-'EOF'
		import os, pty, re, sys, termios
		pid, line = pty.fork()
		if pid == 0:
		    os.execvp('sh', ['sh', '-c', 'coracle sign --key "$KEYS/carol.asc" b.sif; echo "status $?"; read again'])
		said = b''
		def until(pattern):
		    global said
		    while not re.search(pattern, said):
		        said += os.read(line, 4096)
		until(b'passphrase of .*: ')
		# What is typed before the terminal is quiet would be seen, and dropped.
		while termios.tcgetattr(line)[3] & termios.ECHO:
		    pass
		os.write(line, sys.argv[1].encode().decode('unicode_escape').encode())
		until(b'status [0-9]+\r?\n')
		assert termios.tcgetattr(line)[3] & termios.ECHO and termios.tcgetattr(line)[3] & termios.ICANON
		os.write(line, b'\n')
		os.waitpid(pid, 0)
		assert b'sesame' not in said, said
		sys.stdout.buffer.write(said)
	EOF
	coracle build b.sif tree
	cp b.sif unsigned.sif
	run -0 python3 type.py 'open sesami\x7fe\n'
	[[ $output == *'status 0'* ]]
	coracle verify --key "$KEYS/carol.pub" b.sif
	mv unsigned.sif b.sif
	run -0 python3 type.py '\x03'
	[[ $output == *'no passphrase was given [usage]'*'status 2'* ]]
	run -0 python3 type.py 'open sesame!\n'
	[[ $output == *'the passphrase does not open it'*'status 2'* ]]
	run -1 coracle verify --key "$KEYS/carol.pub" b.sif
}

@test "keys that cannot sign are refused by name" {
	image a.sif
	local home=$CORACLE_SCRATCH/bad
	refused 'a public key, where the secret one is wanted [usage]' a.sif coracle sign --key "$KEYS/alice.pub" a.sif
	refused 'no OpenPGP secret key' a.sif coracle sign --key /etc/passwd a.sif
	refused 'none: no such file' a.sif coracle sign --key none a.sif
	cat "$KEYS/alice.bin" >two
	gpg --batch --export-secret-keys bob >>two
	refused '2 secret keys, where one is wanted' a.sif coracle sign --key two a.sif
	mkdir -m 700 "$home"
	export GNUPGHOME=$home
	local now
	now=$(date +%s)
	gpg --batch --quiet --passphrase '' --faked-system-time "$((now - 9999999))!" --quick-gen-key 'old <old@example.org>' ed25519 sign 1d
	gpg --batch --export-secret-keys old >old.sec
	gpg --batch --quiet --passphrase '' --quick-gen-key 'cert <cert@example.org>' ed25519 cert never
	gpg --batch --export-secret-keys cert >cert.sec
	refused 'has expired [usage]' a.sif coracle sign --key old.sec a.sif
	refused 'is not for signing [usage]' a.sif coracle sign --key cert.sec a.sif
	refused '[signature]' a.sif coracle sign -u old@example.org a.sif
	refused 'No secret key [signature]' a.sif coracle sign -u nobody@example.org a.sif
	gpgconf --kill gpg-agent
	rm -r "$home"
	mkdir bin
	ln -s "$(type -P coracle)" bin/coracle
	refused 'gpg: not found [system]' a.sif env PATH="$PWD/bin" coracle sign a.sif
	refused 'cannot be used with' a.sif coracle sign --key "$KEYS/alice.asc" -u bob a.sif
}

@test "images that cannot be signed are refused, and stay as they are" {
	local sign=(coracle sign --key "$KEYS/alice.asc")
	cp "$CORACLE_IMAGES/busybox-zstd.sqsh" a.sqsh
	refused 'no SIF but squashfs, which has no room for a signature [image-format]' a.sqsh "${sign[@]}" a.sqsh
	image a.sif
	change() { # OFFSET OCTAL: in a copy
		cp a.sif "$3"
		# shellcheck disable=SC2059 # the octal numbers are escapes
		printf "$2" | dd of="$3" bs=1 seek="$1" conv=notrunc status=none
	}
	change "$((4096 + 9))" '\0\0\0\360' ungrouped.sif
	refused 'is in no group' ungrouped.sif "${sign[@]}" ungrouped.sif
	change "$((4096 + 17))" '\100\0\0\0\0\0\0\0' overlap.sif
	refused 'share byte' overlap.sif "${sign[@]}" overlap.sif
	python3 - <<-'EOF'
		data = bytearray(open('a.sif', 'rb').read())
		for number in range(1, 48):
		    at = 4096 + 585 * number
		    data[at:at + 585] = data[4096:4096 + 585]
		    data[at + 5] = number + 1
		    data[at + 17:at + 41] = bytes(24)
		open('full.sif', 'wb').write(data)
	EOF
	refused 'has 0 free places of 48, 1 are needed' full.sif "${sign[@]}" full.sif
	refused 'no such file [image-missing]' a.sif "${sign[@]}" none.sif
	chmod 644 a.sif
	refused 'you may not write it' a.sif as_user coracle sign a.sif
}

@test "a disk that is full leaves the image as it is" {
	image a.sif
	mkdir small
	mount -t tmpfs -o "size=$(($(stat -c %s a.sif) * 3 / 2))" small small
	cp a.sif small
	local left
	run refused 'no space is left there [system]' small/a.sif coracle sign --key "$KEYS/alice.asc" small/a.sif
	left=$(ls -A small)
	umount small
	[[ $status == 0 ]] || { echo "$output"; false; }
	[[ $left == a.sif ]]
}

@test "whenever it is interrupted, the image is as before or signed, and nothing is left" {
	small_tree tree
	head -c 150000000 /dev/urandom >tree/random
	coracle build --compression lz4 whole.sif tree
	local before pid status stopped=0
	before=$(sha256sum <whole.sif)
	for delay in 0.05 0.1 0.2 0.3 0.4 0.5 0.7 1; do
		cp whole.sif a.sif
		coracle sign --key "$KEYS/alice.asc" a.sif &
		pid=$! status=0
		sleep "$delay"
		kill -TERM "$pid" 2>/dev/null || true
		wait "$pid" || status=$?
		[[ $status == 0 || $status == 143 ]]
		if [[ $(sha256sum <a.sif) == "$before" ]]; then
			[[ $status == 143 ]]
			stopped=$((stopped + 1))
		else
			coracle verify --key "$KEYS/alice.pub" a.sif
		fi
		[[ -z $(find . -maxdepth 1 -name '.*unfinished*') ]]
		rm a.sif
	done
	((stopped > 0))
}

@test "of two who sign at once one is refused, and so is whoever signs what has changed meanwhile" {
	image a.sif
	exec 8<a.sif
	flock 8
	refused 'somebody else is signing it' a.sif coracle sign --key "$KEYS/alice.asc" a.sif
	exec 8<&-
	mkfifo passphrase
	coracle sign --key "$KEYS/carol.asc" --passphrase-file passphrase a.sif >said 2>&1 &
	local pid=$! status=0
	# It has the image open once it waits for the passphrase.
	exec 9>passphrase
	coracle build other.sif tree
	mv other.sif a.sif
	local before
	before=$(sha256sum <a.sif)
	echo 'open sesame' >&9
	exec 9>&-
	wait "$pid" || status=$?
	[[ $status == 1 && $(<said) == *'somebody has changed it while it was being signed [system]'* ]]
	[[ $(sha256sum <a.sif) == "$before" ]]
}
