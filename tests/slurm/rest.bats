# Submissions that pass no SPANK plugin: slurmrestd's and scrontab's. slurm-conf-examples/job_submit.lua, as it is, gives
# them their image.
load support

LUA=$BATS_TEST_DIRNAME/../../slurm-conf-examples/job_submit.lua

setup_file() {
	cp "$LUA" /etc/slurm/job_submit.lua
	slurm_conf JobSubmitPlugins=lua ScronParameters=enable
}

teardown_file() {
	slurm_conf_as_before
	rm /etc/slurm/job_submit.lua
}

server=''
cleanup() {
	[[ -z $server ]] || { kill "$server"; wait "$server" || true; } 2>/dev/null
	[[ ! -x $dir/scron ]] || alice "$dir/scron"
	cmp -s "$LUA" /etc/slurm/job_submit.lua || { cp "$LUA" /etc/slurm/job_submit.lua; reread; }
}

# The controller reads the file again only if it is newer, by the second, than when it last did.
reread() {
	touch -d '10 seconds' /etc/slurm/job_submit.lua
	scontrol reconfigure
}

# slurmrestd as alice, who is whoever connects: it takes no job of another user's.
serve() {
	needs slurmrestd python3
	[[ -z $server ]] || return 0
	as -d "$dir" alice "$(type -P slurmrestd)" -s openapi/v0.0.38 -a rest_auth/local "unix:$dir/socket" \
		>"$dir/rest.log" 2>&1 </dev/null 3>&- &
	server=$!
	eventually test -S "$dir/socket"
}

# What slurmrestd answers to a job with this container, environment (JSON) and script.
post() { # CONTAINER ENVIRONMENT SCRIPT
	alice python3 - "$dir/socket" "$dir" "$@" <<-'PYTHON'
	import http.client, json, socket, sys
	path, directory, container, environment, script = sys.argv[1:]
	job = {'name': 'rest', 'current_working_directory': directory, 'standard_output': directory + '/batch.out'}
	if container:
	    job['container'] = container
	if environment:
	    job['environment'] = json.loads(environment)
	connection = http.client.HTTPConnection('localhost')
	connection.sock = socket.socket(socket.AF_UNIX)
	connection.sock.connect(path)
	connection.request('POST', '/slurm/v0.0.38/job/submit', json.dumps({'job': job, 'script': '#!/bin/sh\n' + script}),
	                   {'Content-Type': 'application/json'})
	answer = json.load(connection.getresponse())
	for error in answer['errors']:
	    print(error['error'])
	if not answer['errors']:
	    print(answer['job_id'])
	PYTHON
}

# The same, and what the job wrote once it has ended; $job is its number.
rest() { # CONTAINER ENVIRONMENT SCRIPT
	serve
	job=$(post "$@")
	[[ $job =~ ^[0-9]+$ ]] || { fail "not submitted: $job"; return; }
	eventually ended "$job" || return
	output=$(<"$dir/batch.out")
}

@test "a job by REST with a container runs inside" {
	rest "$busybox" '{"PATH": "/usr/bin:/bin"}' 'cat /etc/image-only; pwd; env'
	[[ $(job_field "$job" JobState) == COMPLETED ]] || fail "$output"
	has_line "$MARK"
	has_line "$dir"
	has_line "CORACLE_IMAGE=$busybox"
	has_not 'SLURM_CONTAINER='
	has_not SLURM_CORACLE_REQUEST
}

@test "a job by REST whose image is missing fails with our line and drains nothing" {
	rest /no/such.sif '{"PATH": "/usr/bin:/bin"}' 'echo started'
	[[ $(job_field "$job" ExitCode) == 125:0 ]] || fail "$(job_field "$job" ExitCode)" "$output"
	said image-missing '/no/such.sif: no such file on this node'
}

@test "a job by REST with a relative image has it from its working directory" {
	cp "$IMG/bare.sif" here.sif
	chmod 644 here.sif
	rest here.sif '{"PATH": "/usr/bin:/bin"}' 'cat /image-only'
	prints 'coracle bare test image'
}

@test "a job by REST without a container, and one with none, run on the node" {
	rest '' '{"PATH": "/usr/bin:/bin"}' 'test ! -e /etc/image-only && echo host'
	prints host
	rest none '{"PATH": "/usr/bin:/bin"}' 'test ! -e /etc/image-only && echo host; env | grep CONTAINER'
	prints host
}

