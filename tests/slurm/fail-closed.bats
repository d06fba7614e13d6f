# Whatever is broken: a task that asked for a container never runs on the bare node.
# bats file_tags=releases
load support

HOST='echo ran on the host'

@test "without the launcher" {
	plugstack 'launcher=/no/such/coracle'
	at=node refused system '/no/such/coracle: ' srun -n2 --container="$busybox" sh -c "$HOST"
	job_script job.sh "$HOST"
	refused_batch system '/no/such/coracle: ' --container="$busybox" job.sh
	good srun -n1 sh -c "$HOST"
	prints 'ran on the host'
}

@test "with a launcher that cannot be executed" {
	install -m 644 /dev/null nothing
	plugstack "launcher=$dir/nothing"
	at=node refused system "$dir/nothing: " srun -n2 --container="$busybox" sh -c "$HOST"
}

@test "with a launcher that ends at once" {
	plugstack 'launcher=/bin/false'
	at=node refused internal 'the launcher: ended without an answer' srun -n2 --container="$busybox" sh -c "$HOST"
	plugstack 'launcher=/bin/true'
	at=node refused internal 'the launcher: ended without an answer' srun -n16 --container="$busybox" sh -c "$HOST"
}

@test "with a launcher that answers nonsense" {
	install -m 755 /dev/stdin /usr/local/bin/coracle-nonsense <<<$'#!/bin/sh\nhead -c 100 /dev/urandom >&3'
	plugstack 'launcher=/usr/local/bin/coracle-nonsense'
	run alice srun -n2 --container="$busybox" sh -c "$HOST"
	rm /usr/local/bin/coracle-nonsense
	((status == 125)) || fail "$status $output"
	said internal ''
}

# A file system of alice's that can be made to hang, and the launcher with it.
cleanup() {
	[[ -z ${fuse:-} ]] || { kill -CONT "$fuse"; kill "$fuse"; wait "$fuse" || true; fuse=''; } 2>/dev/null
	! mountpoint -q "$dir/fuse" || umount --lazy "$dir/fuse"
}

@test "with a launcher that is killed while tasks wait" {
	mkdir tree
	cp "$busybox" tree/x.sif
	mksquashfs tree fuse.sqsh -noappend -quiet -no-progress -all-root >/dev/null
	install -d -o alice fuse
	# Debian 11 has no squashfuse_ll.
	setpriv --reuid=alice --regid=alice --init-groups --inh-caps=+sys_admin --ambient-caps=+sys_admin \
		"$(type -P squashfuse_ll || type -P squashfuse)" -f fuse.sqsh fuse >/dev/null 2>&1 3>&- &
	fuse=$!
	eventually alice test -e fuse/x.sif
	job=$(alice sbatch --parsable -H -o "$dir/batch.out" --container="$dir/fuse/x.sif" --wrap "$HOST")
	kill -STOP "$fuse"
	scontrol release "$job"
	eventually pgrep -x "$PROGRAMS"
	kill -KILL $(pgrep -x "$PROGRAMS")
	kill -CONT "$fuse"
	eventually ended "$job"
	output=$(<batch.out)
	said internal 'the launcher: ended without an answer'
	[[ $(job_field "$job" ExitCode) == 125:0 ]]
}

@test "with a request that nobody made: SLURM_CORACLE_REQUEST forged in many ways" {
	local form
	for form in garbage 2: 3:image=/x 2:image 2:image= 2:image=relative '2:image=/a;image=/b' '2:image=/a;bind=x' '2:bind=/a:/b:rw' \
		'2:image=/a;bind=/etc:/proc:rw' '2:image=/a;bind=/etc:/mnt/../x:rw' '2:image=/a;bind=/etc:/mnt:rwx' '2:image=/a;digest=sha256:0' \
		'2:image=/a;as=%00' '2:image=/a%' '2:image=/a%0' '2:image=%zz' '%s%s%n' '2:image=%s%s%n' '2:nonsense=1;image=/a' $'2:image=/a\nb' \
		$'\e[2J' $'2:image=\e]0;x\a' 'ü' $'\xff\xfe'; do
		run alice env FORM="$form" sh -c "SLURM_CORACLE_REQUEST=\$FORM srun -n1 --export=ALL,SLURM_CORACLE_REQUEST=\"\$(printf %s \"\$FORM\" | tr ',' ' ')\" sh -c '$HOST'"
		[[ $output != *'ran on the host'* ]] || fail "ran with $(printf %q "$form")" "$output" || return
		((status == 125)) || fail "status $status with $(printf %q "$form")" "$output" || return
		[[ $(grep -cE "${OURS}[^h]" <<<"$output") == 1 ]] || fail "not one line of ours with $(printf %q "$form")" "$output" || return
		[[ $output != *$'\e'* ]] || fail "a control character of $(printf %q "$form")" || return
	done
	healthy
}

