#!/usr/bin/env bats
# An installation in another place: make install PREFIX=/opt/coracle SYSCONFDIR=/opt/coracle/etc. The cluster of this file
# starts without an installation, so nothing is where it usually is.

load support

setup_file() {
	cp -a "$CORACLE_IMAGES/elsewhere/." /
	cp -a /etc/slurm/plugstack.conf "$BATS_FILE_TMPDIR/plugstack.conf"
	echo 'include /opt/coracle/etc/slurm/plugstack.conf.d/*.conf' >>/etc/slurm/plugstack.conf
}

teardown_file() {
	cp -a "$BATS_FILE_TMPDIR/plugstack.conf" /etc/slurm/plugstack.conf
	rm -rf /opt/coracle
}

# Nothing of the usual places is there to be restored.
restore() { :; }

CONFIG=/opt/coracle/etc/coracle/coracle.yaml

@test "steps and jobs run with the settings of that place, and nothing is in the usual ones" {
	refused policy user_images srun -n1 --container="$busybox" true
	echo 'user_images: kernel' >>$CONFIG
	good srun -N3 --container="$busybox" cat /etc/image-only
	prints "$MARK"$'\n'"$MARK"$'\n'"$MARK"
	job_script job.sh 'cat /etc/image-only; srun -n1 cat /etc/image-only'
	batch --container="$busybox" job.sh
	prints "$MARK"$'\n'"$MARK"
	[[ -z $(find /usr /etc -name '*coracle*' -not -path '*/plugstack.conf.d' 2>/dev/null) ]]
	[[ ! -e /etc/coracle && ! -e /usr/bin/coracle && ! -e /usr/lib/coracle ]]
	grep -q 'required /opt/coracle/lib/coracle/spank_coracle.so launcher=/opt/coracle/lib/coracle/coracle-launcher config=/opt/coracle/etc/coracle/coracle.yaml$' \
		/opt/coracle/etc/slurm/plugstack.conf.d/coracle.conf
}

@test "its commands look at that place, too" {
	run on-node n1 /opt/coracle/bin/coracle doctor --node
	((status == 0)) || fail "$output"
	has_line "ok       config    $CONFIG"
	has_line 'ok       plugin    /opt/coracle/etc/slurm/plugstack.conf.d/coracle.conf: required /opt/coracle/lib/coracle/spank_coracle.so'
	has_line 'ok       plugin    launcher /opt/coracle/lib/coracle/coracle-launcher'
	has_line 'ok       coracle   /opt/coracle/lib/coracle/coracle-images'
	run /opt/coracle/bin/coracle config check
	((status == 0)) || fail "$output"
	good /opt/coracle/bin/coracle exec "$busybox" cat /etc/image-only
	prints "$MARK"
	good /opt/coracle/bin/coracle inspect "$busybox"
	# Settings that are wrong are found at that path.
	cp -a $CONFIG kept
	echo 'nonsense: 1' >>$CONFIG
	refused config "$CONFIG" srun -n1 --container="$busybox" true
	run /opt/coracle/bin/coracle doctor --faults
	((status == 1)) || fail "$output"
	has "$CONFIG"
	cp -a kept $CONFIG
	[[ -e /opt/coracle/share/man/man1/coracle.1 ]]
	grep -q '^ExecStart=/opt/coracle/bin/coracle ' /opt/coracle/lib/systemd/system/coracle-store.service
}

@test "after it is removed jobs run as if it had never been there" {
	cp -a "$BATS_FILE_TMPDIR/plugstack.conf" /etc/slurm/plugstack.conf
	rm -rf /opt/coracle
	good srun -N3 -n3 echo bare
	prints $'bare\nbare\nbare'
	run alice srun -n1 --container-bind=/x true
	((status != 0)) || fail "$output"
	has 'unrecognized option'
}
