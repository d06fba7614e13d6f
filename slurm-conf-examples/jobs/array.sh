#!/bin/sh
#SBATCH --job-name=array --array=1-3 --container=img.sif
#SBATCH --output=array.%a.out
echo "task $SLURM_ARRAY_TASK_ID in $CORACLE_NAME"
