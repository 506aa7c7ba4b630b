#!/bin/bash
# Fine-tuning on two machines with eight GPUs each, under Slurm: sbatch configs/cluster/slurm.sh
#SBATCH --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 --time=24:00:00
# 120 s before the time limit, all ranks receive SIGUSR1: the run saves a checkpoint and ends.
#SBATCH --signal=USR1@120 --requeue
export OMR_GRACE_SECONDS=120
# If a rank ends with an error, srun ends the others, also those that have not met it yet.
srun --kill-on-bad-exit=1 omr sft sft.yaml --out /shared/sft gradient_lanes=16 save_on_stop=true
status=$?
# The run has saved its state: the job waits for its next turn and continues.
if [ $status -eq 130 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit $status
