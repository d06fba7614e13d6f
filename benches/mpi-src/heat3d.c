/* heat3d POINTS STEPS: the heat equation u_t = u_xx + u_yy + u_zz on the unit cube with u = 0 at its faces, POINTS^3 inner
 * points, explicit steps, the domain cut in as many directions as the ranks allow. The first values are a product of
 * sines, which a step only makes smaller, by a factor that is known exactly: a value that is wrong anywhere, in a halo
 * above all, shows. Prints the ranks, the seconds of the slowest one, the error, and which MPI this was. */
#include "bench.h"
#include <math.h>
#include <string.h>

static int own[3], first[3];

static size_t at(int x, int y, int z)
{
	return ((size_t)x * (size_t)(own[1] + 2) + (size_t)y) * (size_t)(own[2] + 2) + (size_t)z;
}

/* A face of the domain as MPI sees it in place: thickness one, at index WHERE of DIRECTION. */
static MPI_Datatype face(int direction, int where)
{
	MPI_Datatype type;
	int whole[3], part[3], start[3];

	for (int d = 0; d < 3; d++) {
		whole[d] = own[d] + 2;
		part[d] = d == direction ? 1 : own[d];
		start[d] = d == direction ? where : 1;
	}
	MPI_Type_create_subarray(3, whole, part, start, MPI_ORDER_C, MPI_DOUBLE, &type);
	MPI_Type_commit(&type);
	return type;
}

int main(int argc, char **argv)
{
	int cuts[3] = {0}, closed[3] = {0}, place[3], neighbour[3][2];
	MPI_Datatype send[3][2], receive[3][2];
	MPI_Comm grid;

	begin(&argc, &argv);
	int points = argc > 1 ? atoi(argv[1]) : 126, steps = argc > 2 ? atoi(argv[2]) : 200;
	MPI_Dims_create(ranks, 3, cuts);
	MPI_Cart_create(MPI_COMM_WORLD, 3, cuts, closed, 0, &grid);
	MPI_Cart_coords(grid, rank, 3, place);
	for (int d = 0; d < 3; d++) {
		first[d] = (int)((long)points * place[d] / cuts[d]);
		own[d] = (int)((long)points * (place[d] + 1) / cuts[d]) - first[d];
		if (own[d] < 1)
			die("fewer points than ranks");
	}
	for (int d = 0; d < 3; d++) {
		MPI_Cart_shift(grid, d, 1, &neighbour[d][0], &neighbour[d][1]);
		for (int side = 0; side < 2; side++) {
			send[d][side] = face(d, side ? own[d] : 1);
			receive[d][side] = face(d, side ? own[d] + 1 : 0);
		}
	}

	/* Another wave in each direction, so that halves cannot be mistaken for each other. */
	const double pi = acos(-1), h = 1.0 / (points + 1), weight = 0.15;
	double shrink = 1, *wave[3];
	for (int d = 0; d < 3; d++) {
		shrink -= 4 * weight * pow(sin((d + 1) * pi * h / 2), 2);
		wave[d] = malloc(sizeof(double) * (size_t)(own[d] + 2));
		for (int i = 0; i < own[d] + 2; i++)
			wave[d][i] = sin((d + 1) * pi * h * (first[d] + i));
	}
	size_t cells = at(own[0] + 1, own[1] + 1, own[2] + 1) + 1;
	double *now = calloc(cells, sizeof *now), *next = calloc(cells, sizeof *next);
	if (!now || !next || !wave[0] || !wave[1] || !wave[2])
		die("no memory");
	for (int x = 1; x <= own[0]; x++)
		for (int y = 1; y <= own[1]; y++)
			for (int z = 1; z <= own[2]; z++)
				now[at(x, y, z)] = wave[0][x] * wave[1][y] * wave[2][z];

	MPI_Barrier(grid);
	double start = MPI_Wtime();
	for (int step = 0; step < steps; step++) {
		MPI_Request requests[12];
		int count = 0;
		for (int d = 0; d < 3; d++)
			for (int side = 0; side < 2; side++) {
				MPI_Irecv(now, 1, receive[d][side], neighbour[d][side], 2 * d + 1 - side, grid, &requests[count++]);
				MPI_Isend(now, 1, send[d][side], neighbour[d][side], 2 * d + side, grid, &requests[count++]);
			}
		MPI_Waitall(count, requests, MPI_STATUSES_IGNORE);
		size_t along_x = at(1, 0, 0), along_y = at(0, 1, 0);
		for (int x = 1; x <= own[0]; x++)
			for (int y = 1; y <= own[1]; y++) {
				const double *u = &now[at(x, y, 0)];
				double *v = &next[at(x, y, 0)];
				for (int z = 1; z <= own[2]; z++)
					v[z] = u[z] + weight * (u[z - 1] + u[z + 1] + u[z - along_y] + u[z + along_y] +
								u[z - along_x] + u[z + along_x] - 6 * u[z]);
			}
		double *swap = now;
		now = next;
		next = swap;
	}
	double mine[2] = {MPI_Wtime() - start, 0}, all[2];

	double left = pow(shrink, steps);
	for (int x = 1; x <= own[0]; x++)
		for (int y = 1; y <= own[1]; y++)
			for (int z = 1; z <= own[2]; z++)
				mine[1] = fmax(mine[1], fabs(now[at(x, y, z)] / left - wave[0][x] * wave[1][y] * wave[2][z]));
	MPI_Allreduce(mine, all, 2, MPI_DOUBLE, MPI_MAX, grid);
	if (!(all[1] < 1e-10))
		die("a wrong result");
	char mpi[MPI_MAX_LIBRARY_VERSION_STRING];
	int length;
	MPI_Get_library_version(mpi, &length);
	if (rank == 0)
		printf("%d %.6f %.1e %.*s\n", ranks, all[0], all[1], (int)strcspn(mpi, ",\n"), mpi);
	MPI_Finalize();
	return 0;
}
