# What the scripts here share; each says what is its own and calls `parse`, `train` and `closing`.
# Every --name=value that is not named below goes to the Python script as it is: --device=cpu runs
# any of them without a card. DRY_RUN=1 prints the command and runs nothing.

cur_path=$(pwd)
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
Network="ArcFace_LResNet100E-IR"
recipe=(--net_depth 100 --dropout 0.4 --loss arcface --margin 0.5 --scale 64 --epoch 25
    --schedule multistep --lr_steps 10ep 16ep 21ep --lr_gamma 0.1 --clip_norm 5 --clip backbone)

# What --name=value may change.
data_path="" ckpt_path="" device=npu batch_size=128 train_epochs="" train_steps="" learning_rate=""
precision_mode="" over_dump=False data_dump_flag=False data_dump_step=10 profiling=False
autotune=False bind_core="" output_path=""
validate=yes # what a script of its own may change: whether the .bin sets of the data are asked
others=()

usage() {
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
    echo "parameters, each as --name=value:
  data_path        directory of tfrecords/ (or of *.tfrecords) and of the .bin sets
  device           npu (default), gpu or cpu
  batch_size       images of a step on each card (default: 128)
  train_epochs, train_steps, learning_rate, precision_mode, ckpt_path, output_path
  over_dump, data_dump_flag, profiling, autotune: True or False; data_dump_step: steps, as 0|5|10-20
  bind_core        1 gives each card its share of the host's cores
  others           as train_nets.py --help names them, as --net_depth=50"
    exit 1
}

parse() {
    local word name value
    for word in "$@"; do
        name=${word%%=*} name=${name#--} value=${word#*=}
        case $word in
            -h | --help) usage ;;
            --*=*) ;;
            *) echo "[Error] $word is not of the form --name=value" >&2 && exit 1 ;;
        esac
        case $name in
            data_path | ckpt_path | device | batch_size | train_epochs | train_steps | \
                learning_rate | precision_mode | over_dump | data_dump_flag | data_dump_step | \
                profiling | autotune | bind_core | output_path)
                printf -v "$name" %s "$value" ;;
            *) others+=("--$name" "$value") ;;
        esac
    done
    if [[ $data_path == "" ]]; then
        echo '[Error] para "data_path" must be confing'
        exit 1
    fi
    records=$data_path
    if [[ -d $data_path/tfrecords ]]; then records=$data_path/tfrecords; fi
    if [[ $device == npu ]]; then
        source "$root/scripts/npu/env_npu.sh"
        python=${PYTHON:-python3.7}
    else
        python=${PYTHON:-python3}
    fi
}

# One call's environment and folders: how many cards, and what the case is called.
prepare() { # RANK_SIZE acc|perf
    export RANK_SIZE=$1 JOB_ID=${JOB_ID:-10087}
    export ASCEND_DEVICE_ID=${ASCEND_DEVICE_ID:-0} ASCEND_GLOBAL_LOG_LEVEL=${ASCEND_GLOBAL_LOG_LEVEL:-3}
    export HCCL_CONNECT_TIMEOUT=${HCCL_CONNECT_TIMEOUT:-600}
    if [[ $RANK_SIZE != 1 ]]; then
        ASCEND_DEVICE_ID=0 # its folder has the run; the other cards' theirs have logs
        local table=$cur_path/../configs/rank_table_${RANK_SIZE}p.json
        if [[ ${RANK_TABLE_FILE:-} == "" && -f $table ]]; then export RANK_TABLE_FILE=$table; fi
    fi
    if [[ $bind_core == 1 ]]; then export BIND_CORE=1; fi
    CaseName=${Network}_bs${batch_size}_${RANK_SIZE}p${bind_core:+_bindcore}_$2
    output=$cur_path/output/$ASCEND_DEVICE_ID
    run=${output_path:-$output}
    log=$output/train_$ASCEND_DEVICE_ID.log
    if [[ ${DRY_RUN:-} == "" ]]; then
        local card folder
        for card in $(cards); do
            folder=$cur_path/output/$card
            if [[ $2 != eval ]]; then empty "$folder"; fi
            mkdir -p "$folder"
        done
        if [[ $2 != eval ]]; then mkdir -p "$output/ckpt"; fi
    fi
}

