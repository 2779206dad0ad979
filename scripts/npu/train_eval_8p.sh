#!/usr/bin/env bash
# Evaluates a checkpoint, or all of a directory, on the .bin sets, which eight cards share out:
# bash train_eval_8p.sh --data_path=/path --ckpt_path=/path/InsightFace_iter_N.ckpt

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse "$@"
if [[ $ckpt_path == "" ]]; then echo '[Error] para "ckpt_path" must be confing' && exit 1; fi
prepare "${RANK_SIZE:-8}" eval
evaluate
closing --evaluation yes
