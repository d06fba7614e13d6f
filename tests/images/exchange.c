/* Every two ranks of a node exchange messages that are long enough to be copied only once. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH = 4 << 20, ROUNDS = 8 };

int main(int argc, char **argv)
{
	int rank, ranks, wrong = 0, all;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	char *out = malloc(LENGTH), *in = malloc(LENGTH);
	if (!out || !in)
		MPI_Abort(MPI_COMM_WORLD, 1);
	for (int round = 0; round < ROUNDS; round++) {
		int peer = rank ^ 1;

		memset(out, 'a' + (rank + round) % 26, LENGTH);
		memset(in, 0, LENGTH);
		if (peer >= ranks)
			peer = MPI_PROC_NULL;
		MPI_Sendrecv(out, LENGTH, MPI_CHAR, peer, 0, in, LENGTH, MPI_CHAR, peer, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
		for (int i = 0; peer != MPI_PROC_NULL && i < LENGTH; i++)
			wrong += in[i] != 'a' + (peer + round) % 26;
	}
	MPI_Reduce(&wrong, &all, 1, MPI_INT, MPI_SUM, 0, MPI_COMM_WORLD);
	if (rank == 0)
		printf("exchange ranks=%d wrong=%d\n", ranks, all);
	MPI_Finalize();
	return 0;
}
