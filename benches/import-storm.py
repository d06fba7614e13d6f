"""Runs the import from a tree and from the image, with few ranks a node and with many, and prints what was asked for."""

import struct
import subprocess
import sys
import time

PYTHON, SERVER = sys.argv[1:]
NODES = ["n1", "n2", "n3"]
KINDS = ["lookup", "open", "read", "readdir", "close"]
# Attributes and names hold so many seconds: an NFS client's least (acregmin, acdirmin); and noac, where 16 ranks of a tree
# would ask a million times.
CACHES = {
    "NFS's defaults": (("3", "30"), ((1, 16), (3, 1), (3, 4), (3, 16))),
    "nothing kept": (("0", "0"), ((3, 1), (3, 4))),
}
PROGRAM = "import sys, sympy; print(len(sys.modules), sympy.__file__, sympy.factorint(2023))"
WHERE = {
    "tree": (["env", "PYTHONHOME=/net/tree/usr", "/net/tree" + PYTHON], [], "/net/tree", "kernel"),
    "image, kernel": ([PYTHON], ["--container=/net/image.sqsh"], "", "kernel"),
    "image, squashfuse": ([PYTHON], ["--container=/net/image.sqsh"], "", "fuse"),
}


class Servers:
    def __init__(self, cache):
        server = ["/usr/bin/python3", SERVER, "/scratch/served", "/net"]
        self.running = [subprocess.Popen(["on-node", node, *server, f"/scratch/{node}", *cache]) for node in NODES]
        for node in NODES:
            # Looked for where looking asks the server nothing.
            while subprocess.run(["on-node", node, "grep", "-q", " /net ", "/proc/self/mountinfo"], check=False).returncode:
                if any(server.poll() is not None for server in self.running):
                    sys.exit("bench: a server has ended")
                time.sleep(0.05)

    def asked(self):
        totals = [0] * len(KINDS)
        for node in NODES:
            with open(f"/scratch/{node}", "rb") as counts:
                totals = [sum(pair) for pair in zip(totals, struct.unpack(f"{len(KINDS)}Q", counts.read()))]
        return totals

    def end(self):
        for node, server in zip(NODES, self.running):
            # A step's last mount of it may end a moment after the step.
            while subprocess.run(["on-node", node, "umount", "/net"], stderr=subprocess.DEVNULL, check=False).returncode:
                time.sleep(0.1)
            server.wait()


def step(name, nodes, each):
    program, container, place, _ = WHERE[name]
    ranks = each * nodes
    where = [f"-N{nodes}", f"-n{ranks}", "-w", ",".join(NODES[:nodes])]
    command = ["as", "alice", "srun", "-Q"] + where + container + program + ["-sc", PROGRAM]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False)
    lines = set(done.stdout.splitlines())
    wanted = f"{place}/usr/lib/python3/dist-packages/sympy/__init__.py {{7: 1, 17: 2}}"
    if done.returncode or len(done.stdout.splitlines()) != ranks or len(lines) != 1 or wanted not in done.stdout:
        sys.exit(f"bench: {' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout.split()[0]


def main():
    for cache, (timeouts, sizes) in CACHES.items():
        print(f"\nasked of the server, {cache}")
        print(f"{'':34}" + "".join(f"{kind:>9}" for kind in KINDS + ["all"]))
        for name in WHERE:
            with open("/etc/coracle/coracle.yaml", "w", encoding="ascii") as config:
                config.write(f"version: 1\nuser_images: {WHERE[name][3]}\n")
            for nodes, each in sizes:
                servers = Servers(timeouts)
                for state in ("cold", "warm"):
                    before = servers.asked()
                    modules = step(name, nodes, each)
                    asked = [now - then for now, then in zip(servers.asked(), before)]
                    counts = "".join(f"{count:9}" for count in asked + [sum(asked)])
                    print(f"{name:18}{nodes:2} × {each:2} ranks, {state}{counts}", flush=True)
                servers.end()
    print(f"{modules} modules a rank")


main()
