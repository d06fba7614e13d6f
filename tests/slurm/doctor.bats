#!/usr/bin/env bats
# `coracle doctor` and `coracle config check`: each thing that keeps containers from starting, broken here one by one.

load support

cleanup() {
	cp -a "$SUITE/slurm-as-it-was/." /etc/slurm
	rm -f /etc/slurm/oci.conf /etc/slurm/plugstack.conf.d/zz.conf
	[[ ! -e /usr/bin/squashfuse_ll.away ]] || mv /usr/bin/squashfuse_ll.away /usr/bin/squashfuse_ll
	[[ ! -e /dev/fuse.away ]] || mv /dev/fuse.away /dev/fuse
	[[ ! -e /dev/loop-control.away ]] || mv /dev/loop-control.away /dev/loop-control
	[[ ! -e /usr/lib/coracle/coracle-verify.away ]] || mv /usr/lib/coracle/coracle-verify.away /usr/lib/coracle/coracle-verify
	chmod 644 /usr/lib/coracle/spank_coracle.so
	chmod 666 /dev/fuse
	rm -rf /var/log/records
}

setup_file() {
	cp -a /etc/slurm "$SUITE/slurm-as-it-was"
}

teardown_file() {
	rm -rf "$SUITE/slurm-as-it-was"
}

# The doctor says an error with TEXT, with a hint HINT, and its status is 1.
finds() { # TEXT HINT [ARGUMENT...]
	local text=$1 hint=$2
	shift 2
	run on-node n1 coracle doctor --node "$@"
	((status == 1)) || { fail "status $status" "$output"; return; }
	grep -E '^error ' <<<"$output" | grep -qF -- "$text" || { fail "no error: $text" "in: $output"; return; }
	[[ -z $hint ]] || has "hint: $hint"
}

# `config check` says TEXT, and its status is 1.
checks() { # TEXT
	run coracle config check
	((status == 1)) || { fail "status $status" "$output"; return; }
	has "error: /etc/coracle/coracle.yaml"
	has "$1"
	has_not ': good'
}

@test "on a good node every line is ok or a warning, and the status is 0" {
	run on-node n1 coracle doctor --node
	((status == 0)) || fail "$status" "$output"
	has_line "ok       host      n1 (compute)"
	has_line 'ok       config    /etc/coracle/coracle.yaml'
	has_line "ok       kernel    $(uname -r)"
	has_line 'ok       plugin    /etc/slurm/plugstack.conf.d/coracle.conf: required /usr/lib/coracle/spank_coracle.so'
	has_line 'ok       plugin    /usr/bin/srun --help has its options'
	has_line 'ok       plugin    launcher /usr/lib/coracle/coracle-launcher'
	! grep -qvE '^(ok|warning|       |$)' <<<"$output" || fail "$output"
	run on-node n1 coracle doctor --node --faults
	has_not $'\nok '
}

@test "the parts of a host are found out, or said" {
	run coracle doctor
	has 'ctl (controller, compute, submit)'
	run coracle doctor --role login
	has 'ctl (login)'
	has 'users may have user namespaces'
	has '/etc/subuid'
	run coracle doctor --role cook
	((status != 0))
	has "invalid value 'cook'"
}

@test "one document says the same" {
	run on-node n1 coracle doctor --node --json
	python3 - "$output" <<-'CHECK'
	import json, sys
	said = json.loads(sys.argv[1])
	assert said["version"] == 1 and said["verdict"] == "ok" and said["host"] == "n1" and said["roles"] == ["compute"], said
	assert {finding["level"] for finding in said["findings"]} <= {"ok", "warning"}, said
	CHECK
	touch /etc/slurm/oci.conf
	rm /etc/slurm/plugstack.conf.d/coracle.conf
	run on-node n1 coracle doctor --node --json
	((status == 1)) || fail "$output"
	python3 - "$output" <<-'CHECK'
	import json, sys
	said = json.loads(sys.argv[1])
	errors = [finding for finding in said["findings"] if finding["level"] == "error"]
	assert said["verdict"] == "error" and any("spank_coracle.so" in error["text"] for error in errors), said
	CHECK
}

