/* rocm-probe: a ROCm program's view: what came of opening /dev/kfd and each render node, and how many devices are left
 * to it, which are those that ROCR_VISIBLE_DEVICES lists if it is set. Static, so that it runs in every image. */
#define _GNU_SOURCE
#include "gpus.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
	int kfd = try_node("/dev/kfd"), devices = 0, listed = 0;
	const char *list = getenv("ROCR_VISIBLE_DEVICES");

	printf("/dev/kfd %s\n", kfd ? strerrorname_np(kfd) : "OPENED");
	for (int minor = 128; minor < 192; minor++) {
		char path[32];
		snprintf(path, sizeof path, "/dev/dri/renderD%d", minor);
		int error = try_node(path);
		if (error == ENOENT)
			continue;
		printf("%s %s\n", path, error ? strerrorname_np(error) : "OPENED");
		devices += may_use(error);
	}
	if (!may_use(kfd))
		devices = 0;
	/* As ROCr does: the first entry that is no device ends the list. */
	while (list && *list >= '0' && *list <= '9' && atoi(list) < devices) {
		listed++;
		list += strcspn(list, ",");
		list += *list == ',';
	}
	printf("devices %d\n", getenv("ROCR_VISIBLE_DEVICES") ? listed : devices);
	return 0;
}
