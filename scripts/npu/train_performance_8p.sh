#!/usr/bin/env bash
# How fast eight cards of one server train: some hundred steps, nothing but steps, no checkpoint before the end:
# bash train_performance_8p.sh --data_path=/path [--train_steps=500]

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
train_steps=500 validate=no
parse "$@"
prepare "${RANK_SIZE:-8}" perf
train --ckpt_interval 1000000step
closing
