#!/usr/bin/env bash
# A pre-training run on the GPUs of one node, or of several:
#
#     sbatch 09_pretraining/slurm/pretrain.sh --config gpt2_124m --data.corpus pile
#     sbatch --nodes=4 09_pretraining/slurm/pretrain.sh --config gpt2_124m --data.corpus pile --parallel fsdp
#
# All arguments are flags of pretrain.py. The token files and logs/ (GPT_STAIRCASE_LOGS) have to lie where every node
# sees them. A job that is preempted gets SIGTERM, saves at the end of its step and is queued again; it then goes on
# from there, as does one whose node broke, from its last checkpoint. TORCHRUN names another torchrun.
#SBATCH --job-name=pretrain
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=pretrain-%j.log
set -euo pipefail

# a job starts in the folder it was submitted from, its script lies in a spool folder
cd "${COURSE:-${SLURM_SUBMIT_DIR:-$PWD}}"
if [ ! -f 09_pretraining/pretrain.py ]; then
    echo "error: $PWD is not the folder of the course; submit from there, or set COURSE" >&2
    exit 2
fi
if [ -z "${SLURM_JOB_ID:-}" ]; then
    echo "error: this is no Slurm job; submit it with sbatch, or start torchrun yourself" >&2
    exit 2
fi
nodes="${SLURM_JOB_NUM_NODES:-1}"
mapfile -t names < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# one task a node; the nodes meet at the first, and torchrun starts a process for each GPU
exec srun --kill-on-bad-exit=1 "${TORCHRUN:-torchrun}" \
    --nnodes="$nodes" \
    --nproc-per-node="${SLURM_GPUS_ON_NODE:-8}" \
    --max-restarts=3 \
    --rdzv-id="$SLURM_JOB_ID" \
    --rdzv-backend=c10d \
    --rdzv-endpoint="${names[0]}:${PORT:-29500}" \
    09_pretraining/pretrain.py "$@" --device cuda --resume
