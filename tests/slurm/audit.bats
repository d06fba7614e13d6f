# The record of each step and node: in the site's file, in the log, in the job's comment, and what coracle log makes of it.
load support

file=/var/lib/coracle/audit.jsonl

setup_file() {
	mkdir -p /var/lib/coracle
}

cleanup() {
	local pid
	for pid in ${listener:-} ${journald:-}; do
		{ kill -CONT "$pid"; kill "$pid"; wait "$pid"; } 2>/dev/null || true
	done
	listener='' journald=''
	! on-node n1 mountpoint -q /var/lib/coracle || on-node n1 umount /var/lib/coracle
	rm -rf /var/lib/coracle /opt/hanging /run/log/journal /run/systemd
	on-node n1 rm -f /dev/log
	mkdir -p /var/lib/coracle
}

recorded() { # MORE-KEYS-OF-AUDIT [MORE-LINES]
	configure $'version: 1\nuser_images: kernel\nbinds:\n- source: /scratch\n'"audit: {file: $file$1}"$'\n'"${2:-}"
}

# Runs Python over the records: `records` are they, `broken` how many lines are none.
records() { # PYTHON
	# In the locale C the terminal's encoding would be ASCII.
	PYTHONUTF8=1 python3 -c '
import json, sys
records, broken = [], 0
for line in open(sys.argv[1], "rb").read().split(b"\n"):
    if line:
        try:
            records.append(json.loads(line))
        except ValueError:
            broken += 1
records.sort(key=lambda record: (record["job"], record["step"], record["node"]))
'"$1" "$file"
}

count() { # RECORDS BROKEN
	[[ $(records 'print(len(records), broken)') == "$1 $2" ]]
}

# Each datagram to /dev/log of n1 becomes a line of $dir/log; $dir/log.raw has their bytes.
listen() {
	: >log
	on-node n1 perl -MSocket -e '
		unlink "/dev/log";
		socket(S, AF_UNIX, SOCK_DGRAM, 0) && bind(S, sockaddr_un("/dev/log")) or die "/dev/log: $!";
		chmod 0666, "/dev/log";
		open(my $out, ">>", $ARGV[0]) or die;
		$out->autoflush(1);
		while (defined(recv(S, my $text, 65536, 0))) { $text =~ s/\n/<LF>/g; print $out "$text\n"; }
	' "$dir/log" 3>&- &
	listener=$!
	eventually test -S /dev/log
}

logged() { # COUNT
	[[ $(wc -l <"$dir/log") == "$1" ]]
}

@test "three nodes of a step have a record each, and what it says is what Slurm, the file and the options say" {
	recorded '' $'options:\n  env: [SITES=secret]'
	mkdir data
	cp "$busybox" image.sif
	local hash before after job
	hash=sha256:$(sha256sum image.sif | cut -d' ' -f1)
	ln -s image.sif link.sif
	before=$(date -u +%FT%T)
	good srun -N3 -n5 --container=link.sif --container-digest="$hash" --container-bind="$dir/data:/mnt/data:ro,tmpfs:/x:1m" \
		--container-env=TOKEN=secret,KEPT --no-container-home sh -c 'echo $SLURM_JOB_ID.$SLURM_STEP_ID $(hostname)'
	after=$(date -u +%FT%T)
	job=${output%%.*}
	[[ $(grep -c "^$job\.0 n[123]$" <<<"$output") == 5 ]] || fail "$output"
	local facts
	facts=$(sort <<<"$output" | uniq -c | sed -E 's/ *([0-9]+) ([0-9]+)\.0 (n.)/\2 0 \3 \1/')
	[[ $(job_field "$job" UserId) == 'alice(2001)' && $(job_field "$job" NumNodes) == 3 ]]
	run records 'for r in records: print(r["job"], r["step"], r["node"], r["tasks"])'
	prints "$facts"
	run records 'for r in records: print(r["uid"], r["user"], r["nodes"], r["verdict"], r["image"], r["path"], r["digest"], r["signers"], r["rule"])'
	prints "$(for _ in 1 2 3; do echo "2001 alice 3 started link.sif $dir/image.sif $hash None user_images=kernel"; done)"
	run records 'for r in records: print(r["time"])'
	local time
	for time in "${lines[@]}"; do
		[[ $time =~ ^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$ ]] || fail "$time"
		[[ ! $time < $before && ! ${time%.*} > $after ]] || fail "$before $time $after"
	done
	run records 'r = records[0]
for b in r["binds"]: print(b["source"], b["target"], b["access"], b["origin"])
print(r["devices"], r["options"])'
	has_line '/scratch /scratch rw site'
	has_line "$dir/data /mnt/data ro user"
	has_line 'tmpfs /x rw user'
	has_line '/tmp /tmp rw system'
	has_line "['/dev', '/dev/pts'] {'digest': '$hash', 'env': 'SITES=,TOKEN=,KEPT', 'home': 'no'}"
	has_not '/home/alice'
	has_not '/proc'
	run records 'print(all(type(r["microseconds"][p]) is int and r["microseconds"][p] >= 0 for r in records for p in ("open", "judge", "mount", "plan", "build")))'
	prints True
	run grep secret "$file"
	((status == 1)) || fail "$output"
	[[ $(stat -c %a:%U:%G "$file") == 640:root:root ]]
}

