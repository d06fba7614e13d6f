/* cma give FILE: writes its process id and an address to FILE, and waits until FILE.done is there.
 * cma take FILE: reads what is at that address in that process (process_vm_readv(2)). */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static char secret[] = "read from the other's memory";

int main(int argc, char **argv)
{
	char done[4096], found[sizeof secret] = "";
	int process, tries;
	void *address;
	FILE *file;

	if (argc != 3)
		return 2;
	snprintf(done, sizeof done, "%s.done", argv[2]);
	if (!strcmp(argv[1], "give")) {
		snprintf(found, sizeof found, "%s.new", argv[2]);
		file = fopen(found, "w");
		if (!file || fprintf(file, "%d %p\n", (int)getpid(), (void *)secret) < 0 || fclose(file))
			return perror(argv[2]), 1;
		if (rename(found, argv[2]))
			return perror(argv[2]), 1;
		for (tries = 0; access(done, F_OK) && tries < 2000; tries++)
			usleep(10000);
		return 0;
	}
	for (tries = 0; access(argv[2], R_OK) && tries < 2000; tries++)
		usleep(10000);
	file = fopen(argv[2], "r");
	if (!file || fscanf(file, "%d %p", &process, &address) != 2)
		return perror(argv[2]), 1;
	struct iovec here = { found, sizeof found }, there = { address, sizeof found };
	if (process_vm_readv(process, &here, 1, &there, 1, 0) != sizeof found)
		perror("process_vm_readv");
	else
		puts(found);
	return fclose(fopen(done, "w"));
}
