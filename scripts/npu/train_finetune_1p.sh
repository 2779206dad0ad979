#!/usr/bin/env bash
# Finetunes a checkpoint on other people, with a new head, on one card:
# bash train_finetune_1p.sh --data_path=/path --ckpt_path=/path/InsightFace_iter_N.ckpt

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
train_epochs=1
parse "$@"
if [[ $ckpt_path == "" ]]; then echo '[Error] para "ckpt_path" must be confing' && exit 1; fi
prepare 1 acc
train --finetune "$ckpt_path"
closing
