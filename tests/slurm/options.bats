# The options: where each may be given, which place wins, and what each refuses.
load support

env=$IMG/env.sif

# What the job of srun, sbatch, #SBATCH and salloc says with an option; the salloc shell is a step of its own.
everywhere() { # WANTED COMMAND OPTION...
	local wanted=$1 command=$2
	shift 2
	good srun -n1 --container="$env" "$@" sh -c "$command"
	prints "$wanted" || { fail 'srun'; return; }
	batch --container="$env" "$@" --wrap "$command"
	prints "$wanted" || { fail 'sbatch'; return; }
	{
		printf '%s\n' '#!/bin/sh' "#SBATCH --container=$env"
		printf '#SBATCH %s\n' "$@"
		echo "$command"
	} >script.sh
	chmod 755 script.sh
	batch script.sh
	prints "$wanted" || { fail '#SBATCH'; return; }
	good salloc -Q -n1 --container="$env" "$@" srun -n1 sh -c "$command"
	prints "$wanted" || { fail 'salloc'; return; }
}

# The same by a variable.
by_variable() { # WANTED COMMAND VARIABLE=VALUE
	good env "$3" srun -n1 --container="$env" sh -c "$2"
	prints "$1" || { fail 'srun'; return; }
	job=$(alice env "$3" sbatch --parsable -o "$dir/batch.out" --container="$env" --wrap "$2")
	eventually ended "$job"
	output=$(<batch.out)
	prints "$1" || { fail 'sbatch'; return; }
	good env "$3" salloc -Q -n1 --container="$env" srun -n1 sh -c "$2"
	prints "$1" || { fail 'salloc'; return; }
}

# The same by coracle.yaml.
by_site() { # WANTED COMMAND KEY: VALUE
	configure $'version: 1\nuser_images: kernel\nbinds:\n- source: /scratch\noptions:\n  '"$3"
	good srun -n1 --container="$env" sh -c "$2"
	prints "$1" || { fail 'site default, srun'; return; }
	batch --container="$env" --wrap "$2"
	prints "$1" || fail 'site default, sbatch'
}

@test "srun, sbatch and salloc --help show every option once" {
	local command name
	for command in srun sbatch salloc; do
		good "$command" --help
		for name in bind digest workdir home env clean-env writable overlay entrypoint scope; do
			[[ $(grep -cE -- "^ *--container-${name}[ =[]" <<<"$output") == 1 ]] || fail "$command --container-$name" "$output" || return
		done
		has '--no-container-home'
		has '--no-container-entrypoint'
		has_not coracle-bind
	done
}

@test "workdir" {
	everywhere $'/var/tmp\n/var/tmp' 'pwd; echo $PWD' --container-workdir=/var/tmp
}

@test "workdir by variable and by site" {
	by_variable /etc pwd CORACLE_CONTAINER_WORKDIR=/etc
	by_site /etc pwd 'workdir: /etc'
	good srun -n1 --container="$env" --container-workdir=/tmp pwd
	prints /tmp
}

@test "workdir takes the job from a directory that the node of the container need not show" {
	run alice srun -n1 --chdir=/root --container="$env" --container-workdir=/etc pwd
	has_line /etc
}

@test "a workdir that is not there or may not be entered is refused" {
	refused workdir '/no/such: cannot be entered in the container' srun -n1 --container="$env" --container-workdir=/no/such true
	refused workdir '/etc/passwd: cannot be entered in the container' srun -n1 --container="$env" --container-workdir=/etc/passwd true
	refused workdir '/no/such: cannot be entered in the container' srun -N1 -n6 --container="$env" --container-workdir=/no/such true
	job_script job.sh true
	refused_batch workdir /no/such --container="$env" --container-workdir=/no/such job.sh
}

@test "home and no-home" {
	cd /scratch
	everywhere no 'test -e "$HOME/." && echo yes || echo no' --no-container-home
	everywhere yes 'test -e "$HOME/." && echo yes || echo no' --container-home
	cd "$dir"
}

