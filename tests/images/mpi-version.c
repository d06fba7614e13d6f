/* Says which MPI library this process has, and whether it is the one that it was built with. */
#include <mpi.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	char text[MPI_MAX_LIBRARY_VERSION_STRING];
	int rank, length;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Get_library_version(text, &length);
	text[strcspn(text, ",\n")] = 0;
	if (rank == 0)
		puts(text);
	MPI_Finalize();
	return 0;
}
