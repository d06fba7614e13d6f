/* What libcuda and libnvidia-ml of the stand-in have in common: they find GPUs as the driver's do, by opening nodes.
 * There is no driver behind the nodes: ENXIO says that the process may open it, and counts as a GPU. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define MOST 32

struct gpus {
	int tried, count;
	int minor[MOST];     /* of those that it may use, in their order */
	int error_of[MOST];  /* by minor; ENOENT: not there, 0: opened */
};

static inline int may_use(int error)
{
	return error == 0 || error == ENXIO || error == ENODEV;
}

static inline int try_node(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

static inline void find_gpus(struct gpus *gpus)
{
	char path[32];

	gpus->tried = gpus->count = 0;
	for (int minor = 0; minor < MOST; minor++) {
		snprintf(path, sizeof path, "/dev/nvidia%d", minor);
		int error = gpus->error_of[minor] = try_node(path);
		if (error == ENOENT)
			continue;
		gpus->tried++;
		if (may_use(error))
			gpus->minor[gpus->count++] = minor;
	}
}

static inline void name_gpu(int minor, char *uuid, int size)
{
	snprintf(uuid, size, "GPU-%08x-0000-0000-0000-000000000000", minor);
}
