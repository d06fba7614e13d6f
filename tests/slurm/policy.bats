# The site's rules: who may run what where, what steps get that ask for nothing, and what a job cannot say of itself.
# QOS is not here: Slurm has none without slurmdbd. The unit tests of src/policy have it.
load support
bats_require_minimum_version 1.5.0

FACTS=/etc/slurm/plugstack.conf.d/facts.conf
SPOOF=(env SLURM_JOB_PARTITION=other SLURM_JOB_ACCOUNT=other SLURM_JOB_QOS=other)

cleanup() {
	echo 'required /usr/lib/coracle/spank_coracle_facts.so job_facts=prolog' >"$FACTS"
	rm -rf /scratch/deny /scratch/allow /scratch/allow2
}

rules() { # TEXT
	configure "version: 1
user_images: kernel
image_paths: [{path: $IMG}]
$1"
}

runs() { # SRUN-ARGUMENT...
	good srun -Q -n1 "$@" --container="$busybox" cat /etc/image-only || return
	prints "$MARK"
}

denied() { # TEXT SRUN-ARGUMENT...
	local text=$1
	shift
	at=node refused policy "$text" srun -n1 "$@" --container="$busybox" true
}

WHERE='test -e /etc/image-only && echo inside || echo host'

@test "a rule of a partition holds there and nowhere else" {
	rules 'partitions: {other: {max_image_size: 4k}}'
	denied 'bytes long, and the site runs images of at most 4096 (partitions.other.max_image_size)' -p other
	runs -p main
}

@test "a rule of an account, and a rule of a user and of a group before it" {
	rules 'accounts: {physics: {max_image_size: 4k}}'
	denied '(accounts.physics.max_image_size)' -A physics
	runs -A chemistry
	runs
	rules 'accounts: {physics: {max_image_size: 4k}}
groups: {proj: {max_image_size: 5k}}'
	denied '(groups.proj.max_image_size)' -A physics
	rules 'groups: {proj: {max_image_size: 5k}}
users: {alice: {max_image_size: any}, bob: {max_image_size: 6k}}'
	runs -A physics
	run as -d "$PWD" bob srun -Q -n1 --container="$busybox" true
	((status == 125))
	has 'at most 6144 (users.bob.max_image_size)'
	rules 'users: {2001: {user_images: deny}, 2002: {max_image_size: 6k}}
image_paths: []'
	sed -i /image_paths:.*path/d /etc/coracle/coracle.yaml
	denied '(users.2001.user_images: deny)'
}

@test "what a job says of its partition and account changes nothing" {
	rules 'partitions: {main: {max_image_size: 4k}}'
	at=node refused policy '(partitions.main.max_image_size)' "${SPOOF[@]}" srun -p main -n1 --export=ALL --container="$busybox" true
	job_script job.sh "export SLURM_JOB_PARTITION=other SLURM_JOB_ID=1; srun --jobid=\$REAL -n1 --container=$busybox true"
	run alice sbatch --parsable -W -p main -o "$dir/out" --wrap "export REAL=\$SLURM_JOB_ID; $dir/job.sh"
	output=$(<out)
	has '(partitions.main.max_image_size) [policy]'
	rules 'accounts: {physics: {max_image_size: 4k}}'
	at=node refused policy '(accounts.physics.max_image_size)' "${SPOOF[@]}" srun -A physics -n1 --container="$busybox" true
}

@test "without the facts a rule of a job refuses by its name, and one of a user does not" {
	echo 'required /usr/lib/coracle/spank_coracle_facts.so' >"$FACTS"
	rules 'partitions: {other: {max_image_size: 4k}}'
	denied "the rule partitions.other.max_image_size of the site needs the job's partition, not known here" -p main
	has 'hint: plugstack.conf needs job_facts=prolog'
	rules 'partitions: {other: {max_image_size: 4k}}
users: {alice: {max_image_size: any}}'
	runs -p other
	# A default allows nothing, and may be what the job says.
	plugstack 'defaults=on'
	rules "partitions: {other: {default_image: $busybox}}"
	good srun -Q -n1 -p other sh -c "$WHERE"
	prints inside
}

