# What the tests of this directory share.

# A directory for each test, which user and ranged may write to.
setup() {
	settle
}

settle() {
	umask 022
	unset SOURCE_DATE_EPOCH
	cd "$BATS_TEST_TMPDIR" || return
	{ chmod 1777 . && chmod 755 "$BATS_RUN_TMPDIR" "$BATS_FILE_TMPDIR" "$BATS_SUITE_TMPDIR" "$BATS_RUN_TMPDIR"/test 2>/dev/null; } || true
}

# Nothing of ours may be left in /tmp, nor a file that says that it is not finished.
teardown() {
	nothing_left
}

nothing_left() {
	local left
	left=$(find /tmp "$BATS_TEST_TMPDIR" -maxdepth 1 \( -name 'coracle-*' -o -name '.*unfinished*' \) 2>/dev/null)
	[[ -z $left ]] || { echo "left behind: $left"; return 1; }
}

as_user() { # COMMAND...
	runs_as user "$@"
}

as_ranged() { # COMMAND...
	runs_as ranged "$@"
}

runs_as() { # NAME COMMAND...
	local name=$1
	shift
	setpriv --reuid "$name" --regid "$name" --init-groups \
		env "HOME=$CORACLE_SCRATCH/home/$name" "USER=$name" "$@"
}

# A user in a namespace in which there can be no further one, as himself and without capabilities.
as_plain_user() { # COMMAND...
	as_user unshare --user --map-current-user --keep-caps sh -c '
		echo 0 >/proc/sys/user/max_user_namespaces
		exec setpriv --ambient-caps=-all --inh-caps=-all "$@"' sh "$@"
}

# A small tree: a static busybox, and what people look at.
small_tree() { # DIRECTORY
	mkdir -p "$1"
	cp -a "$CORACLE_IMAGES/tree/." "$1"
}
