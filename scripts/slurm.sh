#!/usr/bin/env bash
# A study on two nodes of a Slurm cluster: sbatch scripts/slurm.sh --config=configs/ablations.py --workdir=/shared/runs/ablations
#SBATCH --job-name=vae_jax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
# Two minutes before the time is up every process is asked to save. A job that was stopped, or whose node failed, goes on
# when the same line is submitted again, or when Slurm queues it again.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
exec srun --kill-on-bad-exit=1 .venv/bin/python -m experiments.train "$@"