@test "home by variable and by site, and the later option counts" {
	by_variable no 'test -e $HOME/. && echo yes || echo no' CORACLE_CONTAINER_HOME=no
	by_site no 'test -e $HOME/. && echo yes || echo no' 'home: false'
	good srun -n1 --container="$env" --container-home sh -c 'test -e $HOME/. && echo yes'
	prints yes
	good srun -n1 --container="$env" --container-home --no-container-home sh -c 'test -e $HOME/. || echo no'
	prints no
	good env CORACLE_CONTAINER_HOME=no srun -n1 --container="$env" --container-home sh -c 'test -e $HOME/. && echo yes'
	prints yes
	configure $'version: 1\nuser_images: kernel\nbinds:\n- source: /scratch\noptions:\n  home: true'
	good env CORACLE_CONTAINER_HOME=no srun -n1 --container="$env" sh -c 'test -e $HOME/. || echo no'
	prints no
}

@test "the working directory below a home that is not shown is there, and nothing beside it" {
	install -d -o alice -g alice /home/alice/work
	touch /home/alice/beside
	good srun -n1 --chdir=/home/alice/work --no-container-home --container="$env" sh -c 'pwd; ls ..'
	rm -r /home/alice/work /home/alice/beside
	prints $'/home/alice/work\nwork'
}

@test "binds" {
	install -d -m 777 data
	touch data/found
	everywhere found 'ls /mnt/in' --container-bind="$dir/data:/mnt/in"
	everywhere $'found\ntmpfs' "ls /mnt/in; sed -n 's:.* /mnt/mem .* - \\(tmpfs\\) .*:\\1:p' /proc/self/mountinfo" \
		--container-bind="$dir/data:/mnt/in" --container-bind=tmpfs:/mnt/mem:1m
}

@test "a tmpfs is empty, the user's, limited, shared by the tasks of a node and by no other" {
	good srun -N2 --ntasks-per-node=2 --container="$env" --container-bind=tmpfs:/mnt/mem:64k sh -c '
		echo x >/mnt/mem/$SLURM_PROCID || echo cannot write
		until [ $(ls /mnt/mem | wc -l) -ge 2 ]; do sleep 0.1; done
		[ $(ls /mnt/mem | grep -v big | wc -l) = 2 ] || echo not its own
		if [ $SLURM_LOCALID = 0 ]; then dd if=/dev/zero of=/mnt/mem/big bs=200000 count=1 2>&1; else sleep 1; fi; true'
	has 'No space left on device'
	has_not 'not its own'
	has_not 'cannot write'
}

@test "digest" {
	local digest
	digest=sha256:$(sha256sum "$env" | cut -d' ' -f1)
	everywhere "$digest" 'echo $CORACLE_DIGEST' --container-digest="$digest"
	by_variable "$digest" 'echo $CORACLE_DIGEST' CORACLE_CONTAINER_DIGEST="$digest"
	refused digest 'was asked for' env CORACLE_CONTAINER_DIGEST=sha256:"$(printf '0%.0s' {1..64})" srun -n1 --container="$env" true
}

@test "env sets, keeps, and keeps by the beginning of names" {
	everywhere 'fast 2' 'echo "$MODE $OTHER"' --container-env=MODE=fast,OTHER=2
	good srun -n1 --container="$env" "--container-env=MODE=a b\,c,OTHER=\\\\" sh -c 'echo "$MODE|$OTHER"'
	prints "a b,c|\\"
}

@test "env by variable and by site, and the user's wins over the site's" {
	by_variable mine 'echo $MODE' CORACLE_CONTAINER_ENV=MODE=mine
	by_site 'sites two' 'echo $MODE $OTHER' 'env: [MODE=sites, OTHER=two]'
	good srun -n1 --container="$env" --container-env=MODE=mine sh -c 'echo $MODE $OTHER'
	prints 'mine two'
	good env CORACLE_CONTAINER_ENV=MODE=var srun -n1 --container="$env" --container-env=THIRD=3 sh -c 'echo $MODE $OTHER $THIRD'
	prints 'sites two 3'
}

