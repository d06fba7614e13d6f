#!/bin/sh
#SBATCH --job-name=heterogeneous --ntasks=1 --container=img.sif
#SBATCH hetjob
#SBATCH --ntasks=1 --container=mpi.sif
# The script runs in the image of the first component; a step has the image of its component.
srun --het-group=0 cat /etc/image-only
srun --het-group=1 cat /etc/image-only
