#!/usr/bin/env bats
# The packages of Debian: installed, upgraded under a running job, downgraded and removed, on nodes that have nothing else
# of Coracle. The cluster of this file starts without an installation.

load support

setup_file() {
	export PACKAGES=$BATS_FILE_TMPDIR/packages
	"$BATS_TEST_DIRNAME/../../packaging/make-packages" deb "$CORACLE_STAGE" "$PACKAGES"
	CORACLE_VERSION=99.0.0 "$BATS_TEST_DIRNAME/../../packaging/make-packages" deb "$CORACLE_STAGE" "$PACKAGES"
	mkdir -p /etc/slurm/plugstack.conf.d
}

# Nothing is there to be restored before the first test has installed it.
restore() { :; }

installs() { # VERSION
	run dpkg --install --force-confold --force-depends "$PACKAGES/coracle_$1_"*.deb "$PACKAGES/coracle-slurm_$1_"*.deb
	((status == 0)) || fail "$output"
}

version() {
	sed -n 's/^version = "\(.*\)"/\1/p' "$BATS_TEST_DIRNAME/../../Cargo.toml" | head -n 1
}

@test "a job runs after both packages are installed and the site has chosen" {
	good srun -n1 echo bare
	installs "$(version)"
	[[ -e /etc/slurm/plugstack.conf.d/coracle.conf ]]
	run alice srun -n1 --container="$busybox" cat /etc/image-only
	((status == 125)) || fail "$status" "$output"
	has 'user_images'
	echo 'user_images: kernel' >>/etc/coracle/coracle.yaml
	good srun -n1 --container="$busybox" cat /etc/image-only
	prints "$MARK"
	run on-node n1 coracle doctor --node
	((status == 0)) || fail "$output"
	run dpkg --verify coracle coracle-slurm
	[[ $output != *missing* ]] || fail "$output"
	[[ -z $(find /usr/bin/coracle /usr/lib/coracle /etc/coracle -perm /6000) ]]
	man -w coracle >/dev/null 2>&1 || [[ -e /usr/share/man/man1/coracle.1 || -e /usr/share/man/man1/coracle.1.gz ]]
}

@test "a user reads the records of their steps as the packages are installed" {
	local job
	job=$(alice srun -n1 --container="$busybox" sh -c 'echo $SLURM_JOB_ID')
	recorded() { [[ -s /var/lib/coracle/records/2001.jsonl ]]; }
	eventually recorded
	[[ $(stat -c %a /var/lib/coracle/records) == 711 ]]
	good coracle log --job "$job"
	has "  $job.0  "
}

@test "a job goes on while the packages are upgraded, and starts steps after it" {
	job_script job.sh 'cat /etc/image-only; touch up; until [ -e go ]; do sleep 0.1; done; srun -n1 cat /etc/image-only'
	local job queued
	job=$(alice sbatch --parsable -o "$dir/out" --container="$busybox" job.sh)
	queued=$(alice sbatch --parsable --hold -o "$dir/queued" --container="$busybox" job.sh)
	eventually test -e up
	installs 99.0.0
	[[ $(dpkg-query -W -f '${Version}' coracle-slurm) == 99.0.0 ]]
	touch go
	eventually ended "$job"
	output=$(<"$dir/out")
	prints "$MARK"$'\n'"$MARK"
	grep -q '^user_images: kernel' /etc/coracle/coracle.yaml
	# So does one that was submitted before.
	scontrol release "$queued"
	eventually ended "$queued"
	output=$(<"$dir/queued")
	prints "$MARK"$'\n'"$MARK"
}

@test "a downgrade works, and keeps the site's settings and the admin's line" {
	sed -i 's/^required.*/& defaults=on/' /etc/slurm/plugstack.conf.d/coracle.conf
	installs "$(version)"
	grep -q 'defaults=on$' /etc/slurm/plugstack.conf.d/coracle.conf
	grep -q '^user_images: kernel' /etc/coracle/coracle.yaml
	good srun -n1 --container="$busybox" cat /etc/image-only
	prints "$MARK"
}

