#!/usr/bin/env bash
# One run of the ablation study on one GPU:
#
#     sbatch 09_pretraining/slurm/run_single.sh -r [further flags of ablation.py]
#
# The first argument says which: -b -r -s -n -w -c or -a. PYTHON names another interpreter.
#SBATCH --job-name=ablation
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --output=ablation-%j.log
set -euo pipefail

case "${1:-}" in
    -b | -r | -s | -n | -w | -c | -a) ;;
    *)
        echo "error: run_single.sh wants one of -b -r -s -n -w -c -a first, not '${1:-}'" >&2
        exit 2
        ;;
esac
# a job starts in the folder it was submitted from, its script lies in a spool folder
cd "${COURSE:-${SLURM_SUBMIT_DIR:-$PWD}}"
if [ ! -f 09_pretraining/ablation.py ]; then
    echo "error: $PWD is not the folder of the course; submit from there, or set COURSE" >&2
    exit 2
fi
exec "${PYTHON:-python}" 09_pretraining/ablation.py "$@"
