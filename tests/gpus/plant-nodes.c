/* plant-nodes PID DIRECTORY NODE...: mounts a tmpfs at DIRECTORY in the mount namespace of process PID and makes there
 * every NODE of /dev anew, by its path below /dev, for all to read and write; then the file "planted". Run by root on a
 * node: so a task gets at devices that its /dev does not show. Static, as it needs nothing of the namespace that it enters. */
#define _GNU_SOURCE
#include <errno.h>
#include <error.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char path[4096];
	struct stat *nodes = calloc(argc, sizeof *nodes);
	int namespace;

	if (argc < 4 || !nodes)
		error(2, 0, "usage: plant-nodes PID DIRECTORY NODE...");
	for (int i = 3; i < argc; i++)
		if (strncmp(argv[i], "/dev/", 5) || stat(argv[i], &nodes[i]))
			error(1, errno, "%s", argv[i]);
	snprintf(path, sizeof path, "/proc/%s/ns/mnt", argv[1]);
	namespace = open(path, O_RDONLY | O_CLOEXEC);
	if (namespace < 0)
		error(1, errno, "%s", path);
	snprintf(path, sizeof path, "/proc/%s/root", argv[1]);
	int root = open(path, O_PATH | O_CLOEXEC);
	if (root < 0 || setns(namespace, CLONE_NEWNS) || fchdir(root) || chroot("."))
		error(1, errno, "the mount namespace of %s", argv[1]);
	/* Not nodev: only the device's own permission is left. */
	if (mount("planted", argv[2], "tmpfs", MS_NOSUID, "mode=755"))
		error(1, errno, "%s", argv[2]);
	umask(0);
	for (int i = 3; i < argc; i++) {
		snprintf(path, sizeof path, "%s/%s", argv[2], argv[i] + 5);
		for (char *slash = path + strlen(argv[2]) + 1; (slash = strchr(slash, '/')); slash++) {
			*slash = 0;
			if (mkdir(path, 0755) && errno != EEXIST)
				error(1, errno, "%s", path);
			*slash = '/';
		}
		if (mknod(path, (nodes[i].st_mode & S_IFMT) | 0666, nodes[i].st_rdev))
			error(1, errno, "%s", path);
	}
	snprintf(path, sizeof path, "%s/planted", argv[2]);
	if (mknod(path, S_IFREG | 0644, 0))
		error(1, errno, "%s", path);
	return 0;
}
