"""squash_root.py SOURCE TARGET: shows SOURCE at TARGET as a file server would that squashes root (exports(5), root_squash):
each call is made with the caller's own ids, and root is nobody. Like NFS, it has no files without a name."""
import ctypes
import os
import sys

from fusepy import FUSE, FuseOSError, Operations, fuse_get_context

SETFSUID, SETFSGID, SETGROUPS = 122, 123, 116
NOBODY = 65534
libc = ctypes.CDLL(None, use_errno=True)


def groups_of(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("Groups:"))
    return [int(word) for word in line.split()[1:]]


def as_caller(work):
    def call(self, *arguments):
        uid, gid, pid = fuse_get_context()
        groups = [] if uid == 0 else groups_of(pid)
        if uid == 0:
            uid = gid = NOBODY
        array = (ctypes.c_uint32 * len(groups))(*groups)
        libc.syscall(SETGROUPS, len(groups), array)
        libc.syscall(SETFSGID, gid)
        libc.syscall(SETFSUID, uid)
        try:
            return work(self, *arguments)
        except OSError as error:
            raise FuseOSError(error.errno) from error
        finally:
            libc.syscall(SETFSUID, 0)
            libc.syscall(SETFSGID, 0)
    return call


class Server(Operations):
    def __init__(self, source):
        self.source = source

    def at(self, path):
        return self.source + path

    @as_caller
    def access(self, path, mode):
        # access(2) asks with the real ids, which are root's here: opening is what decides.
        os.lstat(self.at(path))

    @as_caller
    def getattr(self, path, handle=None):
        found = os.fstat(handle) if handle is not None else os.lstat(self.at(path))
        return {name: getattr(found, name) for name in
                ("st_atime", "st_ctime", "st_mtime", "st_gid", "st_uid", "st_mode", "st_nlink", "st_size", "st_ino")}

    @as_caller
    def readdir(self, path, handle):
        return [".", ".."] + os.listdir(self.at(path))

    @as_caller
    def opendir(self, path):
        os.close(os.open(self.at(path), os.O_RDONLY | os.O_DIRECTORY))
        return 0

    @as_caller
    def open(self, path, flags):
        return os.open(self.at(path), flags & ~os.O_CREAT)

    @as_caller
    def create(self, path, mode, info=None):
        return os.open(self.at(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    @as_caller
    def read(self, path, size, offset, handle):
        return os.pread(handle, size, offset)

    @as_caller
    def write(self, path, data, offset, handle):
        return os.pwrite(handle, data, offset)

    @as_caller
    def truncate(self, path, length, handle=None):
        os.truncate(self.at(path) if handle is None else handle, length)

    @as_caller
    def mkdir(self, path, mode):
        os.mkdir(self.at(path), mode)

    @as_caller
    def unlink(self, path):
        os.unlink(self.at(path))

    @as_caller
    def rename(self, old, new):
        os.rename(self.at(old), self.at(new))

    @as_caller
    def link(self, target, source):
        os.link(self.at(source), self.at(target))

    @as_caller
    def chmod(self, path, mode):
        os.chmod(self.at(path), mode)

    @as_caller
    def chown(self, path, uid, gid):
        os.chown(self.at(path), uid, gid)

    @as_caller
    def setxattr(self, path, name, value, flags, position=0):
        os.setxattr(self.at(path), name, value, flags)

    @as_caller
    def getxattr(self, path, name, position=0):
        return os.getxattr(self.at(path), name)

    @as_caller
    def fsync(self, path, datasync, handle):
        os.fsync(handle)

    @as_caller
    def release(self, path, handle):
        os.close(handle)

    def statfs(self, path):
        found = os.statvfs(self.source)
        return {name: getattr(found, name) for name in ("f_bsize", "f_blocks", "f_bavail", "f_bfree", "f_namemax")}


if os.uname().machine != "x86_64":
    sys.exit("the numbers of system calls are those of x86_64")
os.umask(0)
FUSE(Server(sys.argv[1]), sys.argv[2], foreground=True, nothreads=True, allow_other=True, use_ino=True,
     hard_remove=True)