@test "env passes the host's value over the image's" {
	good env IMAGE_SAYS=host LANG2=x srun -n1 --container="$env" sh -c 'echo $IMAGE_SAYS'
	prints 'from the image'
	good env IMAGE_SAYS=host srun -n1 --container="$env" --container-env=IMAGE_SAYS sh -c 'echo $IMAGE_SAYS'
	prints host
	good env IMAGE_SAYS=host srun -n1 --container="$env" '--container-env=IMAGE_*' --container-env=A=1 sh -c 'echo $IMAGE_SAYS $A'
	prints 'host 1'
	good srun -n1 --container="$env" --container-env=PATH,NOT_SET /bin/sh -c 'echo ${PATH#/run/coracle/slurm/bin:} ${NOT_SET-unset}'
	prints "$(alice sh -c 'echo "$PATH"') unset"
}

@test "clean-env" {
	good env MINE=1 srun -n1 --container="$env" --container-clean-env sh -c 'echo ${MINE-unset}'
	prints unset
	job_script job.sh 'echo ${MINE-unset} $SLURM_JOB_ID'
	batch --export=ALL,MINE=1 --container="$env" --container-clean-env job.sh
	prints "unset $job"
	good env MINE=1 salloc -Q -n1 --container="$env" --container-clean-env srun -n1 sh -c 'echo ${MINE-unset}'
	prints unset
	good env MINE=1 CORACLE_CONTAINER_CLEAN_ENV=yes srun -n1 --container="$env" sh -c 'echo ${MINE-unset}'
	prints unset
	good env MINE=1 srun -n1 --container="$env" --container-clean-env --container-env=MINE sh -c 'echo ${MINE-unset}'
	prints 1
	configure $'version: 1\nuser_images: kernel\noptions:\n  clean-env: true'
	good env MINE=1 srun -n1 --container="$env" sh -c 'echo ${MINE-unset}'
	prints unset
	good env MINE=1 CORACLE_CONTAINER_CLEAN_ENV=no srun -n1 --container="$env" sh -c 'echo ${MINE-unset}'
	prints 1
}

@test "writable" {
	everywhere $'made\n4096' 'echo made >/new-file; cat /new-file; stat -f -c %b*%S / | tr "*" " " | awk "{ print \$1 * \$2 / 1024 }"' --container-writable=4m
	everywhere made 'echo made >/new-file; cat /new-file' --container-writable
	by_variable made 'echo made >/new-file; cat /new-file' CORACLE_CONTAINER_WRITABLE=1m
	by_site made 'echo made >/new-file; cat /new-file' 'writable: 1m'
	good env CORACLE_CONTAINER_WRITABLE=no srun -n1 --container="$env" sh -c 'touch /new-file 2>&1 || true'
	has 'Read-only file system'
}

@test "entrypoint" {
	good srun -n1 --container="$env" --container-entrypoint echo x
	prints $'run script: 2 <echo> <x> <>\nx'
	good salloc -Q -n1 --container="$env" --container-entrypoint srun -n1 echo x
	prints $'run script: 2 <echo> <x> <>\nx'
	good env CORACLE_CONTAINER_ENTRYPOINT=yes srun -n1 --container="$env" echo x
	prints $'run script: 2 <echo> <x> <>\nx'
	good env CORACLE_CONTAINER_ENTRYPOINT=yes srun -n1 --container="$env" --no-container-entrypoint echo x
	prints x
	configure $'version: 1\nuser_images: kernel\nbinds:\n- source: /scratch\noptions:\n  entrypoint: true'
	good srun -n1 --container="$env" echo x
	prints $'run script: 2 <echo> <x> <>\nx'
	good srun -n1 --container="$env" --no-container-entrypoint echo x
	prints x
}

@test "a step in the job's image takes over what the job was given, and changes it" {
	job_script job.sh 'srun -n1 sh -c "pwd; echo \$MODE; test -e \$HOME/. || echo no home"
srun -n1 --container-workdir=/tmp --container-env=MODE=two --container-home sh -c "pwd; echo \$MODE; test -e \$HOME/. && echo home"
CORACLE_CONTAINER_WORKDIR=/var srun -n1 pwd'
	batch --container="$env" --container-workdir=/etc --container-env=MODE=one --no-container-home job.sh
	prints $'/etc\none\nno home\n/tmp\ntwo\nhome\n/var'
}

