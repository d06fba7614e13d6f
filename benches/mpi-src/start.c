/* Nothing but MPI_Init and MPI_Finalize. Prints when the last rank had come through MPI_Init, in seconds of the clock
 * that all processes of the machine share. */
#include <mpi.h>
#include <stdio.h>
#include <time.h>

int main(int argc, char **argv)
{
	struct timespec now;
	double mine, last;
	int rank, ranks;

	MPI_Init(&argc, &argv);
	clock_gettime(CLOCK_MONOTONIC, &now);
	mine = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	MPI_Reduce(&mine, &last, 1, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
	if (rank == 0)
		printf("%d %.6f\n", ranks, last);
	MPI_Finalize();
	return 0;
}
