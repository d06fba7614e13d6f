#!/bin/sh
#SBATCH --job-name=gpu --nodes=1 --gres=gpu:1 --container=img.sif
# The GPU that Slurm gave is there, with its driver; others are not.
ls /dev/nvidia[0-9]*
