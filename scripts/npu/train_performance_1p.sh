#!/usr/bin/env bash
# How fast one card trains: some hundred steps, nothing but steps, no checkpoint before the end:
# bash train_performance_1p.sh --data_path=/path [--train_steps=500]

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
train_steps=500 validate=no
parse "$@"
prepare 1 perf
train --ckpt_interval 1000000step
closing
