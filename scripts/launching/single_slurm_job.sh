#!/bin/bash
#SBATCH --job-name=racer-job
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --output=%x_%j.out

# One job of a manifest as one SLURM job:
#   sbatch --gres=gpu:1 scripts/launching/single_slurm_job.sh runs/tmaze_10_ppo.jsonl 0
# or one line of a list of commands, the first where no number is given:
#   sbatch scripts/launching/single_slurm_job.sh runs/runs_tmaze_10_ppo.txt 1
set -euo pipefail

if [ $# -lt 1 ] || [ ! -f "$1" ]; then
    echo "usage: sbatch $0 MANIFEST.jsonl INDEX | LIST.txt [LINE]" >&2
    exit 2
fi
cd "${SLURM_SUBMIT_DIR:-.}"
if [[ $1 == *.jsonl ]]; then
    if [ $# -lt 2 ]; then
        echo "error: which job of $1? usage: sbatch $0 MANIFEST.jsonl INDEX" >&2
        exit 2
    fi
    exec "${PYTHON:-python}" -m racer sweep run --manifest "$1" --index "$2"
fi
line=$(sed -n "${2:-1}p" "$1")
if [ -z "$line" ]; then
    echo "error: $1 has no line ${2:-1}" >&2
    exit 2
fi
exec bash -c "exec $line"