@test "the submitter's variables count for the job, and its steps keep them" {
	job=$(alice env CORACLE_CONTAINER_WORKDIR=/etc sbatch --parsable -o "$dir/batch.out" --container="$env" --wrap 'srun -n1 pwd; srun -n1 --container-workdir=/tmp pwd')
	eventually ended "$job"
	output=$(<batch.out)
	prints $'/etc\n/tmp'
}

@test "every wrong value is refused before the job queues, by each command" {
	local option text command
	while IFS='|' read -r option text; do
		for command in 'srun -n1' 'sbatch --wrap=true' 'salloc -n1'; do
			# shellcheck disable=SC2086
			at=submit refused usage "$text" $command --container="$env" "$option" ${command:+$([[ $command == sbatch* ]] || echo true)} || { fail "$command $option"; return; }
		done
	done <<-'END'
	--container-workdir=sub|sub: a path inside the container must be absolute and have no . or .. in it
	--container-workdir=|--container-workdir: its value is missing
	--container-workdir=/a/../b|/a/../b: a path inside the container must be absolute and have no . or .. in it
	--container-env=1A|1A: not a variable: NAME, NAME* or NAME=VALUE is wanted, several with commas between
	--container-env=|--container-env: its value is missing
	--container-env=SLURM_JOB_ID=1|SLURM_JOB_ID: Slurm and Coracle set this variable, and nobody else
	--container-env=CORACLE_IMAGE=1|CORACLE_IMAGE: Slurm and Coracle set this variable, and nobody else
	--container-writable=x|x: not a size: a number with k, m, g or t behind it, from 4k to 1023t
	--container-writable=1024t|1024t: not a size: a number with k, m, g or t behind it, from 4k to 1023t
	--container-writable=1.5g|1.5g: not a size
	--container-writable=-1|-1: not a size
	--container-overlay=|--container-overlay: its value is missing
	--container-scope=step|step: not a scope: script, steps or all is wanted
	--container-scope=|--container-scope: its value is missing
	--container-digest=md5:1|md5:1: not a digest: sha256: and 64 hexadecimal digits are wanted
	--container-bind=tmpfs|tmpfs: not a bind: SRC[:DST[:ro|rw]] is wanted, or tmpfs:DST[:SIZE], several with commas between
	--container-bind=tmpfs:/m:x|x: not a size
	END
}

@test "wrong values of the variables are refused before the job queues" {
	at=submit refused usage '--container-home: yes or no is wanted, not "maybe"' env CORACLE_CONTAINER_HOME=maybe srun -n1 --container="$env" true
	at=submit refused usage '--container-clean-env: yes or no is wanted, not "2"' env CORACLE_CONTAINER_CLEAN_ENV=2 srun -n1 --container="$env" true
	at=submit refused usage '--container-entrypoint: yes or no is wanted, not "x"' env CORACLE_CONTAINER_ENTRYPOINT=x srun -n1 --container="$env" true
	at=submit refused usage 'x: not a size' env CORACLE_CONTAINER_WRITABLE=x srun -n1 --container="$env" true
	at=submit refused usage 'x: not a scope' env CORACLE_CONTAINER_SCOPE=x srun -n1 --container="$env" true
	good env CORACLE_CONTAINER_HOME=maybe CORACLE_CONTAINER_SCOPE=x srun -n1 true
}

@test "to write into memory and into a directory at once is refused, and the command line wins over the variable" {
	at=submit refused usage 'cannot be used together with --container-writable' srun -n1 --container="$env" --container-writable --container-overlay="$dir" true
	good env CORACLE_CONTAINER_OVERLAY=/no/such srun -n1 --container="$env" --container-writable sh -c 'echo x >/new-file && cat /new-file'
	prints x
}