@test "a plugin line that is missing, optional, or there twice" {
	rm /etc/slurm/plugstack.conf.d/coracle.conf
	finds 'no line loads spank_coracle.so: jobs run on the bare node' 'required /usr/lib/coracle/spank_coracle.so'
	rm /etc/slurm/plugstack.conf
	finds 'plugstack.conf: not there' 'required /usr/lib/coracle/spank_coracle.so'
	cp -a "$SUITE/slurm-as-it-was/." /etc/slurm
	sed -i 's/^required/optional/' /etc/slurm/plugstack.conf.d/coracle.conf
	finds 'coracle.conf: optional: Slurm ignores what it refuses' required
	cp -a "$SUITE/slurm-as-it-was/." /etc/slurm
	grep '^required' /etc/slurm/plugstack.conf.d/coracle.conf >/etc/slurm/plugstack.conf.d/zz.conf
	finds '2 lines load spank_coracle.so' 'leave one'
}

@test "an include, where a configless controller hands out plugstack.conf only" {
	echo 'SlurmctldParameters=enable_configless' >>/etc/slurm/slurm.conf
	finds 'a configless controller hands out /etc/slurm/plugstack.conf only' 'put the line into plugstack.conf itself'
	grep '^required' /etc/slurm/plugstack.conf.d/coracle.conf >/etc/slurm/plugstack.conf
	run on-node n1 coracle doctor --node
	((status == 0)) || fail "$output"
}

@test "a plugin that is not there, that others can change, or that Slurm does not load" {
	sed -i 's#/usr/lib/coracle/spank_coracle.so#/nowhere/spank_coracle.so#' /etc/slurm/plugstack.conf.d/coracle.conf
	finds '/nowhere/spank_coracle.so' ''
	cp -a "$SUITE/slurm-as-it-was/." /etc/slurm
	chmod 666 /usr/lib/coracle/spank_coracle.so
	finds 'spank_coracle.so: writable by others than root (mode 0666)' ''
	chmod 644 /usr/lib/coracle/spank_coracle.so
	sed -i 's/$/ colour=blue/; s/^#.*//' /etc/slurm/plugstack.conf.d/coracle.conf
	finds 'srun --help fails: ' 'does the plugin load in this Slurm?'
}

@test "a launcher that is elsewhere" {
	sed -i 's#^required.*#& launcher=/opt/none/coracle#' /etc/slurm/plugstack.conf.d/coracle.conf
	finds 'launcher /opt/none/coracle: ' 'launcher=PATH behind the plugin says where it is'
}

@test "a verifier that is not there" {
	mv /usr/lib/coracle/coracle-verify /usr/lib/coracle/coracle-verify.away
	finds '/usr/lib/coracle/coracle-verify: ' 'it is installed with coracle'
	mv /usr/lib/coracle/coracle-verify.away /usr/lib/coracle/coracle-verify
}

@test "an oci.conf" {
	touch /etc/slurm/oci.conf
	if since 23.02; then
		run on-node n1 coracle doctor --node
		has 'warning  slurm     /etc/slurm/oci.conf: '
	else
		finds '/etc/slurm/oci.conf: Slurm takes --container for an OCI bundle' 'remove it: with it no plugin is asked'
	fi
}

@test "devices and programs that are missing" {
	mv /dev/loop-control /dev/loop-control.away
	finds '/dev/loop-control: not there' 'modprobe loop'
	mv /dev/loop-control.away /dev/loop-control
	configure $'version: 1\nuser_images: fuse'
	mv /usr/bin/squashfuse_ll /usr/bin/squashfuse_ll.away
	finds 'squashfuse_ll: not found on this node' 'install the package squashfuse'
	checks 'squashfuse_ll: not found on this node'
	mv /usr/bin/squashfuse_ll.away /usr/bin/squashfuse_ll
	mv /dev/fuse /dev/fuse.away
	finds '/dev/fuse: No such file or directory' 'modprobe fuse'
	mv /dev/fuse.away /dev/fuse
	chmod 600 /dev/fuse
	run coracle doctor --role login
	((status == 1)) || fail "$output"
	has '/dev/fuse: mode 0600: users cannot open it'
}

