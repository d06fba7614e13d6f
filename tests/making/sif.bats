bats_require_minimum_version 1.5.0
load making

# What a terminal gets from a command. COMMAND is one word for the shell.
in_terminal() { # COMMAND
	python3 - "$1" <<-'EOF'
		import os, pty, sys
		said = bytearray()
		def read(line):
		    data = os.read(line, 4096)
		    said.extend(data)
		    return data
		status = pty.spawn(['sh', '-c', sys.argv[1]], read, lambda line: b'')
		sys.exit(os.waitstatus_to_exitcode(status))
	EOF
}

@test "the objects of a SIF are listed, and written out as they are" {
	small_tree tree
	SOURCE_DATE_EPOCH=1700000000 coracle build a.sif tree
	run -0 coracle sif list a.sif
	[[ ${lines[0]} == *ID*GROUP*LINK*OFFSET*SIZE*TYPE ]]
	[[ ${lines[-1]} == *'partition root squashfs x86_64'* ]]
	read -r id offset size < <(coracle sif list --json a.sif | python3 -c '
import json, sys
row, = [row for row in json.load(sys.stdin)["objects"] if row.get("role") == "root"]
assert row["type"] == "partition" and row["group"] == 1 and row["created"] == "2023-11-14T22:13:20Z", row
print(row["id"], row["offset"], row["size"])')
	coracle sif dump "$id" a.sif >dumped
	cmp dumped <(tail -c "+$((offset + 1))" a.sif | head -c "$size")
	[[ $(head -c 4 dumped) == hsqs && $(stat -c %s dumped) == "$size" ]]
}

@test "an object that there is not, and files without objects, are refused" {
	small_tree tree
	coracle build a.sif tree
	run -2 coracle sif dump 77 a.sif
	[[ $output == *'a.sif: it has no object 77 [usage]'*'coracle sif list'* ]]
	run -1 coracle sif list "$CORACLE_IMAGES/busybox-zstd.sqsh"
	[[ $output == *'no SIF but squashfs, which has no data objects [image-format]'* ]]
	run -1 coracle sif dump 1 /etc/passwd
	[[ $output == *'not an image'* ]]
	# Whoever closes the pipe early gets no panic.
	run -0 bash -c 'coracle sif dump 1 a.sif | head -c 1'
	[[ $output == h ]]
}

@test "a terminal gets text only" {
	small_tree tree
	coracle build a.sif tree
	run -2 in_terminal 'coracle sif dump 1 a.sif'
	[[ $output == *'object 1 is no text, and standard output is a terminal [usage]'* ]]
	export GNUPGHOME=$BATS_TEST_TMPDIR/gnupg
	mkdir -m 700 "$GNUPGHOME"
	gpg --batch --quiet --passphrase '' --quick-gen-key 'a <a@example.org>' ed25519 sign never
	coracle sign a.sif
	gpgconf --kill gpg-agent
	run -0 in_terminal 'coracle sif dump 2 a.sif'
	[[ $output == *'BEGIN PGP SIGNED MESSAGE'* ]]
}

@test "a name of an object steers no terminal" {
	small_tree tree
	coracle build a.sif tree
	printf 'evil\e[2J\nname' | dd of=a.sif bs=1 seek=$((4096 + 73)) conv=notrunc status=none
	coracle sif list a.sif >out
	run ! grep -qP '\x1b' out
	[[ $(wc -l <out) == 2 ]]
	coracle sif list --json a.sif >out
	run ! grep -qP '\x1b' out
}
