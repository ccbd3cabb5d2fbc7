#!/bin/bash
# Launch what onager_write_jobs.py handed to onager, as a SLURM array:
#   scripts/launching/onager_slurm_launch.sh tmaze_10_transformer [options of onager launch and sbatch]
set -euo pipefail

if [ $# -lt 1 ]; then
    echo "usage: $0 STUDY [options of onager launch]" >&2
    exit 2
fi
if ! command -v onager >/dev/null; then
    echo "error: onager is not installed" >&2
    exit 2
fi
study=$1
shift
exec onager launch --backend slurm --jobname "$study" --cpus 2 --mem 4 --duration 1-00:00:00 "$@"
