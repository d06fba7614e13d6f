/* unanswered TARGET UID WHICH OPTIONS: mounts a FUSE file system of the user's at TARGET, as their fusermount3 would
   (fuse(4), user_id), and serves it as that user: directories d..., with the same in them, and empty files f.... It takes
   some requests and never answers: all (but the kernel's first), look-ups, access (chdir(2)), or those of root. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char buffer[1 << 20];
static int device;

static void answer(const struct fuse_in_header *request, int error, const void *body, size_t length)
{
	struct fuse_out_header header = {sizeof header + length, error, request->unique};
	struct iovec parts[2] = {{&header, sizeof header}, {(void *)body, length}};
	/* Whoever asked may have been killed. */
	if (writev(device, parts, 2) < 0 && errno != ENOENT)
		exit(1);
}

/* Directories have odd numbers. */
static struct fuse_attr attributes(uint64_t node, uid_t uid)
{
	return (struct fuse_attr){.ino = node, .nlink = 1, .uid = uid, .gid = uid,
				  .mode = node & 1 ? S_IFDIR | 0755 : S_IFREG | 0644};
}

static int is_unanswered(const char *which, const struct fuse_in_header *request)
{
	if (request->opcode == FUSE_INIT)
		return 0;
	return !strcmp(which, "all") || (!strcmp(which, "lookup") && request->opcode == FUSE_LOOKUP) ||
	       (!strcmp(which, "access") && request->opcode == FUSE_ACCESS) || (!strcmp(which, "root") && request->uid == 0);
}

int main(int count, char **words)
{
	char options[256];
	if (count != 5)
		return 2;
	uid_t uid = atoi(words[2]);
	device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=%d,group_id=%d%s", device, uid, uid, words[4]);
	if (mount("unanswered", words[1], "fuse.unanswered", MS_NOSUID | MS_NODEV, options)) {
		perror(words[1]);
		return 1;
	}
	if (setgroups(0, NULL) || setresgid(uid, uid, uid) || setresuid(uid, uid, uid))
		return 1;
	for (;;) {
		struct fuse_in_header *request = (void *)buffer;
		const char *name = buffer + sizeof *request;
		if (read(device, buffer, sizeof buffer) < (ssize_t)sizeof *request) {
			if (errno == EINTR || errno == ENOENT)
				continue;
			return errno != ENODEV;
		}
		if (is_unanswered(words[3], request))
			continue;
		struct fuse_init_out init = {.major = 7, .minor = 31, .max_background = 8, .max_write = 1 << 16};
		struct fuse_attr_out found = {.attr = attributes(request->nodeid, uid)};
		struct fuse_entry_out entry = {.nodeid = name[0] == 'd' ? request->nodeid * 2 + 1 : 2};
		struct fuse_open_out opened = {0};
		struct fuse_statfs_out statistics = {.st = {.bsize = 4096, .namelen = 255}};
		switch (request->opcode) {
		case FUSE_INIT:
			answer(request, 0, &init, sizeof init);
			break;
		case FUSE_GETATTR:
			answer(request, 0, &found, sizeof found);
			break;
		case FUSE_LOOKUP:
			entry.attr = attributes(entry.nodeid, uid);
			if (name[0] == 'd' || name[0] == 'f')
				answer(request, 0, &entry, sizeof entry);
			else
				answer(request, -ENOENT, NULL, 0);
			break;
		case FUSE_OPEN:
		case FUSE_OPENDIR:
			answer(request, 0, &opened, sizeof opened);
			break;
		case FUSE_STATFS:
			answer(request, 0, &statistics, sizeof statistics);
			break;
		case FUSE_ACCESS:
		case FUSE_READ:
		case FUSE_READDIR:
		case FUSE_RELEASE:
		case FUSE_RELEASEDIR:
		case FUSE_FLUSH:
			answer(request, 0, NULL, 0);
			break;
		case FUSE_FORGET:
		case FUSE_BATCH_FORGET:
		case FUSE_INTERRUPT:
			break;
		default:
			answer(request, -ENOSYS, NULL, 0);
		}
	}
}
