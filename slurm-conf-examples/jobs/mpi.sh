#!/bin/sh
#SBATCH --job-name=mpi --nodes=2 --ntasks-per-node=2
#SBATCH --container=mpi.sif --container-scope=steps
# The script runs on the node, its steps in the image, whose own MPI meets Slurm's PMIx.
srun --mpi=pmix /usr/bin/ring
