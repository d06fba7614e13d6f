#!/usr/bin/env bats
# The site's store: what users put in, who may read it, and what runs.

bats_require_minimum_version 1.5.0
load support.bash

setup_file() {
	. "$BATS_TEST_DIRNAME/support.bash"
	install -d -o coracle -g coracle -m 755 /var/lib/coracle/store
	install -d -m 755 /run/coracle
	serve
}

teardown_file() {
	. "$BATS_TEST_DIRNAME/support.bash"
	unserve
	rm -rf /var/lib/coracle/store
}

cleanup() {
	rm -rf /var/lib/coracle/store/{alice,bob}
}

# The service, started as an admin would by hand: bats waits for whoever holds its descriptors.
serve() {
	coracle store-service --socket /run/coracle/store.sock </dev/null >"$SUITE/service.log" 2>&1 3>&- 4>&- &
	echo $! >"$SUITE/service.pid"
	eventually test -S /run/coracle/store.sock
}

unserve() {
	kill "$(<"$SUITE/service.pid")" 2>/dev/null || true
	eventually no_service
	rm -f /run/coracle/store.sock
}

no_service() { ! pgrep -u coracle -x coracle >/dev/null; }
# The service itself goes on; whoever served a caller does not.
no_launcher() { [[ $(pgrep -x coracle | wc -l) == $(pgrep -F "$SUITE/service.pid" | wc -l) ]]; }

stored() { # IMAGE [NAME]
	good coracle cp "$@"
}

# `run` as alice; the command has to end with 1 and this line.
denied() { # KIND TEXT COMMAND...
	local kind=$1 text=$2
	shift 2
	run alice "$@"
	((status == 1)) || fail "status $status of: $*" "$output" || return
	has "$text" && has "[$kind]"
}

in_store() {
	(cd /var/lib/coracle/store && find . -mindepth 2 ! -name .lock ! -name .records | sort)
}

@test "an image is stored, listed, run by its name from anywhere, and removed" {
	stored "$busybox" box.sif
	local digest
	digest=sha256:$(sha256sum "$busybox" | cut -d' ' -f1)
	has_line "box.sif $digest"
	run alice coracle ls
	prints box.sif
	run alice coracle ls -l
	has "$digest" && has '1 of 20 images'
	[[ $(stat -c '%U %a' /var/lib/coracle/store/alice/box.sif) == 'coracle 440' ]]
	good srun -N3 -D /tmp --container=box.sif sh -c 'echo "$(cat /etc/image-only) $CORACLE_DIGEST"'
	prints "$(for _ in 1 2 3; do echo "$MARK $digest"; done)"
	good srun -n1 --container=store:box.sif sh -c 'echo $CORACLE_IMAGE $CORACLE_NAME'
	prints '/var/lib/coracle/store/alice/box.sif box'
	good srun -n1 --container=/var/lib/coracle/store/alice/box.sif cat /etc/image-only
	prints "$MARK"
	good coracle rm box.sif
	run alice coracle ls
	prints ''
	[[ -z $(in_store) ]] || fail "$(in_store)"
	at=node refused image-missing 'no such file on this node, and no image of yours in the store' srun -n1 --container=box.sif true
	at=node refused image-missing 'store:box.sif: no image of yours in the store' srun -n1 --container=store:box.sif true
}

@test "a file of that name in the working directory comes before the stored image" {
	stored "$IMG/musl.sif" box.sif
	cp "$busybox" box.sif
	good srun -n1 --container=box.sif sh -c 'echo $CORACLE_IMAGE'
	prints "$dir/box.sif"
	good srun -n1 --container=store:box.sif sh -c 'echo $CORACLE_IMAGE'
	prints /var/lib/coracle/store/alice/box.sif
}

@test "under user_images: deny, stored images run, and the log has the rule and the digest" {
	configure $'version: 1\nuser_images: deny'
	stored "$busybox" box.sif
	at=node refused policy '(user_images: deny)' srun -n1 --container="$busybox" true
	good srun -n1 --container=box.sif cat /etc/image-only
	prints "$MARK"
	good coracle explain --container=box.sif
	has 'policy  allowed by store, read by the kernel'
}

