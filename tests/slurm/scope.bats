# --container-scope: what of a job runs inside; and what runs outside has the node's environment.
load support

env=$IMG/env.sif
bare=$IMG/bare.sif
HOST_PATH=$(as -d / alice sh -c 'echo "$PATH"')

# Says where it is and which environment it has, in an image and on the node. What is in front of PATH where Slurm's
# commands are seen is left out.
where='if test -e /etc/image-only; then w=in; elif test -e /image-only; then w=bare; else w=host; fi; echo "$w ${CORACLE_NAME-unset} ${CORACLE_IMAGE-unset} ${IMAGE_SAYS-unset} ${LD_LIBRARY_PATH-unset} ${PATH#/run/coracle/slurm/bin:}"'
inside="in env $env from the image /opt/image/lib /opt/image/bin:/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin"
outside="host unset unset unset unset $HOST_PATH"

both() { # a script that says where it is, and where its step is
	job_script job.sh "$where
srun -n1 sh -c '$where'"
}

@test "sbatch: all is the default" {
	both
	batch --container="$env" job.sh
	prints "$inside"$'\n'"$inside"
	batch --container="$env" --container-scope=all job.sh
	prints "$inside"$'\n'"$inside"
}

@test "sbatch: script keeps the steps on the node, with the node's environment" {
	both
	batch --container="$env" --container-scope=script job.sh
	prints "$inside"$'\n'"$outside"
}

@test "sbatch: steps keeps the script on the node, with the node's environment" {
	both
	batch --container="$env" --container-scope=steps job.sh
	prints "$outside"$'\n'"$inside"
}

@test "sbatch: #SBATCH and the variable" {
	job_script job.sh "#SBATCH --container=$env
#SBATCH --container-scope=steps
$where
srun -n1 sh -c '$where'"
	batch job.sh
	prints "$outside"$'\n'"$inside"
	both
	job=$(alice env CORACLE_CONTAINER_SCOPE=script sbatch --parsable -o "$dir/batch.out" --container="$env" job.sh)
	eventually ended "$job"
	output=$(<batch.out)
	prints "$inside"$'\n'"$outside"
}

@test "salloc's command is on the submit host, and its steps follow the scope" {
	good salloc -Q -n1 --container="$env" sh -c "$where; srun -n1 sh -c '$where'"
	prints "$outside"$'\n'"$inside"
	good salloc -Q -n1 --container="$env" --container-scope=steps sh -c "srun -n1 sh -c '$where'"
	prints "$inside"
	good salloc -Q -n1 --container="$env" --container-scope=script sh -c "srun -n1 sh -c '$where'"
	prints "$outside"
}

# The shell that salloc starts on the node (use_interactive_step), typing what stands in the file.
shell_of_salloc() { # SALLOC-ARGUMENT...
	needs script
	# srun would read what is typed behind it.
	printf '%s\n' "$where" "srun -n1 --overlap sh -c '$where' </dev/null" 'exit' >typed
	chmod 644 typed
	run alice env SHELL=/bin/sh timeout 60 script -qec "salloc -Q -n1 $*" /dev/null <typed
	output=$(tr -d '\r' <<<"$output")
}

# bats test_tags=releases
@test "salloc's shell on the node follows the scope" {
	shell_of_salloc --container="$env"
	[[ $(grep -cxF "$inside" <<<"$output") == 2 ]] || fail "$output"
	shell_of_salloc --container="$env" --container-scope=script
	has_line "$inside"
	has_line "$outside"
	shell_of_salloc --container="$env" --container-scope=steps
	grep -q "host unset unset unset unset /" <<<"$output" || fail "$output"
	grep -q "in env $env from the image /opt" <<<"$output" || fail "$output"
}

@test "an srun with a scope of its own is a step that asked for its image" {
	local scope
	for scope in script steps all; do
		good srun -n1 --container="$env" --container-scope="$scope" sh -c "$where"
		prints "$inside" || { fail "$scope"; return; }
	done
}

@test "a step that names its image runs in it, whatever the scope" {
	job_script job.sh "srun -n1 --container=$bare sh -c '$where'; srun -n1 --container=$env sh -c '$where'"
	local scope
	for scope in script steps all; do
		batch --container="$env" --container-scope="$scope" job.sh
		has 'bare bare' || { fail "$scope"; return; }
		has "in env $env from the image" || { fail "$scope"; return; }
	done
}

@test "the site's scope is the default, and a user's wins" {
	both
	configure $'version: 1\nuser_images: kernel\nbinds:\n- source: /scratch\noptions:\n  scope: steps'
	batch --container="$env" job.sh
	prints "$outside"$'\n'"$inside" || { fail 'site: steps'; return; }
	batch --container="$env" --container-scope=all job.sh
	prints "$inside"$'\n'"$inside" || { fail 'site: steps, user: all'; return; }
	configure $'version: 1\nuser_images: kernel\nbinds:\n- source: /scratch\noptions:\n  scope: script'
	batch --container="$env" job.sh
	prints "$inside"$'\n'"$outside" || { fail 'site: script'; return; }
	batch --container="$env" --container-scope=all job.sh
	prints "$inside"$'\n'"$inside" || { fail 'site: script, user: all'; return; }
	good srun -n1 --container="$env" sh -c "$where"
	prints "$inside"
}