@test "settings with which no container starts" {
	chmod 666 /etc/coracle/coracle.yaml
	finds 'writable by others than root (mode 0666)' ''
	checks 'writable by others than root (mode 0666): no container starts with this file'
	chmod 644 /etc/coracle/coracle.yaml
	configure $'version: 1\nuser_images: kernel\nbinds:\n- source: /nowhere/at/all'
	finds 'binds: /nowhere/at/all: not there, and required' 'required: false'
	checks 'coracle.yaml:4:1: binds: /nowhere/at/all: not there, and required: no container starts'
	# Whoever asks for the rules of a user, too, gets the same verdict, for people and for programs.
	run -1 coracle config check --user alice
	has 'user_images     kernel'
	run -1 coracle config check --user alice --json
	refused bind /nowhere/at/all srun -n1 --container="$busybox" true
	configure $'version: 1\nuser_images: kernel\naudit: {file: /var/log/records/a.jsonl, required: yes}'
	finds 'audit.file: /var/log/records' ''
	checks 'no container starts'
	mkdir -m 777 /var/log/records
	checks '/var/log/records: writable by others than root (mode 0777): no container starts'
	chmod 755 /var/log/records
	run coracle config check
	((status == 0)) || fail "$output"
	configure $'version: 1\nuser_images: kernle'
	finds '`user_images` is kernel, fuse or deny' ''
}

@test "rules that have no effect" {
	configure $'version: 1\nuser_images: kernel\nrequired: yes'
	run on-node n1 coracle doctor --node
	((status == 0)) || fail "$output"
	has "warning  config    required: has no effect: the plugin's line lacks defaults=on"
	has 'hint: add defaults=on in plugstack.conf'
	run coracle config check
	((status == 0)) || fail "$output"
	has 'warning: /etc/coracle/coracle.yaml:3:1: required: has no effect'
	configure $'version: 1\nuser_images: kernel\nusers:\n  alice:\n    default_image: /opt/a.sif'
	run coracle config check
	has 'warning: /etc/coracle/coracle.yaml:5:5: users.alice.default_image: has no effect'
	sed -i 's#^required.*#& defaults=on#' /etc/slurm/plugstack.conf.d/coracle.conf
	run coracle config check
	((status == 0)) || fail "$output"
	configure $'version: 1\nuser_images: kernel\nqos:\n  debug:\n    user_images: deny'
	run coracle config check
	((status == 0)) || fail "$output"
	has 'warning: /etc/coracle/coracle.yaml:4:3: qos.debug: only as far as jobs say it themselves'
	configure 'version: 1'
	run coracle config check
	has 'neither user_images nor image_paths is set'
}

@test "a store that this host does not see, and start_timeout against Slurm's" {
	configure $'version: 1\nuser_images: kernel\nstore: {path: /nowhere/store, owner: nobodyatall}'
	finds '/nowhere/store: no directory on this host' 'is it mounted here?'
	finds 'store.owner: nobodyatall: no such user' ''
	configure $'version: 1\nuser_images: kernel\nstart_timeout: 30'
	echo 'UnkillableStepTimeout=25' >>/etc/slurm/slurm.conf
	finds 'start_timeout: 30 s, and UnkillableStepTimeout is 25 s' ''
}

@test "HealthCheckProgram drains a node where containers would not start, and resumes it" {
	local check=$BATS_TEST_DIRNAME/../../slurm-conf-examples/health-check
	SLURMD_NODENAME=n2 run on-node n2 "$check"
	((status == 0)) || fail "$status" "$output"
	mv /dev/loop-control /dev/loop-control.away
	SLURMD_NODENAME=n2 run on-node n2 "$check"
	((status == 1)) || fail "$status" "$output"
	run scontrol --oneliner show node n2
	has 'DRAIN'
	has 'Reason=coracle: /dev/loop-control: not there: no image file can be mounted'
	mv /dev/loop-control.away /dev/loop-control
	SLURMD_NODENAME=n2 run on-node n2 "$check"
	((status == 0)) || fail "$status" "$output"
	eventually nodes_well
}

@test "config check is for everybody about themselves, and a draft is only warned of" {
	good coracle config check --user alice
	has_line "$(grep -m1 -o '^user_images  *kernel.*' <<<"$output")"
	run alice coracle config check --user bob
	((status != 0))
	has 'only root can be somebody else'
	printf 'version: 1\nuser_images: deny\n' >draft.yaml
	chown alice draft.yaml
	good coracle config check "$dir/draft.yaml"
	has "warning: $dir/draft.yaml: "
	has 'no container starts with this file'
	has_line "$dir/draft.yaml: good"
}