@test "with a request of a job that another version of Coracle has submitted" {
	run alice srun -n1 --export=ALL,SLURM_CORACLE_REQUEST=1:image=/x sh -c "$HOST"
	((status == 125)) || fail "$status $output"
	said usage 'SLURM_CORACLE_REQUEST: of form 1, and this node reads form 2'
	has 'hint: the host on which the job was submitted has another version of Coracle'
}

@test "with a request of a megabyte, and with an empty one" {
	local big
	# One string of the environment is at most 128 KiB (execve(2)).
	big=$(head -c 100000 /dev/zero | tr '\0' x)
	run alice srun -n1 --export="ALL,SLURM_CORACLE_REQUEST=2:image=/$big" sh -c "$HOST"
	((status == 125)) || fail "$status ${output:0:2000}"
	said usage 'longer than 32768 bytes'
	run alice srun -n1 --export="ALL,SLURM_CORACLE_REQUEST=" sh -c "$HOST"
	((status == 125)) || fail "$status $output"
	said usage 'SLURM_CORACLE_REQUEST'
}

@test "a forged request that is well made is one like any other: opened as the user, judged by the site" {
	install -o bob -m 600 "$busybox" bobs.sif
	refused image-unreadable 'bobs.sif: you may not read it' srun -n1 --export="ALL,SLURM_CORACLE_REQUEST=2:image=$dir/bobs.sif" true
	good srun -n1 --export="ALL,SLURM_CORACLE_REQUEST=2:image=$busybox" cat /etc/image-only
	prints "$MARK"
	configure $'version: 1\nuser_images: deny'
	refused policy '(user_images: deny)' srun -n1 --export="ALL,SLURM_CORACLE_REQUEST=2:image=$busybox" true
}

@test "SLURM_CONTAINER that reaches a node by --export is honoured, not ignored" {
	good srun -n1 --export="ALL,SLURM_CONTAINER=$busybox" cat /etc/image-only
	prints "$MARK"
	refused image-missing '/no/such.sif: no such file' srun -n1 --export=ALL,SLURM_CONTAINER=/no/such.sif sh -c "$HOST"
}

@test "a name with control characters is one clean line" {
	local name=$'bad\e[2J\nname.sif'
	run alice srun -n1 --container="$dir/$name" true
	((status != 0))
	said image-missing 'bad\u{1b}[2J\nname.sif: no such file on this node'
	has_not $'\e'
	echo text >"$name"
	chmod 644 "$name"
	run alice srun -n1 --container="$dir/$name" true
	said image-format 'bad\u{1b}[2J\nname.sif: not an image'
	has_not $'\e'
}

@test "LD_PRELOAD and other variables of the job do nothing to the launcher" {
	cat >evil.c <<-'C'
	#include <stdio.h>
	__attribute__((constructor)) static void loaded(void) { FILE *f = fopen("/tmp/coracle-evil", "a"); if (f) fclose(f); }
	C
	# The cluster has a command of its own that is called as.
	PATH=/usr/bin:/bin gcc -shared -fPIC -o evil.so evil.c
	chmod 755 evil.so
	good srun -n1 -w n1 --export="ALL,LD_PRELOAD=$dir/evil.so,LD_AUDIT=$dir/evil.so,GCONV_PATH=$dir,LOCPATH=$dir,MALLOC_CHECK_=3,GLIBC_TUNABLES=x=y" --container="$busybox" cat /etc/image-only
	has_line "$MARK"
	on-node n1 test ! -e /tmp/coracle-evil
}

