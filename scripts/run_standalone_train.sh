#!/usr/bin/env bash
# Trains on one GPU: bash scripts/run_standalone_train.sh DATA [flags of train_nets.py]
# DATA holds tfrecords/ and the .bin sets. On a CPU: ... DATA --device cpu

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ $# == 0 || $1 == -* ]]; then sed -n '2,/^$/s/^# \{0,1\}//p' "$0" >&2 && exit 2; fi
data=$1 && shift
records=$data
if [[ -d $data/tfrecords ]]; then records=$data/tfrecords; fi
words=(--device gpu --tfrecords_file_path "$records" --output_path output/standalone)
if compgen -G "$data/*.bin" >/dev/null; then words+=(--eval_db_path "$data"); fi
${DRY_RUN:+echo} "${PYTHON:-python3}" "$root/train_nets.py" "${words[@]}" "$@"