@test "facts are root's alone, and gone with their job" {
	rules 'partitions: {other: {max_image_size: 4k}}'
	alice srun -Q -N1 -w n1 -p main -A physics sh -c 'touch here; ls /run/coracle/jobs 2>said; while [ -e here ]; do sleep 0.1; done' &
	eventually test -e here
	local job
	job=$(squeue --noheader --format %A)
	run on-node n1 cat "/run/coracle/jobs/$job"
	prints $'uid=2001\npartition=main\naccount=physics'
	[[ $(on-node n1 stat -c '%a %u' /run/coracle/jobs "/run/coracle/jobs/$job") == $'700 0\n600 0' ]]
	rm here
	wait
	[[ $(<said) == *'Permission denied'* ]]
	facts_left() { on-node n1 ls /run/coracle/jobs; }
	gone() { [[ -z $(facts_left) ]]; }
	eventually gone
}

@test "a launcher that is missing in the prolog hurts no node" {
	echo 'required /usr/lib/coracle/spank_coracle_facts.so job_facts=prolog launcher=/no/such' >"$FACTS"
	good srun -Q -n1 echo fine
	prints fine
	rules 'partitions: {other: {max_image_size: 4k}}'
	denied 'partitions.other.max_image_size' -p main
}

@test "two partitions with two default images, and an image that is asked for" {
	plugstack 'defaults=on'
	rules "partitions: {main: {default_image: $busybox}, other: {default_image: $IMG/bare.sif}}"
	good srun -Q -n1 -p main cat /etc/image-only
	prints "$MARK"
	good srun -Q -n1 -p other sh -c 'test -e /image-only && echo bare'
	prints bare
	good "${SPOOF[@]}" srun -Q -n1 -p main cat /etc/image-only
	prints "$MARK"
	runs -p other
}

@test "without defaults=on nothing is done for steps that ask for nothing" {
	rules "default_image: $busybox
required: yes"
	good srun -Q -n1 sh -c "$WHERE"
	prints host
}

@test "a default image is inherited like a chosen one: job script, its steps, their options" {
	plugstack 'defaults=on'
	rules "partitions: {main: {default_image: $busybox}}"
	mkdir data && touch data/mine
	job_script job.sh "$WHERE
srun -n1 sh -c '$WHERE'
srun -n1 --container-bind=$dir/data:/mnt/data ls /mnt/data
srun -n1 --overlap --container=none /bin/sh -c '$WHERE; srun -n1 --overlap sh -c \"$WHERE\"'"
	batch -p main ./job.sh
	prints $'inside\ninside\nmine\nhost\nhost'
	good salloc -Q -n1 -p main srun sh -c "$WHERE"
	prints inside
}

@test "--container=none where it is allowed, and what it passes on" {
	plugstack 'defaults=on'
	rules "default_image: $busybox"
	good srun -Q -n1 --container=none sh -c "$WHERE"
	prints host
	batch --container=none --wrap "$WHERE; srun -n1 sh -c '$WHERE'"
	prints $'host\nhost'
	good salloc -Q -n1 --container=none srun sh -c "$WHERE"
	prints host
	batch --container-scope=script --container="$busybox" --wrap "$WHERE; srun -n1 /bin/sh -c '$WHERE'"
	prints $'inside\nhost'
}

@test "--container=none, nothing and a scope where a container is required" {
	plugstack 'defaults=on'
	rules 'partitions: {other: {required: yes}}'
	at=node refused policy '--container=none: the site runs nothing outside of containers (partitions.other.required: yes)' \
		srun -n1 -p other --container=none true
	at=node refused policy 'a step without --container: the site runs nothing outside of containers' srun -n2 -p other true
	refused_batch policy '(partitions.other.required: yes)' -p other --wrap true
	refused_batch policy '--container-scope: the site runs nothing outside of containers' -p other \
		--container="$busybox" --container-scope=steps --wrap true
	runs -p other
	good srun -Q -n1 -p main --container=none sh -c "$WHERE"
	prints host
	echo 'required /usr/lib/coracle/spank_coracle_facts.so' >"$FACTS"
	at=node refused policy "the rule partitions.other.required of the site needs the job's partition" srun -n1 -p main true
}

