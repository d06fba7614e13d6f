"""serve_as.py UID SQUASHFS TARGET: shows a squashfs at TARGET as a FUSE file system of the user's, as their fusermount3 would
mount it (fuse(4), user_id), and becomes its server."""
import ctypes
import os
import sys

NOSUID_NODEV = 2 | 4
uid, image, target = int(sys.argv[1]), sys.argv[2], sys.argv[3]
device = os.open("/dev/fuse", os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
options = f"fd={device},rootmode=40000,user_id={uid},group_id={uid}"
if libc.mount(b"alice", target.encode(), b"fuse.mine", NOSUID_NODEV, options.encode()):
    sys.exit(os.strerror(ctypes.get_errno()))
os.setgroups([])
os.setgid(uid)
os.setuid(uid)
os.set_inheritable(device, True)
os.execv("/usr/bin/squashfuse_ll", ["own-fuse", "-f", image, f"/dev/fd/{device}"])
