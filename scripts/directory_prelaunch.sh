#!/bin/bash
# Hand every hyperparameter file of a folder to onager: scripts/directory_prelaunch.sh scripts/hyperparams/tmaze
set -euo pipefail

if [ $# -lt 1 ] || [ ! -d "$1" ]; then
    echo "usage: $0 FOLDER [options of scripts/onager_write_jobs.py]" >&2
    exit 2
fi
folder=$1
shift
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
shopt -s nullglob
files=("$folder"/*.py)
if [ ${#files[@]} -eq 0 ]; then
    echo "error: there is no hyperparameter file in $folder" >&2
    exit 2
fi
for file in "${files[@]}"; do
    "${PYTHON:-python}" "$here/onager_write_jobs.py" "$file" "$@"
done