# A program of alice's that srun is to have run behind each task; what it writes says where it ran.
epilog() {
	job_script epilog.sh "test -e /etc/image-only && echo inside >>$dir/epilog || echo host >>$dir/epilog"
	rm -f "$dir/epilog"
}

not_with_epilog() { # TEXT COMMAND...
	at=submit refused policy "--task-epilog: $1" "${@:2}" || return
	[[ ! -e epilog ]] || fail "$(<epilog)"
}

@test "a task epilog of the user's, which runs on the node, is refused where a container is required: option and variable" {
	plugstack 'defaults=on'
	rules 'required: yes'
	epilog
	local why='runs on the node, and the site runs nothing outside of containers (required: yes)'
	not_with_epilog "$why" srun -n1 --task-epilog="$dir/epilog.sh" --container="$busybox" true
	not_with_epilog "$why" env SLURM_TASK_EPILOG="$dir/epilog.sh" srun -n1 --container="$busybox" true
	not_with_epilog "$why" srun -n1 --task-epilog="$dir/epilog.sh" true
	not_with_epilog "$why" srun -n1 --task-epilog="$dir/epilog.sh" --container=none true
	not_with_epilog "$why" srun -n1 --container="$busybox" true : -n1 --task-epilog="$dir/epilog.sh" --container="$busybox" true
	# In jobs: a script's step, salloc's, and one that joins.
	job_script job.sh "srun -n1 --task-epilog=$dir/epilog.sh true; echo \$?; SLURM_TASK_EPILOG=$dir/epilog.sh srun -n1 --container=$busybox true; echo \$?"
	batch --container="$busybox" job.sh
	[[ $(grep -cE "^srun: error: coracle: --task-epilog: .*\[policy\]$" <<<"$output") == 2 && $(grep -cx 0 <<<"$output") == 0 ]] || fail "$output"
	run alice env SLURM_TASK_EPILOG="$dir/epilog.sh" sbatch --parsable -W -o "$dir/batch.out" --container="$busybox" --wrap 'srun -n1 true'
	((status != 0))
	grep -qF "coracle: --task-epilog: $why" batch.out || fail "$(<batch.out)"
	run alice salloc -Q -n1 srun --task-epilog="$dir/epilog.sh" --container="$busybox" true
	((status != 0))
	has "coracle: --task-epilog: $why"
	[[ ! -e epilog ]]
	# What only looks like one.
	good srun -n1 --task-epilog= --container="$busybox" cat /etc/image-only
	prints "$MARK"
	job_script prolog.sh "test -e /etc/image-only && echo print inside || echo print host"
	good srun -Q -n1 --task-prolog="$dir/prolog.sh" --container="$busybox" true
	prints inside
	good env SLURM_TASK_PROLOG="$dir/prolog.sh" srun -Q -n1 --container="$busybox" true
	prints inside
	# These run where srun does.
	good srun -Q -n1 --prolog="$dir/epilog.sh" --epilog="$dir/epilog.sh" --container="$busybox" cat /etc/image-only
	prints "$MARK"
	[[ $(<epilog) == $'host\nhost' ]]
}

