"""The options of NpuOptimizer, Ascend's adapter to TensorFlow 1.15: one table, and its checks.

The adapter ignores a key that it does not know and a value in the wrong field, and looks at most of
the others at the first step only; so all of them are checked here, before a session.
"""

import dataclasses
import difflib
import os
import re
from typing import Any, Callable, ClassVar, Dict, Mapping, NamedTuple, Optional, Tuple

from runtime.flags import flag

NEWEST = (7, 0)  # of CANN, whose adapter the table was read from; docs/ascend.md says which ones
OLDEST = (5, 0)

# The adapter's release r1.N -> the CANN that it came with, by the dates of its branches.
RELEASES = {7: (5, 1), 8: (5, 1), 9: (6, 0), 10: (6, 0), 11: (6, 0), 12: (6, 3), 13: (7, 0)}


class Option(NamedTuple):
    """An option of NpuOptimizer."""

    kind: type  # bool, int or str: the field of the option's value (b, i, s)
    choices: Tuple[Any, ...]  # the allowed values; empty: all
    low: Optional[int]  # the smallest int
    high: Optional[int]  # the largest int
    pattern: Optional[str]  # a regular expression that a str matches
    default: Any  # the adapter's own
    since: Tuple[int, int]  # the CANN whose adapter reads it first
    path: str  # "file" or "directory" that must exist; "": any text
    typed: bool  # whether it has a flag of its own


def _option(
    kind,
    default=None,
    choices=(),
    low=None,
    high=None,
    pattern=None,
    since=OLDEST,
    path="",
    typed=False,
):
    return Option(kind, choices, low, high, pattern, default, since, path, typed)


def _typed(kind, default=None, **rest):
    return _option(kind, default, typed=True, **rest)


PRECISIONS = (
    "allow_mix_precision",
    "allow_fp32_to_fp16",
    "force_fp16",
    "force_fp32",
    "must_keep_origin_dtype",
    "cube_fp16in_fp32out",
    "allow_mix_precision_fp16",
)
BFLOAT16 = ("allow_mix_precision_bf16", "allow_fp32_to_bf16", "mixed_bfloat16")
MIXED = ("allow_mix_precision", "allow_mix_precision_fp16", "mixed_float16")
WHOLE = ("force_fp32", "must_keep_origin_dtype", "origin")  # nothing of theirs overflows in half
_IMPLEMENTATIONS = (
    "high_precision",
    "high_performance",
    "high_precision_for_all",
    "high_performance_for_all",
)
_BYTES = r"[1-9]\d*"
_SET = r"\d+(-\d+)?"

