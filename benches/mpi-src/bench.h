/* What the programs share. */
#define _GNU_SOURCE
#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int rank, ranks;

static void die(const char *what)
{
	fprintf(stderr, "rank %d: %s\n", rank, what);
	MPI_Abort(MPI_COMM_WORLD, 1);
	exit(1);
}

/* Each rank to a core of its own as far as there are some: Slurm binds nothing here, and the nodes share the cores. */
static void begin(int *argc, char ***argv)
{
	cpu_set_t cores;

	MPI_Init(argc, argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	CPU_ZERO(&cores);
	CPU_SET(rank % sysconf(_SC_NPROCESSORS_ONLN), &cores);
	if (sched_setaffinity(0, sizeof cores, &cores))
		die("no core to be bound to");
}