@test "the binds of a record are the mounts that a task has" {
	recorded ''
	good srun -n2 -w n1 --container="$busybox" --container-bind=/etc/hostname:/mnt/name cat /proc/self/mountinfo
	cut -d' ' -f5 <<<"$output" | sort -u >mounted
	records 'for b in records[0]["binds"]: print(b["target"])' | sort >recorded
	# Besides there are the root, the kernel's, and the files that are made for each container.
	grep -vxE '/|/(proc|sys|dev)(/.*)?|/etc/(passwd|group)' mounted | diff - recorded
}

@test "job script, step, joined step and a step that the site leaves outside have a record each" {
	recorded ''
	job_script job.sh "srun -n1 --container=$busybox true; srun -n1 --overlap --container=step:batch true; srun -n1 --container=none true"
	batch -w n1 --container="$busybox" job.sh
	run records 'for r in records: print(r["job"], r["step"], r["verdict"], r["image"], r["path"], r.get("joins"), r["rule"], r["user"])'
	prints "$job 0 started $busybox $busybox None user_images=kernel alice
$job 1 started step:batch None batch step alice
$job batch started $busybox $busybox None user_images=kernel alice"
	rm "$file"
	recorded '' $'options:\n  scope: script'
	job_script job.sh 'srun -n1 true'
	batch -w n1 --container="$busybox" job.sh
	run records 'for r in records: print(r["job"], r["step"], r["verdict"], r.get("entered"))'
	prints "$job 0 outside None
$job batch started None"
}

@test "a refused step has a record with its cause, and so has one whose request nobody can read" {
	listen
	recorded ''
	nodes=2 refused image-missing '/no/such.sif' srun -N2 -n4 -w n1,n2 --container=/no/such.sif true
	run records 'for r in records: print(r["node"], r["verdict"], r["entered"], r["kind"], r["cause"], r["image"], r["path"], r["user"], r["rule"])'
	prints "n1 refused 0 image-missing /no/such.sif: no such file on this node /no/such.sif /no/such.sif alice None
n2 refused 0 image-missing /no/such.sif: no such file on this node /no/such.sif /no/such.sif alice None"
	rm "$file"
	recorded ', required: yes'
	run alice srun -n1 -w n1 --export='ALL,SLURM_CORACLE_REQUEST=2:image=relative' true
	((status != 0))
	run records 'for r in records: print(r["verdict"], r["kind"], r["image"], r["user"])'
	prints 'refused usage None alice'
	# Where the file is nobody knows yet.
	: >log
	configure $'version: 1\naudit: {path: /x}'
	refused config 'unknown field' srun -n1 -w n1 --container="$busybox" true
	eventually logged 1
	grep -q ' verdict=refused cause="coracle: /etc/coracle/coracle.yaml:2:' log || fail "$(<log)"
	count 1 0
}

@test "policy refuses: the record has the kind, and none of a started step" {
	configure $'version: 1\nuser_images: deny\n'"audit: {file: $file, required: yes}"
	refused policy '(user_images: deny)' srun -n4 -w n1 --container="$busybox" true
	run records 'for r in records: print(r["verdict"], r["kind"], r["rule"])'
	prints 'refused policy None'
}