OPTIONS = {
    "use_off_line": _typed(bool, True),
    "mix_compile_mode": _typed(bool, False),
    "iterations_per_loop": _typed(int, 1, low=1),
    "enable_data_pre_proc": _typed(bool, False),
    "precision_mode": _typed(str, choices=PRECISIONS + BFLOAT16[:2]),
    "precision_mode_v2": _option(
        str,
        choices=("fp16", "origin", "cube_fp16in_fp32out", "mixed_float16", "mixed_bfloat16"),
        since=(7, 0),
    ),
    "modify_mixlist": _typed(str, "", path="file"),
    "op_precision_mode": _option(str, "", path="file"),
    "customize_dtypes": _option(str, "", since=(6, 0), path="file"),
    "hcom_parallel": _typed(bool, True),
    "is_tailing_optimization": _typed(bool, False),
    "graph_run_mode": _typed(int, 1, choices=(0, 1)),
    "op_debug_level": _typed(int, 0, choices=(0, 1, 2, 3, 4)),
    "op_select_implmode": _typed(str, "", choices=_IMPLEMENTATIONS),
    "optypelist_for_implmode": _option(str, ""),
    "graph_memory_max_size": _typed(str, pattern=_BYTES),
    "variable_memory_max_size": _typed(str, pattern=_BYTES),
    "stream_max_parallel_num": _typed(str, "", pattern=r"\w+:\d+(,\w+:\d+)*"),
    "variable_format_optimize": _option(bool),
    "profiling_mode": _typed(bool, False),
    "profiling_options": _typed(str, pattern=r"\s*\{.*\}\s*"),
    "enable_dump": _typed(bool, False),
    "enable_dump_debug": _typed(bool, False),
    "dump_path": _typed(str, path="directory"),
    "dump_step": _option(str, "", pattern=rf"{_SET}(\|{_SET}){{0,99}}"),
    "dump_mode": _option(str, "output", choices=("input", "output", "all")),
    "dump_debug_mode": _option(str, "all", choices=("aicore_overflow", "atomic_overflow", "all")),
    "dump_data": _option(str, "tensor", choices=("tensor", "stats"), since=(6, 0)),
    "dump_layer": _option(str, "", since=(6, 0)),
    "enable_exception_dump": _option(int, 2, choices=(0, 1, 2)),
    "auto_tune_mode": _typed(str, "", pattern=r"(RL|GA)(,(RL|GA))?"),
    "aoe_mode": _option(str, choices=("1", "2", "4", "mdat")),
    "work_path": _option(str, "./", path="directory"),
    "distribute_config": _option(str, "", path="file"),
    "aoe_config_file": _option(str, "", path="file", since=RELEASES[11]),
    "local_rank_id": _typed(int, -1, low=0, high=7),
    "local_device_list": _typed(str, "", pattern=r"(\d+,)*\d+"),
    "session_device_id": _typed(int, -1, low=0),
    "HCCL_algorithm": _typed(str, "", since=(5, 1)),
    "hccl_timeout": _typed(int, low=1, since=(5, 1)),
    "op_wait_timeout": _typed(int, low=1, since=(5, 1)),
    "op_execute_timeout": _typed(int, low=1, since=(5, 1)),
    "graph_exec_timeout": _option(int, 600000, low=1, since=(6, 0)),
    "stream_sync_timeout": _option(int, -1, since=(6, 3)),
    "event_sync_timeout": _option(int, -1, since=(6, 3)),
    "deterministic": _option(int, 0, choices=(0, 1), since=(6, 3)),
    "jit_compile": _option(str, "auto", choices=("true", "false", "auto"), since=(7, 0)),
    "fusion_switch_file": _option(str, "", path="file"),
    "buffer_optimize": _option(str, "l2_optimize", choices=("l2_optimize", "off_optimize")),
    "enable_small_channel": _option(int, 0, choices=(0, 1)),
    "enable_scope_fusion_passes": _option(str, ""),
    "op_compiler_cache_mode": _option(str, "", choices=("disable", "enable", "force")),
    "op_compiler_cache_dir": _option(str, "", path="directory"),
    "debug_dir": _option(str, "", path="directory"),
    "atomic_clean_policy": _option(int, 0, choices=(0, 1), since=RELEASES[9]),
    "static_memory_policy": _option(int, low=0, since=RELEASES[9]),
    "memory_optimization_policy": _option(str, since=RELEASES[12]),
    "topo_sorting_mode": _option(int, low=0, since=RELEASES[10]),
    "external_weight": _option(bool, since=RELEASES[11]),
    "frozen_variable": _option(bool, since=RELEASES[12]),
    "variable_placement": _option(str, "Device", choices=("Host", "Device"), since=RELEASES[12]),
    "hcom_multi_mode": _option(bool),
    "soc_config": _option(str, since=RELEASES[8]),
    "device_type": _option(str, "default_device_type", since=RELEASES[7]),
    "op_debug_config": _option(str, path="file", since=RELEASES[9]),
    "insert_op_file": _option(str, path="file", since=RELEASES[11]),
    "graph_slice": _option(str, choices=("auto", "manual"), since=RELEASES[13]),
    "graph_compiler_cache_dir": _option(str, path="directory", since=RELEASES[13]),
    "es_cluster_config": _option(str, path="file", since=RELEASES[13]),
    "resource_config_path": _option(str, path="file", since=RELEASES[10]),
    "ac_parallel_enable": _option(str, since=(7, 0)),
    "enable_graph_parallel": _option(bool, since=RELEASES[12]),
    "graph_parallel_option_path": _option(str, path="file", since=RELEASES[12]),
}
# Options that the adapter has and a training run cannot use: they would make shapes dynamic, cut
# the graph by hand, or repeat `--device npu`. Refused with the reason.
_INFERENCE = "it is for models of inference"
_EXPERIMENTAL = "it is experimental, and its values are not documented"
REFUSED = {
    "const_input": _INFERENCE,
    "enable_compress_weight": _INFERENCE,
    "compress_weight_conf": _INFERENCE,
    "experimental_accelerate_train_mode": _EXPERIMENTAL,
    "experimental_model_deploy_mode": _EXPERIMENTAL,
    "experimental_model_deploy_devicelist": _EXPERIMENTAL,
    "experimental_logical_device_id": _EXPERIMENTAL,
    "experimental_logical_device_cluster_deploy_mode": _EXPERIMENTAL,
    "input_shape": "shapes are static here",
    "dynamic_dims": "shapes are static here",
    "dynamic_node_type": "shapes are static here",
    "dynamic_input": "shapes are static here",
    "dynamic_graph_execute_mode": "shapes are static here",
    "dynamic_inputs_shape_range": "shapes are static here",
    "in_out_pair": "the whole graph goes to the device",
    "in_out_pair_flag": "the whole graph goes to the device",
    "lower_functional_ops": "the graph holds no functional control flow",
    "job": "every card is a process of its own",
    "task_index": "every card is a process of its own",
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


def _flag(name, help):
    """The flag of an option of the table. None: the default of `chosen`, or of the adapter."""
    option = OPTIONS[name]
    return flag(
        None,
        help,
        "Ascend",
        choices=option.choices or None,
        low=option.low,
        high=option.high,
        late=True,
        hidden=True,
        resume="free",
    )


def help_page() -> str:
    """The text of --npu_help: every option, its values, default and first CANN."""
    lines = ["--npu_option KEY=VALUE [KEY=VALUE ...]: options of Ascend's NpuOptimizer.", ""]
    kinds = {bool: "true or false", int: "a whole number", str: "text"}
    for name, option in OPTIONS.items():
        meant = _allowed(option) or kinds[option.kind]
        default = "" if option.default in (None, "") else f"; default {_text(option.default)}"
        since = "" if option.since == OLDEST else f"; CANN {_spelled(option.since)} or later"
        lines.append(f"  {name}: {meant}{default}{since}")
    return "\n".join(lines + ["", "Not available:"] + [f"  {k}: {v}" for k, v in REFUSED.items()])


def _text(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclasses.dataclass(frozen=True)
class NpuFlags:
    """The options of --device npu that training needs, by the adapter's names."""

    HELP_PAGES: ClassVar[Mapping[str, Callable[[], str]]] = {"npu_help": help_page}

    cann: str = flag(
        "7.0",
        "version of CANN; options that came later are refused",
        "Ascend",
        late=True,
        resume="free",
    )
    npu_option: Tuple[str, ...] = flag(
        (),
        "options of NpuOptimizer as KEY=VALUE; --npu_help lists them",
        "Ascend",
        late=True,
        resume="free",
    )
    precision_mode: Optional[str] = _flag(
        "precision_mode", "arithmetic on the device (default: allow_mix_precision);"
    )
    modify_mixlist: Optional[str] = _flag(
        "modify_mixlist", "JSON file: operations moved between the lists of mixed precision"
    )
    iterations_per_loop: Optional[int] = _flag(
        "iterations_per_loop", "steps that the device makes in one call (default: 1)"
    )
    enable_data_pre_proc: Optional[bool] = _flag(
        "enable_data_pre_proc", "feed the device from a queue of its own (default: yes)"
    )
    mix_compile_mode: Optional[bool] = _flag(
        "mix_compile_mode", "leave operations that the device does not know on the host"
    )
    use_off_line: Optional[bool] = _flag("use_off_line", "run on the device at all (default: yes)")
    graph_run_mode: Optional[int] = _flag("graph_run_mode", "0: inference, 1: training;")
    hcom_parallel: Optional[bool] = _flag(
        "hcom_parallel", "sum gradients beside the computation (default: yes on several cards)"
    )
    is_tailing_optimization: Optional[bool] = _flag(
        "is_tailing_optimization", "sum the last gradients after the look for an overflow"
    )
    HCCL_algorithm: Optional[str] = _flag("HCCL_algorithm", "how HCCL passes sums on")
    hccl_timeout: Optional[int] = _flag("hccl_timeout", "seconds that a card waits for another")
    op_wait_timeout: Optional[int] = _flag("op_wait_timeout", "seconds that one waits")
    op_execute_timeout: Optional[int] = _flag("op_execute_timeout", "seconds that one runs")
    graph_memory_max_size: Optional[str] = _flag(
        "graph_memory_max_size", "bytes of the device for the graph"
    )
    variable_memory_max_size: Optional[str] = _flag(
        "variable_memory_max_size", "bytes of the device for variables"
    )
    stream_max_parallel_num: Optional[str] = _flag(
        "stream_max_parallel_num", "streams of an engine, as DNN_VM_AICPU:20"
    )
    op_select_implmode: Optional[str] = _flag("op_select_implmode", "kernels by precision;")
    op_debug_level: Optional[int] = _flag("op_debug_level", "what compiling an operation leaves;")
    auto_tune_mode: Optional[str] = _flag("auto_tune_mode", "RL, GA or RL,GA")
    profiling_mode: Optional[bool] = _flag("profiling_mode", "the device writes profiles")
    profiling_options: Optional[str] = _flag("profiling_options", "what of, as JSON")
    enable_dump: Optional[bool] = _flag("enable_dump", "write what operations read and make")
    enable_dump_debug: Optional[bool] = _flag("enable_dump_debug", "write what overflowed")
    dump_path: Optional[str] = _flag("dump_path", "directory of such files")
    session_device_id: Optional[int] = _flag(
        "session_device_id", "the card, in place of ASCEND_DEVICE_ID"
    )
    local_rank_id: Optional[int] = _flag(
        "local_rank_id", "this card's number, where card 0 reads the data of all"
    )
    local_device_list: Optional[str] = _flag("local_device_list", "those cards, as 0,1,2")


TYPED = tuple(name for name, option in OPTIONS.items() if option.typed)


def chosen(flags: Any = None, cards: int = 1, training: bool = True) -> Dict[str, Any]:
    """NpuFlags (or any dataclass with its fields; None: all defaults) -> {key: value} of the one
    NpuOptimizer entry, checked. cards: the size of the run."""
    given, cann = {}, NEWEST
    if flags is not None:
        given = {name: getattr(flags, name) for name in TYPED}
        given = {name: value for name, value in given.items() if value is not None}
        cann = cann_version(flags.cann)
        given.update(_others(flags.npu_option, given))
    values = dict(_defaults(cards, training, given), **given)
    for name, value in given.items():
        _check(name, value, cann)
    _check_together(values)
    return values


def may_overflow(flags: Any) -> bool:
    """Whether the device may compute in half precision: gradients are then scaled."""
    values = chosen(flags)
    return (values.get("precision_mode_v2") or values["precision_mode"]) not in WHOLE


def _defaults(cards, training, given):
    """Our defaults of what the user left open."""
    values = {"use_off_line": True, "graph_run_mode": 1 if training else 0}
    if "precision_mode_v2" not in given:
        values["precision_mode"] = "allow_mix_precision"
    if training:
        values["enable_data_pre_proc"] = not given.get("mix_compile_mode", False)
        values["iterations_per_loop"] = 1
    if cards > 1:
        values["hcom_parallel"] = True
    return values


def cann_version(text: str) -> Tuple[int, int]:
    """ "6.3.RC1" -> (6, 3); outside the versions that the table covers is an error."""
    found = re.match(r"^(\d+)\.(\d+)", text)
    version = (int(found.group(1)), int(found.group(2))) if found else None
    if version is None or not OLDEST <= version <= (NEWEST[0], 99):
        raise ValueError(
            f"--cann {text} is not a version that is known here; pass one from "
            f"{_spelled(OLDEST)} to {_spelled(NEWEST)}, as the installation's version.cfg says."
        )
    return version


def _others(words, given):
    """--npu_option's key=value -> {key: typed value}."""
    values = {}
    for word in _whole(words):
        name, equals, text = word.partition("=")
        if not equals:
            raise ValueError(f"--npu_option {word} has no value; write {name}=VALUE.")
        if name in given or name in values:
            raise ValueError(f"--npu_option {name} is given twice; omit one.")
        values[name] = _read(name, text)
    return values


def _whole(words):
    """Words that the command line has cut at the commas of a value -> key=value each."""
    found = []
    for word in words:
        if "=" in word or not found:
            found.append(word)
        else:
            found[-1] += f",{word}"
    return found


def _read(name, text):
    """An option's text as what the table says it is."""
    _known(name)
    kind = OPTIONS[name].kind
    if kind is str:
        return text
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kind is int and re.match(r"^-?\d+$", text):
        return int(text)
    meant = "true or false" if kind is bool else "a whole number"
    raise ValueError(f"--npu_option {name}={text}: {text!r} is not {meant}.")


def _known(name):
    if name in REFUSED:
        raise ValueError(f"--npu_option {name} cannot be set here: {REFUSED[name]}.")
    if name in WITHOUT_EFFECT:
        raise ValueError(
            f"--npu_option {name} is in many scripts, and no version of the adapter reads it; "
            "omit it."
        )
    if name not in OPTIONS:
        near = difflib.get_close_matches(name, OPTIONS, 1)
        hint = f"did you mean {near[0]}?" if near else "see docs/ascend.md."
        raise ValueError(f"--npu_option {name} is no option of NpuOptimizer; {hint}")


def _check(name, value, cann):
    """One option by itself."""
    option = OPTIONS[name]
    if option.since > cann:
        raise ValueError(
            f"--{name} came with CANN {_spelled(option.since)}, and --cann is {_spelled(cann)}, "
            "which would ignore it; omit it or pass the version that is installed."
        )
    wrong = (
        (option.choices and value not in option.choices and value not in ("", option.default))
        or (option.low is not None and value < option.low)
        or (option.high is not None and value > option.high)
        or (option.pattern and value and not re.match(f"^({option.pattern})$", value, re.DOTALL))
    )
    if wrong:
        raise ValueError(f"--{name} {value} is not allowed: it must be {_allowed(option)}.")
    exists = {"": lambda _: True, "file": os.path.isfile, "directory": os.path.isdir}
    if value and not exists[option.path](value):
        raise ValueError(f"--{name} {value} is not a {option.path} that is there; make it first.")


def _allowed(option):
    if option.choices:
        return f"one of {', '.join(map(str, option.choices))}"
    if option.pattern:
        return f"text of the form {option.pattern}"
    ends = [f"{option.low} or more"] if option.low is not None else []
    return " and ".join(ends + ([f"{option.high} or less"] if option.high is not None else []))


def _check_together(values):
    """What one option asks of another. Said for each as a flag, however it was given."""
    precision = values.get("precision_mode_v2") or values.get("precision_mode")
    looping = values.get("iterations_per_loop", 1) > 1
    dumping = values.get("enable_dump") or values.get("enable_dump_debug")
    for wrong, sentence in (
        (
            values.get("precision_mode") and values.get("precision_mode_v2"),
            "--precision_mode and precision_mode_v2 mean the same thing; omit one of them.",
        ),
        (
            precision in BFLOAT16,
            f"--precision_mode {precision}: the Ascend 910 has no bfloat16; pass "
            "allow_mix_precision.",
        ),
        (
            values.get("modify_mixlist") and precision not in MIXED,
            f"--modify_mixlist changes the lists of mixed precision, and --precision_mode is "
            f"{precision}; pass allow_mix_precision.",
        ),
        (
            looping and not values.get("enable_data_pre_proc"),
            f"--iterations_per_loop {values.get('iterations_per_loop')} needs the device to fetch "
            "its own data; pass --enable_data_pre_proc too.",
        ),
        (
            looping and values.get("mix_compile_mode"),
            f"--iterations_per_loop {values.get('iterations_per_loop')} needs the whole step on "
            "the device, and --mix_compile_mode leaves parts on the host; omit one of them.",
        ),
        (
            values.get("enable_dump") and values.get("enable_dump_debug"),
            "--enable_dump and --enable_dump_debug cannot be used together; omit one of them.",
        ),
        (
            dumping and not values.get("dump_path"),
            "--enable_dump and --enable_dump_debug need --dump_path, a directory that is there.",
        ),
        (
            dumping and values.get("profiling_mode"),
            "--profiling_mode and a dump cannot be used together; omit one of them.",
        ),
        (
            values.get("optypelist_for_implmode") and not values.get("op_select_implmode"),
            "--npu_option optypelist_for_implmode needs --op_select_implmode.",
        ),
        (
            values.get("local_device_list") and values.get("local_rank_id", -1) < 0,
            "--local_device_list needs --local_rank_id.",
        ),
        (
            values.get("is_tailing_optimization"),
            "--is_tailing_optimization works with the adapter's own NPUOptimizer alone, and the "
            "update here is another; omit it.",
        ),
    ):
        if wrong:
            raise ValueError(sentence)


def _spelled(version):
    return ".".join(map(str, version))
