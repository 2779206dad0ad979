#!/usr/bin/env bash
# The Ascend inference guide in one call: export, preprocess, convert, run, postprocess, benchmark.
# bash scripts/npu/om_guide.sh MODEL SET.bin OUTPUT [--batch_size=16] [--soc_version=Ascend310P3]
# MODEL is a checkpoint, up to .ckpt, or an .onnx with scaled input and a dynamic batch. Where atc and
# ais_bench are installed, the card runs the .om; elsewhere ONNX Runtime runs the .onnx.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=${PYTHON:-python3} batch_size=16 soc_version=Ascend310P3
if [[ $# -lt 3 || $1 == -* ]]; then sed -n '2,/^$/s/^# \{0,1\}//p' "$0" >&2 && exit 2; fi
model=$1 set=$2 output=$3 && shift 3
for word in "$@"; do
    case $word in
        --batch_size=*) batch_size=${word#*=} ;;
        --soc_version=*) soc_version=${word#*=} ;;
        *) echo "error: $word is not known; pass --batch_size=N or --soc_version=NAME." >&2 && exit 2 ;;
    esac
done
name=$(basename "$set" .bin)
tensors=$output/$name results=$output/result

call() { # prints a command and runs it, unless DRY_RUN is set
    printf '+ %s\n' "$*"
    if [[ ${DRY_RUN:-} == "" ]]; then "$@"; fi
}

mkdir -p "$output"
if [[ $model != *.onnx ]]; then
    call "$python" "$root/export_model.py" --ckpt_file "$model" --file_format onnx \
        --input_form scaled --file_name "$output/model.onnx" --overwrite
    model=$output/model.onnx
fi
size=(112 112) # height and width, as the file declares them
if [[ -f $model ]]; then
    size=($(PYTHONPATH=$root "$python" -c 'import sys
from inference.onnx_file import read_onnx
print(*read_onnx(sys.argv[1]).inputs[0].shape[2:4])' "$model"))
fi
call "$python" "$root/infer.py" preprocess --file_type jpg --data_path "$set" --info_path "$tensors" \
    --width "${size[1]}" --height "${size[0]}" --model "$model"

run=$(date +%Y_%m_%d-%H_%M_%S)
if command -v atc >/dev/null && "$python" -c 'import ais_bench' 2>/dev/null; then
    call atc --framework=5 --model="$model" --output="$output/model_bs$batch_size" \
        --input_format=NCHW --input_shape="image:$batch_size,3,${size[0]},${size[1]}" --log=error \
        --soc_version="$soc_version"
    mkdir -p "$results"
    call "$python" -m ais_bench --model "$output/model_bs$batch_size.om" --input "$tensors" \
        --output "$results" --output_dirname "$run" --outfmt TXT --batchsize "$batch_size"
else
    echo "atc or ais_bench is not installed: ONNX Runtime runs $model."
    call "$python" "$root/infer.py" run --model "$model" --backend onnxruntime --input "$tensors" \
        --output "$results" --output_dirname "$run" --outfmt TXT --batchsize "$batch_size"
    call "$python" "$root/infer.py" benchmark --model "$model" --backend onnxruntime \
        --batch_sizes 1 4 8 16 32 64 --seconds "${SECONDS_PER_BATCH:-3}" \
        --json "$output/benchmark.json" --markdown "$output/benchmark.md"
fi
call "$python" "$root/infer.py" postprocess --result "$results/$run" --data_path "${tensors}_list.npy"
