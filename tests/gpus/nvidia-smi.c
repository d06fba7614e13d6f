/* Stand-in for nvidia-smi: the GPUs that it may use, and what came of opening each node. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>

int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlSystemGetDriverVersion(char *version, unsigned length);
int nvmlDeviceGetCount_v2(unsigned *count);
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device);
int nvmlDeviceGetMinorNumber(void *device, unsigned *minor);
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length);
int standinErrorOf(int minor);

int main(int argc, char **argv)
{
	char text[80];
	unsigned count, minor;
	void *device;
	int tried = 0;

	if (argc > 2 || (argc == 2 && strcmp(argv[1], "-L"))) {
		fprintf(stderr, "usage: nvidia-smi [-L]\n");
		return 2;
	}
	if (nvmlInit_v2()) {
		printf("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n");
		return 9;
	}
	if (argc == 1) {
		nvmlSystemGetDriverVersion(text, sizeof text);
		printf("Driver Version: %s\n", text);
	}
	nvmlDeviceGetCount_v2(&count);
	for (unsigned i = 0; i < count; i++) {
		nvmlDeviceGetHandleByIndex_v2(i, &device);
		nvmlDeviceGetMinorNumber(device, &minor);
		nvmlDeviceGetUUID(device, text, sizeof text);
		printf("GPU %u: stand-in /dev/nvidia%u (UUID: %s)\n", i, minor, text);
	}
	for (int i = 0; i < 32; i++) {
		int error = standinErrorOf(i);
		if (error < 0)
			continue;
		tried++;
		printf("/dev/nvidia%d %s\n", i, error ? strerrorname_np(error) : "OPENED");
	}
	printf("tried=%d opened=%u\n", tried, count);
	nvmlShutdown();
	return count ? 0 : 6;
}
