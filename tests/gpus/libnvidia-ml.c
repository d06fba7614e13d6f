/* Stand-in for libnvidia-ml.so.1: all GPUs that there are nodes of to open; CUDA_VISIBLE_DEVICES is none of its concern. */
#include "gpus.h"

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NO_PERMISSION = 4, DRIVER_NOT_LOADED = 9 };

static struct gpus gpus;
static int initialized;

int nvmlInit_v2(void)
{
	if (!may_use(try_node("/dev/nvidiactl")))
		return DRIVER_NOT_LOADED;
	find_gpus(&gpus);
	initialized = 1;
	return SUCCESS;
}

int nvmlShutdown(void)
{
	initialized = 0;
	return SUCCESS;
}

int nvmlSystemGetDriverVersion(char *version, unsigned length)
{
	snprintf(version, length, "%s", DRIVER_VERSION);
	return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
	*count = gpus.count;
	return initialized ? SUCCESS : UNINITIALIZED;
}

/* A handle is the minor number and 1, so that none is null. */
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device)
{
	if (!initialized)
		return UNINITIALIZED;
	if (index >= (unsigned)gpus.count)
		return INVALID_ARGUMENT;
	*device = (char *)0 + gpus.minor[index] + 1;
	return SUCCESS;
}

int nvmlDeviceGetMinorNumber(void *device, unsigned *minor)
{
	*minor = (unsigned)((char *)device - (char *)0) - 1;
	return SUCCESS;
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length)
{
	unsigned minor;

	nvmlDeviceGetMinorNumber(device, &minor);
	name_gpu(minor, uuid, length);
	return SUCCESS;
}

/* The real one has no such thing: what came of opening /dev/nvidiaMINOR; -1 when there was no such node. */
int standinErrorOf(int minor)
{
	return minor < 0 || minor >= MOST || gpus.error_of[minor] == ENOENT ? -1 : gpus.error_of[minor];
}
