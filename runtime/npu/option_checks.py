"""The checks of NpuOptimizer's options before a session: each by itself, and all together.

The adapter ignores a key that it does not know and a value in the wrong field, and looks at most of
the others at the first step only.
"""

import difflib
import os
import re
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from runtime.npu.cann import Installed
from runtime.npu.cards import NpuCard
from runtime.npu.option_table import Option, history, is_read, option_at, spelled, table

MIXED = (
    "allow_mix_precision",
    "allow_mix_precision_fp16",
    "allow_mix_precision_bf16",
    "mixed_float16",
    "mixed_bfloat16",
)

_INFERENCE = "it is for models of inference"
_EXPERIMENTAL = "it is experimental, and its values are not documented"
_STATIC = "shapes are static here"
_WHOLE_GRAPH = "the whole graph goes to the device"
_OWN_PROCESS = "every card is a process of its own"
# Options that the adapter has and a training run cannot use: they would make shapes dynamic, cut
# the graph by hand, or repeat `--device npu`. Refused with the reason.
REFUSED = {
    "const_input": _INFERENCE,
    "enable_compress_weight": _INFERENCE,
    "compress_weight_conf": _INFERENCE,
    "graph_max_parallel_model_num": _INFERENCE,
    "experimental_accelerate_train_mode": "it changes the precision within a run",
    "experimental_model_deploy_mode": _EXPERIMENTAL,
    "experimental_model_deploy_devicelist": _EXPERIMENTAL,
    "experimental_logical_device_id": _EXPERIMENTAL,
    "experimental_logical_device_cluster_deploy_mode": _EXPERIMENTAL,
    "input_shape": _STATIC,
    "dynamic_dims": _STATIC,
    "dynamic_node_type": _STATIC,
    "dynamic_input": _STATIC,
    "dynamic_graph_execute_mode": _STATIC,
    "dynamic_inputs_shape_range": _STATIC,
    "compile_dynamic_mode": _STATIC,
    "compile_hybrid_mode": _STATIC,
    "shape_generalization_mode": _STATIC,
    "all_tensor_not_empty": _STATIC,
    "in_out_pair": _WHOLE_GRAPH,
    "in_out_pair_flag": _WHOLE_GRAPH,
    "lower_functional_ops": "the graph holds no functional control flow",
    "job": _OWN_PROCESS,
    "task_index": _OWN_PROCESS,
}
# What scripts in circulation pass, and the adapter never read.
WITHOUT_EFFECT = (
    "min_group_size",
    "enable_auto_mix_precision",
    "master_slave_mode",
    "sump_mode",
    "allow_mix_compile",
    "fp_point",
    "bp_point",
)


class Target(NamedTuple):
    """What the options are for."""

    cann: Installed  # the version of CANN, and where it is known from
    card: NpuCard  # the kind of card
    card_source: str  # where it is known from, a phrase


def read_options(words: Sequence[str], target: Target) -> Dict[str, Any]:
    """--npu_option's KEY=VALUE -> {key: value of the type that this version of CANN reads}."""
    values: Dict[str, Any] = {}
    for word in _rejoined(words):
        name, equals, text = word.partition("=")
        if not equals:
            raise ValueError(f"--npu_option {word} has no value; write {name}=VALUE.")
        if name in values:
            raise ValueError(f"--npu_option {name} is given twice; omit one.")
        _check_known(name)
        values[name] = _typed(name, text, option_at(name, target.cann.version))
    return values


def check_option(name: str, value: Any, target: Target) -> None:
    """Refuses an option that this version of CANN or this card does not have, and a value that it
    does not allow."""
    version = target.cann.version
    option = option_at(name, version)
    if is_read(name, version) is False:
        raise ValueError(
            f"--{name} {history(name)}, and --cann is {spelled(version)}, which would ignore it; "
            "omit it or pass the version that is installed."
        )
    _check_card(name, value, option, target)
    if not _is_allowed(value, option):
        raise ValueError(f"--{name} {value} is not allowed: it must be {allowed(option)}.")
    exists = {"": lambda _: True, "file": os.path.isfile, "directory": os.path.isdir}
    if value and not exists[option.path](value):
        raise ValueError(f"--{name} {value} is not an existing {option.path}; make it first.")


