/* cuda-probe: a CUDA program's view, to run in images that have glibc: which libcuda.so.1 it gets, how many devices,
 * and the nodes that it sees. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int ours(const struct dirent *entry)
{
	return !strncmp(entry->d_name, "nvidia", 6);
}

int main(void)
{
	struct dirent **names;
	void *cuda = dlopen("libcuda.so.1", RTLD_NOW);
	int found = scandir("/dev", &names, ours, versionsort), count = 0;

	printf("nodes");
	for (int i = 0; i < found; i++)
		printf(" %s", names[i]->d_name);
	printf("\n");
	if (!cuda) {
		printf("library none: %s\n", dlerror());
		return 1;
	}
	int (*init)(unsigned) = (int (*)(unsigned))dlsym(cuda, "cuInit");
	int (*get_count)(int *) = (int (*)(int *))dlsym(cuda, "cuDeviceGetCount");
	int (*get_name)(char *, int, int) = (int (*)(char *, int, int))dlsym(cuda, "cuDeviceGetName");
	Dl_info info;
	if (!init || !get_count || !get_name || !dladdr((void *)init, &info)) {
		printf("library odd: %s\n", dlerror());
		return 1;
	}
	char *path = realpath(info.dli_fname, NULL);
	printf("library %s\n", path ? path : info.dli_fname);
	int error = init(0);
	get_count(&count);
	printf("devices %d\n", count);
	for (int i = 0; i < count; i++) {
		char name[80];
		get_name(name, sizeof name, i);
		printf("device %d %s\n", i, name);
	}
	if (error)
		printf("error %d\n", error);
	return error ? 1 : 0;
}
