# coracle run, exec and shell by somebody who is not root, in a user namespace of his own.
bats_require_minimum_version 1.5.0
load support

no_squashfuse() { ! pgrep -x squashfuse_ll >/dev/null; }

# The process has left our user namespace.
elsewhere() { # PID
	[[ $(readlink "/proc/$1/ns/user") != "$(readlink /proc/self/ns/user)" ]]
}

# An image with an entry point, a root-only file and a directory of everybody's.
with_entrypoint() { # NAME
	cp -a "$IMG/tree" "$dir/made"
	mkdir "$dir/made/.singularity.d"
	printf '#!/bin/sh\necho entry "$@"\nexit 9\n' >"$dir/made/.singularity.d/runscript"
	echo secret >"$dir/made/secret"
	chmod 755 "$dir/made/.singularity.d/runscript"
	mksquashfs "$dir/made" "$dir/$1" -noappend -quiet -no-progress -all-root -p 'secret m 600 0 0' >/dev/null
	rm -rf "$dir/made"
}

@test "a command runs in the image as its user, with no rights and no processes of ours" {
	good coracle exec "$busybox" sh -c 'cat /etc/image-only; id -u; grep -E "^(Cap...|NoNewPrivs):" /proc/self/status; pwd'
	has_line "$MARK"
	has_line 2001
	[[ $(grep -c '^Cap...:	0000000000000000$' <<<"$output") == 5 ]] || fail "$output"
	has_line 'NoNewPrivs:	1'
	has_line "$dir"
	good coracle exec "$busybox" sh -c 'for file in /proc/[0-9]*/stat; do read -r pid name state parent rest <$file 2>/dev/null && [ "$parent" = $$ ] && echo "child $pid $name $state"; done; echo end'
	prints end
	eventually no_squashfuse
	healthy
}

@test "squashfuse_ll is init's, and ends with the command, however that ends" {
	alice coracle exec "$busybox" sh -c "echo \$\$ >$dir/pid; exec /bin/sleep 60" 3>&- &
	eventually test -s pid
	local server
	server=$(pgrep -x squashfuse_ll)
	[[ $(stat -c %U "/proc/$server") == alice ]]
	grep -qx 'PPid:	1' "/proc/$server/status"
	grep -qx 'CapEff:	0000000000000000' "/proc/$server/status"
	! pgrep -x "$PROGRAMS" >/dev/null || fail 'a launcher runs'
	kill -KILL "$(<pid)"
	eventually no_squashfuse
}

@test "SIF and squashfs of every compression, and directories; erofs and ext3 are root's" {
	local image
	for image in "$IMG"/busybox-*.sif "$IMG/busybox-zstd.sqsh" "$IMG/tree" "$IMG/overlay.sif"; do
		good coracle exec "$image" cat /etc/image-only
		has "$MARK"
	done
	run alice coracle exec "$IMG/busybox.erofs" true
	((status == 125))
	[[ ${lines[0]} == "coracle: $IMG/busybox.erofs: an erofs, which only root can mount [policy]" ]] || fail "$output"
	run alice coracle exec "$IMG/overlay-ext3.sif" true
	((status == 125))
	[[ ${lines[0]} == "coracle: $IMG/overlay-ext3.sif: its overlay partition is an ext3, which only root can mount [policy]" ]] || fail "$output"
}

@test "exit statuses are the command's, and 125 to 127 as everywhere" {
	run alice coracle exec "$busybox" sh -c 'exit 7'
	((status == 7))
	run alice coracle exec "$busybox" sh -c 'kill -TERM $$'
	((status == 143))
	run -127 alice coracle exec "$busybox" coracle-no-such-command
	has 'coracle: coracle-no-such-command: '
	run -126 alice coracle exec "$busybox" /etc/image-only
	run -125 alice coracle exec /no/such.sif true
	[[ ${lines[0]} == 'coracle: /no/such.sif: no such file on this node [image-missing]' ]] || fail "$output"
	run -125 alice coracle exec --no-such-option "$busybox" true
	run -125 alice coracle exec "$busybox"
	run -125 alice coracle run --no-such-option "$busybox"
	install -o bob -m 600 "$busybox" bobs.sif
	run -125 alice coracle exec "$dir/bobs.sif" true
	has '[image-unreadable]'
	run -125 alice coracle exec --user bob "$busybox" true
	[[ ${lines[0]} == 'coracle: --user: only root can be somebody else [usage]' ]] || fail "$output"
}

