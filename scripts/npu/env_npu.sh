# The environment of Ascend's toolkit and of its adapter to TensorFlow: source it. Toolkits since 5.1
# bring scripts of their own; for older ones the folders are named here. ASCEND_INSTALL is where the
# toolkit is installed.

install_path=${ASCEND_INSTALL:-/usr/local/Ascend}
toolkit=$install_path/ascend-toolkit
if [[ -f $install_path/cann/set_env.sh ]]; then toolkit=$install_path/cann; fi # CANN 8.5 and later
if [[ -f $toolkit/set_env.sh ]]; then
    set +u # they read variables that are not set
    source "$toolkit/set_env.sh"
    for tool in tfplugin/set_env.sh tfplugin/latest/set_env.sh; do
        if [[ -f $install_path/$tool ]]; then source "$install_path/$tool" && break; fi
    done
    set -u
elif [[ -d $install_path ]]; then
    kit=$install_path/fwkacllib
    for found in "$install_path/nnae/latest/fwkacllib" "$install_path/ascend-toolkit/latest/fwkacllib"; do
        if [[ -d $found ]]; then kit=$found; fi
    done
    plugin=$install_path/tfplugin/latest/tfplugin/python/site-packages
    if [[ ! -d $plugin ]]; then plugin=$install_path/tfplugin/python/site-packages; fi
    driver=$install_path/driver/lib64/common:$install_path/driver/lib64/driver
    export LD_LIBRARY_PATH=$driver:$kit/lib64:${LD_LIBRARY_PATH:-}
    export PATH=$kit/ccec_compiler/bin:$kit/bin:$PATH
    export PYTHONPATH=$plugin:$kit/python/site-packages:${PYTHONPATH:-}
    export ASCEND_OPP_PATH=$(dirname "$kit")/opp
else
    echo "[Error] there is no toolkit in $install_path; set ASCEND_INSTALL, or pass --device=cpu" >&2
    if [[ ${DRY_RUN:-} == "" ]]; then exit 1; fi
fi
export ASCEND_SLOG_PRINT_TO_STDOUT=${ASCEND_SLOG_PRINT_TO_STDOUT:-0}
export ASCEND_GLOBAL_LOG_LEVEL=${ASCEND_GLOBAL_LOG_LEVEL:-3}
export ASCEND_GLOBAL_EVENT_ENABLE=${ASCEND_GLOBAL_EVENT_ENABLE:-0}
export HCCL_WHITELIST_DISABLE=${HCCL_WHITELIST_DISABLE:-1}
