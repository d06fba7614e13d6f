# Images from tar files, docker archives, OCI layouts and other images.
bats_require_minimum_version 1.5.0
load making
load registry

make() { # WHAT OUT [ARGUMENT...]
	python3 "$BATS_TEST_DIRNAME/layers.py" "$@"
}

# Where the root file system of a SIF begins.
offset() { # FILE
	python3 -c '
import sys
data = open(sys.argv[1], "rb").read(1 << 20)
print(next(at for at in range(32768, len(data), 4096) if data[at:at + 4] == b"hsqs"))' "$1"
}

list() { # FILE
	TZ=UTC unsquashfs -o "$(offset "$1")" -lln "$1"
}

says() { # TEXT
	[[ $output == *"$1"* ]] || { echo "no '$1' in: $output"; return 1; }
}

# A command in an image. The site's settings must be where only root writes.
runs() { # FILE COMMAND...
	executes exec "$@"
}

executes() { # exec|run FILE WORD...
	local status=0 verb=$1
	shift
	mount -t tmpfs -o mode=755 settings /mnt
	printf 'version: 1\nuser_images: kernel\n' >/mnt/coracle.yaml
	coracle "$verb" --config /mnt/coracle.yaml "$@" || status=$?
	umount /mnt
	return "$status"
}