@test "every option without an image is refused before the job queues" {
	local option
	for option in --container-bind=/tmp --container-digest=sha256:0 --container-workdir=/tmp --container-home --no-container-home \
		--container-env=A=1 --container-clean-env --container-writable --container-writable=1m --container-overlay="$dir" \
		--container-entrypoint --no-container-entrypoint --container-scope=all; do
		at=submit refused usage "no image was asked for" srun -n1 "$option" true || { fail "$option"; return; }
		at=submit refused usage "no image was asked for" sbatch "$option" --wrap=true || { fail "$option"; return; }
		at=submit refused usage "no image was asked for" salloc -n1 "$option" true || { fail "$option"; return; }
	done
	at=submit refused usage '--no-container-home: no image was asked for' srun -n1 --no-container-home true
}

@test "variables without an image say nothing" {
	good env CORACLE_CONTAINER_BIND=/tmp:/x CORACLE_CONTAINER_WRITABLE=1m srun -n1 echo fine
	prints fine
}

@test "with --container=none the options beside it mean nothing" {
	good srun -n1 --container=none --container-workdir=/etc sh -c 'test ! -e /etc/image-only && echo host'
	has_line host
	has_line 'srun: error: coracle: note: --container-workdir: no effect with --container=none'
}

@test "a required argument that is missing is an error" {
	run alice srun -n1 --container="$env" --container-workdir
	((status != 0)) || fail "$output"
}

@test "options=long has the other names, in help, on each command, and in what it refuses" {
	plugstack options=long
	local command
	for command in srun sbatch salloc; do
		good "$command" --help
		has '--coracle-bind'
		has '--no-coracle-home'
		has_not '--container-bind'
		has_not '--container-workdir'
	done
	good srun -n1 --container="$env" --coracle-workdir=/etc --coracle-env=A=1 --no-coracle-home sh -c 'pwd; echo $A; test -e $HOME/. || echo no home'
	prints $'/etc\n1\nno home'
	batch --container="$env" --coracle-workdir=/etc --wrap pwd
	prints /etc
	good salloc -Q -n1 --container="$env" --coracle-workdir=/etc srun -n1 pwd
	prints /etc
	good env CORACLE_CONTAINER_WORKDIR=/etc srun -n1 --container="$env" pwd
	prints /etc
	run alice srun -n1 --container="$env" --container-workdir=/etc pwd
	((status != 0)) && has 'unrecognized option'
}

@test "with options=long what is refused is called by the long names" {
	plugstack options=long
	echo '0 true' >programs
	at=submit refused usage '--coracle-bind: no image was asked for' srun -n1 --coracle-bind=/tmp true
	at=submit refused usage '--coracle-home: yes or no is wanted' env CORACLE_CONTAINER_HOME=x srun -n1 --container="$env" true
	at=submit refused usage '--coracle-overlay: cannot be used together with --coracle-writable' srun -n1 --container="$env" --coracle-writable --coracle-overlay="$dir" true
	at=submit refused usage '--coracle-overlay: its value is missing' srun -n1 --container="$env" --coracle-overlay= true
	at=submit refused usage '--coracle-bind: 129 binds' srun -n1 --container="$env" --coracle-bind="$(printf '/tmp:/mnt/%d,' {1..128})/tmp:/m" true
	at=submit refused usage '--coracle-digest' srun -n1 --container="$env@sha256:$(printf '0%.0s' {1..64})" --coracle-digest="sha256:$(printf '1%.0s' {1..64})" true
	at=submit refused usage '--coracle-entrypoint: cannot be used together with --multi-prog' srun -n1 --container="$env" --coracle-entrypoint --multi-prog programs
}

@test "a wrong site default is refused with its key" {
	configure $'version: 1\nuser_images: kernel\noptions:\n  scope: sometimes'
	refused config sometimes srun -n1 --container="$env" true
	configure $'version: 1\nuser_images: kernel\noptions:\n  bind: /etc'
	refused config 'unknown option `bind`' srun -n1 --container="$env" true
	configure $'version: 1\nuser_images: kernel\noptions:\n  home: [yes]'
	refused config '`home` takes one value, not a list' srun -n1 --container="$env" true
}

# The line of ours among the output is this note, and there is one.
notes() { # TEXT
	[[ $(grep -c 'coracle: ' <<<"$output") == 1 ]] || { fail 'not one line of ours:' "$output"; return; }
	grep -qE "^((srun|sbatch|salloc|slurmstepd-n[0-9]+):|\[[0-9T:.-]+\]) error: coracle: note: |^coracle: note: " <<<"$output" || { fail "$output"; return; }
	has "coracle: note: $1"
}