@test "hostile names: ESC, line feed, CSI, bytes that are no text; a clean line in the file and in the log" {
	listen
	recorded ''
	local names=($'a\e[2J\n{"version":1}\nverdict=started b".sif' $'\xc2\x9b2J\u202e\u2028 x.sif' $'\xff\xfe.sif') name i=0
	for name in "${names[@]}"; do
		cp "$busybox" "$name"
		good srun -n1 -w n1 --container="$dir/$name" true || return
		run alice srun -n1 -w n1 --container="$dir/no$name" true
		((status != 0)) || fail "$output" || return
		((i += 2))
		eventually logged "$i" || return
		count "$i" 0 || fail "$(cat -v "$file")" || return
	done
	[[ $(wc -l <"$file") == 6 ]]
	# No control character of ASCII or of Unicode, and none that turns the text around.
	! LC_ALL=C grep -qP '[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xa8-\xae]|<LF>' "$file" log || fail "$(cat -v "$file" log)"
	run records 'import os
names = [os.path.basename(r["path"]) for r in records if r["verdict"] == "started"]
wanted = ["a\x1b[2J\n{\"version\":1}\nverdict=started b\".sif", "\x9b2J\u202e\u2028 x.sif", "\ufffd\ufffd.sif"]
print(sorted(names) == sorted(wanted) or names)'
	prints True
	run coracle log
	((status == 0))
	if LC_ALL=C grep -qP '\e|\xc2[\x80-\x9f]|\xe2\x80[\xa8-\xae]' <<<"$output"; then fail "$output"; fi
	[[ $(grep -cE '^2[0-9]{3}-.* (started|refused)$' <<<"$output") == 6 ]] || fail "$output"
}

@test "huge lists of options: one bounded line, and what there was no room for is counted" {
	recorded ''
	local i long list=/scratch:/x0 passed=A
	long=$(printf 'd%.0s' {1..90})
	mkdir -p "$long"
	for ((i = 1; i < 100; i++)); do list+=",$dir/$long:/mnt/$long$i"; done
	for ((i = 0; i < 700; i++)); do passed+=",VARIABLE_$i"; done
	good srun -n1 -w n1 --container="$busybox" --container-bind="$list" --container-env="$passed" true
	run records 'r = records[0]
print(len(r["options"]["env"].encode()) <= 4096, "…" in r["options"]["env"], sum(b["origin"] == "user" for b in r["binds"]) + r.get("left_out", 0))'
	prints 'True True 100'
	[[ $(wc -lc <"$file") =~ ^\ *1\ +([0-9]+)$ ]] && ((BASH_REMATCH[1] <= 65537))
}

@test "64 steps at once on three nodes: 192 whole lines, none torn" {
	# A directory takes no loop device, of which the test's nodes do not have as many.
	recorded ', required: yes' 'directories: allow'
	good salloc -N3 -n3 sh -c "for i in \$(seq 64); do srun --overlap -N3 -n3 --container=$IMG/tree true & done; wait"
	eventually count 192 0
	run records 'print(len({(r["step"], r["node"]) for r in records}), {r["verdict"] + r.get("cause", "") for r in records})'
	prints "192 {'started'}"
}

@test "a file that is not root's alone is not written to: no step without its record where that is required, else a word in the log" {
	listen
	local made kind text
	for made in "ln -s $dir/mine $file" "install -m 660 /dev/null $file" "install -o alice /dev/null $file" "mkdir $file" \
		"mkfifo $file" "chmod 775 /var/lib/coracle" "rmdir /var/lib/coracle" "eval install -m 640 /dev/null $file; ln $file $file.2"; do
		rm -rf /var/lib/coracle
		mkdir -p /var/lib/coracle
		$made
		: >log
		recorded ', required: yes'
		kind=config text=/var/lib/coracle
		[[ $made != rmdir* ]] || kind=system
		refused "$kind" "$text" srun -n4 -w n1 --container="$busybox" true || fail "$made" || return
		eventually logged 1
		grep -q " verdict=refused cause=.* audit=\"coracle: /var/lib/coracle.*\[$kind\]\"" log || fail "$made" "$(<log)" || return
		recorded ''
		good srun -n4 -w n1 --container="$busybox" cat /etc/image-only || fail "$made" || return
		[[ $(grep -cx "$MARK" <<<"$output") == 4 ]]
		eventually logged 2
		grep -q " verdict=started audit=\"coracle: /var/lib/coracle.*\[$kind\]\"" log || fail "$made" "$(<log)" || return
	done
	[[ ! -e mine ]]
}

