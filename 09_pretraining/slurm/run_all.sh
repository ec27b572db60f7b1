#!/usr/bin/env bash
# Submit the seven runs of the ablation study, one GPU each:
#
#     09_pretraining/slurm/run_all.sh [further flags of ablation.py]
set -euo pipefail

if ! command -v sbatch > /dev/null; then
    echo "error: sbatch is not here; without Slurm, python 09_pretraining/ablation.py does all seven in turn" >&2
    exit 2
fi
cd "$(dirname "$0")/../.."
for run in -b -r -s -n -w -c -a; do
    sbatch --job-name="ablation$run" 09_pretraining/slurm/run_single.sh "$run" "$@"
done
