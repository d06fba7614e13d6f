"""commands_seen.py NAME STOP: until the file STOP is there, looks for processes of one's own whose first word is NAME, and
tries on each what a user may do to another process of theirs. At the end it prints how many it saw, what worked, and the
control groups of devices (version 1) that they were in."""
import ctypes
import os
import sys

PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207
SYS_PIDFD_GETFD, SYS_PROCESS_VM_READV = 438, {"x86_64": 310, "aarch64": 270}[os.uname().machine]
libc = ctypes.CDLL(None, use_errno=True)


class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def opened(pid, name, flags):
    try:
        os.close(os.open(f"/proc/{pid}/{name}", flags))
    except OSError:
        return False
    return True


def read(pid, name):
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""


def traced(pid):
    if libc.ptrace(PTRACE_SEIZE, pid, None, None):
        return False
    libc.ptrace(PTRACE_INTERRUPT, pid, None, None)
    os.waitpid(pid, 0x40000000)
    libc.ptrace(PTRACE_DETACH, pid, None, None)
    return True


def descriptor(pid):
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    got = libc.syscall(SYS_PIDFD_GETFD, pidfd, 1, 0)
    os.close(pidfd)
    if got >= 0:
        os.close(got)
    return got >= 0


def memory(pid):
    buffer = ctypes.create_string_buffer(8)
    here, there = Vector(ctypes.cast(buffer, ctypes.c_void_p), 8), Vector(4096, 8)
    read = libc.syscall(SYS_PROCESS_VM_READV, pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    # EFAULT: there is nothing at that address, but one may look.
    return read >= 0 or ctypes.get_errno() == 14


def linked(pid, name):
    try:
        return bool(os.readlink(f"/proc/{pid}/{name}"))
    except OSError:
        return False


path, directory, write = os.O_PATH, os.O_RDONLY | os.O_DIRECTORY, os.O_WRONLY
attempts = {name: (lambda pid, name=name, flags=flags: opened(pid, name, flags)) for name, flags in [
    ("root", path), ("cwd", path), ("exe", path), ("fd", directory), ("environ", os.O_RDONLY), ("mem", os.O_RDWR),
    ("ns/mnt", os.O_RDONLY), ("map_files", directory), ("oom_score_adj", write)]}
attempts |= {"maps": lambda pid: bool(read(pid, "maps")), "link of ns": lambda pid: linked(pid, "ns/mnt"),
             "ptrace": traced, "pidfd_getfd": descriptor, "process_vm_readv": memory}
wanted, stop = sys.argv[1].encode(), sys.argv[2]
seen, worked, groups = set(), set(), set()
uid = b"\nUid:\t%d\t" % os.getuid()
while not os.path.exists(stop):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        pid = int(pid)
        if read(pid, "cmdline").split(b"\0")[0] != wanted or uid not in read(pid, "status"):
            continue
        seen.add(pid)
        worked |= {name for name, attempt in attempts.items() if attempt(pid)}
        lines = read(pid, "cgroup").decode().splitlines()
        # One that has ended meanwhile is shown in no group.
        if read(pid, "cmdline"):
            groups |= {line.split(":", 2)[2] for line in lines if line.split(":")[1] == "devices"}
print("seen", len(seen) > 0)
print("worked:", *sorted(worked))
print("devices:", *sorted(groups))