@test "a task epilog of the user's where nothing is required, or not of this user or job" {
	epilog
	rules 'required: yes'
	good srun -n1 --task-epilog="$dir/epilog.sh" --container="$busybox" true
	plugstack 'defaults=on'
	rules "default_image: $busybox"
	good srun -n1 --task-epilog="$dir/epilog.sh" true
	batch --wrap "srun -n1 --task-epilog=$dir/epilog.sh cat /etc/image-only"
	prints "$MARK"
	rules 'required: yes
users: {alice: {required: no}}'
	good srun -n1 --task-epilog="$dir/epilog.sh" --container="$busybox" true
	[[ $(<epilog) == $'host\nhost\nhost\nhost' ]] || fail "$(<epilog)"
	epilog
	rules 'groups: {proj: {required: yes}}'
	not_with_epilog 'runs on the node, and the site runs nothing outside of containers (groups.proj.required: yes)' \
		srun -n1 --task-epilog="$dir/epilog.sh" --container="$busybox" true
	rules 'partitions: {other: {required: yes}}'
	local why='runs on the node, and the site runs nothing outside of containers (partitions.other.required: yes)'
	not_with_epilog "$why" srun -n1 -p other --task-epilog="$dir/epilog.sh" --container="$busybox" true
	not_with_epilog "$why" srun -n1 -p main,other --task-epilog="$dir/epilog.sh" --container="$busybox" true
	not_with_epilog "the rule partitions.other.required of the site needs the job's partition, not known here" \
		srun -n1 --task-epilog="$dir/epilog.sh" --container="$busybox" true
	run alice salloc -Q -n1 -p other srun --task-epilog="$dir/epilog.sh" --container="$busybox" true
	((status != 0))
	has "coracle: --task-epilog: $why"
	good srun -n1 -p main --task-epilog="$dir/epilog.sh" --container="$busybox" true
	good salloc -Q -n1 -p main srun --task-epilog="$dir/epilog.sh" --container="$busybox" true
	[[ $(<epilog) == $'host\nhost' ]] || fail "$(<epilog)"
}

@test "a task epilog of the user's is refused where nobody can say whether a container is required" {
	plugstack 'defaults=on'
	epilog
	rules 'required: yes'
	chmod 600 /etc/coracle/coracle.yaml
	at=submit refused config /etc/coracle/coracle.yaml srun -n1 --task-epilog="$dir/epilog.sh" --container="$busybox" true
	chmod 644 /etc/coracle/coracle.yaml
	plugstack 'defaults=on launcher=/no/such'
	at=submit refused system --task-epilog srun -n1 --task-epilog="$dir/epilog.sh" --container="$busybox" true
	[[ ! -e epilog ]]
}

@test "a step on the node under defaults=on is as without it" {
	# The variables of this step, without what each has of its own.
	local what='env | grep -vE "^(SLURM_(JOB_?ID|STEP_?ID|LAUNCH_NODE|SRUN_COMM|STEP_LAUNCHER|TASK_PID|JOB_(START|END)|CPU_BIND)|_=)" | sort; grep -E "^(Cap|NoNew|Seccomp)" /proc/self/status; readlink /proc/self/ns/mnt'
	good srun -Q -n1 -w n1 sh -c "$what"
	local before=$output
	plugstack 'defaults=on'
	rules "partitions: {other: {default_image: $busybox}}"
	good srun -Q -n1 -w n1 sh -c "$what"
	diff <(echo "$before") <(echo "$output")
}

@test "a broken coracle.yaml refuses every step under defaults=on, and drains no node" {
	plugstack 'defaults=on'
	configure 'version: 2'
	at=node refused config '`version` 2 is not known' srun -n1 true
}

@test "which options users may use" {
	rules 'user_options: [bind]
groups: {proj: {user_options: [env, home]}}'
	denied '--container-bind: the site does not let you use this option (groups.proj.user_options)' --container-bind=/scratch
	good srun -Q -n1 --container="$busybox" --container-env=A=1 sh -c 'echo $A'
	prints 1
	denied '--container-digest: the site does not let you' --container-digest="sha256:$(printf '0%.0s' {1..64})"
	at=node refused policy '--container-writable: the site does not let you' \
		env CORACLE_CONTAINER_WRITABLE=yes srun -n1 --container="$busybox" true
}

