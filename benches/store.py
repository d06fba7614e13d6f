"""Copies and starts in turn; prints medians, 99th percentiles and ratios."""

import os
import statistics
import subprocess
import sys
import time

ROUNDS = int(sys.argv[1])
LARGE = "/scratch/large.sqsh"
SIZE = os.path.getsize(LARGE)


def once(*command):
    start = time.monotonic()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - start


def row(name, values, base):
    ranked = sorted(values)
    median, last = statistics.median(values), ranked[min(len(ranked) - 1, int(0.99 * len(ranked)))]
    print(f"{name:44}{median * 1000:12.1f}{last * 1000:12.1f}{median / base:9.3f}")


def table(title, times):
    print(f"\n{title}\n{'milliseconds':44}{'median':>12}{'p99':>12}{'ratio':>9}")
    base = statistics.median(next(iter(times.values())))
    for name, values in times.items():
        row(name, values, base)


def main():
    copies = {"openssl dgst -sha256": [], "coracle cp": []}
    for _ in range(3):
        copies["openssl dgst -sha256"].append(once("openssl", "dgst", "-sha256", LARGE))
        copies["coracle cp"].append(once("coracle", "cp", LARGE))
        once("coracle", "rm", "large.sqsh")
    table(f"an image of {SIZE / 2**30:.2f} GiB into the store, 3 rounds", copies)

    once("coracle", "cp", LARGE)
    once("coracle", "cp", "/scratch/small.sqsh")
    digest = subprocess.run(["coracle", "ls", "-l"], capture_output=True, text=True, check=True).stdout
    digest = next(word for line in digest.splitlines() if line.startswith("large") for word in line.split() if "sha256" in word)
    run = ["srun", "-Q", "-n1"]
    starts = {
        "small file, user_images: kernel": run + ["--container=/scratch/small.sqsh"],
        "small, stored": run + ["--container=store:small.sqsh"],
        "large, stored": run + ["--container=store:large.sqsh"],
        "large, stored, its digest asked for": run + ["--container=store:large.sqsh@" + digest],
    }
    times = {name: [] for name in starts}
    for turn in range(ROUNDS + 3):
        order = list(starts)
        for name in order[turn % len(order):] + order[: turn % len(order)]:
            took = once(*starts[name], "/bin/true")
            if turn >= 3:
                times[name].append(took)
    table(f"srun -n1 true, {ROUNDS} rounds", times)


main()
