#!/usr/bin/env bash
# Trains LResNet100E-IR with ArcFace on eight cards of one server, all epochs, with validation:
# bash train_full_8p.sh --data_path=/path [--train_epochs=25]

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse "$@"
prepare "${RANK_SIZE:-8}" acc
train
closing
