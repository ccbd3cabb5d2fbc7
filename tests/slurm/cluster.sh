#!/bin/bash
# A SLURM cluster of one node with two places, on loopback, in a folder of its own.
#   tests/slurm/cluster.sh start FOLDER [FIRST_PORT]    prints the configuration to export as SLURM_CONF
#   tests/slurm/cluster.sh stop FOLDER
# Needs munged, slurmctld and slurmd (Debian: munge slurmctld slurmd slurm-client) and root.
set -euo pipefail

usage() { echo "usage: $0 start|stop FOLDER [FIRST_PORT]" >&2; exit 2; }
[ $# -ge 2 ] || usage
verb=$1 folder=$2 port=${3:-16817}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PATH=$PATH:/usr/sbin:/sbin

end() {  # only what this folder's pid files name
    for name in slurmd slurmctld munged; do
        if [ -s "$folder/$name.pid" ]; then kill "$(cat "$folder/$name.pid")" 2>/dev/null || true; fi
    done
}

case $verb in
start)
    for program in munged slurmctld slurmd scontrol; do
        command -v "$program" >/dev/null || { echo "error: $program is not installed" >&2; exit 3; }
    done
    mkdir -p "$folder/state" "$folder/spool"
    chmod 755 "$folder"
    (umask 077 && head -c 1024 /dev/urandom > "$folder/munge.key")
    sed -e "s|@FOLDER@|$folder|g" -e "s|@HOST@|$(hostname -s)|g" -e "s|@CTLD_PORT@|$port|" \
        -e "s|@SLURMD_PORT@|$((port + 1))|" "$here/slurm.conf.in" > "$folder/slurm.conf"
    export SLURM_CONF=$folder/slurm.conf
    munged --force --key-file "$folder/munge.key" --socket "$folder/munge.socket" --pid-file "$folder/munged.pid" \
        --seed-file "$folder/munge.seed" --log-file "$folder/munged.log"
    slurmctld -c
    slurmd -N "$(hostname -s)"
    for _ in $(seq 100); do
        if scontrol show node 2>/dev/null | grep -q "State=IDLE"; then echo "$SLURM_CONF"; exit 0; fi
        sleep 0.2
    done
    echo "error: the node did not come up; see $folder/*.log" >&2
    tail -n 5 "$folder"/*.log >&2
    end
    exit 1
    ;;
stop) end ;;
*) usage ;;
esac
