"""Runs each variant once a round, in an order that turns, and prints medians, 99th percentiles and ratios to native."""

import math
import os
import statistics
import subprocess
import sys
import time

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 20
TESTS = sys.argv[2:] or ["latency", "bandwidth", "allreduce", "heat", "start"]
# What puts the host's MPI into an image.
HOST_MPI = ["--container-mpi=host"]
OTHERS = os.environ["OTHERS"].split()
with open("/scratch/environment", encoding="ascii") as lines:
    SETTINGS = dict(line.rstrip().split("=", 1) for line in lines)

BARE = {"SLURM_CONF": "/etc/slurm/bare.conf"}
WITHIN = ["-N1", "-n2", "-w", "n1"]
ACROSS = ["-N2", "-n2", "-w", "n1,n2"]
SIX = ["-N3", "-n6", "-w", "n1,n2,n3"]
# Enough to cut a cube in each direction.
EIGHT = ["-N3", "-n8", "-w", "n1,n2,n3"]
IMAGE = ["--container=/scratch/image.sqsh"]
MANY = ["-N3", "-n48", "-w", "n1,n2,n3"]
HOST, INSIDE = "/scratch/bin/", "/opt/bench/"


def run(where, program, more_ranks_than_cores, environment=None):
    command = ["srun", "-Q", "--mpi=pmix"] + where + program
    environment = dict(os.environ, **SETTINGS, **(environment or {}))
    environment["OMPI_MCA_mpi_yield_when_idle"] = str(int(more_ranks_than_cores))
    start = time.monotonic()
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
                          check=False)
    took = time.monotonic() - start
    if done.returncode or not done.stdout:
        sys.exit(f"bench: {' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return start, took, [line.split() for line in done.stdout.splitlines()]


def in_turns(rounds, variants, once):
    """For each variant what `once` gives, a list of {row: figure}."""
    results = {name: [] for name in variants}
    names = list(variants)
    for turn in range(rounds + 1):
        for name in names[turn % len(names):] + names[: turn % len(names)]:
            figures = once(*variants[name])
            if turn:
                results[name].append(figures)
    return results


def table(title, unit, results):
    """The first two variants are the same: their ratio is what the machine's other work makes of nothing."""
    names = list(results)
    native = results[names[0]]
    print(f"\n{title}, {len(native)} rounds, {unit}")
    print(f"{'':12}{names[0]:>10}{'p99':>10}" + "".join(f"{name:>18}{'p99':>10}" for name in names[1:]))
    ratios, bests = ({name: [] for name in names[1:]} for _ in range(2))
    for row in native[0]:
        of = {name: sorted(figures[row] for figures in results[name]) for name in names}
        median = {name: statistics.median(of[name]) for name in names}
        # The 99th percentile is on the bad side.
        share = 0.01 if unit == "MB/s" else 0.99
        worst = lambda values, share=share: values[min(len(values) - 1, int(share * len(values)))]
        best = max if unit == "MB/s" else min
        text = f"{row:>12}{median[names[0]]:10.2f}{worst(of[names[0]]):10.2f}"
        for name in names[1:]:
            ratios[name].append(median[name] / median[names[0]])
            bests[name].append(best(of[name]) / best(of[names[0]]))
            text += f"{median[name]:10.2f}{ratios[name][-1]:8.3f}{worst(of[name]):10.2f}"
        print(text)
    # The best run is the one that other work on the machine has disturbed least.
    for what, of in ("all", ratios), ("all, best", bests):
        means = [math.exp(statistics.mean(map(math.log, of[name]))) for name in names[1:]]
        print(f"{what:>12}{'':20}" + "".join(f"{mean:18.3f}{'':10}" for mean in means), flush=True)


def bars(where):
    return {
        "native": (where, HOST),
        "native again": (where, HOST),
        "image": (where + IMAGE, INSIDE),
        "host's MPI": (where + IMAGE + HOST_MPI, INSIDE),
    }


def micro(test, title, where, more_ranks_than_cores):
    def once(where, directory):
        lines = run(where, [directory + "micro", test], more_ranks_than_cores)[2]
        return {f"{size} B": float(figure) for size, figure in lines}
    table(f"{test} {title}", "MB/s" if test == "bandwidth" else "µs", in_turns(ROUNDS, bars(where), once))


def heat(title, where, more_ranks_than_cores):
    versions = {}

    def once(where, directory):
        ((_, seconds, _, *version),) = run(where, [directory + "heat3d"], more_ranks_than_cores)[2]
        versions[tuple(where)] = " ".join(version)
        return {"seconds": float(seconds)}

    variants = bars(where)
    for image in OTHERS:
        # The program is the host's: its MPI is the image's, or the host's.
        name = os.path.basename(image).removeprefix("other-").partition(".")[0]
        variants[name] = (where + ["--container=" + image], HOST)
        variants[name + ", host's"] = (where + ["--container=" + image] + HOST_MPI, HOST)
    table(f"heat3d {title}", "s", in_turns(ROUNDS, variants, once))
    for name, (options, _) in variants.items():
        print(f"{name:18}{versions[tuple(options)]}", flush=True)
        if "host's" in name and versions[tuple(options)] != versions[tuple(where)]:
            sys.exit("bench: this is not the host's MPI")


def start():
    def once(where, directory, environment):
        began, took, ((ranks, initialised),) = run(where, [directory + "start"], True, environment)
        if ranks != "48":
            sys.exit(f"bench: {ranks} ranks instead of 48")
        return {"srun": took, "MPI_Init": float(initialised) - began}
    bare = (["-N3", "-n48", "-w", "n4,n5,n6"], HOST, BARE)
    table("48 ranks on 3 nodes", "s", in_turns(ROUNDS, {
        "bare": bare,
        "bare again": bare,
        "plugin, unused": (MANY, HOST, {}),
        "image": (MANY + IMAGE, INSIDE, {}),
    }, once))


def main():
    for test in TESTS:
        if test == "heat":
            heat("on one node, 2 ranks", WITHIN, False)
            heat("on 3 nodes, 8 ranks", EIGHT, True)
        elif test == "start":
            start()
        elif test == "allreduce":
            micro(test, "on one node, 2 ranks", WITHIN, False)
            micro(test, "on 3 nodes, 6 ranks", SIX, True)
        else:
            micro(test, "within a node", WITHIN, False)
            micro(test, "between two nodes", ACROSS, False)


main()