@test "a digest that was asked for is compared with the recorded one" {
	local digest zeros
	stored "$busybox" box.sif
	digest=${output##* }
	zeros=sha256:$(printf '0%.0s' {1..64})
	good srun -n1 --container="box.sif@$digest" true
	at=node refused digest "its digest is $digest, $zeros was asked for" srun -n1 --container="box.sif@$zeros" true
}

@test "scripts find the store in CORACLE_ALLOWED_DIR" {
	stored "$busybox" box.sif
	good srun -n1 --container=box.sif sh -c 'echo $CORACLE_ALLOWED_DIR'
	prints /var/lib/coracle/store/alice
	good coracle ls --folder
	prints /var/lib/coracle/store/alice
	good env CORACLE_ALLOWED_DIR="$output" sh -c 'srun -n1 --container=$CORACLE_ALLOWED_DIR/box.sif cat /etc/image-only'
	prints "$MARK"
}

@test "nobody reads or changes what somebody else has stored, nor his own" {
	stored "$busybox" box.sif
	local file=/var/lib/coracle/store/alice/box.sif
	run as -d / bob cat "$file"
	((status != 0))
	run as -d / bob srun -n1 --container="$file" true
	((status == 125)) || fail "status $status" "$output" || return
	has 'you may not read it'
	run as -d / bob coracle rm box.sif
	((status == 1)) || fail "status $status" "$output" || return
	has 'no image of yours'
	local attack
	for attack in "echo x >>$file" "chmod 666 $file" "rm -f $file" "mv $file $file.2" "ln $file /var/lib/coracle/store/alice/other" \
		"echo '{}' >/var/lib/coracle/store/alice/.records/box.sif" "rm -rf /var/lib/coracle/store/alice/.records" \
		"ln -s /etc/passwd /var/lib/coracle/store/alice/pw" "setfacl -m u:bob:r $file" "touch -d 2020-01-01 $file"; do
		run alice sh -c "$attack"
		((status != 0)) || fail "possible: $attack" || return
	done
	good coracle ls
	prints box.sif
	good srun -n1 --container=box.sif true
}

@test "an image that root has put in the place of a stored one is not run" {
	stored "$busybox" box.sif
	cp "$IMG/musl.sif" /var/lib/coracle/store/alice/box.sif
	at=node refused store 'it is of another file' srun -n1 --container=box.sif true
	rm /var/lib/coracle/store/alice/.records/box.sif
	at=node refused store 'what the store knows of it cannot be used' srun -n1 --container=box.sif true
}

@test "what is no image that runs is not kept" {
	echo text >text.sif
	head -c 100000 "$busybox" >cut.sif
	denied image-format 'text.sif: not an image' coracle cp text.sif
	denied image-format 'cut.sif: truncated' coracle cp cut.sif
	denied policy 'its overlay partition is an ext3' coracle cp "$IMG/overlay-ext3.sif"
	denied image-missing 'none.sif: no such file' coracle cp none.sif
	denied image-type 'no regular file' coracle cp "$IMG/tree" tree
	install -o bob -m 600 "$busybox" bobs.sif
	denied image-unreadable 'you may not read it' coracle cp bobs.sif
	[[ -z $(in_store) ]] || fail "$(in_store)"
	denied policy 'an erofs, which is not kept in the store' coracle cp "$IMG/busybox.erofs"
}

@test "an image for other machines is kept, and refused where it does not run" {
	python3 - "$busybox" arm.sif <<-'PYTHON'
	import struct, sys
	image = bytearray(open(sys.argv[1], "rb").read())
	offset, total = struct.unpack_from("<q", image, 96)[0], struct.unpack_from("<q", image, 88)[0]
	for at in range(offset, offset + total * 585, 585):
	    if struct.unpack_from("<i", image, at)[0] == 0x4004:
	        image[at + 209:at + 212] = b"04\0"
	open(sys.argv[2], "wb").write(image)
	PYTHON
	stored arm.sif
	at=node refused image-arch 'made for aarch64' srun -n1 --container=store:arm.sif true
}

@test "a name is a name: of 10000 hostile ones none leads out of the user's directory" {
	stored "$busybox" box.sif
	run alice python3 "$BATS_TEST_DIRNAME/store_names.py" /run/coracle/store.sock "$busybox" 10000
	((status == 0)) || fail "$output"
	echo "# $output" >&3
	[[ $(in_store) == "$(printf '%s\n' ./alice/.records/box.sif ./alice/box.sif)" ]] || fail "$(in_store)"
}

@test "of 64 copies at once that would be the twentieth image, one is" {
	local i
	stored "$busybox" a1
	for i in {2..19}; do stored "$busybox" "a$i" || return; done
	run alice bash -c 'for i in {1..64}; do (coracle cp "$1" "b$i" >/dev/null 2>&1 && echo stored) & done; wait' - "$busybox"
	prints stored
	[[ $(alice coracle ls | wc -l) == 20 ]]
	denied policy 'you have 20 images in the store' coracle cp "$busybox" more
	echo "# 64 tries, 1 success" >&3
}

@test "the bytes of a user are limited, however many copies are made at once" {
	local size
	size=$(stat -c %s "$busybox")
	configure $'version: 1\nstore: {max_bytes: '$((size * 3 + 4096))'}'
	run alice bash -c 'for i in {1..16}; do (coracle cp "$1" "b$i" >/dev/null 2>&1 && echo stored) & done; wait' - "$busybox"
	prints $'stored\nstored\nstored'
	denied policy 'are more than the' coracle cp "$busybox" more
	truncate -s 16P huge.sif
	denied policy 'are more than the' coracle cp huge.sif
}

@test "the site's scanner has the last word on the very bytes that are kept" {
	printf '%s\n' '#!/bin/sh' 'sum=$(sha256sum <"$2")' 'echo "${sum%% *} $CORACLE_USER $CORACLE_NAME $1"' \
		'case $CORACLE_NAME in bad*) echo "found EICAR"; exit 1;; slow*) sleep 600;; esac' >/usr/local/bin/scan
	chmod 755 /usr/local/bin/scan
	configure $'version: 1\nuser_images: deny\nstore: {scanner: [/usr/local/bin/scan, -x], scanner_timeout: 2}'
	stored "$busybox" box.sif
	run alice coracle ls --json
	has "$(sha256sum "$busybox" | cut -d' ' -f1) alice box.sif -x"
	denied policy "the site's scanner refused it (exit status: 1)" coracle cp "$busybox" bad.sif
	denied timeout "the site's scanner did not end within 2 s" coracle cp "$busybox" slow.sif
	[[ $(in_store) == "$(printf '%s\n' ./alice/.records/box.sif ./alice/box.sif)" ]] || fail "$(in_store)"
	run pgrep -u coracle sleep
	((status == 1)) || fail "$output"
	chmod 777 /usr/local/bin/scan
	denied config 'writable by others than root' coracle cp "$busybox" more.sif
	rm /usr/local/bin/scan
	denied config 'cannot be read' coracle cp "$busybox" more.sif
}

@test "cp and ls print what is stored as JSON of the form in docs/json.md, and nothing else on standard output" {
	run --separate-stderr alice coracle cp --json "$busybox" box.sif
	((status == 0 && ${#lines[@]} == 1)) || fail "$output"
	local copied=$output
	run --separate-stderr alice coracle ls --json
	((status == 0 && ${#lines[@]} == 1)) || fail "$output"
	[[ -z $stderr ]] || fail "$stderr"
	python3 - "$copied" "$output" "$(sha256sum "$busybox" | cut -d' ' -f1)" "$(stat -c %s "$busybox")" <<-'PYTHON'
		import json, re, sys
		copied, listed = json.loads(sys.argv[1]), json.loads(sys.argv[2])
		assert copied.pop("version") == listed["version"] == 1 and set(listed) == {"version", "images"}, listed
		[image] = listed["images"]
		assert image.pop("path") == "/var/lib/coracle/store/alice/box.sif", image
		assert copied == image, (copied, image)
		assert set(image) == {"name", "size", "digest", "stored", "uid", "holds", "signers", "scanned", "verity"}, image
		assert image["digest"] == "sha256:" + sys.argv[3] and image["size"] == int(sys.argv[4]), image
		assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", image["stored"]), image
	PYTHON
	run --separate-stderr alice coracle cp --json "$busybox" box.sif
	((status == 1)) && [[ -z $output && $stderr == *'[store]'* ]] || fail "$output $stderr"
}

@test "an image that changes while it is copied: what is scanned is what is kept" {
	printf '%s\n' '#!/bin/sh' 'sum=$(sha256sum <"$1")' 'echo "${sum%% *}"' >/usr/local/bin/scan
	chmod 755 /usr/local/bin/scan
	configure $'version: 1\nstore: {scanner: [/usr/local/bin/scan], max_images: 1000}'
	cp "$busybox" racing.sif
	chown alice racing.sif
	# In a file's contents, which nobody looks at: what is wrong with the metadata would be refused.
	alice sh -c "until test -e stop; do head -c 64 /dev/urandom | dd of=racing.sif bs=1 seek=100000 conv=notrunc status=none; done" 3>&- >/dev/null 2>&1 &
	local spinner=$! tries=0 wrong=0 i
	for i in {1..40}; do
		alice coracle cp racing.sif "r$i" >/dev/null 2>&1 || continue
		tries=$((tries + 1))
	done
	touch stop
	wait "$spinner"
	run alice coracle ls --json
	wrong=$(python3 -c '
import hashlib, json, sys
wrong = 0
for image in json.load(sys.stdin)["images"]:
	found = hashlib.sha256(open(image["path"], "rb").read()).hexdigest()
	wrong += (image["digest"] != "sha256:" + found) + (image["scanned"]["output"].strip() != found)
print(wrong)' <<<"$output")
	echo "# $tries tries, $wrong wrong" >&3
	((tries > 0 && wrong == 0))
	rm /usr/local/bin/scan
}

# A copy of big.sif by alice, which gets this signal while the service copies.
interrupt() { # SIGNAL
	alice coracle cp big.sif 3>&- >/dev/null 2>&1 &
	local copy=$!
	eventually pgrep -u coracle -x coracle -P "$(<"$SUITE/service.pid")" >/dev/null
	pkill "-$1" -u alice -x coracle
	wait "$copy" || true
	# The service's process of this copy ends a moment later: it is not the next one's.
	eventually no_copy
}

no_copy() { ! pgrep -u coracle -x coracle -P "$(<"$SUITE/service.pid")" >/dev/null; }

@test "a copy that is interrupted leaves nothing, whoever is killed" {
	mkdir big
	head -c 300000000 /dev/urandom >big/file
	mksquashfs big big.sif -noappend -quiet -no-progress -noD -all-root >/dev/null
	interrupt KILL
	interrupt INT
	eventually no_launcher
	[[ -z $(in_store) ]] || fail "$(in_store)"
	alice coracle cp big.sif 3>&- >cp.log 2>&1 &
	local copy=$!
	eventually pgrep -u coracle -x coracle -P "$(<"$SUITE/service.pid")" >/dev/null
	kill -KILL "$(<"$SUITE/service.pid")"
	if wait "$copy"; then fail 'the copy was made'; fi
	eventually no_service
	grep -q 'its service has ended without a word' cp.log || fail "$(cat cp.log)"
	denied store 'does not answer here' coracle cp "$busybox" box.sif
	serve
	stored "$busybox" box.sif
	[[ $(in_store) == "$(printf '%s\n' ./alice/.records/box.sif ./alice/box.sif)" ]] || fail "$(in_store)"
}

@test "systemd starts the service when somebody calls" {
	needs systemd-socket-activate systemd-analyze
	run systemd-analyze verify /usr/lib/systemd/system/coracle-store.service /usr/lib/systemd/system/coracle-store.socket
	has_not coracle-store || return
	setpriv --reuid=coracle --regid=coracle --clear-groups systemd-socket-activate --seqpacket -l /scratch/activated.sock \
		coracle store-service 3>&- 4>&- </dev/null >activated.log 2>&1 &
	local activator=$!
	eventually test -S /scratch/activated.sock || return
	chmod 666 /scratch/activated.sock
	good coracle cp --socket /scratch/activated.sock "$busybox" box.sif
	kill "$activator"
	wait "$activator" || true
	rm -f /scratch/activated.sock
	good coracle ls
	prints box.sif
}

@test "login shells know where the store is" {
	good sh -c '. /etc/profile.d/coracle.sh; echo $CORACLE_ALLOWED_DIR'
	prints /var/lib/coracle/store/alice
}

@test "a signed image is kept with its signers, and one that was altered since is not" {
	real busybox-signed-pgp.sif
	install -D -m 644 "$REAL/busybox-signed-pgp.pub.asc" /etc/coracle/keys/site.asc
	chmod 755 /etc/coracle/keys
	stored busybox-signed-pgp.sif signed.sif
	local key
	key=$(alice coracle ls --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["images"][0]["signers"][0])')
	configure "version: 1
user_images: deny
signers: [$key]"
	good srun -Q -n1 --container=signed.sif true
	stored "$busybox" box.sif
	at=node refused policy 'it has no valid signature that covers all of it (signers)' srun -n1 --container=box.sif true
	patched busybox-signed-pgp.sif altered.sif 60000 '\377'
	run alice coracle cp altered.sif
	rm /etc/coracle/keys/site.asc
	((status == 1)) || fail "status $status" "$output" || return
	has 'altered.sif' && has_not 'stored'
}

@test "a file system without access control lists: the service gives the files to the user's group" {
	mount -t ramfs -o mode=755 none /var/lib/coracle/store
	chown coracle:coracle /var/lib/coracle/store
	setpriv --reuid=coracle --regid=coracle --clear-groups --inh-caps=+chown --ambient-caps=+chown -- \
		coracle store-service --socket /scratch/plain.sock </dev/null >plain.log 2>&1 3>&- 4>&- &
	local service=$!
	eventually test -S /scratch/plain.sock
	run alice coracle cp --socket /scratch/plain.sock "$busybox" box.sif
	local found=$status said=$output mode bobs
	mode=$(stat -c '%U:%G %a' /var/lib/coracle/store/alice/box.sif || true)
	bobs=$(as -d / bob cat /var/lib/coracle/store/alice/box.sif 2>&1 | head -c 100 || true)
	run alice srun -Q -n1 --container=box.sif cat /etc/image-only
	kill "$service"
	wait "$service" || true
	rm -f /scratch/plain.sock
	eventually umount /var/lib/coracle/store
	[[ $found == 0 && $mode == 'coracle:alice 440' && $bobs == *'Permission denied' ]] || fail "$said" "$mode" "$bobs" || return
	prints "$MARK"
}

@test "the service removes nothing but a socket that nobody listens at" {
	echo precious >precious
	run coracle store-service --socket "$dir/precious"
	((status == 1)) || fail "$output" || return
	[[ $(<precious) == precious ]]
	install -o alice -m 644 /dev/null mine
	run alice coracle store-service --socket "$dir/mine"
	((status == 2)) && [[ -f mine ]]
}

@test "a store whose file system is full says so and keeps nothing" {
	mount -t tmpfs -o size=256k,mode=755,uid=990,gid=990 full /var/lib/coracle/store
	run alice coracle cp "$busybox" box.sif
	local found=$output code=$status left
	left=$(in_store)
	umount /var/lib/coracle/store
	((code == 1)) && [[ $found == *"file system is full"*'[store]'* && -z $left ]] || fail "$code $found" "$left"
}

@test "on a file system that squashes root and knows no nameless files, everything works all the same" {
	local directory=/var/lib/coracle/store
	needs python3
	install -d -o coracle -g coracle -m 755 "$SUITE/export"
	chmod 711 "$SUITE"
	python3 "$BATS_TEST_DIRNAME/squash_root.py" "$SUITE/export" "$directory" 3>&- 4>&- >"$SUITE/squash.log" 2>&1 &
	local daemon=$!
	eventually mountpoint -q "$directory" || { cat "$SUITE/squash.log" >&2; return 1; }
	root_squashed "$directory"
	local found=$?
	# The kernel lets go of the last image a moment after its step.
	eventually umount "$directory" 2>/dev/null || { kill -KILL "$daemon"; umount --lazy "$directory"; }
	wait "$daemon"
	rm -rf "$SUITE/export"
	return "$found"
}

root_squashed() { # DIRECTORY
	run setpriv --reuid=coracle --regid=coracle --clear-groups python3 -c \
		"import os; os.open('$1', os.O_TMPFILE | os.O_RDWR)"
	has 'Operation not supported' || return
	stored "$busybox" box.sif || return
	run cat "$1/alice/box.sif"
	((status != 0)) && has 'Permission denied' || return
	good srun -N3 --container=box.sif cat /etc/image-only || return
	prints "$(for _ in 1 2 3; do echo "$MARK"; done)" || return
	run as -d / bob cat "$1/alice/box.sif"
	((status != 0)) || fail 'bob reads it' || return
	good coracle ls -l || return
	has '1 of 20 images' || return
	good coracle rm box.sif || return
	good coracle ls || return
	prints '' || return
	[[ -z $(find "$SUITE/export/alice" -type f ! -name .lock) ]] || fail "$(find "$SUITE/export")"
}

@test "wrong words on the command line" {
	run alice coracle cp
	((status == 2))
	run alice coracle rm
	((status == 2))
	run alice coracle cp "$busybox" ../x
	((status == 2)) || fail "status $status" "$output" || return
	has 'not a name of a stored image' && has '[usage]'
	run alice coracle cp "$busybox" -- -x
	((status == 2)) || fail "status $status" "$output" || return
	has 'not a name of a stored image'
	at=submit refused usage 'not a name of a stored image' srun -n1 --container=store:../bob/x true
	run alice coracle store-service --socket /tmp/mine.sock
	((status == 2)) || fail "status $status" "$output" || return
	has 'must run as coracle'
	run setpriv --reuid=coracle --regid=coracle --clear-groups coracle store-service
	((status == 2)) || fail "status $status" "$output" || return
	has 'systemd has passed no socket'
}
