/* Stand-in for libcuda.so.1: as many devices as there are nodes to open, less those that CUDA_VISIBLE_DEVICES hides. */
#include "gpus.h"
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_DEVICE = 101 };

static int initialized, visible, minors[MOST];

/* One entry of CUDA_VISIBLE_DEVICES: a number among the GPUs it may use, or the start of a name. -1: there is none. */
static int entry(const struct gpus *gpus, const char *text, size_t length)
{
	char uuid[64];
	int index = 0;

	if (!length)
		return -1;
	if (length > 4 && !strncmp(text, "GPU-", 4)) {
		for (int i = 0; i < gpus->count; i++) {
			name_gpu(gpus->minor[i], uuid, sizeof uuid);
			if (!strncmp(uuid, text, length))
				return gpus->minor[i];
		}
		return -1;
	}
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9' || index > MOST)
			return -1;
		index = index * 10 + text[i] - '0';
	}
	return index < gpus->count ? gpus->minor[index] : -1;
}

int cuInit(unsigned flags)
{
	struct gpus gpus;
	const char *list = getenv("CUDA_VISIBLE_DEVICES");

	if (flags)
		return INVALID_VALUE;
	visible = 0;
	find_gpus(&gpus);
	if (!may_use(try_node("/dev/nvidiactl")) || !may_use(try_node("/dev/nvidia-uvm")))
		gpus.count = 0;
	if (!list) {
		visible = gpus.count;
		memcpy(minors, gpus.minor, sizeof minors);
	}
	/* As CUDA does: the first entry that is no device ends the list. */
	for (; list && visible < MOST; list++) {
		size_t length = strcspn(list, ",");
		int minor = entry(&gpus, list, length);
		if (minor < 0)
			break;
		minors[visible++] = minor;
		list += length;
		if (!*list)
			break;
	}
	initialized = visible > 0;
	return initialized ? SUCCESS : NO_DEVICE;
}

int cuDriverGetVersion(int *version)
{
	*version = 12040;
	return SUCCESS;
}

int cuDeviceGetCount(int *count)
{
	*count = visible;
	return initialized ? SUCCESS : NOT_INITIALIZED;
}

int cuDeviceGet(int *device, int ordinal)
{
	if (!initialized)
		return NOT_INITIALIZED;
	if (ordinal < 0 || ordinal >= visible)
		return INVALID_DEVICE;
	*device = ordinal;
	return SUCCESS;
}

int cuDeviceGetName(char *name, int size, int device)
{
	if (device < 0 || device >= visible)
		return INVALID_DEVICE;
	snprintf(name, size, "stand-in /dev/nvidia%d", minors[device]);
	return SUCCESS;
}