@test "binds, from the command line and from Apptainer's variables" {
	install -d -o alice a b c
	touch a/in-a b/in-b c/in-c
	chown alice a/in-a
	good env APPTAINER_BIND="$dir/b:/mnt/b,$dir/a:/mnt/a" SINGULARITY_BIND="$dir/c:/mnt/c" \
		coracle exec -B "$dir/a:/mnt/a" --bind "$dir/a:/mnt/ro:ro" "$busybox" sh -c 'ls -1 /mnt/a /mnt/b /mnt/c; touch /mnt/a/new; touch /mnt/ro/new2 2>/dev/null || echo read-only'
	has_line in-a
	has_line in-b
	has_line in-c
	has_line read-only
	[[ -e a/new && ! -e a/new2 ]]
	good env APPTAINER_BIND="$dir/a:/mnt/b" coracle exec -B "$dir/b:/mnt/b" "$busybox" ls -1 /mnt/b
	[[ $(ls -1 b) == "$output" ]] || fail "$output"
	good env APPTAINER_BIND="$dir/a:/mnt/b" coracle exec -B none "$busybox" sh -c 'test ! -e /mnt/b && echo none'
	prints none
	run -125 alice coracle exec -B /no/such:/mnt "$busybox" true
	[[ ${lines[0]} == 'coracle: /no/such: does not exist on this node [bind]' ]] || fail "$output"
	run -125 alice coracle exec -B "$dir/a:/proc/x" "$busybox" true
	has '[bind]'
	good coracle exec -B tmpfs:/mnt/x:1m "$busybox" sh -c 'echo word >/mnt/x/f && cat /mnt/x/f'
	prints word
}

@test "Apptainer's variables that are not read are told of, once, and not to jobs" {
	local note="coracle: note: not read: APPTAINER_CONTAIN, SINGULARITY_PWD; of Apptainer's variables only APPTAINER_BIND, APPTAINER_BINDPATH and APPTAINERENV_NAME count, and the options of coracle exec --help"
	local -a set=(APPTAINER_CONTAIN=1 SINGULARITY_PWD=/opt APPTAINER_CACHEDIR=/c APPTAINER_WRITABLE=false APPTAINER_NAME=x.sif APPTAINERENV_A=1)
	good env "${set[@]}" coracle exec "$busybox" echo ran
	prints "$note"$'\n'ran
	good env "${set[@]}" coracle run "$IMG/sourcing.sif" echo ran
	[[ $(grep -cxF "$note" <<<"$output") == 1 ]] || fail "$output"
	good env "${set[@]}" srun -n1 --container="$busybox" echo ran
	prints ran
	good env "${set[@]:2}" coracle exec "$busybox" echo ran
	prints ran
}

@test "Apptainer's words: --pwd, --cwd, --env, -e, --no-home, -s, -q, --nv, --rocm" {
	good coracle -s exec --pwd /etc "$busybox" sh -c 'pwd; echo $PWD'
	prints $'/etc\n/etc'
	good coracle exec -q --cwd /etc "$busybox" pwd
	prints /etc
	good env OUTER=1 coracle exec --env A=1,B=2 --env C=3 "$busybox" sh -c 'echo $A$B$C$OUTER'
	prints 1231
	good env OUTER=1 APPTAINERENV_X=5 coracle exec -e --env A=1 "$busybox" sh -c 'echo "$A<$OUTER>$X"'
	prints '1<>5'
	good coracle exec --cleanenv --nv --rocm "$busybox" sh -c 'echo $HOME'
	prints /home/alice
	good coracle exec "$busybox" test -d /home/alice
	run alice coracle exec --no-home "$busybox" test -d /home/alice
	((status == 1)) || fail "$output"
	good env -u HOME coracle exec "$busybox" sh -c 'echo $HOME'
	prints /home/alice
}

@test "what is written goes to memory, and never to the image" {
	local before
	before=$(sha256sum <"$busybox")
	good coracle exec --writable-tmpfs "$busybox" sh -c 'echo new >/new && cat /new && mkdir /directory && rmdir /directory'
	prints new
	run alice coracle exec "$busybox" sh -c 'echo new >/new'
	((status != 0))
	has 'Read-only file system'
	[[ $before == "$(sha256sum <"$busybox")" ]]
}

