"""Runs each variant once a round, in an order that turns, and prints medians and ratios to the bare one."""

import os
import statistics
import subprocess
import sys
import time

ROUNDS = int(sys.argv[1])
IMAGE = "--container=/scratch/%s.sif"


def variants(tasks):
    run = ["srun", "-Q", f"-n{tasks}"]
    return {
        "bare": (["SLURM_CONF=/etc/slurm/bare.conf"], run + ["-w", "n2"]),
        "plugin loaded, unused": ([], run + ["-w", "n1"]),
        "container, uncompressed": ([], run + ["-w", "n1", IMAGE % "busybox-none"]),
        "container, zstd": ([], run + ["-w", "n1", IMAGE % "busybox-zstd"]),
        "container, gzip": ([], run + ["-w", "n1", IMAGE % "busybox-gzip"]),
    }


def once(setting, command):
    environment = dict(os.environ, **dict(word.split("=", 1) for word in setting))
    start = time.monotonic()
    subprocess.run(command + ["/bin/true"], env=environment, check=True, stdin=subprocess.DEVNULL)
    return (time.monotonic() - start) * 1000


def main():
    for tasks in (1, 16):
        times = {name: [] for name in variants(tasks)}
        order = list(variants(tasks).items())
        for turn in range(ROUNDS + 3):
            for name, (setting, command) in order[turn % len(order):] + order[: turn % len(order)]:
                took = once(setting, command)
                if turn >= 3:
                    times[name].append(took)
        bare = statistics.median(times["bare"])
        print(f"\nsrun -n{tasks} true, {ROUNDS} rounds, milliseconds")
        print(f"{'':26}{'median':>9}{'p95':>9}{'p99':>9}{'max':>9}{'ratio':>9}{'paired':>9}")
        for name, values in times.items():
            ranked = sorted(values)
            at = lambda share, ranked=ranked: ranked[min(len(ranked) - 1, int(share * len(ranked)))]
            median = statistics.median(values)
            paired = statistics.median(mine - base for mine, base in zip(values, times["bare"]))
            row = "".join(f"{value:9.1f}" for value in (median, at(0.95), at(0.99), ranked[-1]))
            print(f"{name:26}{row}{median / bare:9.3f}{paired:+9.1f}")


main()
