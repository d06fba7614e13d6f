"""Builds an image in each way, and reads each once a round, in an order that turns; prints medians and ratios.

Beside the time on the clock stands the processors' time: the machine may be shared, and what an image costs its reader is
the decompression, which the kernel does in the reader's name.
"""

import json
import os
import statistics
import subprocess
import sys
import time

TREE, SCRATCH, ROUNDS = sys.argv[1], sys.argv[2], int(sys.argv[3])
WAYS = {
    "zstd 128K (default)": [],
    "zstd 128K, level 3": ["--level", "3"],
    "zstd 128K, level 15": ["--level", "15"],
    "zstd 128K, level 19": ["--level", "19"],
    "zstd 64K": ["--block-size", "64K"],
    "zstd 256K": ["--block-size", "256K"],
    "zstd 1M": ["--block-size", "1M"],
    "gzip 128K": ["--compression", "gzip"],
    "lz4 128K": ["--compression", "lz4"],
    "lz4 1M": ["--compression", "lz4", "--block-size", "1M"],
    "lzo 128K": ["--compression", "lzo"],
    "xz 128K": ["--compression", "xz"],
}
PROGRAM = "import sympy"


def image(name):
    return os.path.join(SCRATCH, name.replace(" ", "-") + ".sif")


def start(top):
    command = ["chroot", top, "/usr/bin/python3", "-c", PROGRAM]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def read(top):
    buffer = bytearray(1 << 20)
    for directory, directories, names in os.walk(top):
        directories.sort()
        for name in sorted(names):
            path = os.path.join(directory, name)
            if not os.path.islink(path):
                with open(path, "rb", buffering=0) as file:
                    while file.readinto(buffer):
                        pass


def cold(name, offset, work):
    """Milliseconds of `work` on a fresh mount: on the clock, and of processors."""
    with open(image(name), "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    top = os.path.join(SCRATCH, "mount")
    subprocess.run(["mount", "-o", f"loop,ro,offset={offset}", image(name), top], check=True)
    try:
        before, spent = time.monotonic(), sum(os.times()[:4])
        work(top)
        return (time.monotonic() - before) * 1000, (sum(os.times()[:4]) - spent) * 1000
    finally:
        subprocess.run(["umount", top], check=True)


def main():
    os.mkdir(os.path.join(SCRATCH, "mount"))
    offsets, built = {}, {}
    for name, options in WAYS.items():
        before = time.monotonic()
        subprocess.run(["coracle", "build", *options, image(name), TREE], check=True)
        built[name] = time.monotonic() - before
        rows = json.loads(subprocess.run(["coracle", "sif", "list", "--json", image(name)], check=True,
                                         capture_output=True).stdout)
        offsets[name] = next(row["offset"] for row in rows if row.get("role") == "root")
    os.sync()
    times = {what: {name: [] for name in WAYS} for what in (start, read)}
    order = list(WAYS)
    for turn in range(ROUNDS + 1):
        at = turn % len(order)
        for name in order[at:] + order[:at]:
            for work in (start, read):
                took = cold(name, offsets[name], work)
                if turn > 0:
                    times[work][name].append(took)
    size = sum(os.lstat(os.path.join(top, name)).st_size for top, _, names in os.walk(TREE) for name in names)
    print(f"a tree of {size / 1e6:.0f} MB, {ROUNDS} rounds; cold, milliseconds; ratios to the default")
    columns = f"{'median':>9}{'p99':>7}{'ratio':>7}{'cpu':>7}{'ratio':>7}"
    print(f"{'':22}{'':>7}{'':>8}  {'import sympy':^37}  {'read all':^37}")
    print(f"{'':22}{'MB':>7}{'build s':>8}  {columns}  {columns}")
    median = lambda work, name, which: statistics.median(pair[which] for pair in times[work][name])
    for name in order:
        row = f"{name:22}{os.stat(image(name)).st_size / 1e6:7.1f}{built[name]:8.1f}"
        for work in (start, read):
            clock = sorted(pair[0] for pair in times[work][name])
            last = clock[min(len(clock) - 1, int(0.99 * len(clock)))]
            wall, cpu = median(work, name, 0), median(work, name, 1)
            row += f"  {wall:9.0f}{last:7.0f}{wall / median(work, order[0], 0):7.2f}"
            row += f"{cpu:7.0f}{cpu / median(work, order[0], 1):7.2f}"
        print(row)


main()
