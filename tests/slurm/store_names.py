"""store_names.py SOCKET IMAGE COUNT: asks the store for names that no honest client sends; prints how many it took."""
import array
import json
import os
import random
import socket
import sys

path, image, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
random.seed(4)
PIECES = ["..", ".", "/", "a", "-", "\n", "\0", " ", "\x1b[2J", "\u202e", "ä", "%s", "$(id)", ".records", ".lock", "~", ":",
          "etc/passwd", "\\", "'", '"', "*", "bob"]
FIXED = ["", ".", "..", "/", "//", "../bob/x", "/etc/passwd", ".lock", ".records/x", "box.sif/", "./box.sif", "x" * 129,
         "x" * 100000, "box.sif\0", "-rf", "a/../b", "\ud800"]


def names():
    yield from FIXED
    while True:
        name = "".join(random.choice(PIECES) for _ in range(random.randint(1, 8)))
        # What is a good name is no attack.
        if not (name.isascii() and name[0].isalnum() and all(c.isalnum() or c in "._-" for c in name)):
            yield name


def ask(text, fd=None):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        line.settimeout(60)
        line.connect(path)
        rights = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        line.sendmsg([text], rights)
        while True:
            reply = line.recv(1 << 18)
            if not reply:
                return "closed"
            reply = json.loads(reply)
            if isinstance(reply, dict) and ("refused" in reply or "stored" in reply):
                return "stored" if "stored" in reply else "refused"
            if reply == "removed":
                return "removed"


taken = 0
fd = os.open(image, os.O_RDONLY)
for index, name in zip(range(count), names()):
    verb = "copy" if index % 2 else "remove"
    answer = ask(json.dumps({verb: {"name": name}}).encode(), fd if verb == "copy" else None)
    if answer not in ("refused", "closed"):
        taken += 1
        print(repr(name), answer)
# What makes no sense at all, and images that are none.
for text in (b"x", b"{}", b'{"copy":{}}', b'{"copy":{"name":1}}', b"[" * 100000, b'{"steal":{"name":"a"}}'):
    taken += ask(text, fd) != "refused"
pipe = os.pipe()
for odd in (None, pipe[0], os.open("/etc/passwd", os.O_PATH), os.open("/", os.O_RDONLY), os.open("/dev/zero", os.O_RDONLY),
            os.open("/proc/self/status", os.O_RDONLY), os.memfd_create("x")):
    taken += ask(b'{"copy":{"name":"odd"}}', odd) != "refused"
print(f"{count} names tried, {taken} taken")
sys.exit(taken != 0)