@test "an image in the environment of a job by REST does not win over its container" {
	rest "$busybox" "{\"PATH\": \"/usr/bin:/bin\", \"SLURM_CONTAINER\": \"$IMG/bare.sif\"}" 'cat /etc/image-only'
	prints "$MARK"
}

@test "a job by REST that has no environment to carry the image is not started" {
	serve
	run post "$busybox" '' 'echo started'
	has_line 'environment must be set'
	# slurmrestd asks for one, the controller does not where there is a container.
	build_scron
	run alice ./scron -n "$busybox" "$dir/cron.out" 'echo started'
	((status != 0)) || fail "submitted: $output"
	has "coracle: $busybox: a job with a container needs an environment"
}

@test "a step of a job by REST runs in the job's image" {
	job_script inner.sh 'cat /etc/image-only; srun -n1 cat /etc/image-only'
	local binds=/usr/lib,/usr/bin/srun,/etc/slurm,/usr/lib64:/lib64
	# Only sbatch, salloc and srun have --container-bind: the site binds what an srun inside needs.
	[[ -d /usr/lib64 ]] || binds=/usr/lib,/usr/bin/srun,/etc/slurm
	awk -v list="$binds" '{ print } /^binds:/ { n = split(list, b, ","); for (i = 1; i <= n; i++) { split(b[i], p, ":");
		print "- source: " p[1]; if (p[2] != "") print "  target: " p[2] } }' "$SUITE/coracle.yaml" >/etc/coracle/coracle.yaml
	rest "$IMG/mpi.sif" '{"PATH": "/usr/bin:/bin"}' "$dir/inner.sh"
	prints $'coracle mpi test image\ncoracle mpi test image'
}

@test "the lines change nothing for sbatch, srun and salloc" {
	job_script job.sh 'cat /etc/image-only; env | grep -c "^SLURM_CONTAINER="'
	run batch --container="$busybox" job.sh
	[[ $(<batch.out) == "$MARK"$'\n0' ]] || fail "$(<batch.out)"
	batch --container=none --wrap 'test ! -e /etc/image-only && echo host'
	prints host
	batch --wrap 'test ! -e /etc/image-only && echo host'
	prints host
	good srun -n1 --container="$busybox" cat /etc/image-only
	prints "$MARK"
	good salloc -Q -n1 --container="$busybox" srun -n1 cat /etc/image-only
	prints "$MARK"
}

# Slurm's own libraries have what only scrontab uses. The cluster has another "as" than gcc means.
build_scron() {
	local full
	full=$(ldd "$(type -P scontrol)" | awk '$1 ~ /^libslurmfull/ { print $3 }')
	PATH=/usr/bin:/bin gcc -Wall -Werror -o "$dir/scron" "$BATS_TEST_DIRNAME/scron.c" "$full" -Wl,-rpath,"$(dirname "$full")"
}

# What a crontab with this image and command does at the next full minute. scontrol may not move such a job.
cron() { # IMAGE COMMAND
	local end=$((SECONDS + 240))
	: >"$dir/cron.out"
	chown alice "$dir/cron.out"
	if type scrontab >/dev/null 2>&1; then
		printf '%s\n' "#SCRON --container=$1" "#SCRON -o $dir/cron.out" "* * * * * $2" >./crontab
		chmod 644 crontab
		alice scrontab crontab
	else
		build_scron
		alice "$dir/scron" "$1" "$dir/cron.out" "$2" >/dev/null
	fi
	until [[ -s $dir/cron.out ]]; do
		((SECONDS < end)) || { fail 'the job of the crontab wrote nothing' "$(squeue -o '%i %T %r')"; return; }
		sleep 1
		# The controller looks for jobs whose time has come once a minute, and when another one ends.
		alice srun -n1 true
	done
	output=$(<"$dir/cron.out")
	if type scrontab >/dev/null 2>&1; then alice scrontab -r; fi
}

@test "a job of scrontab with #SCRON --container runs inside" {
	cron "$busybox" 'cat /etc/image-only'
	prints "$MARK"
}

# The last one: the controller keeps what it has read of the file.
@test "without the lines, a job by REST with a container runs on the node: SECURITY.md says so" {
	printf '%s\n' 'function slurm_job_submit() return slurm.SUCCESS end' \
		'function slurm_job_modify() return slurm.SUCCESS end' >/etc/slurm/job_submit.lua
	reread
	rest "$busybox" '{"PATH": "/usr/bin:/bin"}' 'test ! -e /etc/image-only && echo host'
	prints host
}