@test "a list of digests" {
	local digest
	digest=$(sha256sum "$busybox" | cut -d' ' -f1)
	rules "digests: [sha256:$digest]"
	runs
	at=node refused policy 'is not in the site'"'"'s list (digests)' srun -n1 --container="$IMG/bare.sif" true
	rules "partitions: {main: {digests: []}, other: {digests: [sha256:$digest]}}"
	denied "its digest sha256:$digest is not in the site's list (partitions.main.digests)" -p main
	runs -p other
	# His own copy could be another file in the next moment.
	rules "digests: [sha256:$digest]"
	install -o alice -m 600 "$busybox" mine.sif
	at=node refused policy 'mine.sif: you can change it, and the site runs only what it has a list of (digests)' \
		srun -n1 --container="$dir/mine.sif" true
}

@test "signers: a signed image of the site's runs where its key is asked for, and an unsigned or altered one does not" {
	real busybox-signed-pgp.sif
	install -D -m 644 "$REAL/busybox-signed-pgp.pub.asc" /etc/coracle/keys/site.asc
	chmod 755 /etc/coracle/keys
	local key signed=$IMG/signed.sif
	install -m 644 "$dir/busybox-signed-pgp.sif" "$signed"
	key=$(coracle verify --json "$signed" | python3 -c 'import json, sys; print(json.load(sys.stdin)["signers"][0]["key"])')
	rules "partitions: {main: {signers: [$key]}, other: {signers: ['0123456789ABCDEF0123456789ABCDEF01234567']}}"
	good srun -Q -n1 -p main --container="$signed" true || return
	# A program that is not there, or that ends without an answer, says nothing of signatures.
	local verify=/usr/lib/coracle/coracle-verify
	on-node n1 mount --bind /dev/null $verify
	run alice srun -n1 -w n1 -p main --container="$signed" true
	on-node n1 umount $verify
	((status == 125)) && said system "$verify: " || fail "$status" "$output" || return
	on-node n1 mount --bind "$(type -P true)" $verify
	run alice srun -n1 -w n1 -p main --container="$signed" true
	on-node n1 umount $verify
	((status == 125)) && said internal 'the process that looks at it has died' || fail "$status" "$output" || return
	at=node refused policy "signed by $key, none of the site's signers (partitions.other.signers)" \
		srun -n1 -p other --container="$signed" true || return
	denied 'it has no valid signature that covers all of it (partitions.main.signers)' -p main || return
	at=node refused policy 'you can change it' srun -n1 -p main --container="$dir/busybox-signed-pgp.sif" true || return
	patched "$signed" "$IMG/altered.sif" 60000 '\377'
	at=node refused signature 'altered.sif' srun -n1 -p main --container="$IMG/altered.sif" true || return
	rules "image_paths: [{path: $IMG, signers: [$key]}]"
	sed -i '0,/^image_paths/{/^image_paths/d}' /etc/coracle/coracle.yaml
	good srun -Q -n1 --container="$signed" true || return
	denied 'it has no valid signature that covers all of it (image_paths[0].signers)' || return
	rm -f "$signed" "$IMG/altered.sif" /etc/coracle/keys/site.asc
}

@test "signers: what is not known to be signed does not run" {
	rules 'partitions: {main: {signers: ["0123456789ABCDEF0123456789ABCDEF01234567"]}}'
	denied '(partitions.main.signers)' -p main
	runs -p other
}

@test "bind_allow: siblings, dots, links and aliases" {
	install -d -o alice /scratch/allow/in /scratch/allow2 /scratch/allow/mnt
	ln -s /scratch/allow2 /scratch/allow/out
	ln -s /scratch/allow/in /scratch/allow2/in
	rules 'bind_allow: [/scratch/allow]'
	local source
	for source in /scratch/allow /scratch/allow/in /scratch/allow2/in /scratch/allow2/../allow/in; do
		good srun -Q -n1 --container="$busybox" --container-bind="$source:/mnt/x" ls -d /mnt/x || return
	done
	for source in /scratch/allow2 /scratch/allow/../allow2 /scratch/allow/out /scratch / /home/alice; do
		denied "$source: in no directory that you may bind from (bind_allow)" --container-bind="$source:/mnt/x" || return
	done
	has 'hint: allowed are /scratch/allow'
	denied '/scratch/allow2: in no directory that you may bind from' --container-overlay=/scratch/allow2
}

