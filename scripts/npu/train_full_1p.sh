#!/usr/bin/env bash
# Trains LResNet100E-IR with ArcFace on one card, all epochs, with validation:
# bash train_full_1p.sh --data_path=/path [--train_epochs=25] (ASCEND_DEVICE_ID names the card)

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse "$@"
prepare 1 acc
train
closing