def check_together(values: Mapping[str, Any]) -> None:
    """Refuses options that exclude or need one another. The sentence names each as a flag."""
    for rule in _RULES:
        sentence = rule(values)
        if sentence:
            raise ValueError(sentence)


def warnings(names: Sequence[str], target: Target) -> List[str]:
    """A sentence for each option that may have no effect: it is unknown whether this version reads
    it, or the version reads and ignores it."""
    version, found = target.cann.version, []
    for name in names:
        ignored = option_at(name, version).ignored_from
        if is_read(name, version) is None:
            since = history(name)
            known = f"it {since}" if since else "the versions that read it are not known exactly"
            found.append(
                f"--{name}: whether CANN {spelled(version)} reads it is unknown ({known}); an "
                "adapter that does not read it ignores it."
            )
        elif ignored and version >= ignored:
            found.append(f"--{name} has no effect from CANN {spelled(ignored)} on.")
    return found


def allowed(option: Option) -> str:
    """The values of an option as a phrase; empty where every value of its type is allowed."""
    if option.choices:
        return f"one of {', '.join(map(str, option.choices))}"
    if option.pattern:
        return f"text of the form {option.pattern}"
    ends = [f"{option.low} or more"] if option.low is not None else []
    return " and ".join(ends + ([f"{option.high} or less"] if option.high is not None else []))


def _rejoined(words: Sequence[str]) -> List[str]:
    """Words that the command line has cut at the commas of a value -> key=value each."""
    found: List[str] = []
    for word in words:
        if "=" in word or not found:
            found.append(word)
        else:
            found[-1] += f",{word}"
    return found


def _check_known(name: str) -> None:
    if name in REFUSED:
        raise ValueError(f"--npu_option {name} cannot be set here: {REFUSED[name]}.")
    if name in WITHOUT_EFFECT:
        raise ValueError(
            f"--npu_option {name} is in many scripts, and no version of the adapter reads it; "
            "omit it."
        )
    if name not in table().options:
        near = difflib.get_close_matches(name, table().options, 1)
        hint = f"did you mean {near[0]}?" if near else "see --npu_help."
        raise ValueError(f"--npu_option {name} is no option of NpuOptimizer; {hint}")


def _typed(name: str, text: str, option: Option) -> Any:
    if option.kind is str:
        return text
    if option.kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if option.kind is int and re.match(r"^-?\d+$", text):
        return int(text)
    meant = "true or false" if option.kind is bool else "a whole number"
    raise ValueError(f"--npu_option {name}={text}: {text!r} is not {meant}.")


def _check_card(name: str, value: Any, option: Option, target: Target) -> None:
    card = f"the card is a {target.card.name} ({target.card_source})"
    if option.cards is not None and target.card.name not in option.cards:
        raise ValueError(f"--{name} is for {_listed(option.cards)}, and {card}; omit it.")
    cards = option.value_cards.get(value)
    if cards is not None and target.card.name not in cards:
        raise ValueError(
            f"--{name} {value} is for {_listed(cards)}, and {card}; pass another value, or "
            "--npu_card with the card that is installed."
        )
    low, high = target.card.hccl_timeout
    if name == "hccl_timeout" and not low <= value <= high:
        raise ValueError(f"--hccl_timeout {value} must be {low} to {high} seconds, as {card}.")


def _listed(cards: Tuple[str, ...]) -> str:
    return " and ".join(cards) if cards else "none of the cards that are known here"


