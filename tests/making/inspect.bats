bats_require_minimum_version 1.5.0
load making

# A tree that says all that an image can say.
talking_tree() { # DIRECTORY
	small_tree "$1"
	mkdir -p "$1"/.singularity.d/env "$1"/scif/apps/solve
	printf '#!/bin/sh\necho ran\n' >"$1/.singularity.d/runscript"
	printf '#!/bin/sh\necho started\n' >"$1/.singularity.d/startscript"
	printf '#!/bin/sh\ntrue\n' >"$1/.singularity.d/test"
	echo 'Helps.' >"$1/.singularity.d/runscript.help"
	printf 'Bootstrap: scratch\n' >"$1/.singularity.d/Singularity"
	echo 'export A=1' >"$1/.singularity.d/env/90-environment.sh"
	echo '# of the runtime' >"$1/.singularity.d/env/01-base.sh"
	echo '{"maker": "somebody", "version": 2}' >"$1/.singularity.d/labels.json"
}

# Changes a SIF: patch FILE PYTHON, with `data`, `slot(number)` and `put(form, at, value)`.
patch() { # FILE PYTHON
	python3 - "$1" <<-EOF
		import struct, sys
		data = bytearray(open(sys.argv[1], 'rb').read())
		slot = lambda number: 4096 + 585 * (number - 1)
		put = lambda form, at, value: struct.pack_into('<' + form, data, at, value)
		get = lambda form, at: struct.unpack_from('<' + form, data, at)[0]
		def add(number, kind, name, more):
		    at = slot(number)
		    data[at:at + 585] = bytes(585)
		    put('i', at, kind), put('B', at + 4, 1), put('I', at + 5, number), put('I', at + 9, 0xf0000001)
		    put('q', at + 17, len(data)), put('q', at + 25, len(more)), put('q', at + 33, len(more))
		    data[at + 73:at + 73 + len(name)] = name
		    data.extend(more)
		$2
		open(sys.argv[1], 'wb').write(data)
	EOF
}

@test "what an image says of itself is shown, as text and as JSON" {
	talking_tree tree
	SOURCE_DATE_EPOCH=1700000000 coracle build a.sif tree
	run -0 coracle inspect a.sif
	for line in 'architecture: x86_64' 'created:      2023-11-14T22:13:20Z' \
		'root squashfs, zstd, blocks of 128 KiB, ' '    maker: somebody' '    version: 2' '    echo ran' '    echo started' \
		'    Helps.' '    Bootstrap: scratch' '    export A=1' 'apps:         solve' 'signature:    none'; do
		[[ $output == *"$line"* ]] || { echo "lacks: $line"; echo "$output"; false; }
	done
	[[ $output != *'of the runtime'* ]]
	coracle inspect --json a.sif >a.json
	python3 - <<-'EOF'
		import json
		said = json.load(open('a.json'))
		assert said['version'] == 1 and said['type'] == 'sif' and said['architecture'] == 'x86_64', said
		assert said['labels'] == {'maker': 'somebody', 'version': '2'}, said
		assert said['runscript'] == '#!/bin/sh\necho ran\n' and said['help'] == 'Helps.\n', said
		assert said['environment'] == {'/.singularity.d/env/01-base.sh': '# of the runtime\n',
		                               '/.singularity.d/env/90-environment.sh': 'export A=1\n'}, said
		part, = said['partitions']
		assert (part['role'], part['filesystem'], part['compression'], part['block_size']) == ('root', 'squashfs', 'zstd', 131072)
		assert open('a.sif', 'rb').read()[part['offset']:][:4] == b'hsqs'
		assert said['signatures'] == [] and said['signatures_checked'] is False and said['notes'] == [], said
	EOF
}

@test "a squashfs without a SIF is shown, and an EROFS as far as can be" {
	talking_tree tree
	mksquashfs tree a.sqsh -quiet -no-progress -comp xz -b 64K
	run -0 coracle inspect a.sqsh
	[[ $output == *'type:         squashfs, '* && $output == *'root squashfs, xz, blocks of 64 KiB'* && $output == *'echo ran'* ]]
	run -0 coracle inspect "$CORACLE_IMAGES/busybox.erofs"
	[[ $output == *'type:         erofs, '* && $output == *'what is in an EROFS is not shown'* ]]
}

@test "single parts are what Apptainer's options say" {
	talking_tree tree
	coracle build a.sif tree
	[[ $(coracle inspect --labels a.sif) == $'maker: somebody\nversion: 2' ]]
	[[ $(coracle inspect -r a.sif) == $'#!/bin/sh\necho ran' ]]
	[[ $(coracle inspect --deffile a.sif) == 'Bootstrap: scratch' ]]
	[[ $(coracle inspect -H a.sif) == 'Helps.' ]]
	[[ $(coracle inspect --test a.sif) == $'#!/bin/sh\ntrue' ]]
	run -0 coracle inspect --environment a.sif
	[[ $output == *'=== /.singularity.d/env/90-environment.sh ==='*'export A=1'* && $output != *'echo ran'* ]]
	small_tree silent
	coracle build silent.sif silent
	[[ -z $(coracle inspect -r silent.sif) ]]
}