@test "a size beyond the site's is told of once" {
	local text='more than the site gives, so it is 1g (writable_limit)'
	good srun -N2 -n4 --container="$env" --container-writable=100000g true
	notes "--container-writable=100000g: $text"
	good srun -n1 --container="$env" --container-bind=tmpfs:/mnt/mem:2g true
	notes "tmpfs:/mnt/mem:2g: $text"
	good srun -n1 --container="$env" --container-writable=1g true
	prints ''
	job_script job.sh $'srun -n1 true\nsrun -n2 true\nexit 0'
	batch --container="$env" --container-writable=2g job.sh
	notes "--container-writable=2g: $text"
}

@test "a variable that is none of ours is told of once, with the one that is meant" {
	local text='CORACLE_CONTAINER_BNID: no such variable, so it has no effect; CORACLE_CONTAINER_BIND is meant?'
	good env CORACLE_CONTAINER_BNID=/a CORACLE_ROOT=/b srun -n4 --container="$env" true
	notes "$text"
	good env CORACLE_CONTAINER_BNID=/a srun -n1 true
	prints ''
	good env CORACLE_CONTAINER_BNID=/a salloc -Q -n2 --container="$env" srun -n2 true
	notes "$text"
	run alice env CORACLE_CONTAINER_COLOUR=red sbatch --container="$env" --wrap 'srun -n1 true' -o "$dir/batch.out"
	((status == 0))
	notes 'CORACLE_CONTAINER_COLOUR: no such variable, so it has no effect'
	eventually ended "$(sed -n 's/^Submitted batch job //p' <<<"$output")"
	[[ ! -s batch.out ]] || fail "$(<batch.out)"
}

@test "coracle exec tells of a size beyond the site's, and of a variable that is none of ours" {
	needs_squashfuse
	good coracle exec --writable=2g "$env" true
	notes '--container-writable=2g: more than the site gives, so it is 1g (writable_limit)'
	good env CORACLE_BIND=/a coracle exec "$env" true
	notes 'CORACLE_BIND: no such variable, so it has no effect; CORACLE_CONTAINER_BIND is meant?'
}

@test "options that a step on the node does not have are told of" {
	good srun -n1 --container=none --no-container-home sh -c 'test ! -e /etc/image-only && echo host'
	notes '--no-container-home: no effect with --container=none'
	has_line host
	good env CORACLE_CONTAINER_HOME=no srun -n1 --container=none true
	prints ''
	good salloc -Q -n1 --container="$env" --container-scope=script srun -n1 --container-bind=/tmp:/mnt true
	notes '--container-bind: no effect on a step that --container-scope=script leaves on the node'
}

@test "sbatch and salloc tell of an image that they do not see" {
	local job
	mkdir -m 700 roots
	chmod 700 roots
	install -m 600 "$env" roots.sif
	for image in "$dir/no-such.sif no such file or directory" "./no-such.sif no such file or directory" \
		"$dir/no/such.sif no such file or directory" "$dir/roots/x.sif permission denied" \
		"$dir/roots.sif permission denied" "roots.sif/x.sif not a directory"; do
		run alice sbatch --hold --container="${image%% *}" --wrap true
		((status == 0)) || fail "$output" || return
		notes "${image%% *}: ${image#* }, as seen from here; the job fails unless its nodes have it" || return
		scancel "$(sed -n 's/^Submitted batch job //p' <<<"$output")"
	done
	good salloc -Q -n1 --container="$dir/no-such.sif" true
	notes "$dir/no-such.sif: no such file or directory, as seen from here; the job fails unless its nodes have it"
	for image in no-such.sif store:no-such "$env"; do
		run alice sbatch --hold --container="$image" --wrap true
		[[ $output == 'Submitted batch job '* ]] || fail "$output" || return
		scancel "${output##* }"
	done
	run alice srun -n1 --container="$dir/no-such.sif" true
	has_not 'coracle: note'
	has "$dir/no-such.sif: no such file on this node"
	has '[image-missing]'
}