@test "a full disk: refused where a record is required, else in the log; what was cut off spoils no other line" {
	listen
	on-node n1 mount -t tmpfs -o size=8k,mode=755 none /var/lib/coracle
	recorded ', required: yes'
	good srun -n1 -w n1 --container="$busybox" true
	# Room for the beginning of a record only.
	on-node n1 sh -c "head -c \$((8091 - \$(stat -c %s $file))) /dev/zero | tr '\\0' x >>$file; echo >>$file"
	run alice srun -n4 -w n1 --container="$busybox" true
	((status == 125)) || fail "$output"
	said system 'audit.jsonl: cannot be written to: only 100 of '
	recorded ''
	good srun -n1 -w n1 --container="$busybox" cat /etc/image-only
	prints "$MARK"
	eventually logged 3
	[[ $(grep -c 'audit="coracle: /var/lib/coracle/audit.jsonl: cannot be written to: ' log) == 2 ]] || fail "$(<log)"
	on-node n1 mount -o remount,size=1m /var/lib/coracle
	good srun -n1 -w n1 --container="$busybox" true
	run on-node n1 coracle log --json
	((status == 0))
	[[ $(grep -c '"verdict":"started"' <<<"$output") == 2 ]] || fail "$output"
	grep -qE '^coracle: note: /var/lib/coracle/audit.jsonl: 2 lines that are no records$' <<<"$output" || fail "$output"
}

@test "when a task runs, its record is in the file" {
	recorded ''
	install -m 640 -g alice /dev/null "$file"
	good srun -N3 -n6 --container="$busybox" --container-bind="$file:/mnt/records:ro" \
		sh -c 'grep "\"job\":$SLURM_JOB_ID,\"step\":\"0\",\"node\":\"$(hostname)\"" /mnt/records | grep -c "\"verdict\":\"started\""'
	prints $'1\n1\n1\n1\n1\n1'
}

