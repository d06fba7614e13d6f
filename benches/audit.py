"""Starts steps with and without a file of records, in turns, and prints what the starts and the records took."""

import os
import re
import socket
import statistics
import subprocess
import sys
import time

ROUNDS = int(sys.argv[1])
CONFIG = "version: 1\nuser_images: kernel\nlog: journal\n"
VARIANTS = {
    "without": CONFIG,
    "audit.file": CONFIG + "audit: {file: /var/lib/coracle/audit.jsonl, required: yes}\n",
}
STEP = "as alice srun -Q -w n1 -n{} --container=/scratch/image.sif /bin/true"


def main():
    # The journal's place, which all nodes see: the log lines say what a record took.
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    log.bind("/run/systemd/journal/socket")
    log.settimeout(10)
    for tasks in (1, 16):
        times, records = {name: [] for name in VARIANTS}, []
        for turn in range(ROUNDS + 3):
            for name in sorted(VARIANTS, reverse=turn % 2):
                with open("/etc/coracle/coracle.yaml", "w") as config:
                    config.write(VARIANTS[name])
                start = time.monotonic()
                subprocess.run(STEP.format(tasks).split(), check=True, stdin=subprocess.DEVNULL)
                took = (time.monotonic() - start) * 1000
                record = re.search(r"\"record\":(\d+)", log.recv(1 << 17).decode())
                if turn >= 3:
                    times[name].append(took)
                    records += [int(record[1])] if record and record[1] else []
        print(f"\nsrun -n{tasks} true in a container, {ROUNDS} rounds")
        for name, values in times.items():
            ranked = sorted(values)
            print(f"{name:12}{statistics.median(values):9.1f} ms median{ranked[int(0.95 * len(ranked))]:9.1f} ms p95")
        paired = statistics.median(mine - base for mine, base in zip(times["audit.file"], times["without"]))
        ranked = sorted(records)
        print(f"paired difference {paired:+.2f} ms; a record {statistics.median(ranked):.0f} µs, p95 {ranked[int(0.95 * len(ranked))]} µs")
    os.unlink("/run/systemd/journal/socket")


main()