@test "a removal is refused while plugstack.conf itself loads the plugin" {
	cp -a /etc/slurm/plugstack.conf kept
	mv /etc/slurm/plugstack.conf.d/coracle.conf away
	echo 'required /usr/lib/coracle/spank_coracle.so' >/etc/slurm/plugstack.conf
	run dpkg --remove coracle-slurm
	((status != 0)) || fail "$output"
	has 'hint: take that line out first'
	good srun -n1 echo bare
	cp -a kept /etc/slurm/plugstack.conf
	mv away /etc/slurm/plugstack.conf.d/coracle.conf
}

@test "after a removal jobs run as if Coracle had never been there; a new installation has the admin's line" {
	run dpkg --remove coracle-slurm
	((status == 0)) || fail "$output"
	good srun -n1 echo bare
	prints bare
	[[ -e /etc/slurm/plugstack.conf.d/coracle.conf.removed ]]
	[[ ! -e /etc/slurm/plugstack.conf.d/coracle.conf && ! -e /usr/lib/coracle/spank_coracle.so ]]
	installs "$(version)"
	grep -q 'defaults=on$' /etc/slurm/plugstack.conf.d/coracle.conf
	run dpkg --purge coracle-slurm coracle
	((status == 0)) || fail "$output"
	good srun -n1 echo bare
	[[ ! -e /var/lib/coracle/records ]]
	[[ -z $(find /usr/lib/coracle /etc/coracle /usr/bin/coracle /etc/slurm -name '*coracle*' 2>/dev/null) ]] || fail "$(find /etc/slurm /etc/coracle)"
}

# A tree with a shell and nothing else: what rpm itself does with the packages, and their scripts.
@test "the packages of rpm are installed, upgraded and removed, and leave no line without its plugin" {
	needs rpmbuild rpm
	local tree=$BATS_TEST_TMPDIR/tree line
	"$BATS_TEST_DIRNAME/../../packaging/make-packages" rpm "$CORACLE_STAGE" "$BATS_TEST_TMPDIR/old"
	CORACLE_VERSION=99.0.0 "$BATS_TEST_DIRNAME/../../packaging/make-packages" rpm "$CORACLE_STAGE" "$BATS_TEST_TMPDIR/new"
	mkdir -p "$tree"/{bin,dev,etc/slurm,var/lib/rpm}
	cp "$(type -P busybox)" "$tree/bin/busybox"
	"$tree/bin/busybox" --install -s "$tree/bin"
	for line in "$tree"/bin/*; do [[ ! -L $line ]] || ln -sf busybox "$line"; done
	touch "$tree/dev/null"
	line=$tree/etc/slurm/plugstack.conf.d/coracle.conf
	rpm --root "$tree" --initdb
	run rpm --root "$tree" --nodeps --install "$BATS_TEST_TMPDIR"/old/*.rpm
	((status == 0)) || fail "$output"
	cmp "$line" "$CORACLE_STAGE/etc/slurm/plugstack.conf.d/coracle.conf"
	cmp "$tree/usr/bin/coracle" "$CORACLE_STAGE/usr/bin/coracle"
	run rpm --root "$tree" --verify --nodeps --nomtime coracle coracle-slurm
	prints ''
	echo 'user_images: fuse' >>"$tree/etc/coracle/coracle.yaml"
	sed -i 's/^required.*/& defaults=on/' "$line"
	run rpm --root "$tree" --nodeps --upgrade "$BATS_TEST_TMPDIR"/new/*.rpm
	((status == 0)) || fail "$output"
	run rpm --root "$tree" --query coracle-slurm
	has coracle-slurm-99.0.0
	grep -q '^user_images: fuse' "$tree/etc/coracle/coracle.yaml"
	grep -q 'defaults=on$' "$line"
	run rpm --root "$tree" --nodeps --upgrade --oldpackage "$BATS_TEST_TMPDIR"/old/*.rpm
	((status == 0)) || fail "$output"
	grep -q 'defaults=on$' "$line"
	echo 'required /usr/lib/coracle/spank_coracle.so' >"$tree/etc/slurm/plugstack.conf"
	run rpm --root "$tree" --erase coracle-slurm
	((status != 0)) || fail "$output"
	has 'hint: take that line out first'
	rm "$tree/etc/slurm/plugstack.conf"
	run rpm --root "$tree" --erase coracle-slurm
	((status == 0)) || fail "$output"
	[[ -e $line.removed && ! -e $line && ! -e $tree/usr/lib/coracle/spank_coracle.so ]]
}
