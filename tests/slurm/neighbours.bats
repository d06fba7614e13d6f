#!/usr/bin/env bats
# The plugin beside others in plugstack.conf, on an `optional` line, and with extern steps (contain_spank, stepmgr).

load support

HOST='test -e /etc/image-only && echo inside || echo ran on the host'

cleanup() {
	rm -f /usr/lib/neighbour-*.so
	[[ -e $SUITE/slurm.conf ]] || return 0
	slurm_conf_as_before
	rm "$SUITE/slurm.conf"
	eventually nodes_well
}

# A SPANK plugin that behaves: it has an option, sets a variable of the task, and says that its last hook has run.
neighbour() { # NAME
	cat >"$1.c" <<-C
		#include <stdio.h>
		#include <slurm/spank.h>
		SPANK_PLUGIN($1, 1)
		static int given;
		static int take(int value, const char *text, int remote) { given = text[0] == 'y'; return 0; }
		static struct spank_option option = { "$1", "yes|no", "of another plugin", 1, 0, take };
		int slurm_spank_init(spank_t spank, int count, char **words) { return spank_option_register(spank, &option); }
		int slurm_spank_task_init(spank_t spank, int count, char **words) {
			return spank_setenv(spank, "OF_$1", given ? "given" : "not given", 1);
		}
		int slurm_spank_task_exit(spank_t spank, int count, char **words) {
			FILE *file = fopen("$dir/exits", "a");
			if (file) { fprintf(file, "$1\n"); fclose(file); }
			return 0;
		}
	C
	PATH=/usr/bin:/bin gcc -shared -fPIC -I"${BIN_SLURM%/bin}/include" -o "/usr/lib/neighbour-$1.so" "$1.c"
}

@test "other plugins before and after ours have their options, variables and hooks, and the task its image" {
	needs gcc
	neighbour one && neighbour two || return
	{
		echo 'required /usr/lib/neighbour-one.so'
		cat "$SUITE/coracle.conf"
		echo 'optional /usr/lib/neighbour-two.so'
	} >/etc/slurm/plugstack.conf.d/coracle.conf
	good srun -n1 --one=yes --two=no --container="$busybox" sh -c 'cat /etc/image-only; echo "$OF_one, $OF_two"'
	prints "$MARK"$'\ngiven, not given'
	[[ $(sort exits) == $'one\ntwo' ]] || fail "$(<exits)"
	at=node refused image-missing '/scratch/none.sif: no such file on this node' srun -n1 --one=yes --container=/scratch/none.sif true
	good srun -n1 --two=yes sh -c "$HOST; echo \"\$OF_two\""
	prints $'ran on the host\ngiven'
}

@test "another plugin that fails on an optional line changes nothing" {
	needs gcc
	printf '%s\n' '#include <slurm/spank.h>' 'SPANK_PLUGIN(one, 1)' \
		'int slurm_spank_task_init(spank_t spank, int count, char **words) { return -1; }' >one.c
	PATH=/usr/bin:/bin gcc -shared -fPIC -I"${BIN_SLURM%/bin}/include" -o /usr/lib/neighbour-one.so one.c
	{ echo 'optional /usr/lib/neighbour-one.so'; echo 'optional /no/such/plugin.so'; cat "$SUITE/coracle.conf"; } \
		>/etc/slurm/plugstack.conf.d/coracle.conf
	good srun -n1 --container="$busybox" sh -c "$HOST"
	has_line inside
}

@test "a task in a container has SIGCHLD, whatever blocked it before, and one on the node as it was left" {
	needs gcc
	# As slurmstepd of 25.05 leaves it.
	printf '%s\n' '#include <signal.h>' '#include <slurm/spank.h>' 'SPANK_PLUGIN(one, 1)' \
		'int slurm_spank_task_init(spank_t spank, int count, char **words) {' \
		'	sigset_t set; sigemptyset(&set); sigaddset(&set, SIGCHLD);' \
		'	return sigprocmask(SIG_BLOCK, &set, 0);' '}' >one.c
	PATH=/usr/bin:/bin gcc -shared -fPIC -I"${BIN_SLURM%/bin}/include" -o /usr/lib/neighbour-one.so one.c
	{ echo 'required /usr/lib/neighbour-one.so'; cat "$SUITE/coracle.conf"; } >/etc/slurm/plugstack.conf.d/coracle.conf
	good srun -n1 grep SigBlk /proc/self/status
	prints $'SigBlk:\t0000000000010000'
	good timeout 30 srun -n1 --container="$busybox" sh -c 'grep SigBlk /proc/self/status; sleep 0.1 & wait; echo waited'
	prints $'SigBlk:\t0000000000000000\nwaited'
}

@test "on an optional line images run as ever" {
	sed -i 's/^required/optional/' /etc/slurm/plugstack.conf.d/coracle.conf
	good srun -N2 --container="$busybox" sh -c "$HOST"
	prints $'inside\ninside'
	job_script job.sh "$HOST; srun -n1 sh -c '$HOST'"
	batch -n1 --container="$busybox" job.sh
	prints $'inside\ninside'
}

@test "with contain_spank and a step manager for each job, images run as ever" {
	since 24.05 || skip "not there: Slurm $(slurm_release) has no enable_stepmgr"
	slurm_conf PrologFlags=Contain SlurmctldParameters=enable_stepmgr SlurmdParameters=config_overrides,contain_spank
	eventually nodes_well
	job_script job.sh "$HOST; srun -N1 -n1 sh -c '$HOST'; srun -N2 --container=none sh -c '$HOST'; srun -N1 -n1 --container=$IMG/env.sif sh -c '$HOST'"
	batch -N2 --container="$busybox" job.sh
	prints $'inside\ninside\nran on the host\nran on the host\ninside'
	good srun -N3 --container="$busybox" sh -c "$HOST"
	prints $'inside\ninside\ninside'
	good salloc -Q -N1 srun --container="$busybox" sh -c "$HOST"
	prints inside
	at=node refused image-missing '/scratch/none.sif: no such file on this node' srun -n1 --container=/scratch/none.sif true
}