# A file that sbatch takes the job's whole environment from would lose the request.
@test "sbatch refuses --export-file together with --container" {
	sbatch --help | grep -q -- --export-file || skip "not there: sbatch of Slurm $(slurm_release) has no --export-file"
	printf 'PATH=/bin:/usr/bin\0' >environment
	printf '#!/bin/sh\ncat /etc/image-only\n' >job.sh
	at=submit refused usage '--export-file: cannot be used together with --container' \
		sbatch --export-file="$dir/environment" --container="$busybox" job.sh
}

# A SPANK plugin that is no friend of ours: one of its hooks answers 1, and Slurm then skips those behind it.
rude_plugin() { # HOOK
	cat >rude.c <<-C
		#include <slurm/spank.h>
		SPANK_PLUGIN(rude, 1)
		int $1(spank_t spank, int count, char **words) { return spank_remote(spank) == 1 ? 1 : 0; }
	C
	PATH=/usr/bin:$PATH gcc -shared -fPIC -I"${BIN_SLURM%/bin}/include" -o /usr/lib/rude.so rude.c
	{ echo 'required /usr/lib/rude.so'; cat "$SUITE/coracle.conf"; } >/etc/slurm/plugstack.conf.d/coracle.conf
}

# A step that was started without a hook of ours. Slurm itself ends it from 23.11 on, in each release with other words.
ended_without() { # HOOK-THAT-IS-SKIPPED
	if since 23.11; then
		((status != 0)) || fail "$status $output"
	else
		((status == 125)) || fail "$status $output"
		has "coracle: plugin: Slurm has not called its $1 [internal]"
	fi
	has_not 'ran on the host'
	healthy
}

does_not_lead_to_the_node() { # HOOK-THAT-IS-SKIPPED
	rude_plugin "slurm_spank_$1"
	run alice srun -n2 --container="$busybox" sh -c "cat /etc/image-only || $HOST"
	if since 22.05; then
		ended_without "$1"
		return
	fi
	# Slurm takes it for success and skips nobody.
	((status == 0)) || fail "$status $output"
	prints "$MARK"$'\n'"$MARK"
	has_not 'ran on the host'
	healthy
}

@test "another plugin that keeps ours from its init_post_opt does not lead to the node" {
	does_not_lead_to_the_node init_post_opt
}

# Which image the site has for such a step nobody has asked by then.
@test "another plugin that keeps ours from its init_post_opt does not lead to the node with defaults=on either" {
	since 22.05 || skip "not there: Slurm $(slurm_release) skips no plugin"
	rude_plugin slurm_spank_init_post_opt
	sed -i '/spank_coracle/s/$/ defaults=on/' /etc/slurm/plugstack.conf.d/coracle.conf
	run alice srun -n2 sh -c "$HOST"
	ended_without init_post_opt
}

@test "another plugin that keeps ours from its task_init_privileged does not lead to the node" {
	does_not_lead_to_the_node task_init_privileged
}

@test "an srun without the plugin, inside a job with a container, runs its step in it all the same" {
	sed "s#^include #&$ETC_SLURM/#" "$ETC_SLURM/slurm.conf" >bare.conf
	echo 'PlugStackConfig=/dev/null' >>bare.conf
	good env SLURM_CONF="$dir/bare.conf" "SLURM_CORACLE_STEPS=2:image=$busybox" srun -n1 cat /etc/image-only
	has_line "$MARK"
}

@test "a component of a heterogeneous step that refuses ends the others" {
	on-node n1 cp "$busybox" /var/tmp/het.sif
	run alice timeout 60 srun -w n1 -n1 --container=/var/tmp/het.sif sleep 300 : \
		-w n2 -n1 --container=/var/tmp/het.sif sleep 300
	on-node n1 rm /var/tmp/het.sif
	((status != 0 && status != 124)) || fail "$status $output"
	has '/var/tmp/het.sif: no such file on this node'
	has '[image-missing]'
	eventually no_tasks
}
