"""counted_directory.py SOURCE TARGET COUNTS [ATTR ENTRY]: shows SOURCE at TARGET, to read, as a file server would, and
counts what the node asks of it in the file COUNTS: five 64-bit numbers, as KINDS has them. The node asks as a client of
NFS does with lookupcache=all: names it has seen, also those that are not there, hold for ENTRY seconds (acdirmin, 30),
and attributes for ATTR (acregmin, 3); at each open it asks whether the file has changed, and keeps what it has read if
not."""
import ctypes
import errno
import mmap
import os
import sys

from fusepy import FUSE, FuseOSError, Operations

KINDS = {"getattr": 0, "readlink": 0, "open": 1, "opendir": 1, "read": 2, "readdir": 3, "release": 4, "releasedir": 4}


class Server(Operations):
    # What a server does not have is asked for once.
    access = flush = fsync = getxattr = listxattr = statfs = None

    def __init__(self, source, counts):
        self.source = source
        with open(counts, "wb+") as file:
            file.truncate(5 * 8)
            self.counts = (ctypes.c_uint64 * 5).from_buffer(mmap.mmap(file.fileno(), 0))

    def __call__(self, operation, path, *arguments):
        if operation in KINDS:
            self.counts[KINDS[operation]] += 1
        try:
            return super().__call__(operation, path, *arguments)
        except FuseOSError:
            raise
        except OSError as error:
            raise FuseOSError(error.errno) from error

    def getattr(self, path, handle=None):
        found = os.lstat(self.source + path)
        return {name: getattr(found, name) for name in
                ("st_atime", "st_ctime", "st_mtime", "st_gid", "st_uid", "st_mode", "st_nlink", "st_size", "st_ino")}

    def readlink(self, path):
        return os.readlink(self.source + path)

    def readdir(self, path, handle):
        return [".", ".."] + os.listdir(self.source + path)

    def open(self, path, flags):
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise FuseOSError(errno.EROFS)
        return os.open(self.source + path, os.O_RDONLY)

    def read(self, path, size, offset, handle):
        return os.pread(handle, size, offset)

    def release(self, path, handle):
        os.close(handle)


def main():
    source, target, counts = sys.argv[1:4]
    attributes, entries = sys.argv[4:6] or ("3", "30")
    FUSE(Server(source, counts), target, foreground=True, nothreads=True, allow_other=True, use_ino=True, ro=True,
         auto_cache=True, attr_timeout=attributes, ac_attr_timeout="0", entry_timeout=entries, negative_timeout=entries)


main()