@test "bind_deny: in it, above it, by another name, the working directory, the home and a directory image" {
	install -d -o alice /scratch/deny/in /scratch/allow
	ln -s /scratch/deny/in /scratch/allow/link
	rules 'bind_deny: [/scratch/deny]
directories: allow'
	local source said='containers do not show /scratch/deny, and this is in it or has it inside (bind_deny)'
	for source in /scratch/deny /scratch/deny/in /scratch/allow/link /scratch / /scratch/allow/../deny; do
		denied "$said" --container-bind="$source:/mnt/x" || return
	done
	# A second mount of a part of it, and what is above that. Not with `denied`, which wants the mounts as they were.
	on-node n1 mkdir /tmp/alias
	on-node n1 mount --bind /scratch/deny/in /tmp/alias
	run alice srun -Q -n1 -w n1 --container="$busybox" --container-bind=/tmp/alias:/mnt/x true
	local below=$output
	run alice srun -Q -n1 -w n1 --container="$busybox" --container-bind=/tmp:/mnt/x true
	on-node n1 umount /tmp/alias
	on-node n1 rmdir /tmp/alias
	said policy "/tmp: $said"
	output=$below
	said policy "/tmp/alias: $said"
	good srun -Q -n1 --container="$busybox" --container-bind=/scratch/allow:/mnt/x ls /mnt/x
	denied "/scratch/deny/in: $said" -D /scratch/deny/in
	at=node refused policy "$said" srun -n1 --container=/scratch/deny/in true
	rules 'bind_deny: [/home/alice/secret]'
	install -d -o alice /home/alice/secret
	denied '/home/alice: containers do not show /home/alice/secret'
	has 'hint: --no-container-home leaves it out'
	runs --no-container-home
	rules 'bind_deny: [/scratch/deny]'
	good env XAUTHORITY=/scratch/deny/in srun -Q -n1 -D / --container="$busybox" sh -c 'ls -d /scratch/deny 2>/dev/null || echo hidden'
	prints hidden
	rmdir /home/alice/secret
}

@test "config check: what is wrong, whose names are unknown, and which line decides" {
	local file=$dir/site.yaml
	cat >"$file" <<-YAML
	version: 1
	user_images: kernel
	partitions:
	  other:
	    max_image_size: 4k
	    default_image: $busybox
	users:
	  alice: {directories: allow}
	  nobody-of-that-name: {required: no}
	YAML
	run -0 alice coracle config check "$file"
	has "coracle: warning: $file:9:3: users.nobody-of-that-name: no such user on this node"
	has_line "$file: good"
	run -0 coracle config check "$file" --user alice --partition main --image "$busybox"
	has "user_images     kernel                   user_images ($file:2)"
	has "directories     allow                    users.alice.directories ($file:8)"
	has 'max_image_size  -                        not said'
	has_line 'without --container: on the node'
	has "$busybox: allowed by user_images=kernel"
	run -1 coracle config check "$file" --user alice --partition other --image "$busybox"
	has "max_image_size  4096 bytes               partitions.other.max_image_size ($file:5)"
	has_line "without --container: in $busybox (with defaults=on)"
	has "images of at most 4096 (partitions.other.max_image_size) [policy]"
	# Of oneself everybody may ask, and gets the same as without a name.
	run -0 alice coracle config check "$file" --partition main
	local unnamed=$output
	run -0 alice coracle config check "$file" --user alice --partition main
	prints "$unnamed"
	sed -i 's/max_image_size/max_size/' "$file"
	run -1 alice coracle config check "$file"
	has "coracle: $file:5:5: partitions.other: unknown field \`max_size\`, expected one of"
	run -2 alice coracle config check "$file" --nonsense
	run -1 alice coracle config check "$dir/none.yaml"
	run -2 alice coracle config check /etc/coracle/coracle.yaml --user bob
}
