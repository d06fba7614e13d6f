# Definition files: what they say, and what becomes of it.
bats_require_minimum_version 1.5.0
load making

# The folder of small_tree, as the image "base", and a definition made of it.
base_and() { # TEXT of the rest
	[[ -d base ]] || small_tree base
	printf 'Bootstrap: localimage\nFrom: base\n%s\n' "$1" >x.def
}

inside() { # IMAGE PATH: what a file of the image says
	unsquashfs -o "$(root_at "$1")" -cat "$1" "$2"
}

root_at() { # IMAGE: where its root file system begins
	python3 - "$1" <<-'PYTHON'
		import struct, sys
		table = open(sys.argv[1], "rb").read(4096 + 48 * 585)[4096:]
		for at in range(0, len(table), 585):
		    if struct.unpack_from("<i", table, at)[0] == 0x4004:
		        print(struct.unpack_from("<q", table, at + 17)[0])
	PYTHON
}

# Fails where nothing would show that a process of the test is left.
nothing_runs() { # WORD of a command line
	run pgrep -f "$1"
	[[ $status == 1 ]] || { echo "still there: $output"; return 1; }
}

@test "the example builds for root, a user, and a user with a range of ids, to the same bytes" {
	small_tree base
	cp "$BATS_TEST_DIRNAME"/../../examples/hello.* .
	export SOURCE_DATE_EPOCH=1700000000
	coracle build --build-arg GREETING=Hello root.sif hello.def
	as_user coracle build --build-arg GREETING=Hello user.sif hello.def
	as_ranged coracle build --build-arg GREETING=Hello ranged.sif hello.def
	cmp root.sif user.sif
	cmp user.sif ranged.sif
	sleep 1.1
	coracle build --build-arg GREETING=Hello again.sif hello.def
	cmp root.sif again.sif
	[[ $(inside root.sif opt/hello/hello) == *'echo "Hello, ${1:-world}"'* ]]
	[[ $(inside root.sif .singularity.d/env/90-environment.sh) == *'export PATH=/opt/hello:$PATH'* ]]
	[[ $(inside root.sif .singularity.d/runscript) == '#!/bin/sh'*'exec hello "$@"'* ]]
	[[ $(inside root.sif .singularity.d/labels.json) == *'"Author":"Jane Doe"'*'Tuesday_14_November_2023_22:13:20_UTC'* ]]
	[[ $(inside root.sif .singularity.d/Singularity) == *'sed '\''s/@GREETING@/Hello/'* ]]
	# The first stage is not in it.
	run ! inside root.sif src/hello.sh
	run coracle exec --config "$BATS_TEST_DIRNAME/../../slurm-conf-examples/coracle.yaml" "$PWD/root.sif" hello you
	[[ $status == 0 && $output == 'Hello, you' ]] || { echo "$output"; return 1; }
}

@test "%post has root's rights over the image, its own /tmp, and a clean environment; variables and labels come back" {
	base_and '
%post
    id -u >/result
    echo left >/tmp/left
    echo "$SECRET" >>/result
    test -c /dev/null && test -w /dev/null && test -d /proc/self && test -d /sys/kernel
    mkdir /made && chmod 711 /made && rm /etc/image-only
    echo "export FROM_POST=1" >>"$SINGULARITY_ENVIRONMENT"
    echo "Post label" >>"$APPTAINER_LABELS"
    read -r line || echo "no input" >>/result'
	SECRET=told as_user coracle build x.sif x.def
	[[ $(inside x.sif result) == $'0\n\nno input' ]]
	[[ $(inside x.sif .singularity.d/env/91-environment.sh) == 'export FROM_POST=1' ]]
	[[ $(inside x.sif .singularity.d/labels.json) == *'"Post":"label"'* ]]
	run unsquashfs -o "$(root_at x.sif)" -lls x.sif
	[[ $output == *'drwx--x--x root/root '*'/made'* ]]
	[[ $output != *image-only* && $output != */tmp/left* && $output != *.post.script* && $output != *.build.labels* ]]
}

@test "what fails in %post or %test ends the build, with its status, and leaves nothing" {
	base_and '
%post
    echo begun
    sh -c "exit 7"
    echo never'
	run as_user coracle build x.sif x.def
	[[ $status == 1 && $output == *begun* && $output != *$'\nnever'* ]]
	[[ $output == *'coracle: x.def:4: %post: ended with exit status 7 [build]'* ]]
	[[ ! -e x.sif ]]
	base_and '
%test
    exit 3'
	run as_user coracle build x.sif x.def
	[[ $status == 1 && $output == *'coracle: x.def:4: %test: ended with exit status 3 [build]'* && ! -e x.sif ]]
	as_user coracle build --notest x.sif x.def
	base_and '
%post -c /no/such/shell
    true'
	run as_user coracle build y.sif x.def
	[[ $status == 1 && $output == *'%post: ended with exit status 127 [build]'* ]]
}

@test "an interrupt during %post ends all that it has started" {
	base_and '
%post
    sleep 4217 &
    setsid sleep 4217 &
    echo ready >/ready
    sleep 4217'
	# The process that gets the signal is coracle itself.
	setpriv --reuid user --regid user --init-groups coracle build x.sif x.def >log 2>&1 &
	local pid=$! status=0
	until grep -qs 'sleep 4217$' log; do sleep 0.05; done
	sleep 0.3
	pgrep -f 'sleep 4217' >/dev/null
	kill -TERM "$pid"
	wait "$pid" || status=$?
	[[ $status == 143 && ! -e x.sif ]]
	nothing_runs 'sleep 4217'
}

@test "what %post leaves running ends with it" {
	base_and '
%post
    sleep 4218 >/dev/null 2>&1 &'
	as_user coracle build x.sif x.def
	nothing_runs 'sleep 4218'
}

@test "%files: patterns, folders, links, and names with blanks" {
	mkdir -p from/sub 'from/a b'
	echo one >from/one.txt
	echo two >from/two.txt
	echo hidden >from/.hidden.txt
	echo deep >from/sub/deep
	echo blank >'from/a b/c d'
	ln -s one.txt from/link
	chmod 4755 from/two.txt
	base_and '
%files
    # a comment
    from/*.txt /texts/
    from/sub /sub
    "from/a b/c d" "/new name"
    from/link /linked
    from/sub/deep'
	as_user coracle build x.sif x.def
	[[ $(inside x.sif texts/one.txt) == one && $(inside x.sif sub/deep) == deep && $(inside x.sif 'new name') == blank ]]
	[[ $(inside x.sif linked) == one && $(inside x.sif from/sub/deep) == deep ]]
	run unsquashfs -o "$(root_at x.sif)" -lls x.sif
	[[ $output == *'-rwxr-xr-x root/root '*'/texts/two.txt'* && $output != *hidden* && $output != *'linked ->'* ]]
}

@test "no link of the image leads %files, nor what is written for runtimes, out of it" {
	small_tree base
	mkdir canary
	chmod 777 canary
	echo untouched >canary/file
	mkdir -p base/.singularity.d
	ln -s "$PWD/canary" base/out
	ln -s "$PWD/canary/file" base/file
	ln -s "$PWD/canary" base/.singularity.d/env
	ln -s "$PWD/canary/file" base/.singularity.d/runscript
	ln -s "$PWD/canary/file" base/.post.script
	ln -s ../../../../../../../../.. base/up
	echo new >new
	base_and "
%files
    new /file
    new /../../../../..$PWD/canary/other
    new /up$PWD/canary/third
%runscript
    true
%post
    true"
	run as_user coracle build x.sif x.def
	[[ $status == 0 || $output == *'.singularity.d/env'* ]]
	rm base/.singularity.d/env
	as_user coracle build --force x.sif x.def
	[[ $(ls -A canary) == file && $(cat canary/file) == untouched ]]
	[[ $(inside x.sif file) == new && $(inside x.sif "${PWD#/}/canary/third") == new ]]
	base_and '
%files
    new /out/new'
	run as_user coracle build y.sif x.def
	[[ $(ls -A canary) == file && ! -e canary/new ]]
}

@test "%files from a stage are looked up in that stage only" {
	small_tree base
	mkdir base/data
	echo stage >base/data/file
	echo host >file
	ln -s "$PWD/file" base/data/abroad
	ln -s file base/data/link
	printf '%s\n' 'Bootstrap: localimage' 'From: base' 'Stage: one' \
		'Bootstrap: scratch' '%files from one' '/data' '/bin' >x.def
	as_user coracle build x.sif x.def
	[[ $(inside x.sif data/file) == stage ]]
	run unsquashfs -o "$(root_at x.sif)" -lls x.sif
	[[ $output == *'/data/link -> file'* && $output == *"/data/abroad -> $PWD/file"* ]]
	printf '%s\n' 'Bootstrap: localimage' 'From: base' 'Stage: one' \
		'Bootstrap: scratch' '%files from one' '/data/abroad' >x.def
	run as_user coracle build y.sif x.def
	[[ $status == 1 && $output == *'x.def:6: '*'no such file'* && $output != *host* ]]
}

@test "apps are made as Apptainer makes them" {
	base_and '
%appinstall one
    echo "$SCIF_APPNAME" >installed
%apprun one
    echo run
%appenv one
    export X=1
%applabels one
    L v
%apphelp one
    helps'
	as_user coracle build x.sif x.def
	[[ $(inside x.sif scif/apps/one/installed) == one ]]
	[[ $(inside x.sif scif/apps/one/scif/runscript) == '#!/bin/sh'*'echo run' ]]
	[[ $(inside x.sif scif/apps/one/scif/labels.json) == *'"L":"v"'* ]]
	[[ $(inside x.sif .singularity.d/env/94-appsbase.sh) == *SCIF_APPRUN_one=/scif/apps/one/scif/runscript* ]]
}

@test "a definition that makes no sense is refused with its line, and nothing is run" {
	base_and '
%setup
    touch canary'
	run as_user coracle build x.sif x.def
	[[ $status == 1 && $output == *'coracle: x.def:4: %setup runs commands on this machine'*'[build]'* ]]
	[[ ! -e canary && ! -e x.sif ]]
	base_and '
%posts
    true'
	run as_user coracle build x.sif x.def
	[[ $status == 1 && $output == *'coracle: x.def:4: there is no section %posts: '*'[build]'* ]]
	printf 'Bootstrap: yum\nFrom: x\n' >x.def
	run as_user coracle build x.sif x.def
	[[ $status == 1 && $output == *'coracle: x.def:1: Bootstrap: yum is not done here: '*'[build]'* ]]
	base_and '
%post
    echo {{ NAME }}'
	run as_user coracle build x.sif x.def
	[[ $status == 1 && $output == *'coracle: x.def:5: {{ NAME }} has no value [build]'*'--build-arg NAME=VALUE'* ]]
	run as_user coracle build --build-arg NAME=1 --build-arg OTHER=2 x.sif x.def
	[[ $status == 2 && $output == *'--build-arg OTHER: the definition has no {{ OTHER }} [usage]'* ]]
	base_and '
%files
    /no/such/file'
	run as_user coracle build x.sif x.def
	[[ $status == 1 && $output == *'coracle: x.def:5: /no/such/file: there is no such file [build]'* ]]
}

# Builds a Debian with packages as somebody, into a list of its files.
debian_of() { # NAME
	local mirror
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | sed -n 1p)
	if [[ -z $mirror ]] || ! wget --quiet --timeout=60 --tries=2 --output-document=/dev/null "${mirror%/}/dists/bookworm/Release"; then
		[[ -z ${CORACLE_MUST_WORK:-} ]] || { echo 'no mirror of Debian answers'; return 1; }
		skip 'no mirror of Debian answers'
	fi
	cat >debian.def <<-EOF
		Bootstrap: debootstrap
		OSVersion: bookworm
		MirrorURL: $mirror

		%post
		    apt-get update
		    apt-get install -y --no-install-recommends hello openssh-client
		    apt-get clean
		    rm -rf /var/lib/apt/lists/*

		%test
		    hello
	EOF
	runs_as "$1" coracle build debian.sif debian.def >log 2>&1 || { tail -20 log; return 1; }
	grep -q 'Hello, world!' log
	unsquashfs -o "$(root_at debian.sif)" -lln debian.sif >list
	inside debian.sif var/lib/dpkg/status >status
	grep -q 'Package: hello' status
}

@test "debootstrap, and packages installed in %post, for root" {
	debian_of root
	# _ssh is a group of its own, where there are groups.
	grep -q ' 0/[1-9][0-9]* .*/usr/bin/ssh-agent' list
}

@test "debootstrap, and packages installed in %post, for a user with a range of ids" {
	debian_of ranged
	grep -q ' 0/[1-9][0-9]* .*/usr/bin/ssh-agent' list
}

@test "debootstrap, and packages installed in %post, for a user with one id" {
	debian_of user
	grep -q ' 0/0 .*/usr/bin/ssh-agent' list
}
