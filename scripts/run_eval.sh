#!/usr/bin/env bash
# Evaluates on one GPU: bash scripts/run_eval.sh EVAL CKPT [flags of eval_ckpt_file.py]
# EVAL holds the .bin sets; CKPT is a checkpoint, up to .ckpt, or a directory of them.
# On a CPU: ... EVAL CKPT --device cpu

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ $# -lt 2 || $1 == -* ]]; then sed -n '2,/^$/s/^# \{0,1\}//p' "$0" >&2 && exit 2; fi
sets=$1 ckpt=$2 && shift 2
words=(--device gpu --eval_db_path "$sets")
if [[ -d $ckpt ]]; then words+=(--ckpt_path "$ckpt"); else words+=(--ckpt_file "$ckpt"); fi
${DRY_RUN:+echo} "${PYTHON:-python3}" "$root/eval_ckpt_file.py" "${words[@]}" "$@"
