#!/usr/bin/env bash
# Trains on GPUs of one machine: bash scripts/run_distribute_train.sh DATA DEVICE_NUM [flags]
# DATA holds tfrecords/ and the .bin sets; flags: as train_nets_mgpu.py --help names them.
# On a CPU, as so many virtual devices: ... DATA 2 --device cpu

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ $# -lt 2 || $1 == -* || ! $2 =~ ^[0-9]+$ ]]; then
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0" >&2 && exit 2
fi
data=$1 devices=$2 && shift 2
records=$data
if [[ -d $data/tfrecords ]]; then records=$data/tfrecords; fi
words=(--device gpu --num_devices "$devices" --tfrecords_file_path "$records")
words+=(--output_path output/distribute)
if compgen -G "$data/*.bin" >/dev/null; then words+=(--eval_db_path "$data"); fi
${DRY_RUN:+echo} "${PYTHON:-python3}" "$root/train_nets_mgpu.py" "${words[@]}" "$@"
