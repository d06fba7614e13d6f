# Definition files: what they say, and what becomes of it.
bats_require_minimum_version 1.5.0
load making
load registry

# The directory of small_tree, as the image "base", and a definition made of it.
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

@test "%files: patterns, directories, links, and names with blanks" {
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

@test "%files: a comment may stand behind the names, and # within a name or in quotation marks is none" {
	local name
	for name in f 'f#g' '# odd'; do echo "of $name" >"$name"; done
	base_and '
%files
    f /f   # why
    f      # also without a second name, which is that of the first
    f#g /a#b #and why not
    "# odd" "/# too"	# a tab in front
    # nothing but a comment'
	as_user coracle build x.sif x.def
	[[ $(inside x.sif f) == 'of f' && $(inside x.sif 'a#b') == 'of f#g' && $(inside x.sif '# too') == 'of # odd' ]]
	base_and '
%files
    f /f and more   # why'
	run as_user coracle build y.sif x.def
	[[ $status == 1 && $output == *'coracle: x.def:5: '*'more than two names'*'[build]'* && ! -e y.sif ]] || { echo "$output"; return 1; }
	base_and '
%files
    "f /f   # why'
	run as_user coracle build y.sif x.def
	[[ $status == 1 && $output == *'coracle: x.def:5: '*'[build]'* && ! -e y.sif ]] || { echo "$output"; return 1; }
}

@test "%post and %test find the system's programs behind the PATH of the image, which comes first" {
	local path wanted
	for path in PATH=/opt/app/bin PATH=/opt/app/bin:/bin PATH= PATH=/usr/bin:/opt/app/bin: none; do
		rm -rf layout x.sif
		mkdir -p top/opt/app/bin top/usr/local/bin
		cp -a "$CORACLE_IMAGES/tree/." top
		printf '#!/bin/sh\necho of the image\n' >top/opt/app/bin/tool
		printf '#!/bin/sh\necho of the system\n' >top/usr/local/bin/tool
		chmod 755 top/opt/app/bin/tool top/usr/local/bin/tool
		echo '{"Env": ["'"${path/#none/A=b}"'"], "Cmd": ["/bin/sh"]}' >config
		python3 "$BATS_TEST_DIRNAME/registry_layout.py" --config config layout 1 "$here:top"
		printf '%s\n' 'Bootstrap: oci' 'From: layout:1' '%post' '    echo "$PATH" >/path' '    tool >/told' '    expr 1 + 1' \
			'%test' '    echo "test: $PATH"' '    cat /path' >x.def
		run as_user coracle build x.sif x.def
		[[ $status == 0 ]] || { echo "$path: $output"; return 1; }
		case $path in
		PATH=/opt/app/bin) wanted=/opt/app/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin ;;
		PATH=/opt/app/bin:/bin) wanted=/opt/app/bin:/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin ;;
		*) wanted= ;;
		esac
		[[ -z $wanted || ( $(inside x.sif path) == "$wanted" && $output == *"test: $wanted"* ) ]] || { inside x.sif path; echo "$output"; return 1; }
		[[ $(inside x.sif told) == "of the $([[ $path == *app* ]] && echo image || echo system)" ]]
		# A job and a person have the same.
		run coracle exec --config "$BATS_TEST_DIRNAME/../../slurm-conf-examples/coracle.yaml" "$PWD/x.sif" sh -c 'echo "$PATH"; cat /etc/image-only'
		[[ $status == 0 && ( -z $wanted || ${lines[0]} == "$wanted" ) ]] || { echo "$path: $output"; return 1; }
	done
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

@test "values of --build-arg may be longer together than one argument may be" {
	# One string of a command line is at most 128 KiB (execve(2)).
	local long
	long=$(printf 'x%.0s' {1..100000})
	base_and '
%labels
    One {{ ONE }}
    Two {{ TWO }}'
	as_user coracle build --build-arg "ONE=$long" --build-arg "TWO=$long" x.sif x.def
	[[ $(inside x.sif .singularity.d/labels.json) == *"\"One\":\"$long\""*"\"Two\":\"$long\""* ]]
}

