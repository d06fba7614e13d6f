"""Runs each variant of `srun … true` once a round, in an order that turns, and prints medians and paired differences.

Usage: start.py ROUNDS NAMES RESULTS        NAMES: the variants to run, with semicolons between them; all if empty
       start.py --write RESULTS DOCUMENT PICTURES
The second form writes the tables of DOCUMENT, between its marks, and the plots of PICTURES from RESULTS.
"""

import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

IMAGES = "/scratch/images/"
TASKS = (1, 16)
WARM = 3


def variants():
    """Name, node and words of each variant; `bare` and `bare again` are the same command."""
    loaded = {
        "plugin loaded, unused": [],
        "squashfs, uncompressed": ["--container=" + IMAGES + "none.sqsh"],
        "squashfs, zstd": ["--container=" + IMAGES + "zstd.sqsh"],
        "squashfs, gzip": ["--container=" + IMAGES + "gzip.sqsh"],
        "SIF of coracle build": ["--container=" + IMAGES + "built.sif"],
        "EROFS": ["--container=" + IMAGES + "bookworm.erofs"],
        "directory": ["--container=" + IMAGES + "tree"],
    }
    found = {"bare": ("n2", [], []), "bare again": ("n2", [], [])}
    found |= {name: ("n1", options, []) for name, options in loaded.items()}
    found["squashfs, zstd, FUSE"] = ("n3", ["--container=" + IMAGES + "zstd.sqsh"], [])
    if shutil.which("ch-run"):
        found["Charliecloud, directory"] = ("n2", [], ["ch-run", IMAGES + "tree", "--"])
        for name in ("none", "zstd", "gzip"):
            shown = "uncompressed" if name == "none" else name
            found[f"Charliecloud, squashfs, {shown}"] = ("n2", [], ["ch-run", IMAGES + name + ".sqsh", "--"])
    return found


def once(tasks, node, options, words):
    environment = dict(os.environ)
    if node == "n2":
        environment["SLURM_CONF"] = "/etc/slurm/bare.conf"
    command = ["srun", "-Q", "-N1", f"-n{tasks}", "-w", node, *options, *words, "/bin/true"]
    start = time.monotonic()
    subprocess.run(command, env=environment, check=True, stdin=subprocess.DEVNULL)
    return (time.monotonic() - start) * 1000


def measure(rounds, only):
    chosen = {name: how for name, how in variants().items() if name.startswith("bare") or not only or name in only}
    results = {}
    for tasks in TASKS:
        times = {name: [] for name in chosen}
        order = list(chosen.items())
        for turn in range(rounds + WARM):
            for name, how in order[turn % len(order):] + order[: turn % len(order)]:
                took = once(tasks, *how)
                if turn >= WARM:
                    times[name].append(round(took, 2))
        results[tasks] = times
    return results


def at(values, share):
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def rows(times):
    """Name, median, 99th percentile, and median and 99th percentile of the differences to `bare` of the same round."""
    bare = times["bare"]
    for name, values in times.items():
        paired = [mine - base for mine, base in zip(values, bare)]
        yield name, statistics.median(values), at(values, 0.99), statistics.median(paired), at(values, 0.99) - at(bare, 0.99)


def show(results):
    for tasks, times in results.items():
        print(f"\nsrun -n{tasks} true in a held allocation, {len(times['bare'])} rounds, milliseconds")
        print(f"{'':34}{'median':>9}{'p99':>9}{'added':>9}{'p99 added':>11}")
        for name, median, late, added, late_added in rows(times):
            print(f"{name:34}{median:9.1f}{late:9.1f}{added:+9.2f}{late_added:+11.1f}")


def table(tasks, times):
    lines = [f"| `srun -n{tasks} true` on one node, ms | median | p99 | added to bare |", "|---|---|---|---|"]
    for name, median, late, added, _ in rows(times):
        shown = "" if name == "bare" else f"{added:+.1f}"
        lines.append(f"| {name} | {median:.1f} | {late:.1f} | {shown} |")
    return "\n".join(lines)


def plot(tasks, times):
    """Bars of what each variant adds to bare."""
    data = [(name, added) for name, _, _, added, _ in rows(times) if name != "bare"]
    width, left, row, top = 820, 260, 24, 46
    scale = (width - left - 90) / max(1, *(added for _, added in data))
    height = top + row * len(data) + 14
    title = f"Added to a bare srun -n{tasks}, median of {len(times['bare'])} rounds, ms"
    parts = [
        (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
         'font-family="DejaVu Sans, Helvetica, Arial, sans-serif" font-size="13">'),
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="26" font-size="15" fill="#1f2328">{title}</text>',
    ]
    for number, (name, added) in enumerate(data):
        y = top + row * number
        colour = "#8c959f" if name.startswith(("bare", "Charliecloud")) else "#0969da"
        length = max(1, added * scale)
        parts.append(f'<text x="{left - 8}" y="{y + 15}" text-anchor="end" fill="#1f2328">{name}</text>')
        parts.append(f'<rect x="{left}" y="{y + 3}" width="{length:.1f}" height="{row - 8}" fill="{colour}"/>')
        parts.append(f'<text x="{left + length + 6:.1f}" y="{y + 15}" fill="#59636e">{added:+.1f}</text>')
    return "\n".join([*parts, "</svg>", ""])


def write(results, document, pictures):
    text = document.read_text()
    for tasks, times in results.items():
        begin, end = f"<!-- start {tasks} -->\n", f"<!-- end {tasks} -->"
        before, rest = text.split(begin)
        _, after = rest.split(end)
        text = before + begin + table(tasks, times) + "\n" + end + after
        (pictures / f"start-{tasks}.svg").write_text(plot(tasks, times))
    document.write_text(text)


def main():
    if sys.argv[1] == "--write":
        results, document, pictures = map(pathlib.Path, sys.argv[2:5])
        write(json.loads(results.read_text()), document, pictures)
        return
    only = [name for name in sys.argv[2].split(";") if name]
    results = measure(int(sys.argv[1]), only)
    show(results)
    pathlib.Path(sys.argv[3]).write_text(json.dumps(results, indent=1))


main()