@test "--mount of Apptainer and docker is a bind" {
	mkdir -m 777 a 'b,c'
	touch a/one 'b,c/two'
	good coracle exec --mount "type=bind,source=$dir/a,destination=/mnt/a,ro" \
		--mount "type=bind,\"src=$dir/b,c\",dst=/mnt/b" --mount type=tmpfs,target=/mnt/t,tmpfs-size=1m "$busybox" \
		sh -c 'ls /mnt/a /mnt/b; touch /mnt/b/new /mnt/t/new; touch /mnt/a/new 2>/dev/null || echo read-only'
	prints $'/mnt/a:\none\n\n/mnt/b:\ntwo\nread-only'
	[[ -e b,c/new ]]
	run -125 alice coracle exec --mount "source=$dir/a,destination=/mnt" "$busybox" true
	has "--mount <type=bind,source=SRC,destination=DST[,ro]>': type is missing: type=bind is wanted"
	run -125 alice coracle run --mount "type=bind,source=$dir/a" "$busybox" true
	has 'destination is missing'
	run -125 alice coracle shell --mount "type=bind,source=$dir/a,destination=/mnt,bind-propagation=shared" "$busybox"
	has 'bind-propagation is not known here'
	run -125 alice coracle exec --mount "type=bind,source=$dir/a,destination=mnt" "$busybox" true
	[[ ${lines[0]} == 'coracle: mnt: a path inside the container must be absolute and have no . or .. in it [usage]' ]] || fail "$output"
}

@test "everything behind the image belongs to the image" {
	with_entrypoint e.sqsh
	local words
	for words in --help -h --version '-B /x' '-s x' -q -- '-- --help' '--no-such' '--user root' '--bind=/x --writable'; do
		# shellcheck disable=SC2086
		run alice coracle run "$dir/e.sqsh" $words
		((status == 9)) && prints "entry $words" || fail "run IMAGE $words" "$output" || return
		# shellcheck disable=SC2086
		good coracle exec --clean-env "$busybox" /bin/echo word $words
		prints "word $words" || fail "exec IMAGE echo word $words" || return
	done
	run alice coracle -s run -q -- "$dir/e.sqsh" -s --silent
	((status == 9)) && prints 'entry -s --silent'
	good coracle exec --writable "$busybox" sh -c 'echo "$0 $*"' -c --plan --job=1
	prints '-c --plan --job=1'
	good coracle shell "$dir/e.sqsh" -c 'echo "$0 $*"; cat /etc/image-only' -h --help -B
	prints $'-h --help -B\n'"$MARK"
	run -127 alice coracle exec "$busybox" --plan true
	[[ ${lines[0]} == 'coracle: --plan: no such command in the container [usage]' ]] || fail "$output"
	[[ ${lines[1]} == 'coracle: hint: options stand in front of the image: coracle exec [OPTIONS] IMAGE COMMAND…' ]] || fail "$output"
	run -125 alice coracle run --no-such "$dir/e.sqsh"
	has "unexpected argument '--no-such'"
	good coracle run --help "$dir/e.sqsh"
	has 'Usage: coracle run'
}

@test "run starts the entry point; exec and shell do not" {
	with_entrypoint e.sqsh
	run alice coracle run "$dir/e.sqsh"
	((status == 9)) && prints entry
	run alice coracle run "$dir/e.sqsh" a 'b c' -d
	((status == 9)) && prints 'entry a b c -d'
	good coracle exec "$dir/e.sqsh" echo exec
	prints exec
	run alice coracle exec --entrypoint "$dir/e.sqsh" x
	((status == 9)) && prints 'entry x'
	good coracle shell "$dir/e.sqsh" <<<'echo shell; cat /etc/image-only'
	prints $'shell\n'"$MARK"
	run -125 alice coracle run "$busybox"
	[[ ${lines[0]} == "coracle: $busybox: the image has no entry point [usage]" ]] || fail "$output"
	good coracle run "$busybox" echo word
	prints word
	# What is root's in the image is its user's.
	good coracle exec "$dir/e.sqsh" cat /secret
	prints secret
}

