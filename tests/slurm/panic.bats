# A panic in a hook of the plugin is a refusal like any other: it crosses no C function, and kills neither slurmstepd
# nor the node. The plugin here is built with the feature inject-panic: `panic=HOOK` makes that hook panic.

load support

cleanup() {
	rm -rf /etc/slurm/bare.conf /usr/lib/panic
}

# The client has no plugin: it is the node's that is tried.
CLIENT=(env SLURM_CONF=/etc/slurm/bare.conf srun)

panics_in() { # HOOK
	local so=/usr/lib/panic/spank_coracle.so
	# Nodes have a /tmp and a /var/tmp of their own, and this may be a clone below one of them.
	install -D "$CORACLE_IMAGES/panic/spank_coracle.so" "$so" || fail 'make slurm builds it'
	echo "required $so panic=slurm_spank_$1" >/etc/slurm/plugstack.conf.d/coracle.conf
	cp /etc/slurm/slurm.conf /etc/slurm/bare.conf
	echo 'PlugStackConfig=/dev/null' >>/etc/slurm/bare.conf
}

refuses_in() { # HOOK
	panics_in "$1"
	refused internal "plugin, slurm_spank_$1: panicked" "${CLIENT[@]}" -n4 --container="$busybox" true
	# A step that wants no container does not notice.
	good "${CLIENT[@]}" -n1 echo fine
	has_line fine
}

does_no_harm_in() { # HOOK
	panics_in "$1"
	good "${CLIENT[@]}" -n4 --container="$busybox" cat /etc/image-only
	has_line "$MARK"
}

@test 'a panic in init refuses the task and nothing else' {
	refuses_in init
}

@test 'a panic in init_post_opt refuses the task and nothing else' {
	panics_in init_post_opt
	refused internal 'plugin, slurm_spank_init_post_opt: panicked' "${CLIENT[@]}" -n4 --container="$busybox" true
}

@test 'a panic in user_init refuses the task and nothing else' {
	refuses_in user_init
}

@test 'a panic in task_init_privileged refuses the task and nothing else' {
	refuses_in task_init_privileged
}

@test 'a panic in task_init refuses the task and nothing else' {
	refuses_in task_init
}

@test 'a panic after the tasks have started does no harm' {
	does_no_harm_in task_post_fork
	does_no_harm_in task_exit
	does_no_harm_in exit
}

@test 'a panic in srun is one line and no step' {
	panics_in init_post_opt
	at=submit refused internal 'plugin, slurm_spank_init_post_opt: panicked' srun --container="$busybox" true
}