# Removes a folder of an earlier call, as the model zoo does, unless this call reads from it.
empty() {
    if [[ $ckpt_path != "" && $(realpath -m "$ckpt_path") == "$(realpath -m "$1")"/* ]]; then
        echo "[Error] $1 is emptied by this script, and ckpt_path lies there; move it away" >&2
        exit 1
    fi
    rm -rf "$1"
}

cards() { # the device ids, whose folders are below output/
    if [[ $RANK_SIZE == 1 ]]; then echo "$ASCEND_DEVICE_ID"; else seq 0 $((RANK_SIZE - 1)); fi
}

# Trains with what was parsed and the flags that are given; the words of it go into the log.
train() {
    local words=(--device "$device" --tfrecords_file_path "$records" --output_path "$run")
    words+=(--batch_size $((batch_size * RANK_SIZE)) "${recipe[@]}" "$@")
    local sets=($(bins))
    if [[ ${#sets[@]} != 0 && $validate == yes ]]; then
        words+=(--eval_db_path "$data_path" --eval_datasets "${sets[@]}")
    fi
    if [[ $train_steps != "" ]]; then
        words+=(--epoch "${train_steps}step")
    elif [[ $train_epochs != "" ]]; then
        words+=(--epoch "$train_epochs")
    fi
    if [[ $learning_rate != "" ]]; then words+=(--lr "$learning_rate"); fi
    if [[ $precision_mode != "" ]]; then words+=(--precision_mode "$precision_mode"); fi
    diagnose
    local script=train_nets.py
    if [[ $RANK_SIZE != 1 ]]; then script=train_nets_mgpu.py words+=(--num_devices "$RANK_SIZE"); fi
    local bound=()
    if [[ $bind_core == 1 && $RANK_SIZE == 1 ]]; then bound=(taskset -c "$(share_of_cores)"); fi
    start=$(date +%s)
    call "${bound[@]}" "$python" "$root/$script" "${words[@]}" "${others[@]}"
}

share_of_cores() { # one card's eighth of them
    local all=$(nproc --all)
    echo "$((ASCEND_DEVICE_ID * all / 8))-$(((ASCEND_DEVICE_ID + 1) * all / 8 - 1))"
}

# Evaluates the sets of the data, which the cards share out, a process each.
evaluate() {
    local sets=($(bins)) card code=0 started=()
    local ours=(--ckpt_file "$ckpt_path")
    if [[ -d $ckpt_path ]]; then ours=(--ckpt_path "$ckpt_path"); fi
    start=$(date +%s)
    for card in $(cards); do
        local own=() place
        for ((place = card; place < ${#sets[@]}; place += RANK_SIZE)); do own+=("${sets[place]}"); done
        if [[ ${#own[@]} == 0 ]]; then continue; fi
        local words=("$python" "$root/eval_ckpt_file.py" --device "$device" "${ours[@]}"
            --eval_db_path "$data_path" --eval_datasets "${own[@]}"
            --json "$cur_path/output/$card/eval.json" "${others[@]}")
        if [[ ${DRY_RUN:-} != "" ]]; then printf '%q ' "${words[@]}" && echo && continue; fi
        env -u RANK_TABLE_FILE RANK_SIZE=1 ASCEND_DEVICE_ID="$card" DEVICE_ID="$card" "${words[@]}" \
            >"$cur_path/output/$card/train_$card.log" 2>&1 &
        started+=("$card:$!")
    done
    for card in "${started[@]}"; do
        if ! wait "${card#*:}"; then code=1 && cat "$cur_path/output/${card%:*}/train_${card%:*}.log" >&2; fi
    done
    if [[ $code != 0 ]]; then exit "$code"; fi
}

bins() { # the names of the data's verification sets
    local path
    for path in "$data_path"/*.bin; do
        if [[ -f $path ]]; then basename "$path" .bin; fi
    done
}

# The options that look for a fault, in Ascend's words.
diagnose() {
    local dump
    if [[ $over_dump == True ]]; then
        dump=$cur_path/output/overflow_dump && mkdir -p "$dump"
        words+=(--enable_dump_debug yes --dump_path "$dump")
    fi
    if [[ $data_dump_flag == True ]]; then
        dump=$cur_path/output/data_dump && mkdir -p "$dump"
        words+=(--enable_dump yes --dump_path "$dump" --npu_option "dump_step=$data_dump_step")
    fi
    if [[ $profiling == True ]]; then words+=(--profile 10:12); fi
    if [[ $autotune == True ]]; then words+=(--auto_tune_mode RL,GA); fi
}

# Runs a command with its words in the log; ends with them, and its code, if it fails.
call() {
    if [[ ${DRY_RUN:-} != "" ]]; then
        printf '%q ' "$@" && echo
        return
    fi
    local code=0
    "$@" >>"$log" 2>&1 || code=$?
    local card
    for card in $(cards); do
        if [[ -f $run/logs/train_$card.log && $card != "$ASCEND_DEVICE_ID" ]]; then
            ln -sf "$run/logs/train_$card.log" "$cur_path/output/$card/train_$card.log"
        fi
    done
    if [[ $code != 0 ]]; then
        tail -n 20 "$log" >&2
        echo "[Error] ended with exit code $code; see $log" >&2
        exit "$code"
    fi
}

# The closing lines, ${CaseName}.log and the losses, from what the run has written.
closing() {
    if [[ ${DRY_RUN:-} != "" ]]; then return; fi
    PYTHONPATH=$root:${PYTHONPATH:-} "$python" "$root/scripts/npu/closing.py" --run "$run" --folder "$output" \
        --network "$Network" --case_name "$CaseName" --rank_size "$RANK_SIZE" \
        --batch_size "$batch_size" --seconds $(($(date +%s) - start)) "$@"
}