@test "the site's binds and options count, and its policy on images is for jobs" {
	mkdir -m 755 /opt/site
	configure $'version: 1\nuser_images: deny\nbinds:\n- source: /opt/site\n  target: /mnt/site\noptions:\n  env: SITE=1'
	run alice coracle exec "$busybox" sh -c 'test -d /mnt/site && echo $SITE'
	rmdir /opt/site
	((status == 0)) || fail "$output"
	prints 1
	configure $'version: 1\nno_such_key: 1'
	run -125 alice coracle exec "$busybox" true
	has '[config]'
	configure $'version: 1\noptions:\n  env: SITE=1'
	chmod 600 /etc/coracle/coracle.yaml
	good coracle exec "$busybox" sh -c 'echo "<$SITE>"'
	prints '<>'
}

@test "in a job on the node, and by root and by a user at once" {
	good srun -N2 -n4 coracle exec "$busybox" cat /etc/image-only
	[[ $(grep -cx "$MARK" <<<"$output") == 4 ]] || fail "$output"
	run coracle exec "$busybox" cat /etc/image-only
	prints "$MARK"
}

@test "a node without user namespaces is named with its switch" {
	# The limit is one of each user namespace: the machine's is not changed.
	mkfifo go
	# It gets its rights there with the first program that it starts as the root that it is then.
	unshare --user bash -c "read -r <go; exec bash -c 'echo 0 >/proc/sys/user/max_user_namespaces &&
		exec setpriv --reuid 2001 --regid 2001 --clear-groups coracle exec $busybox true'" >out 2>&1 3>&- &
	local unshared=$! status=0
	eventually elsewhere $unshared
	echo '0 0 65536' >"/proc/$unshared/uid_map"
	echo '0 0 65536' >"/proc/$unshared/gid_map"
	echo >go
	wait $unshared || status=$?
	((status == 125)) || fail "status $status" "$(<out)"
	run cat out
	[[ ${lines[0]} == 'coracle: user namespace: this node allows you none: sysctl user.max_user_namespaces is 0 [system]' ]] || fail "$output"
	[[ ${lines[1]} == 'coracle: hint: in a job, srun --container=IMAGE does without' ]] || fail "$output"
}

@test "in a chroot, where the kernel makes none, that is said" {
	run -125 unshare --mount sh -c "mount --rbind / /mnt && exec chroot --userspec=2001:2001 /mnt coracle exec $busybox true"
	[[ ${lines[0]} == 'coracle: user namespace: '*chroot*'EPERM'*'[system]' ]] || fail "$output"
}

@test "without FUSE or squashfuse_ll, what is missing is said" {
	chmod 600 /dev/fuse
	run -125 alice coracle exec "$busybox" true
	chmod 666 /dev/fuse
	[[ ${lines[0]} == *"/dev/fuse"*'EACCES'*'[system]' ]] || fail "$output"
	configure $'version: 1\nsquashfuse: /no/such'
	run -125 alice coracle exec "$busybox" true
	[[ ${lines[0]} == 'coracle: /no/such: not found on this node, and whoever is not root needs it [system]' ]] || fail "$output"
	good coracle exec "$IMG/tree" cat /etc/image-only
	prints "$MARK"
}

@test "a squashfuse_ll that hangs or dies ends the start and leaves nothing" {
	install -d /opt/fuse
	printf '#!/bin/sh\nexec sleep 100\n' >/opt/fuse/squashfuse_ll
	chmod 755 /opt/fuse/squashfuse_ll
	configure $'version: 1\nsquashfuse: /opt/fuse/squashfuse_ll\nstart_timeout: 1'
	run -125 alice coracle exec "$busybox" true
	[[ ${lines[0]} == "coracle: $busybox: squashfuse_ll, which reads it as you, did not answer in time [timeout]" ]] || fail "$output"
	eventually no_tasks
	printf '#!/bin/sh\nexit 1\n' >/opt/fuse/squashfuse_ll
	run -125 alice coracle exec "$busybox" true
	[[ ${lines[0]} == "coracle: $busybox: squashfuse_ll, which reads it as you, has ended [image-format]" ]] || fail "$output"
	rm -r /opt/fuse
	healthy
}
