"""chrooted.py READY DIRECTORY [mounts]: gives this process DIRECTORY as its root, in a user namespace of its own, writes
the file READY and waits until that is removed. With "mounts" it has a mount namespace of its own, too, with a bind mount
of DIRECTORY in it.

So a process looks that is in a container, to whoever compares roots; it runs on no image."""
import ctypes
import os
import sys
import time

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_BIND, MS_REC = 0x1000, 0x4000
libc = ctypes.CDLL(None, use_errno=True)


def check(result):
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


ready, directory = os.path.abspath(sys.argv[1]), sys.argv[2]
mounts = "mounts" in sys.argv[3:]
uid, gid = os.getuid(), os.getgid()
place = os.open(os.path.dirname(ready), os.O_RDONLY)
name = os.path.basename(ready)
check(libc.unshare(CLONE_NEWUSER | (CLONE_NEWNS if mounts else 0)))
write("/proc/self/setgroups", "deny")
write("/proc/self/uid_map", f"{uid} {uid} 1")
write("/proc/self/gid_map", f"{gid} {gid} 1")
if mounts:
    check(libc.mount(directory.encode(), directory.encode(), None, MS_BIND | MS_REC, None))
os.chroot(directory)
os.chdir("/")
os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=place))
while True:
    try:
        os.stat(name, dir_fd=place)
    except FileNotFoundError:
        break
    time.sleep(0.05)