@test "nothing of an image steers a terminal" {
	talking_tree tree
	printf 'echo \e[2J\e]0;title\a \xc2\x9b31m \xe2\x80\xae x\r\177\n' >tree/.singularity.d/runscript
	printf '{"a\\u001b[31mb": "c\\u001b[0m\\nd\\u202e"}' >tree/.singularity.d/labels.json
	printf 'export B=2\n' >"$(printf 'tree/.singularity.d/env/\e[5m.sh')"
	coracle build a.sif tree
	for options in '' --labels --runscript --environment --json; do
		coracle inspect $options a.sif >out
		run ! grep -qP '[\x00-\x08\x0b-\x1f\x7f]' out
		run ! grep -qP '\xc2[\x80-\x9f]|\xe2\x80\xae' out
	done
	coracle inspect --json a.sif | python3 -c '
import json, sys
said = json.load(sys.stdin)
assert said["runscript"] == "echo \x1b[2J\x1b]0;title\a \x9b31m \u202e x\r\x7f\n", said
assert said["labels"] == {"a\x1b[31mb": "c\x1b[0m\nd\u202e"}, said'
}

@test "no link of an image leads to a file of the host, and what is no text or too long is said" {
	echo 'of the host' >secret
	talking_tree tree
	ln -sf "$PWD/secret" tree/.singularity.d/runscript
	ln -sf ../../../../../../../../../../etc/passwd tree/.singularity.d/startscript
	rm tree/.singularity.d/test tree/.singularity.d/runscript.help
	mkfifo tree/.singularity.d/test
	mkdir tree/.singularity.d/runscript.help
	truncate -s 100M tree/.singularity.d/Singularity
	echo '[1]' >tree/.singularity.d/labels.json
	coracle build a.sif tree
	run -0 coracle inspect a.sif
	[[ $output != *'of the host'* && $output != *'root:'* ]]
	[[ $output == *'/.singularity.d/runscript is a symbolic link, which is not followed'* ]]
	[[ $output == *'/.singularity.d/startscript is a symbolic link'* ]]
	[[ $output == *'/.singularity.d/test is no regular file'* && $output == *'runscript.help is no regular file'* ]]
	[[ $output == *'/.singularity.d/Singularity has 104857600 bytes, which are not shown'* ]]
	[[ $output == *'labels.json is no JSON object'* ]]
	rm -r tree/.singularity.d
	mkdir outside
	cp secret outside/runscript
	ln -s "$PWD/outside" tree/.singularity.d
	coracle build --force a.sif tree
	run -0 coracle inspect a.sif
	[[ $output != *'of the host'* ]]
}

@test "of an encrypted image and of one for another processor, what can be shown is shown" {
	talking_tree tree
	coracle build a.sif tree
	cp a.sif foreign.sif
	patch foreign.sif "data[45:48] = b'04\0'; data[slot(1) + 209:slot(1) + 212] = b'04\0'"
	run -0 coracle inspect foreign.sif
	[[ $output == *'architecture: aarch64'* && $output == *'echo ran'* ]]
	cp a.sif locked.sif
	patch locked.sif "put('i', slot(1) + 201, 5); add(2, 0x4006, b'inspect-metadata.json', b'{\"data\":{\"attributes\":{\"labels\":{\"a\":\"b\"},\"runscript\":\"echo beside\"}}}')"
	run -0 coracle inspect locked.sif
	[[ $output == *'root encrypted squashfs, '* && $output == *'the root file system is encrypted'* ]]
	[[ $output == *'    a: b'* && $output == *'    echo beside'* && $output != *'echo ran'* ]]
	cp a.sif oci.sif
	patch oci.sif "add(2, 0x4006, b'oci-config.json', b'{\"architecture\":\"amd64\",\"config\":{\"Cmd\":[\"sh\"]}}')"
	run -0 coracle inspect oci.sif
	[[ $output == *'configuration of the OCI image:'*'"Cmd"'* ]]
}

@test "hostile images are refused by name, and none makes it panic" {
	local file
	for file in "$CORACLE_IMAGES"/crafted/*.sqsh; do
		run coracle inspect "$file"
		[[ $status == 0 || $status == 1 ]] || { echo "$file: $status: $output"; false; }
		[[ $output != *panicked* ]]
		# What the look of each start refuses is refused here.
		[[ $file != */quick-* || $status == 1 ]] || { echo "$file: shown"; false; }
	done
	talking_tree tree
	coracle build a.sif tree
	refused() { # TEXT PYTHON
		cp a.sif bad.sif
		patch bad.sif "$2"
		run -1 coracle inspect bad.sif
		[[ $output == *'bad.sif: '*"$1"*'[image-format]'* ]] || { echo "$1: $output"; false; }
		run -1 coracle sif list bad.sif
		[[ $output == *"$1"* ]]
	}
	refused 'truncated: a data object' "put('q', slot(1) + 25, 2**62)"
	refused 'is -1' "put('q', slot(1) + 17, -1)"
	refused 'descriptors' "put('q', 88, 2**40)"
	refused 'share byte' "put('q', slot(1) + 17, 64)"
	refused 'two objects have number 1' "data[slot(2):slot(2) + 585] = data[slot(1):slot(1) + 585]; put('q', slot(2) + 25, 0)"
	refused 'version' "data[42:45] = b'99\0'"
	head -c 20000 a.sif >cut.sif
	run -1 coracle inspect cut.sif
	[[ $output == *'truncated: '* ]]
}

@test "what is no image is said" {
	run -1 coracle inspect none.sif
	[[ $output == 'coracle: none.sif: no such file [image-missing]'* ]]
	mkdir directory && mkfifo fifo && echo hello >text && install -m 600 text mine
	run -1 coracle inspect directory
	[[ $output == *'a directory, where a file is wanted [image-type]'* ]]
	run -1 coracle inspect fifo
	[[ $output == *'no regular file [image-type]'* ]]
	run -1 coracle inspect text
	[[ $output == *'not an image: '*'[image-format]'* ]]
	run -1 as_user coracle inspect mine
	[[ $output == *'you may not read it [image-unreadable]'* ]]
}
