#!/bin/sh
#SBATCH --job-name=batch --nodes=1 --container=img.sif
# The script runs in the image, and so do its steps.
cat /etc/image-only
srun --ntasks=1 cat /etc/image-only
