#!/usr/bin/env bats
# `metrics` of coracle.yaml: counters of each node's steps, as node_exporter reads them.

load support

# The nodes of a cluster share this directory, and so its counters.
directory=/var/lib/metrics

counting() {
	# shellcheck disable=SC2174 # not of its parents
	mkdir -p -m 755 $directory
	configure $'version: 1\nuser_images: kernel\nlog: none\nmetrics: {file: '"$directory/coracle.prom}"
}

cleanup() {
	rm -rf $directory
}

counts() { # LINE
	grep -qxF "$1" $directory/coracle.prom
}

@test "starts, tasks, refusals and phases are counted, and every reader sees a whole file" {
	counting
	good srun -n1 -w n1 --container="$busybox" true
	good srun -n3 -N1 -w n1 --container="$busybox" true
	refused image-missing /no/such.sif srun -n1 -w n1 --container=/no/such.sif true
	eventually counts 'coracle_refusals_total{kind="image-missing"} 1'
	eventually counts 'coracle_steps_total{verdict="started"} 2'
	counts 'coracle_steps_total{verdict="refused"} 1'
	counts 'coracle_tasks_total 4'
	counts 'coracle_phase_seconds_bucket{phase="mount",le="+Inf"} 2'
	counts '# TYPE coracle_phase_seconds histogram'
	[[ $(stat -c '%U %a' $directory/coracle.prom) == 'root 644' ]]
	! grep -E 'alice|busybox|"[^"]*2001[^"]*"' $directory/coracle.prom || fail 'names a user or an image'
	good cat $directory/coracle.prom
}

@test "steps that end at the same moment are all counted" {
	counting
	good srun -n24 -N3 --overlap --container="$busybox" true
	for _ in 1 2 3 4 5 6; do
		alice srun -n3 -N3 --overlap --container="$busybox" true &
	done
	wait
	# One for each node.
	eventually counts 'coracle_steps_total{verdict="started"} 21'
	counts 'coracle_tasks_total 42'
	[[ ! -e $directory/coracle.prom.new ]]
}

@test "a directory of others, or a link in place of the file, is not written to, and no start waits for it" {
	counting
	chmod 777 $directory
	run coracle config check
	((status == 0)) || fail "$output"
	has 'warning: /etc/coracle/coracle.yaml'
	has "metrics.file: $directory: writable by others than root (mode 0777): nothing is counted"
	good srun -n1 --container="$busybox" cat /etc/image-only
	prints "$MARK"
	[[ ! -e $directory/coracle.prom ]]
	chmod 755 $directory
	echo kept >$directory/other
	ln -s other $directory/coracle.prom
	good srun -n1 --container="$busybox" cat /etc/image-only
	prints "$MARK"
	healthy
	[[ $(<$directory/other) == kept ]]
}
