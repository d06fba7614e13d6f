/* try-open PATH...: opens each and prints what came of it, OPENED or the error's name. Static, so that it runs in every
 * image. It is how the tests measure which devices a process has. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		int fd = open(argv[i], O_RDWR | O_NONBLOCK | O_CLOEXEC);
		/* A capability's node is for reading only. */
		if (fd < 0 && errno == EACCES)
			fd = open(argv[i], O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		printf("%s %s\n", argv[i], fd < 0 ? strerrorname_np(errno) : "OPENED");
		if (fd >= 0)
			close(fd);
	}
	return 0;
}