@test "an image is the same for root, a user, one with a range of ids, and one without user namespaces" {
	local from who
	make layout layout
	make small small text one
	export SOURCE_DATE_EPOCH=1700000000
	for from in layout small; do
		coracle build root.sif "oci:$from"
		as_user coracle build user.sif "oci:$from"
		as_ranged coracle build ranged.sif "oci:$from"
		as_plain_user coracle build own.sif "oci:$from"
		for who in user ranged own; do cmp root.sif "$who.sif"; done
		rm -f ./*.sif
	done
}

@test "a capability of a file is kept wherever there is a user namespace, and else its loss is said" {
	local who
	make capability layout
	export SOURCE_DATE_EPOCH=1700000000
	coracle build root.sif oci:layout
	as_user coracle build user.sif oci:layout
	as_ranged coracle build ranged.sif oci:layout
	for who in user ranged; do cmp root.sif "$who.sif"; done
	unsquashfs -q -n -o "$(offset root.sif)" -d unpacked root.sif >/dev/null
	[[ $(getfattr -n security.capability -e hex --only-values unpacked/bin | tr '\0' . | cat -v) == *^D* ]]
	run as_plain_user coracle build own.sif oci:layout
	[[ $status == 0 ]]
	says 'attributes of files that cannot be kept here: security.capability'
}

@test "the same layers give the same image, however they are compressed" {
	local how
	export SOURCE_DATE_EPOCH=1700000000
	for how in gzip zstd xz bzip2 ''; do
		make layout "layout-$how" "$how"
		coracle build "$how.sif" "oci:layout-$how"
		cmp gzip.sif "$how.sif"
	done
	make layout again gzip
	touch -d @1 again/blobs/sha256/*
	coracle build again.sif oci:again
	cmp gzip.sif again.sif
}

# The labels have the time of the build, whose numbers have one or two digits.
timeless() {
	awk '{$4 = $5 = ""} /labels.json$/ {$3 = ""} {print}'
}

@test "without SOURCE_DATE_EPOCH, the list of files is the same the next time" {
	make layout layout
	coracle build one.sif oci:layout
	sleep 1.1
	coracle build two.sif oci:layout
	# But for the times of what is made now, and of devices.
	diff <(list one.sif | timeless) <(list two.sif | timeless)
	run ! cmp -s one.sif two.sif
}

@test "owners, modes, devices, names and times are the layers', and what is gone is gone" {
	make layout layout
	SOURCE_DATE_EPOCH=9999999999 run coracle build a.sif oci:layout
	[[ $status == 2 ]]
	as_user coracle build a.sif oci:layout
	run list a.sif
	says 'dr-xr-xr-x 0/0 '
	says '-rwsr-xr-x 0/0 '
	says '-rwxr-sr-x 0/5 '
	says 'd--------- 100/0 '
	says '---------- 0/42 '
	says 'crw-rw-rw- 0/0                   1,  7'
	says 'prw-r--r-- 7/0 '
	says 'lrwxrwxrwx 11/12 '
	says 'drwxrwxrwt 1/0                       3 2020-09-13 12:26 squashfs-root/far'
	says 'drwxrwsr-x 0/50 '
	says '-rw-r--r-- 33/33                     9 2020-09-13 12:26 squashfs-root/usr/lib/moved'
	says '1970-01-01 00:00 squashfs-root/before'
	says '-rw-r--r-- 5/0                       0 2020-09-13 12:26 squashfs-root/odd name"'"'"'\ '
	says '-rws--x--x 6/0                       0 2020-09-13 12:26 squashfs-root/line
break'
	says '-rw-r--r-- 8/0 '
	says 'squashfs-root/absolute/name'
	[[ $output != *gone* && $output != *old* && $output != *disk* && $output != *.wh.* ]]
	unsquashfs -q -n -o "$(offset a.sif)" -d unpacked a.sif attribute >/dev/null
	[[ $(runs a.sif /bin/cat /lib/moved) == 'by a link' ]]
	[[ $(getfattr --only-values -n user.note unpacked/attribute) == 'hello
there' ]]
}

@test "a chroot in a tar file, with each compressor" {
	local how
	tar -C "$CORACLE_IMAGES/tree" -cf plain.tar .
	cp plain.tar gz.tar && gzip gz.tar && cp plain.tar bz.tar && bzip2 bz.tar && xz -k plain.tar && zstd -q plain.tar
	export SOURCE_DATE_EPOCH=1700000000
	coracle build plain.sif plain.tar
	for how in gz.tar.gz bz.tar.bz2 plain.tar.xz plain.tar.zst; do
		as_user coracle build --force other.sif "$how"
		cmp plain.sif other.sif
	done
	[[ $(runs plain.sif /bin/cat /etc/image-only) == "$(cat "$CORACLE_IMAGES/tree/etc/image-only")" ]]
}

@test "sparse files and long names, in every form that GNU tar writes" {
	local form long
	long=tree/$(printf 'n%.0s' {1..150})/$(printf 'm%.0s' {1..150})
	mkdir -p "${long%/*}"
	echo long >"$long"
	truncate -s 50M tree/sparse
	printf middle | dd of=tree/sparse bs=1 seek=20000000 conv=notrunc status=none
	printf end >>tree/sparse
	for form in --format=gnu --format=posix '--format=posix --sparse-version=0.0' '--format=posix --sparse-version=0.1'; do
		# shellcheck disable=SC2086 # options
		tar -C tree $form --sparse -cf a.tar .
		[[ $(stat -c %s a.tar) -lt 1000000 ]]
		as_user coracle build --force a.sif a.tar
		rm -rf unpacked
		unsquashfs -q -n -o "$(offset a.sif)" -d unpacked a.sif >/dev/null
		cmp tree/sparse unpacked/sparse
		cmp "$long" "unpacked/${long#tree/}"
	done
}

@test "docker archives and OCI archives that skopeo writes, of one image and of several" {
	export SOURCE_DATE_EPOCH=1700000000
	make layout layout
	skopeo copy -q oci:layout:one docker-archive:docker.tar:example.org/a/b:c
	skopeo copy -q oci:layout:one oci-archive:oci.tar:one
	gzip -k docker.tar
	coracle build layout.sif oci:layout:one
	coracle build oci.sif oci-archive:oci.tar:one
	cmp layout.sif oci.sif
	coracle build docker.sif docker-archive:docker.tar
	coracle build named.sif docker-archive:docker.tar:example.org/a/b:c
	coracle build packed.sif docker-archive:docker.tar.gz
	cmp docker.sif named.sif
	cmp docker.sif packed.sif
	diff <(list layout.sif) <(list docker.sif)
	run coracle build none.sif docker-archive:docker.tar:other:tag
	[[ $status == 1 ]]
	says 'no image of that name is in it [image-missing]'
	says 'it has example.org/a/b:c'
	[[ ! -e none.sif ]]
}

@test "what docker save writes, an OCI archive and a layout are known without their prefix, and that is said" {
	local who from prefix
	export SOURCE_DATE_EPOCH=1700000000
	make layout layout
	skopeo copy -q oci:layout:one docker-archive:docker.tar:example.org/a/b:c
	skopeo copy -q oci:layout:one oci-archive:oci.tar:one
	gzip -k docker.tar && gzip -k oci.tar && zstd -q oci.tar
	coracle build --force docker.sif docker-archive:docker.tar
	coracle build --force oci.sif oci:layout
	for from in docker.tar docker.tar.gz oci.tar oci.tar.gz oci.tar.zst layout; do
		prefix=oci-archive:
		[[ $from != docker* ]] || prefix=docker-archive:
		[[ $from != layout ]] || prefix=oci:
		for who in as_user command; do
			rm -f a.sif
			run --separate-stderr "$who" coracle build a.sif "$from"
			[[ $status == 0 && $stderr == "coracle: $from: it "*" taken as $prefix$from" ]] || { echo "$who $from: $stderr"; return 1; }
			cmp a.sif "${prefix%%[-:]*}.sif"
		done
	done
	[[ $(runs a.sif /bin/cat /etc/image-only) == 'from a layer' ]]
	# The slashes of an address are no part of the name.
	for from in "docker-archive://docker.tar" "docker-archive://$PWD/docker.tar" "oci-archive://oci.tar:one" "oci://layout" "oci://$PWD/layout:one"; do
		rm -f a.sif
		run --separate-stderr as_user coracle build a.sif "$from"
		[[ $status == 0 && -z $stderr ]] || { echo "$from: $stderr"; return 1; }
		cmp a.sif "${from%%[-:]*}.sif"
	done
	printf 'Bootstrap: localimage\nFrom: docker.tar\n%%labels\n\tA b\n' >x.def
	as_user coracle build x.sif x.def
	[[ $(runs x.sif /bin/cat /etc/image-only) == 'from a layer' ]]
}

@test "of the wrong prefix, the right one is named" {
	wrong() { # SOURCE CAUSE HINT
		run coracle build a.sif "$1"
		[[ $status == 1 && $output == "coracle: "*"$2"*$'\ncoracle: hint: '*"$3"* && ! -e a.sif ]] || { echo "$1: $output"; return 1; }
	}
	make layout layout
	skopeo copy -q oci:layout:one docker-archive:docker.tar:example.org/a/b:c
	skopeo copy -q oci:layout:one oci-archive:oci.tar:one
	mkdir unpacked plain && tar -C unpacked -xf docker.tar && tar -cf plain.tar plain
	wrong docker-archive:oci.tar '"manifest.json" is not in it [image-format]' 'oci-archive:oci.tar'
	wrong oci-archive:docker.tar '"oci-layout" is not in it [image-format]' 'docker-archive:docker.tar'
	wrong oci:oci.tar 'is a file, and oci: takes a directory [image-type]' 'oci-archive:oci.tar takes the file'
	wrong oci:docker.tar 'is a file, and oci: takes a directory [image-type]' 'docker-archive:docker.tar takes the file'
	wrong oci-archive:layout 'is no file [image-type]' 'it is an OCI layout: oci:layout'
	wrong docker-archive:layout 'is no file [image-type]' 'it is an OCI layout: oci:layout'
	wrong docker-archive:plain.tar '"manifest.json" is not in it [image-format]' 'named without docker-archive:'
	wrong oci-archive:plain.tar '"oci-layout" is not in it [image-format]' 'named without oci-archive:'
	wrong oci:plain '"oci-layout" is not in it [image-format]' 'named without oci:'
	wrong unpacked 'it holds what docker save writes, unpacked [image-type]' 'docker-archive:FILE'
}

# Layers by words for "make image": a root file system with a shell.
base='bin/ bin/busybox@ bin/sh>busybox bin/cat>busybox bin/ls>busybox etc/ etc/seen=base'

@test "entries below links to nothing, and below files of lower layers, are where they lead" {
	local who
	make image layout gzip '{}' "$base data/ data/to>/elsewhere/deep data/up>../beside data/chain>to file=old tree/ tree/file=old" \
		'data/to/x=absolute data/up/y=relative file/z=replaced' 'data/chain/w=chain tree/file/deeper/v=replaced'
	export SOURCE_DATE_EPOCH=1700000000
	coracle build root.sif oci:layout
	for who in as_user as_ranged as_plain_user; do
		"$who" coracle build a.sif oci:layout
		cmp root.sif a.sif
		rm a.sif
	done
	run runs root.sif /bin/sh -c 'for name in elsewhere/deep/x data/to/x beside/y data/up/y data/chain/w elsewhere/deep/w file/z tree/file/deeper/v; do
		cat "/$name" && echo " $name"; done; ls -l /data'
	[[ $status == 0 && $output == 'absolute elsewhere/deep/x
absolute data/to/x
relative beside/y
relative data/up/y
chain data/chain/w
chain elsewhere/deep/w
replaced file/z
replaced tree/file/deeper/v
'*'to -> /elsewhere/deep'* ]] || { echo "$output"; return 1; }
	# It is the image's root that they begin at, wherever they lead.
	make image out gzip '{}' "$base data/ data/out>../../../../../$PWD/host" 'data/out/x=inside'
	as_user coracle build out.sif oci:out
	[[ ! -e host && $(unsquashfs -o "$(offset out.sif)" -cat out.sif "${PWD#/}/host/x") == inside ]]
	make image loop gzip '{}' "$base loop>loop" 'loop/x=nowhere'
	run coracle build loop.sif oci:loop
	[[ $status == 1 && ! -e loop.sif ]]
	says 'layer 2 of 2: loop/x is behind links that lead nowhere [image-format]'
}

@test "a layer without bytes, zeros behind a gzip stream, and nulls are taken as Go and Docker write them" {
	local settings
	make image layout padded '{"architecture": null, "created": null, "author": null, "history": null}' EMPTY "$base" EMPTY 'etc/seen=changed' EMPTY
	as_user coracle build a.sif oci:layout
	[[ $(runs a.sif /bin/cat /etc/seen) == changed ]]
	for settings in '{"config": null}' '{"os": null, "variant": null}' \
		'{"config": {"Env": null, "Cmd": null, "Entrypoint": null, "Labels": null, "WorkingDir": null, "User": null, "Volumes": null, "ExposedPorts": null, "OnBuild": null}}' \
		'{"config": {"Env": ["PATH=/bin", "A=b"], "Cmd": ["cat", "/etc/seen"], "Labels": {"One": null, "Two": "2"}}}'; do
		rm -rf layout a.sif
		make image layout gzip "$settings" "$base"
		as_user coracle build a.sif oci:layout || { echo "$settings"; return 1; }
		[[ $(runs a.sif /bin/cat /etc/seen) == base ]]
	done
	[[ $(executes run a.sif) == base ]]
	[[ $(coracle inspect --json a.sif | python3 -c 'import json, sys; print(*(name for name in json.load(sys.stdin)["labels"] if "." not in name))') == Two ]]
	# Other bytes behind the stream are no padding.
	make image layout gzip '{}' "$base"
	python3 - layout <<-'PYTHON'
		import hashlib, json, os, sys
		blobs = sys.argv[1] + "/blobs/sha256/"
		index = json.load(open(sys.argv[1] + "/index.json"))
		last = index["manifests"][-1]
		manifest = json.load(open(blobs + last["digest"][7:]))
		data = open(blobs + manifest["layers"][0]["digest"][7:], "rb").read() + bytes(100) + b"more"
		def put(data):
		    name = hashlib.sha256(data).hexdigest()
		    open(blobs + name, "wb").write(data)
		    return {"digest": "sha256:" + name, "size": len(data)}
		manifest["layers"][0].update(put(data))
		last.update(put(json.dumps(manifest).encode()))
		json.dump({"schemaVersion": 2, "manifests": [last]}, open(sys.argv[1] + "/index.json", "w"))
	PYTHON
	run coracle build b.sif oci:layout
	[[ $status == 1 && $output == *': layer 1 of 1: '*'[image-format]'* && ! -e b.sif ]] || { echo "$output"; return 1; }
}

@test "an index of a layout may not say for which processor its images are" {
	mkdir -p here/etc there/etc
	cp -a "$CORACLE_IMAGES/tree/bin" here
	echo here >here/etc/arch
	echo there >there/etc/arch
	# An index in the index, as docker buildx writes it.
	indexed() { # PLATFORM:DIRECTORIES...
		rm -rf layout a.sif
		python3 "$BATS_TEST_DIRNAME/registry_layout.py" layout 1 "$@"
	}
	indexed "?$here:here"
	as_user coracle build a.sif oci:layout
	[[ $(runs a.sif /bin/cat /etc/arch) == here ]]
	# Which says comes before what does not.
	indexed "?$there:there" "$here:here"
	as_user coracle build a.sif oci:layout
	[[ $(runs a.sif /bin/cat /etc/arch) == here ]]
	# An image for another processor is made, as of a layout without an index, and says so.
	indexed "?$there:there"
	as_user coracle build a.sif oci:layout
	run runs a.sif /bin/cat /etc/arch
	[[ $status == 125 && $output == *'a.sif: '*'[image-arch]'* ]] || { echo "$output"; return 1; }
	indexed "?$there:there" "?$here:here"
	run as_user coracle build b.sif oci:layout
	[[ $status == 1 && ! -e b.sif ]]
	says 'several images are in it'
}

@test "of several images in a layout, one has to be named" {
	make small layout first one
	make small layout second two
	run coracle build a.sif oci:layout
	[[ $status == 1 ]]
	says 'several images are in it'
	says 'one, two'
	coracle build --arch "$(uname -m)" a.sif oci:layout:two
	[[ $(unsquashfs -o "$(offset a.sif)" -cat a.sif etc/text) == second ]]
	run coracle build b.sif oci:layout:three
	says 'no image "three" is in it [image-missing]'
}

# The list, of directories without their sizes and times.
unfolded() {
	awk '/^d/ {print $1, $2, $NF; next} {print}' | sort
}

@test "an image is packed again: a SIF and a squashfs with each compressor" {
	local image missing
	export SOURCE_DATE_EPOCH=1700000000
	tar -C "$CORACLE_IMAGES/tree" -cf plain.tar .
	coracle build plain.sif plain.tar
	as_user coracle build again.sif plain.sif
	cmp plain.sif again.sif
	for image in "$CORACLE_IMAGES"/busybox-{gzip,lz4,lzo,none,xz,zstd}.sqsh; do
		coracle build --force a.sif "$image"
		# What runtimes look for is added, which the sizes and times of directories show.
		missing=$(comm -13 <(list a.sif | unfolded) <(TZ=UTC unsquashfs -lln "$image" | unfolded))
		[[ -z $missing ]] || { echo "$image: not as it was: $missing"; return 1; }
	done
	run coracle build b.sif "$CORACLE_IMAGES/overlays.sif"
	[[ $status == 1 ]]
	says 'has overlays'
	head -c 300000 plain.sif >cut.sif
	run coracle build b.sif cut.sif
	[[ $status == 1 ]]
	says 'truncated'
}

@test "extended attributes are not kept when an image is packed again, and that is said where there are some" {
	make capability layout
	coracle build a.sif oci:layout
	run as_user coracle build again.sif a.sif
	[[ $status == 0 ]]
	[[ $output == 'coracle: a.sif: extended attributes of its files, such as capabilities, are not kept: '* ]]
	run as_user coracle build twice.sif again.sif
	[[ $status == 0 && $output == 'twice.sif sha256:'* ]]
}

@test "--build-arg is refused for what is no definition file" {
	local from
	mkdir directory
	tar -cf a.tar directory
	for from in directory a.tar oci:none docker://none "$CORACLE_IMAGES/busybox-zstd.sqsh"; do
		run coracle build --build-arg NAME=1 a.sif "$from"
		[[ $status == 2 && ! -e a.sif ]]
		[[ $output == "coracle: --build-arg NAME=1: $from is no definition file, which alone has {{ NAME }} [usage]"* ]]
	done
}

@test "a layer that is not what the configuration says is refused" {
	make wrong-layer layout
	run coracle build a.sif oci:layout
	[[ $status == 1 && ! -e a.sif ]]
	says 'layer 2 of 2: holds sha256:'
	says '[digest]'
	make layout other
	local manifest
	manifest=$(python3 -c 'import json; print(json.load(open("other/index.json"))["manifests"][0]["digest"][7:])')
	sed -i 's/"amd64"/"arm64"/; s/schemaVersion": 2/schemaVersion": 3/' "other/blobs/sha256/$manifest"
	run coracle build a.sif oci:other
	[[ $status == 1 ]]
	says "is called sha256:$manifest [digest]"
}

@test "no archive writes outside, or takes what is there" {
	local archive
	echo sings >canary
	chmod 666 canary
	make link-out absolute.tar "$PWD"
	make link-out relative.tar ../../../../../../../../../../"$PWD"
	make link-out magic.tar /proc/self/cwd
	make hard-link-out hard.tar "$PWD/canary"
	make hard-link-out hard-up.tar "../../../../../../../../$PWD/canary"
	make up up.tar
	for archive in absolute relative magic hard hard-up up; do
		run coracle build a.sif "$archive.tar"
		[[ $status == 1 && $output == *'[image-format]'* ]] || { echo "$archive: $output"; return 1; }
		[[ ! -e a.sif && $(cat canary) == sings && $(stat -c %h canary) == 1 ]]
	done
	[[ ! -e /canary && ! -e /tmp/canary ]]
}

@test "a manifest.json that asks for what is not in the archive is refused" {
	local name
	echo secret >secret
	for name in ../secret "$PWD/secret" none /etc/passwd ''; do
		make docker a.tar "$name"
		run coracle build a.sif docker-archive:a.tar
		[[ $status == 1 && $output == *'is not in it [image-format]'* ]] || { echo "$name: $output"; return 1; }
	done
	for name in ../../secret "$PWD/secret" ../l/layer.tar; do
		make docker-link a.tar "$name"
		run coracle build a.sif docker-archive:a.tar
		[[ $status == 1 && $output == *'is not in it [image-format]'* ]] || { echo "$name: $output"; return 1; }
	done
	make docker-huge a.tar
	run coracle build a.sif docker-archive:a.tar
	says 'c.json is longer than 4194304 bytes'
	make docker-twice a.tar
	run coracle build a.sif docker-archive:a.tar
	says 'has "l" twice'
	[[ ! -e a.sif ]]
}

@test "archives that are cut off or are none are refused" {
	local size
	make tar whole.tar
	gzip -k whole.tar
	for size in 700 100000; do
		for archive in whole.tar whole.tar.gz; do
			head -c "$size" "$archive" >./cut
			run coracle build a.sif cut
			[[ $status == 1 && $output == *'cut: '*'[image-format]'* ]] || { echo "$archive $size: $output"; return 1; }
		done
	done
	{ printf '\x1f\x8b\x08'; head -c 1000 /dev/urandom; } >garbage
	run coracle build a.sif garbage
	[[ $status == 1 ]]
	says 'garbage: '
	says '[image-format]'
	[[ ! -e a.sif ]]
}

@test "a bomb is refused before it fills the disk, and nothing is left of it" {
	make endless bomb.tar.gz 6
	run coracle build a.sif bomb.tar.gz
	[[ $status == 1 && ! -e a.sif ]]
	says 'bomb.tar.gz: unpacks to more than 100 times its size and more than 4 GiB [image-format]'
}

@test "a disk that is too small is noticed before it is full" {
	mkdir small
	mount -t tmpfs -o size=20m small small
	truncate -s 30M large
	tar -cf large.tar large
	CORACLE_TMPDIR=$PWD/small run coracle build a.sif large.tar
	ls -A small >left
	umount small
	[[ $status == 1 && ! -e a.sif && ! -s left ]]
	says 'no space is left there [system]'
	says 'CORACLE_TMPDIR'
}

@test "what is written into an image is root's and for everybody, whatever the image had in its place" {
	local who
	small_tree odd
	mkdir -p odd/.singularity.d/env
	echo '{}' >odd/.singularity.d/labels.json
	chmod 600 odd/.singularity.d/labels.json
	chmod 700 odd/.singularity.d odd/.singularity.d/env
	tar -C odd --owner=1000 --group=7 -cf odd.tar .
	export SOURCE_DATE_EPOCH=1700000000
	coracle build root.sif odd.tar
	as_user coracle build user.sif odd.tar
	as_plain_user coracle build own.sif odd.tar
	for who in user own; do cmp root.sif "$who.sif"; done
	run list user.sif
	grep -qE '^drwxr-xr-x 0/0 .* squashfs-root/\.singularity\.d$' <<<"$output"
	grep -qE '^drwxr-xr-x 0/0 .* squashfs-root/\.singularity\.d/env$' <<<"$output"
	grep -qE '^-rw-r--r-- 0/0 .* squashfs-root/\.singularity\.d/labels\.json$' <<<"$output"
	grep -qE ' 1000/7 .* squashfs-root/etc/image-only$' <<<"$output"
}

@test "an image without a shell runs its entry point, and one whose configuration is null is one" {
	mkdir -p bare/bin none/bin
	cp "$(type -P busybox)" bare/bin/busybox
	cp "$(type -P busybox)" none/bin/busybox
	echo '{"Entrypoint": ["/bin/busybox", "echo", "from the entry point"]}' >config.json
	python3 "$BATS_TEST_DIRNAME/registry_layout.py" --config config.json bare-layout 1 "$here:bare"
	coracle build bare.sif oci:bare-layout
	run executes run bare.sif words
	[[ $output == 'from the entry point words' ]]
	# Where the image starts and where a job does are two places.
	mkdir -p bare/app
	printf '#!/bin/busybox sh\necho "started in $PWD: $*"\n' >bare/app/start.sh
	chmod 755 bare/app/start.sh
	echo '{"Entrypoint": ["./start.sh", "./x"], "WorkingDir": "/app"}' >config.json
	python3 "$BATS_TEST_DIRNAME/registry_layout.py" --config config.json relative-layout 1 "$here:bare"
	coracle build relative.sif oci:relative-layout
	run executes run relative.sif words
	[[ $output == "started in $PWD: ./x words" ]] || { echo "$output"; return 1; }
	ln bare/bin/busybox bare/bin/sh
	echo '{"Cmd": ["./start.sh"], "WorkingDir": "/app"}' >config.json
	python3 "$BATS_TEST_DIRNAME/registry_layout.py" --config config.json shell-layout 1 "$here:bare"
	coracle build shell.sif oci:shell-layout
	run executes run shell.sif
	[[ $output == "started in $PWD: " ]] || { echo "$output"; return 1; }
	run executes run shell.sif /bin/busybox echo words
	says words
	echo null >config.json
	python3 "$BATS_TEST_DIRNAME/registry_layout.py" --config config.json none-layout 1 "$here:none"
	coracle build none.sif oci:none-layout
	run executes exec none.sif /bin/busybox echo runs
	says runs
}
