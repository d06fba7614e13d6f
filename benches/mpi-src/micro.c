/* micro latency|bandwidth|allreduce: what OSU's micro-benchmarks of these names measure, and in their way: blocking
 * ping-pong, halved; a window of 64 messages and one answer; the mean over the ranks. Prints a line "SIZE FIGURE" for each
 * size, in µs or MB/s. Other than OSU's, each figure is the median of ten equal parts of the run, and what comes out of
 * each exchange is checked. */
#include "bench.h"
#include <string.h>
#include <sys/uio.h>

enum { LARGEST = 4 << 20, WINDOW = 64, PARTS = 10 };

static char *out, *in;

static void latency(int size, int turn)
{
	int other = 1 - rank;

	if (rank == 0) {
		out[0] = out[size - 1] = (char)turn;
		MPI_Send(out, size, MPI_CHAR, other, 1, MPI_COMM_WORLD);
		MPI_Recv(in, size, MPI_CHAR, other, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
		if (in[0] != (char)turn || in[size - 1] != (char)turn)
			die("latency: a wrong message came back");
	} else {
		MPI_Recv(in, size, MPI_CHAR, other, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
		MPI_Send(in, size, MPI_CHAR, other, 1, MPI_COMM_WORLD);
	}
}

static void bandwidth(int size, int turn)
{
	MPI_Request requests[WINDOW];
	char answer = 0;

	if (rank == 0) {
		out[size - 1] = (char)turn;
		for (int i = 0; i < WINDOW; i++)
			MPI_Isend(out, size, MPI_CHAR, 1, 1, MPI_COMM_WORLD, &requests[i]);
		MPI_Waitall(WINDOW, requests, MPI_STATUSES_IGNORE);
		MPI_Recv(&answer, 1, MPI_CHAR, 1, 2, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
		if (answer != (char)turn)
			die("bandwidth: a wrong answer");
	} else {
		for (int i = 0; i < WINDOW; i++)
			MPI_Irecv(in, size, MPI_CHAR, 0, 1, MPI_COMM_WORLD, &requests[i]);
		MPI_Waitall(WINDOW, requests, MPI_STATUSES_IGNORE);
		MPI_Send(&in[size - 1], 1, MPI_CHAR, 0, 2, MPI_COMM_WORLD);
	}
}

static void allreduce(int size, int turn)
{
	float *mine = (float *)out, *sum = (float *)in;
	int last = size / (int)sizeof *mine - 1;

	mine[0] = mine[last] = (float)(rank + turn);
	MPI_Allreduce(mine, sum, last + 1, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
	float wanted = (float)(ranks * (ranks - 1) / 2 + ranks * turn);
	if (sum[0] != wanted || sum[last] != wanted)
		die("allreduce: a wrong sum");
}

static const struct test {
	const char *name;
	void (*once)(int size, int turn);
	int smallest, largest;
	/* warm-up and measured turns, up to 8 KiB and above */
	int warm[2], turns[2];
} tests[] = {
	{"latency", latency, 1, LARGEST, {200, 10}, {10000, 200}},
	{"bandwidth", bandwidth, 1, LARGEST, {50, 2}, {500, 20}},
	{"allreduce", allreduce, 4, 1 << 20, {100, 10}, {1000, 100}},
};

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double measure(const struct test *test, int size)
{
	double parts[PARTS];
	int large = size > 8192, turns = test->turns[large] / PARTS;

	for (int turn = 0; turn < test->warm[large]; turn++)
		test->once(size, turn);
	for (int part = 0; part < PARTS; part++) {
		MPI_Barrier(MPI_COMM_WORLD);
		double start = MPI_Wtime();
		for (int turn = 0; turn < turns; turn++)
			test->once(size, turn);
		double mine = (MPI_Wtime() - start) / turns, all;
		MPI_Allreduce(&mine, &all, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
		parts[part] = test->once == allreduce ? all / ranks : mine;
	}
	qsort(parts, PARTS, sizeof *parts, ascending);
	return (parts[PARTS / 2 - 1] + parts[PARTS / 2]) / 2;
}

/* Open MPI copies large messages of a node once (process_vm_readv, "CMA") where the kernel lets it, and twice where not. */
static void single_copy(void)
{
	MPI_Comm node;
	int together;

	MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
	MPI_Comm_size(node, &together);
	MPI_Comm_free(&node);
	if (together != ranks)
		return;
	struct { long pid; void *place; } theirs, mine = {getpid(), out};
	MPI_Sendrecv(&mine, sizeof mine, MPI_BYTE, 1 - rank, 3, &theirs, sizeof theirs, MPI_BYTE, 1 - rank, 3, MPI_COMM_WORLD,
		     MPI_STATUS_IGNORE);
	struct iovec here = {in, 4096}, there = {theirs.place, 4096};
	if (process_vm_readv((pid_t)theirs.pid, &here, 1, &there, 1, 0) != 4096)
		die("the kernel does not let one rank read the other's memory");
	MPI_Barrier(MPI_COMM_WORLD);
}

int main(int argc, char **argv)
{
	static const int sizes[] = {1, 4, 64, 1024, 8192, 65536, 1 << 20, LARGEST};
	const struct test *test = tests;

	begin(&argc, &argv);
	while (argc == 2 && strcmp(test->name, argv[1]))
		if (++test == tests + sizeof tests / sizeof *tests)
			die("no such test");
	if (posix_memalign((void **)&out, 4096, LARGEST) || posix_memalign((void **)&in, 4096, LARGEST))
		die("no memory");
	memset(out, 1, LARGEST);
	memset(in, 2, LARGEST);
	if (test->once != allreduce) {
		if (ranks != 2)
			die("this is for two ranks");
		single_copy();
	}
	memset(out, 0, LARGEST);
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		if (sizes[i] < test->smallest || sizes[i] > test->largest || (sizes[i] == 4 && test->smallest == 1))
			continue;
		double seconds = measure(test, sizes[i]);
		if (test->once == latency)
			seconds /= 2;
		if (rank == 0)
			printf("%d %.4f\n", sizes[i], test->once == bandwidth ? sizes[i] * (double)WINDOW / seconds / 1e6 : seconds * 1e6);
	}
	MPI_Finalize();
	return 0;
}