# An image of the tree with a run script, labels and variables, in every form that Bootstrap: takes.
setup_file() {
	local directory=$BATS_FILE_TMPDIR/forms
	chmod 755 "$BATS_RUN_TMPDIR" "$BATS_FILE_TMPDIR"
	mkdir -p "$directory"
	cp -a "$CORACLE_IMAGES/tree" "$directory/tree"
	chmod 755 "$directory" "$directory/tree"
	echo '{"Env": ["PATH=/bin", "FROM_IMAGE=yes"], "Cmd": ["/bin/busybox", "echo", "of the image"], "Labels": {"Old": "kept"}}' \
		>"$directory/config"
	python3 "$BATS_TEST_DIRNAME/registry_layout.py" --config "$directory/config" "$directory/layout" 1 "$here:$directory/tree"
	skopeo --insecure-policy copy --quiet "oci:$directory/layout:1" "docker-archive:$directory/docker.tar:lab/box:1"
	skopeo --insecure-policy copy --quiet "oci:$directory/layout:1" "oci-archive:$directory/oci.tar:1"
	coracle build "$directory/box.sif" "oci:$directory/layout:1"
	mksquashfs "$directory/tree" "$directory/box.sqsh" -all-root -quiet -no-progress >/dev/null
	tar -C "$directory/tree" -czf "$directory/tree.tar.gz" .
	chmod -R a+rX "$directory"
	start_registry "$directory/registry"
	echo "$registry_pid" >"$directory/pid"
	export registry forms=$directory
	# A proxy, which Debian may need, has no business with it.
	export no_proxy="127.0.0.1${no_proxy:+,$no_proxy}" NO_PROXY="127.0.0.1${NO_PROXY:+,$NO_PROXY}"
	skopeo --insecure-policy copy --quiet --dest-tls-verify=false "oci:$directory/layout:1" "docker://$registry/lab/box:1"
}

teardown_file() {
	kill "$(<"$BATS_FILE_TMPDIR/forms/pid")"
}