@test "what runs on the node by the site's scope keeps what the user set" {
	configure $'version: 1\nuser_images: kernel\nbinds:\n- source: /scratch\noptions:\n  scope: script'
	job_script job.sh "export MINE=1 IMAGE_SAYS=mine; srun -n1 sh -c 'echo \$MINE \$IMAGE_SAYS \$PATH'"
	batch --container="$env" job.sh
	prints "1 mine $HOST_PATH"
}

@test "another image within an image has its environment over the node's, and nothing of the first" {
	both
	job_script job.sh "$where; srun -n1 --container=$bare sh -c '$where'; srun -n1 --container=$IMG/enroot.sqsh sh -c '$where'"
	batch --container="$env" job.sh
	prints "$inside
bare bare $bare unset unset /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
in enroot $IMG/enroot.sqsh from enroot unset /opt/enroot/bin:/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin"
}

# bats test_tags=releases
@test "what the node had comes back in another image and in none" {
	job_script job.sh 'srun -n1 sh -c "echo \$KEPT"; srun -n1 --container='"$bare"' sh -c "echo \$IMAGE_SAYS \$LD_LIBRARY_PATH. \$GONE"; srun -n1 --container=none sh -c "echo \$IMAGE_SAYS \$LD_LIBRARY_PATH \$GONE \$PATH"'
	batch --export=ALL,IMAGE_SAYS=hosts,LD_LIBRARY_PATH=/host/lib,GONE=there,KEPT=kept --container="$env" job.sh
	prints "kept
hosts . there
hosts /host/lib there $HOST_PATH"
}

@test "none within an image: PATH, LD_LIBRARY_PATH and LD_PRELOAD as on the node" {
	job_script job.sh "srun -n1 --container=none sh -c '$where'; srun -n1 --container=none sh -c 'echo \${LD_PRELOAD-unset} \${SLURM_CORACLE_OUTER-unset} \${SLURM_CORACLE_STEPS-unset}'"
	batch --container="$env" job.sh
	prints "$outside"$'\nunset unset unset'
	good srun -n1 --container=none env
	has_not CORACLE
}

@test "the options of the job are not those of a step with another image or none" {
	mkdir -m 777 data
	job_script job.sh "srun -n1 --container=$bare sh -c 'pwd; ls -d /mnt/data 2>&1; echo \${MODE-unset}; ls -d \$HOME'"
	batch --container="$env" --container-bind="$dir/data:/mnt/data" --container-workdir=/etc --container-env=OTHER=1 --no-container-home job.sh
	prints "/etc
ls: /mnt/data: No such file or directory
unset
/home/alice"
}

@test "the user's own PATH inside passes to a step in the same image, and its directories survive" {
	job_script job.sh 'export PATH=/mine:$PATH; srun -n1 sh -c "echo \$PATH"; srun -n1 --container='"$env"' sh -c "echo \$PATH"; srun -n1 --container=none /bin/sh -c "echo \$PATH"'
	batch --container="$env" job.sh
	has '/mine:'
	sed -n 1p <<<"$output" | grep -q '^/run/coracle/slurm/bin:/mine:/run/coracle/slurm/bin:/opt/image/bin:/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin$\|^/mine:/run/coracle/slurm/bin:/opt/image/bin:/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin$' || fail "$output"
}

@test "a new sbatch from inside, without --container, is on the node with the node's environment" {
	job_script second.sh "$where"
	job_script job.sh "sbatch --wait -o $dir/second.out second.sh >/dev/null"
	batch --container="$env" --container-workdir="$dir" --container-env=A=1 --no-container-home job.sh
	[[ $(<second.out) == "$outside" ]] || fail "$(<second.out)"
}

@test "a new sbatch from inside with another image has that image's environment over the node's" {
	job_script second.sh "$where; srun -n1 sh -c '$where'"
	job_script job.sh "sbatch --wait -o $dir/second.out --container=$IMG/enroot.sqsh second.sh >/dev/null"
	batch --container="$env" job.sh
	[[ $(<second.out) == "in enroot $IMG/enroot.sqsh from enroot unset /opt/enroot/bin:/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin"$'\n'"in enroot $IMG/enroot.sqsh from enroot unset /opt/enroot/bin:/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin" ]] || fail "$(<second.out)"
}

@test "a new sbatch from inside with the same image" {
	job_script second.sh "$where"
	job_script job.sh "sbatch --wait -o $dir/second.out --container=$env second.sh >/dev/null"
	batch --container="$env" job.sh
	[[ $(<second.out) == "$inside" ]] || fail "$(<second.out)"
}

@test "a new salloc from inside, without --container and with another image" {
	job_script job.sh "salloc -Q -n1 srun -n1 sh -c '$where'; salloc -Q -n1 --container=$bare srun -n1 sh -c '$where'"
	batch -n1 --container="$env" --container-workdir="$dir" job.sh
	prints "$outside"$'\n'"bare bare $bare unset unset /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

no_jobs() { [[ -z $(squeue --noheader) ]]; }

# bats test_tags=releases
@test "the components of a heterogeneous job each have a scope" {
	job_script job.sh "$where; srun -n1 --het-group=0 sh -c '$where'; srun -n1 --het-group=1 sh -c '$where'"
	alice sbatch -o "$dir/batch.out" -n1 --container="$env" --container-scope=steps : -n1 --container="$bare" job.sh
	eventually no_jobs
	output=$(<batch.out)
	has "$outside"
	has "$inside"
	if since 21.08; then
		has "bare bare"
	else
		# The controller has no record of images.
		has 'coracle: component 1 of the job: this release of Slurm does not record its image [system]'
		has_not "bare bare"
	fi
}
