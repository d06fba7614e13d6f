/* take PID: traces squashfuse_ll until it has taken a look-up from the kernel, and leaves it stopped before it answers. */
#include <errno.h>
#include <linux/fuse.h>
#include <linux/ptrace.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static long trace(int what, pid_t pid, void *address, void *data)
{
	return syscall(SYS_ptrace, what, pid, address, data);
}

int main(int count, char **words)
{
	pid_t pid = count == 2 ? atoi(words[1]) : 0;
	if (trace(PTRACE_SEIZE, pid, 0, (void *)PTRACE_O_TRACESYSGOOD)) {
		printf("seize: %s\n", strerror(errno));
		return 1;
	}
	trace(PTRACE_INTERRUPT, pid, 0, 0);
	unsigned long buffer = 0;
	for (;;) {
		int status;
		struct ptrace_syscall_info call;
		if (waitpid(pid, &status, __WALL) < 0 || !WIFSTOPPED(status))
			return 1;
		trace(PTRACE_GET_SYSCALL_INFO, pid, (void *)sizeof call, &call);
		if (call.op == PTRACE_SYSCALL_INFO_ENTRY)
			buffer = call.entry.nr == SYS_read ? call.entry.args[1] : 0;
		if (call.op == PTRACE_SYSCALL_INFO_EXIT && buffer && call.exit.rval >= (long)sizeof(struct fuse_in_header)) {
			/* The second word of the header: PEEKDATA of the system call writes to its last argument. */
			unsigned long words_of_it = 0;
			trace(PTRACE_PEEKDATA, pid, (void *)buffer, &words_of_it);
			if (words_of_it >> 32 == FUSE_LOOKUP)
				break;
		}
		trace(PTRACE_SYSCALL, pid, 0, 0);
	}
	if (trace(PTRACE_DETACH, pid, 0, (void *)SIGSTOP))
		return 1;
	puts("taken");
	return 0;
}
