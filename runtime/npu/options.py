"""The flags of NpuOptimizer, Ascend's adapter to TensorFlow 1.15, and the options that they choose.

The table of all options is runtime/npu/options.json; the checks are runtime/npu/option_checks.py.
"""

import dataclasses
import logging
import os
from typing import Any, Callable, ClassVar, Dict, Mapping, Optional, Tuple

from runtime.flags import flag
from runtime.npu.cann import AUTO, chosen_cann
from runtime.npu.cards import CARDS, chosen_card
from runtime.npu.option_checks import (
    REFUSED,
    Target,
    allowed,
    check_option,
    check_together,
    precision_of,
    read_options,
    warnings,
)
from runtime.npu.option_table import history, spelled, table

# The values of precision_mode and precision_mode_v2 with which nothing is computed in float16, so
# that no gradient needs a scale; bfloat16 has the range of float32.
WITHOUT_HALF = (
    "force_fp32",
    "must_keep_origin_dtype",
    "origin",
    "allow_mix_precision_bf16",
    "allow_fp32_to_bf16",
    "mixed_bfloat16",
)


def _flag(name: str, help: str) -> Any:
    """The flag of an option of the table. None: the default of `chosen`, or of the adapter."""
    option = table().options[name]
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
    """The text of --npu_help: every option, its values, default, cards and versions of CANN."""
    lines = ["--npu_option KEY=VALUE [KEY=VALUE ...]: options of Ascend's NpuOptimizer.", ""]
    kinds = {bool: "true or false", int: "a whole number", str: "text"}
    for name, option in table().options.items():
        if name in REFUSED:
            continue
        default = "" if option.default in (None, "") else f"; default {_text(option.default)}"
        cards = f"; {' and '.join(option.cards)}" if option.cards else ""
        versions = history(name)
        lines.append(
            f"  {name}: {allowed(option) or kinds[option.kind]}{default}{cards}"
            + (f"; {versions}" if versions else "")
        )
    return "\n".join(lines + ["", "Not available:"] + [f"  {k}: {v}" for k, v in REFUSED.items()])


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclasses.dataclass(frozen=True)
class NpuFlags:
    """The options of --device npu that training needs, by the adapter's names."""

    HELP_PAGES: ClassVar[Mapping[str, Callable[[], str]]] = {"npu_help": help_page}

    cann: str = flag(
        AUTO,
        "version of CANN, 5.0 to 9; auto: of the toolkit in ASCEND_HOME_PATH. Options that it does "
        "not read are refused",
        "Ascend",
        late=True,
        resume="free",
    )
    npu_card: str = flag(
        AUTO,
        "kind of card; auto: by its PCI device id, else 910A;",
        "Ascend",
        choices=(AUTO,) + tuple(CARDS),
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
        "mix_compile_mode", "keep operations that the device does not know on the host"
    )
    use_off_line: Optional[bool] = _flag("use_off_line", "run on the device at all (default: yes)")
    graph_run_mode: Optional[int] = _flag("graph_run_mode", "0: inference, 1: training;")
    hcom_parallel: Optional[bool] = _flag(
        "hcom_parallel",
        "sum gradients while others are computed (default: yes on several cards)",
    )
    is_tailing_optimization: Optional[bool] = _flag(
        "is_tailing_optimization", "sum the last gradients after the check for an overflow"
    )
    HCCL_algorithm: Optional[str] = _flag("HCCL_algorithm", "algorithm of HCCL's collectives")
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


_OWN = ("cann", "npu_card", "npu_option")  # the flags that are no option
TYPED = tuple(
    field.name for field in dataclasses.fields(NpuFlags) if field.name not in _OWN
)  # options with a flag of their own


def target_of(flags: Any, environ: Optional[Mapping[str, str]] = None) -> Target:
    """The version of CANN and the card that NpuFlags name, or that the machine shows."""
    environ = os.environ if environ is None else environ
    card, source = chosen_card(flags.npu_card, environ)
    return Target(chosen_cann(flags.cann, environ), card, source)


def chosen(flags: Any = None, cards: int = 1, training: bool = True) -> Dict[str, Any]:
    """NpuFlags (or any dataclass with its fields; None: all defaults) -> {key: value} of the one
    NpuOptimizer entry, checked. cards: the size of the run."""
    flags = NpuFlags() if flags is None else flags
    target = target_of(flags)
    given = _given(flags, target)
    values = dict(_defaults(cards, training, given), **given)
    for name, value in given.items():
        check_option(name, value, target)
    check_together(values)
    return values


def log_target(flags: Any) -> None:
    """Logs what the options are chosen for, and which of them may have no effect."""
    target = target_of(flags)
    logging.info(
        "--device npu: CANN %s (%s), a %s (%s): an overflow is %s",
        spelled(target.cann.version),
        target.cann.source,
        target.card.name,
        target.card_source,
        target.card.overflow,
    )
    for sentence in warnings(tuple(_given(flags, target)), target):
        logging.warning("%s", sentence)


def may_overflow(flags: Any) -> bool:
    """Whether the device may compute in half precision: gradients are then scaled."""
    return precision_of(chosen(flags)) not in WITHOUT_HALF


def _given(flags: Any, target: Target) -> Dict[str, Any]:
    """The options that the user set, by a flag of their own or by --npu_option."""
    values = {name: getattr(flags, name) for name in TYPED}
    values = {name: value for name, value in values.items() if value is not None}
    others = read_options(flags.npu_option, target)
    for name in others:
        if name in values:
            raise ValueError(f"--npu_option {name} is given twice; omit one.")
    return dict(values, **others)


def _defaults(cards: int, training: bool, given: Mapping[str, Any]) -> Dict[str, Any]:
    """The project's defaults of what the user left open."""
    values: Dict[str, Any] = {"use_off_line": True, "graph_run_mode": 1 if training else 0}
    if "precision_mode_v2" not in given:
        values["precision_mode"] = "allow_mix_precision"
    if training:
        values["enable_data_pre_proc"] = not given.get("mix_compile_mode", False)
        values["iterations_per_loop"] = 1
    if cards > 1:
        values["hcom_parallel"] = True
    return values
