/* outside FLAG: until the file FLAG is there, looks from a container for processes of the same user on the same node that
   are in no container, and for everything that such a process gives away. The root of a container has /etc/image-only. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum root { GONE, HIDDEN, CONTAINER, NODE };

static char path[64];

static const char *of(int pid, const char *name)
{
	snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
	return path;
}

static int opens(int pid, const char *name, int flags)
{
	int fd = open(of(pid, name), flags | O_CLOEXEC);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static enum root root_of(int pid)
{
	int root = open(of(pid, "root"), O_PATH | O_DIRECTORY | O_CLOEXEC);
	/* A process that ends has no root any more. */
	if (root < 0)
		return errno == EACCES || errno == EPERM ? HIDDEN : GONE;
	int there = faccessat(root, "etc/image-only", F_OK, 0) == 0;
	close(root);
	return there ? CONTAINER : NODE;
}

/* Each node of the cluster has a host name of its own. */
enum host { UNKNOWN, OURS, OTHER };

static enum host host_of(int pid)
{
	char own[64] = "", other[64] = "";
	if (readlink("/proc/self/ns/uts", own, sizeof own - 1) <= 0 || readlink(of(pid, "ns/uts"), other, sizeof other - 1) <= 0)
		return UNKNOWN;
	return strcmp(own, other) ? OTHER : OURS;
}

/* What a process gives away that hides its root; each is another check of the kernel's. */
static const char *gate(int pid)
{
	char byte[8];
	struct iovec local = {byte, sizeof byte}, remote = {(void *)0x400000, sizeof byte};
	int file, traced, read_in;
	if (opens(pid, "cwd", O_PATH) || opens(pid, "exe", O_PATH))
		return "cwd or exe";
	if (opens(pid, "fd", O_RDONLY | O_DIRECTORY) || opens(pid, "map_files", O_RDONLY | O_DIRECTORY))
		return "fd";
	if (opens(pid, "environ", O_RDONLY) || opens(pid, "mem", O_RDWR) || opens(pid, "ns/mnt", O_RDONLY))
		return "environ, mem or ns";
	traced = ptrace(PTRACE_SEIZE, pid, 0, 0) == 0;
	if (traced) {
		/* Only a process that has stopped can be let go. */
		ptrace(PTRACE_INTERRUPT, pid, 0, 0);
		waitpid(pid, NULL, __WALL);
		ptrace(PTRACE_DETACH, pid, 0, 0);
		return "ptrace";
	}
	read_in = process_vm_readv(pid, &local, 1, &remote, 1, 0) > 0 || errno == EFAULT;
	if (read_in)
		return "memory";
	int handle = syscall(SYS_pidfd_open, pid, 0);
	file = handle < 0 ? -1 : syscall(SYS_pidfd_getfd, handle, 0, 0);
	if (handle >= 0)
		close(handle);
	if (file >= 0)
		close(file);
	return file >= 0 ? "pidfd_getfd" : NULL;
}

static void name_of(int pid, char *name, int size)
{
	int fd = open(of(pid, "comm"), O_RDONLY | O_CLOEXEC), length = fd < 0 ? 0 : read(fd, name, size - 1);
	name[length > 0 ? length - 1 : 0] = 0;
	if (fd >= 0)
		close(fd);
}

int main(int count, char **words)
{
	long looks = 0, hidden = 0, hits = 0;
	if (count != 2)
		return 2;
	while (access(words[1], F_OK)) {
		DIR *proc = opendir("/proc");
		struct dirent *entry;
		while (proc && (entry = readdir(proc))) {
			struct stat found;
			char name[32] = "";
			int pid = atoi(entry->d_name);
			if (pid <= 0 || pid == getpid() || stat(of(pid, ""), &found) || found.st_uid != getuid())
				continue;
			enum root root = root_of(pid);
			if (root == GONE || root == CONTAINER || host_of(pid) == OTHER)
				continue;
			looks++;
			hidden += root == HIDDEN;
			const char *what = root == NODE ? "root" : gate(pid);
			/* It may have become the user's program in its container meanwhile, or have ended. */
			root = root_of(pid);
			if (!what || root == GONE || root == CONTAINER || (root == NODE && host_of(pid) != OURS))
				continue;
			name_of(pid, name, sizeof name);
			printf("caught: %s of %s\n", what, name);
			fflush(stdout);
			hits++;
		}
		if (proc)
			closedir(proc);
	}
	printf("looks %ld, hidden %ld, caught %ld\n", looks, hidden, hits);
	return hits > 0;
}