@test "coracle log: by job, step, user and time, for people and for programs" {
	recorded ''
	good srun -n2 -w n1 --container="$busybox" --container-bind="$dir:/mnt/d" sh -c 'echo $SLURM_JOB_ID'
	local job=${lines[0]}
	timeout 60 as bob srun -n1 -w n1 --container="$busybox" true
	run coracle log --job "$job"
	((status == 0)) || fail "$output"
	[[ ${lines[0]} =~ ^20.*Z\ \ "$job".0\ \ n1\ \ alice\ \(2001\)\ \ started$ ]] || fail "$output"
	has_line "    image    $busybox"
	has_line '    digest   -'
	has_line '    policy   user_images=kernel'
	has_line '    tasks    2 on this node'
	has_line '    nodes    1'
	has_line "    bind     $dir -> /mnt/d rw (user)"
	has_line '    device   /dev'
	has 'open '
	[[ $(coracle log --json --job "$job.0") == "$(grep "\"job\":$job," "$file")" ]]
	[[ $(coracle log --json | wc -l) == 2 ]]
	[[ $(coracle log --json --user bob | wc -l) == 1 ]]
	[[ $(coracle log --json --user 2001 --since 1h | wc -l) == 1 ]]
	run coracle log --job "$job.7"
	((status == 1))
	prints "coracle: $file: no such record [system]
coracle: hint: each node has its own records; you see those that you may read"
	run coracle log --since 2100-01-01
	((status == 1))
	local wrong
	for wrong in --job=x --job=1.x --since=soon --nonsense; do
		run coracle log "$wrong"
		((status == 2)) || fail "$wrong: $status" "$output" || return
	done
	run coracle log --job 1 --json --config "$dir/none.yaml"
	((status == 1))
}

@test "coracle log of a user shows what the file's mode lets him see" {
	recorded ''
	good srun -n1 -w n1 --container="$busybox" true
	run alice coracle log
	((status == 1))
	prints "coracle: $file: cannot be read: Permission denied (os error 13) [system]
coracle: hint: its owner and group may read it: ask the site's admin"
	chgrp alice "$file"
	good coracle log
	has ' alice (2001)  started'
	chmod 660 "$file"
	run alice coracle log
	((status == 1))
	has 'writable by others than root'
}

@test "without a file coracle log reads the journal, and only what root wrote there" {
	needs journalctl
	[[ -x /lib/systemd/systemd-journald ]] || needs systemd-journald
	rm -rf /var/log/journal /run/log/journal
	run alice coracle log --job 1
	((status == 1))
	has 'coracle: the journal: there is none on this node'
	has 'audit: {file: PATH} in coracle.yaml'
	mkdir -p /run/systemd/journald.conf.d /run/systemd/journal
	printf '%s\n' '[Journal]' Storage=volatile ReadKMsg=no Audit=no ForwardToSyslog=no ForwardToWall=no >/run/systemd/journald.conf.d/test.conf
	[[ -s /etc/machine-id ]] || tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
	/lib/systemd/systemd-journald 3>&- &
	journald=$!
	eventually test -S /run/systemd/journal/socket
	good srun -n2 -w n1 --container="$busybox" --container-bind="$dir:/mnt/$(printf 'd%.0s' {1..200})" sh -c 'echo $SLURM_JOB_ID'
	local job=${lines[0]}
	refused image-missing /no/such.sif srun -n1 -w n1 --container=/no/such.sif true
	alice perl -MSocket -e 'socket(S, AF_UNIX, SOCK_DGRAM, 0); defined(send(S,
		"PRIORITY=6\nSYSLOG_IDENTIFIER=coracle\nMESSAGE=x\nCORACLE_JOB=$ARGV[0]\nCORACLE_RECORD={\"version\":1,\"time\":\"x\",\"job\":$ARGV[0],\"step\":\"0\",\"node\":\"forged\",\"uid\":0,\"verdict\":\"started\"}\n",
		0, sockaddr_un("/run/systemd/journal/socket"))) or die $!' "$job"
	in_journal() { [[ $(journalctl --quiet SYSLOG_IDENTIFIER=coracle | wc -l) == 3 ]]; }
	eventually in_journal
	run coracle log --job "$job" --json
	((status == 0)) || fail "$output"
	((${#lines[@]} == 1)) || fail "$output"
	python3 -c 'import json, sys
r = json.loads(sys.argv[1])
assert (r["node"], r["user"], r["entered"], r["verdict"]) == ("n1", "alice", 2, "started"), r' "$output"
	[[ $(coracle log --since 1h --json | wc -l) == 2 ]]
	[[ $(journalctl --quiet --output=cat --output-fields=CORACLE_IMAGE CORACLE_JOB="$job" _UID=0) == *"$busybox"* ]]
	run alice coracle log --job "$job"
	((status == 1))
	has 'coracle: the journal: cannot be read'
	has 'its journal is for root and the groups systemd-journal and adm'
}

own=/var/lib/coracle/records

# Records of users' own, without a file for all of them.
with_own() { # [MORE-KEYS]
	install -d -m 711 $own
	configure $'version: 1\nuser_images: kernel\nlog: none\ndirectories: allow\n'"${1:-}"
}

bob() {
	timeout --foreground 120 as -d "$PWD" bob "$@"
}

own_count() { # UID COUNT
	[[ $(cat $own/"$1".jsonl | wc -l) == "$2" ]]
}

@test "coracle log of a user has the records of their own steps, and nothing of others'" {
	with_own
	good srun -N3 -n3 --container="$busybox" sh -c 'echo $SLURM_JOB_ID'
	local job=${lines[0]}
	bob srun -n1 -w n1 --container="$busybox" true
	refused image-missing /no/such.sif srun -n1 -w n1 --container=/no/such.sif true
	eventually own_count 2001 4
	eventually own_count 2002 1
	good coracle log --json
	[[ $(grep -c '"uid":2001' <<<"$output") == 4 && $(grep -c . <<<"$output") == 4 ]] || fail "$output"
	good coracle log --job "$job"
	[[ $(grep -c "  $job\.0  n[123]  alice (2001)  started$" <<<"$output") == 3 ]] || fail "$output"
	good srun -n1 -w n1 coracle log --since 1h --json
	has '"kind":"image-missing"'
	run bob coracle log --json
	((status == 0)) || fail "$output"
	[[ $(grep -c '"uid":2002' <<<"$output") == 1 && $(grep -c . <<<"$output") == 1 ]] || fail "$output"
	run alice coracle log --user bob
	((status == 1)) || fail "$output"
	has "coracle: $own/2001.jsonl: no such record [system]"
	[[ $(stat -c %U:%G:%a $own/2001.jsonl) == root:root:640 ]]
	# The site's file is for those who may read it; others still have their own.
	with_own "audit: {file: $file}"
	good srun -n1 -w n1 --container="$busybox" true
	eventually own_count 2001 5
	good coracle log --json
	[[ $(grep -c . <<<"$output") == 5 ]] || fail "$output"
	run coracle log --json
	[[ $(grep -c . <<<"$output") == 1 ]] || fail "$output"
	with_own 'audit: {users: none}'
	good srun -n1 -w n1 --container="$busybox" true
	own_count 2001 5
	run alice coracle log --job "$job"
	((status == 1)) || fail "$output"
}

@test "nobody can read, forge, hold up or remove the records of others" {
	with_own
	good srun -n1 -w n1 --container="$busybox" true
	# As many a site has it: all users are of one group.
	usermod -g alice bob
	bob srun -n1 -w n1 --container="$busybox" true
	eventually own_count 2002 1
	eventually own_count 2001 1
	cp -a $own kept
	cat >tries <<-'END'
		cd /var/lib/coracle/records
		try() { if "$@" >/dev/null 2>&1; then echo "worked: $*"; fi; }
		for of in 2001 2002; do
			[ "$of" = "$(id -u)" ] || try cat "$of.jsonl"
			try sh -c "echo {} >>$of.jsonl"
			try truncate -s 0 "$of.jsonl"
			try chmod 666 "$of.jsonl"
			try setfacl -m u:2001:rw,u:2002:rw "$of.jsonl"
			try mv "$of.jsonl" x
			try rm -f "$of.jsonl"
			try ln "$of.jsonl" "/var/tmp/link.$of"
			try cp /dev/null "$of.jsonl.1"
		done
		try ls
		try touch 2003.jsonl
		try flock --nonblock lock true
	END
	local who
	for who in alice bob; do
		run timeout 60 as -d / $who sh "$dir/tries"
		prints '' || return
	done
	# What a user can do to their own file is hold its lock, for which no launcher waits.
	alice flock $own/2001.jsonl sh -c "touch $dir/held; until test -e $dir/go; do sleep 0.1; done" 3>&- &
	local holder=$!
	eventually test -e held
	good srun -n1 -w n1 --container="$busybox" true
	eventually own_count 2001 2
	touch go
	wait $holder
	usermod -g bob bob
	diff $own/2002.jsonl kept/2002.jsonl
}

@test "a user's records are bounded, and many at once are whole" {
	with_own
	good srun -n1 -w n1 --container="$busybox" true
	eventually own_count 2001 1
	local line
	line=$(sed 's/"job":[0-9]*/"job":1/' $own/2001.jsonl)
	# Nearly full.
	yes "$line" | head -c 1048000 >>$own/2001.jsonl
	good salloc -N3 -n3 sh -c "for i in \$(seq 16); do srun --overlap -N3 -n3 --container=$IMG/tree true & done; wait"
	eventually test -e $own/2001.jsonl.1
	eventually own_count 2001 48 || own_count 2001 47
	PYTHONUTF8=1 python3 -c 'import json, sys
for line in sys.stdin: json.loads(line)' <$own/2001.jsonl
	[[ $(stat -c %a $own/2001.jsonl $own/2001.jsonl.1 | uniq) == 640 ]]
	local first
	first=$(head -n 1 $own/2001.jsonl.1 | sed 's/.*"job":\([0-9]*\).*/\1/')
	good coracle log --job "$first" --json
	grep -q "\"job\":$first," <<<"$output" || fail "$output"
	(($(cat $own/2001.jsonl* | wc -c) < 2 * 1048576 + 65536))
}

@test "a directory for users' records that is not root's alone, or has no room, keeps no step from starting" {
	listen
	local made
	for made in "chmod 777 $own" "chown alice $own" "rmdir $own" "ln -s /etc/passwd $own/2001.jsonl" "mkdir $own/2001.jsonl"; do
		rm -rf $own
		with_own "audit: {users: $own}"
		sed -i '/^log: /d' /etc/coracle/coracle.yaml
		$made
		: >log
		good srun -n1 -w n1 --container="$busybox" cat /etc/image-only || fail "$made" || return
		prints "$MARK"
		eventually logged 1
		grep -q " verdict=started audit=\"coracle: $own.*\"" log || fail "$made" "$(<log)" || return
	done
	! grep 'version' /etc/passwd || fail 'a record is in /etc/passwd'
	rm -rf $own
	run coracle config check
	has "audit.users: $own: "
	has 'users see no records of theirs'
}

@test "rsyslog takes the records of a node to a host that collects them, with the example's files" {
	needs rsyslogd jq
	local examples=$BATS_TEST_DIRNAME/../../slurm-conf-examples/rsyslog daemon
	mkdir -p spool.node spool.loghost /var/log/coracle
	file=/var/log/coracle/audit.jsonl recorded ''
	for daemon in loghost node; do
		printf '%s\n' "global(workDirectory=\"$dir/spool.$daemon\")" >$daemon.conf
		sed 's/target="loghost"/target="ctl"/' "$examples/$daemon.conf" >>$daemon.conf
	done
	# The host comes later than the first records.
	on-node n1 rsyslogd -n -f "$dir/node.conf" -i "$dir/node.pid" 3>&- &
	listener=$!
	local binds i
	binds=$dir:/x0
	for i in $(seq 99); do binds+=",$dir:/$(printf 'd%.0s' {1..200})$i"; done
	good srun -n1 -w n1 --container="$busybox" --container-bind="$binds" true
	good srun -n1 -w n1 --container="$busybox" true
	rsyslogd -n -f "$dir/loghost.conf" -i "$dir/loghost.pid" 3>&- &
	journald=$!
	collected() { [[ -e /var/log/coracle/site.jsonl && $(wc -l </var/log/coracle/site.jsonl) == "$1" ]]; }
	eventually collected 2
	mv /var/log/coracle/audit.jsonl /var/log/coracle/audit.jsonl.1
	refused image-missing /no/such.sif srun -n1 -w n1 --container=/no/such.sif true
	eventually collected 3
	cat /var/log/coracle/audit.jsonl.1 /var/log/coracle/audit.jsonl | diff - /var/log/coracle/site.jsonl
	(($(head -n 1 /var/log/coracle/site.jsonl | wc -c) > 20000))
	run jq -r 'select(.verdict == "refused") | [.node, .user, .kind] | @tsv' /var/log/coracle/site.jsonl
	prints $'n1\talice\timage-missing'
	rm -rf /var/log/coracle
}

has_comment() { # JOB TEXT
	[[ $(job_field "$1" Comment) == "$2" ]]
}

# A step of alice's that lasts until `done` is there.
lasting() { # SRUN-OPTION...
	rm -f started "$dir/done"
	alice srun -w n1 -N1 -n1 "$@" sh -c "echo \$SLURM_JOB_ID >$dir/started; until test -e $dir/done; do sleep 0.1; done" 3>&- &
	step=$!
	eventually test -s "$dir/started"
	job=$(<"$dir/started")
}

last() {
	touch "$dir/done"
	wait "$step"
}

@test "the job's comment names the image of its first step in a container, with the digest if it is known" {
	recorded ', comment: yes'
	local hash
	hash=sha256:$(sha256sum "$busybox" | cut -d' ' -f1)
	lasting --container="$busybox" --container-digest="$hash"
	eventually has_comment "$job" "coracle:$busybox@$hash"
	alice srun --jobid="$job" --overlap -n1 --container="$IMG/bare.sif" true
	eventually no_launcher_waits
	has_comment "$job" "coracle:$busybox@$hash"
	last
	lasting --container="$busybox"
	eventually has_comment "$job" "coracle:$busybox"
	last
}

# What is left of the launchers waits for nothing: that of a step that runs has ended, too.
no_launcher_waits() { ! pgrep -x "$PROGRAMS" >/dev/null && ! pgrep -x scontrol >/dev/null; }

@test "a comment of the user's own stays, and so does every comment where the site does not want ours" {
	recorded ', comment: yes'
	lasting --comment='my own' --container="$busybox"
	eventually no_launcher_waits
	[[ $(scontrol show job "$job") == *$'\n   Comment=my own'* ]] || fail "$(scontrol show job "$job")"
	last
	recorded ''
	lasting --container="$busybox"
	eventually no_launcher_waits
	[[ $(scontrol show job "$job") != *' Comment='* ]] || fail "$(scontrol show job "$job")"
	last
}

# What a process of alice's beside the tasks gets out of the scontrol that sets the comment; $output says it. The comment is
# set for three jobs; in each a second step asks for it again when its user has emptied it.
beside_the_comment() {
	rm -f stop seen
	on-node n1 as -d "$dir" alice python3 "$BATS_TEST_DIRNAME/commands_seen.py" scontrol "$dir/stop" >seen 3>&- &
	local looks=$! i first
	for i in 1 2 3; do
		lasting --overlap --container="$busybox"
		first=$step
		eventually has_comment "$job" "coracle:$busybox" || return
		scontrol update JobId="$job" Comment=
		lasting --overlap --jobid="$job" --container="$busybox"
		eventually no_launcher_waits || return
		touch 'done'
		# The one that ends first ends the job.
		wait "$step" "$first" || true
	done
	touch stop
	wait "$looks"
	output=$(<seen)
}

@test "the command that sets the comment is out of its user's reach" {
	cp "$BATS_TEST_DIRNAME/commands_seen.py" .
	# The look finds what there is to find.
	on-node n1 as -d "$dir" alice bash -c "exec -a scontrol sh -c 'until test -e $dir/stop; do sleep 0.1; done'" 3>&- &
	local open=$!
	eventually pgrep -u alice -f '^scontrol '
	on-node n1 as -d "$dir" alice python3 commands_seen.py scontrol "$dir/stop" >seen 3>&- &
	local looks=$!
	sleep 0.5
	touch stop
	wait "$open" "$looks"
	output=$(<seen)
	has_line 'worked: cwd environ exe fd link of ns map_files maps mem ns/mnt oom_score_adj pidfd_getfd process_vm_readv ptrace root'
	recorded ', comment: yes'
	beside_the_comment
	has_line 'seen True'
	has_line 'worked:'
}

@test "of an array each task has its own comment" {
	recorded ', comment: yes'
	job_script job.sh "until test -e $dir/done; do sleep 0.1; done"
	local all
	all=$(alice sbatch --parsable --array=1-2 -w n1 -o /dev/null --container="$busybox" job.sh)
	both() { [[ $(squeue --noheader --jobs="$all" --format=%k | sort | uniq -c | tr -s ' ') == " 2 coracle:$busybox" ]]; }
	eventually both
	touch "$dir/done"
}

@test "of a heterogeneous job each component has its own comment" {
	recorded ', comment: yes'
	local wait="until test -e $dir/done; do sleep 0.1; done"
	alice srun -n1 -w n1 --container="$busybox" sh -c "$wait" : -n1 -w n2 --container="$IMG/bare.sif" sh -c "$wait" 3>&- &
	step=$!
	both() { [[ $(squeue --noheader --user=alice --format=%k | sort | tr '\n' ' ') == "coracle:$IMG/bare.sif coracle:$busybox " ]]; }
	eventually both
	last
}

@test "a controller that does not answer holds up neither the step nor the node" {
	mkdir -p /opt/hanging
	cp /usr/bin/srun /opt/hanging/srun
	printf '%s\n' '#!/bin/sh' "echo x >>$dir/asked" 'sleep 1000 & sleep 1000' >/opt/hanging/scontrol
	chmod 755 /opt/hanging/scontrol
	recorded ', comment: yes' $'slurm_client:\n  bin: /opt/hanging'
	good srun -n1 -w n1 --container="$busybox" cat /etc/image-only
	prints "$MARK"
	eventually test -e asked
	stepds_ended
	no_loops
	# healthy() sees that what hangs is gone within its limit.
}
