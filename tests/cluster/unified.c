/* Preloaded into slurmd and slurmstepd of a cluster with cgroup/v2. That plugin ends the daemon when /proc/self/cgroup
 * begins with a hierarchy of version 1, and it does on a machine that has both. This shows the line of version 2 alone,
 * as on a machine that has no other. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef int opener(const char *, int, ...);

static int lines_of_version_2(int all)
{
	FILE *in = fdopen(all, "r");
	int fd = memfd_create("cgroup", MFD_CLOEXEC);
	char line[4096];

	while (in && fd >= 0 && fgets(line, sizeof line, in))
		if (!strncmp(line, "0::", 3))
			dprintf(fd, "%s", line);
	if (in)
		fclose(in);
	lseek(fd, 0, SEEK_SET);
	return fd;
}

static int opened(opener *real, const char *path, int flags, int mode)
{
	int fd = real(path, flags, mode);
	const char *end = strrchr(path, '/');

	if (fd < 0 || strncmp(path, "/proc/", 6) || strcmp(end, "/cgroup"))
		return fd;
	return lines_of_version_2(fd);
}

#define OPENER(NAME)                                                           \
	int NAME(const char *path, int flags, ...)                             \
	{                                                                      \
		static opener *real;                                           \
		int mode = 0;                                                  \
                                                                               \
		if (flags & (O_CREAT | O_TMPFILE)) {                           \
			va_list rest;                                          \
			va_start(rest, flags);                                 \
			mode = va_arg(rest, int);                              \
			va_end(rest);                                          \
		}                                                              \
		if (!real)                                                     \
			real = (opener *)dlsym(RTLD_NEXT, #NAME);              \
		return opened(real, path, flags, mode);                        \
	}

OPENER(open)
OPENER(open64)