# What a definition makes of a base, for root and for a user: the image's own is there, %post has seen its variables, and
# the definition's comes on top. Bases that are no OCI images bring neither labels nor variables.
builds_upon() { # HEADER... [-- OPTION...]
	local who header=() brought=yes
	while (($#)) && [[ $1 != -- ]]; do
		header+=("$1")
		shift
	done
	[[ ${1-} != -- ]] || shift
	[[ "${header[*]}" != *box.sqsh* && "${header[*]}" != *tree* ]] || brought=no
	printf '%s\n' "${header[@]}" '%post' '    echo "from image: ${FROM_IMAGE:-no}" >/seen' '%labels' '    New label' >base.def
	for who in root user; do
		rm -f "$who.sif"
		export CORACLE_CACHEDIR=$PWD/cache-$who
		if [[ $who == root ]]; then
			coracle build "$@" root.sif base.def
		else
			as_user coracle build "$@" user.sif base.def
		fi
		[[ $(inside "$who.sif" seen) == "from image: $brought" ]]
		[[ $(inside "$who.sif" etc/image-only) == "$(<"$CORACLE_IMAGES/tree/etc/image-only")" ]]
		[[ $(inside "$who.sif" .singularity.d/labels.json) == *'"New":"label"'* ]]
		[[ $(inside "$who.sif" .singularity.d/Singularity) == "$(<base.def)" ]]
		[[ $brought == no ]] || {
			[[ $(inside "$who.sif" .singularity.d/labels.json) == *'"Old":"kept"'* ]]
			[[ $(inside "$who.sif" .singularity.d/runscript) == *'of the image'* ]]
			[[ $(inside "$who.sif" .singularity.d/env/10-docker2singularity.sh) == *FROM_IMAGE* ]]
		}
	done
}

@test "Bootstrap: docker, with the registry in From: or beside it" {
	builds_upon 'Bootstrap: docker' "From: $registry/lab/box:1" -- --plain-http
	builds_upon 'Bootstrap: docker' "Registry: $registry" 'Namespace: lab' 'From: box:1' -- --plain-http
	printf '%s\n' 'Bootstrap: docker' "From: $registry/lab/none:1" >none.def
	run as_user coracle build --plain-http none.sif none.def
	[[ $status == 1 && $output == *"$registry/lab/none:1: "*' has no such image (404): '*'[registry]'* && ! -e none.sif ]] || { echo "$output"; return 1; }
}

@test "Bootstrap: oci, oci-archive and docker-archive" {
	builds_upon 'Bootstrap: oci' "From: $forms/layout:1"
	builds_upon 'Bootstrap: oci-archive' "From: $forms/oci.tar:1"
	builds_upon 'Bootstrap: docker-archive' "From: $forms/docker.tar"
	printf '%s\n' 'Bootstrap: oci' "From: $forms/layout:2" >none.def
	run as_user coracle build none.sif none.def
	[[ $status == 1 && $output == *'no image "2" is in it [image-missing]'* && ! -e none.sif ]]
}

@test "Bootstrap: localimage of a SIF, a squashfs, a directory and a tar file" {
	builds_upon 'Bootstrap: localimage' "From: $forms/box.sif"
	builds_upon 'Bootstrap: localimage' "From: $forms/box.sqsh"
	builds_upon 'Bootstrap: localimage' "From: $forms/tree"
	builds_upon 'Bootstrap: localimage' "From: $forms/tree.tar.gz"
	printf '%s\n' 'Bootstrap: localimage' 'From: base.def' >none.def
	run as_user coracle build none.sif none.def
	[[ $status == 1 && $output == *'none.def:2: base.def is a definition file: build it first [build]'* && ! -e none.sif ]]
}

# A user in another root directory, which is this one: where the kernel gives no user namespaces (unshare(2), EPERM).
as_enclosed_user() { # COMMAND...
	unshare --mount --propagation private sh -c '
		mount --rbind / /mnt
		exec chroot /mnt setpriv --reuid user --regid user --init-groups sh -c "cd \"\$0\" && exec \"\$@\"" "$PWD" "$@"' sh \
		env "HOME=$CORACLE_SCRATCH/home/user" USER=user "$@"
}

@test "without user namespaces, commands are refused, and all else is built" {
	local header name
	export CORACLE_CACHEDIR=$PWD/cache SOURCE_DATE_EPOCH=1700000000
	echo text >file
	for header in "docker $registry/lab/box:1" "oci $forms/layout:1" "oci-archive $forms/oci.tar:1" \
		"docker-archive $forms/docker.tar" "localimage $forms/box.sif" "localimage $forms/box.sqsh" \
		"localimage $forms/tree" "localimage $forms/tree.tar.gz" 'scratch -'; do
		printf '%s\n' "Bootstrap: ${header% *}" "From: ${header#* }" '%files' '    file /put' '%labels' '    New label' >x.def
		rm -rf ./*.sif
		as_enclosed_user coracle build --plain-http own.sif x.def
		[[ $(inside own.sif put) == text && $(inside own.sif .singularity.d/labels.json) == *'"New":"label"'* ]]
		unsquashfs -o "$(root_at own.sif)" -lln own.sif | grep squashfs-root >list
		run -1 grep -v ' 0/0 ' list
		as_user coracle build --plain-http user.sif x.def
		cmp own.sif user.sif
	done
	for name in post test appinstall\ one; do
		base_and "
%$name
    touch /canary"
		run as_enclosed_user coracle build x.sif x.def
		[[ $status == 1 && ! -e x.sif ]]
		[[ $output == *'coracle: user namespace: this machine allows you none: unshare(CLONE_NEWUSER): '*'[system]'* ]]
		[[ $output == *'hint: what runs commands in the image needs one: build on a machine that has them, or as root'* ]]
	done
	printf '%s\n' 'Bootstrap: debootstrap' 'OSVersion: bookworm' 'MirrorURL: http://127.0.0.1:1/' >x.def
	run as_enclosed_user coracle build x.sif x.def
	[[ $status == 1 && ! -e x.sif && $output == *'user namespace: this machine allows you none'* ]]
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

@test "%post finds no way out by the processes that it sees, and changes nothing of the kernel, not even for root" {
	local who
	small_tree base
	mkdir -m 777 host
	echo canary >host/canary
	chmod 666 host/canary
	cat >x.def <<-DEF
		Bootstrap: localimage
		From: base
		%post
		for process in /proc/[0-9]*; do
			if cat "\$process/root$PWD/host/canary"; then echo "OUT by \$process/root"; fi
			if ls "\$process/cwd/host"; then echo "OUT by \$process/cwd"; fi
			for file in "\$process"/fd/*; do
				if ls "\$file/host"; then echo "OUT by \$file"; fi
			done
		done
		for file in kernel/core_pattern vm/drop_caches; do
			if (exec 3>>/proc/sys/\$file); then echo "WRITES \$file"; fi
		done
		if mount -o remount,rw /proc/sys; then echo MOUNTS; fi
		if unshare -U -r mount -t proc proc /proc; then echo MOUNTS; fi
		echo "to the end"
	DEF
	for who in root user ranged; do
		rm -f x.sif
		if [[ $who == root ]]; then run coracle build x.sif x.def; else run "as_$who" coracle build x.sif x.def; fi
		[[ $status == 0 && $output == *'to the end'* ]]
		run ! grep -E '^(OUT|WRITES|MOUNTS)' <<<"$output"
	done
	[[ $(<host/canary) == canary ]]
}