def _is_allowed(value: Any, option: Option) -> bool:
    if option.choices and value not in option.choices and value not in ("", option.default):
        return False
    if option.low is not None and value < option.low:
        return False
    if option.high is not None and value > option.high:
        return False
    return not (option.pattern and value) or bool(
        re.match(f"^({option.pattern})$", value, re.DOTALL)
    )


def precision_of(values: Mapping[str, Any]) -> Optional[str]:
    """The arithmetic that the options choose, a value of precision_mode or of precision_mode_v2;
    None: the adapter's default."""
    return values.get("precision_mode_v2") or values.get("precision_mode")


def _one_precision(values: Mapping[str, Any]) -> Optional[str]:
    if values.get("precision_mode") and values.get("precision_mode_v2"):
        return "--precision_mode and precision_mode_v2 mean the same thing; omit one of them."
    return None


def _mixed_list(values: Mapping[str, Any]) -> Optional[str]:
    if values.get("modify_mixlist") and precision_of(values) not in MIXED:
        return (
            "--modify_mixlist changes the lists of mixed precision, and --precision_mode is "
            f"{precision_of(values)}; pass allow_mix_precision."
        )
    return None


def _loop_data(values: Mapping[str, Any]) -> Optional[str]:
    steps = values.get("iterations_per_loop", 1)
    if steps > 1 and not values.get("enable_data_pre_proc"):
        return (
            f"--iterations_per_loop {steps} needs the device to fetch its own data; pass "
            "--enable_data_pre_proc too."
        )
    return None


def _loop_whole(values: Mapping[str, Any]) -> Optional[str]:
    steps = values.get("iterations_per_loop", 1)
    if steps > 1 and values.get("mix_compile_mode"):
        return (
            f"--iterations_per_loop {steps} needs the whole step on the device, and "
            "--mix_compile_mode leaves parts on the host; omit one of them."
        )
    return None


def _one_dump(values: Mapping[str, Any]) -> Optional[str]:
    if values.get("enable_dump") and values.get("enable_dump_debug"):
        return "--enable_dump and --enable_dump_debug cannot be used together; omit one of them."
    return None


def _dumps(values: Mapping[str, Any]) -> bool:
    return bool(values.get("enable_dump") or values.get("enable_dump_debug"))


def _dump_path(values: Mapping[str, Any]) -> Optional[str]:
    if _dumps(values) and not values.get("dump_path"):
        return "--enable_dump and --enable_dump_debug need --dump_path, an existing directory."
    return None


def _dump_profile(values: Mapping[str, Any]) -> Optional[str]:
    if _dumps(values) and values.get("profiling_mode"):
        return "--profiling_mode and a dump cannot be used together; omit one of them."
    return None


def _implementation(values: Mapping[str, Any]) -> Optional[str]:
    if values.get("optypelist_for_implmode") and not values.get("op_select_implmode"):
        return "--npu_option optypelist_for_implmode needs --op_select_implmode."
    return None


def _local_rank(values: Mapping[str, Any]) -> Optional[str]:
    if values.get("local_device_list") and values.get("local_rank_id", -1) < 0:
        return "--local_device_list needs --local_rank_id."
    return None


def _host_variables(values: Mapping[str, Any]) -> Optional[str]:
    if values.get("variable_placement") == "Host" and not values.get("mix_compile_mode"):
        return "--npu_option variable_placement=Host needs --mix_compile_mode; omit it."
    return None


def _tailing(values: Mapping[str, Any]) -> Optional[str]:
    if values.get("is_tailing_optimization"):
        return (
            "--is_tailing_optimization works with the adapter's own NPUOptimizer alone, and the "
            "update here is another; omit it."
        )
    return None


_RULES: Tuple[Callable[[Mapping[str, Any]], Optional[str]], ...] = (
    _one_precision,
    _mixed_list,
    _loop_data,
    _loop_whole,
    _one_dump,
    _dump_path,
    _dump_profile,
    _implementation,
    _local_rank,
    _host_variables,
    _tailing,
)
