"""Updates the table of NpuOptimizer's options from checkouts of Ascend's adapter.

    git clone --branch r1.15.0 https://gitee.com/ascend/tensorflow r1.15.0
    python -m tools.npu_options_table 7.0=r1.15.0                   # version of CANN = checkout
    python -m tools.npu_options_table 8.0=v8.0 9.0=master --check   # prints the differences only

It reads tf_adapter/util/npu_attrs.cc: which keys the adapter looks up in NpuOptimizer's
parameter_map, in which field, with which default and which allowed values. What an option's text
must look like, and on which cards it exists, is documentation: it stays as it is in the table.
"""

import copy
import dataclasses
import json
import os
import re
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from runtime.cli import run
from runtime.files import atomic_write
from runtime.flags import flag, parse_flags
from runtime.npu.option_table import PATH, version_of

ATTRIBUTES = os.path.join("tf_adapter", "util", "npu_attrs.cc")
READS = "SetNpuOptimizerAttr(const GraphOptimizationPassOptions"  # the function with the defaults
CHANGED = 1  # the exit code of --check where the table differs
SOURCE = "checkout"
_TYPES = {"b": "bool", "i": "int", "s": "str"}
_ABOUT = (
    "tf_adapter/util/npu_attrs.cc of the checkout of that name, read by tools.npu_options_table; "
    "the user named the version of CANN that it belongs to"
)


@dataclasses.dataclass(frozen=True)
class OptionsTableConfig:
    """Flags of python -m tools.npu_options_table."""

    checkouts: Tuple[str, ...] = flag(
        dataclasses.MISSING,
        "VERSION=DIRECTORY for each: a version of CANN and a checkout of its adapter",
        positional=True,
    )
    table: str = flag(PATH, "JSON file that is updated")
    check: bool = flag(False, "write nothing; the exit code is 1 where the table would change")


class Found(NamedTuple):
    """An option as one adapter's source reads it."""

    kind: Optional[str]  # "bool", "int" or "str"; None: the source does not show it
    default: Any  # None: the source does not show it
    values: Tuple[Any, ...]  # the allowed values; empty: the source checks none


def main(argv: Optional[Sequence[str]] = None) -> int:
    config = parse_flags(OptionsTableConfig, argv, __doc__.splitlines()[0])
    with open(config.table, encoding="utf-8") as stream:
        before = json.load(stream)
    content = before
    for word in config.checkouts:
        version, equals, directory = word.partition("=")
        if not equals or not re.match(r"^\d+\.\d+$", version):
            raise ValueError(f"{word} is not VERSION=DIRECTORY, as 9.0=master.")
        found = read_checkout(directory)
        content, changes = merged(content, version, os.path.basename(directory.rstrip("/")), found)
        print(f"CANN {version}: {len(found)} options, {len(changes)} changes")
        for change in changes:
            print(f"  {change}")
    if config.check:
        return CHANGED if dumped(content) != dumped(before) else 0
    with atomic_write(config.table) as stream:
        stream.write(dumped(content))
    return 0


def read_checkout(directory: str) -> Dict[str, Found]:
    """{option: what the adapter's source shows of it}."""
    path = os.path.join(directory, ATTRIBUTES)
    if not os.path.isfile(path):
        raise ValueError(
            f"{directory} has no {ATTRIBUTES}; name a checkout of Ascend's adapter to TensorFlow."
        )
    with open(path, encoding="utf-8", errors="replace") as stream:
        text = stream.read()
    names = dict.fromkeys(re.findall(r'params\.count\("(\w+)"\)', text))
    if not names:
        raise ValueError(f'{path} reads no option: it has no params.count("...").')
    return {name: _found(name, text) for name in names}


def merged(
    content: Dict[str, Any], version: str, adapter: str, found: Dict[str, Found]
) -> Tuple[Dict[str, Any], List[str]]:
    """The table with one adapter's options as the column of a version -> (table, changes)."""
    content, changes = copy.deepcopy(content), []  # type: ignore[var-annotated]
    content["sources"][SOURCE] = _ABOUT
    content["versions"][version] = {"adapter": adapter, "source": SOURCE}
    versions = sorted(content["versions"], key=version_of)
    content["versions"] = {one: content["versions"][one] for one in versions}
    for name in found:
        if name not in content["options"]:
            shown = found[name]
            entry = {"type": shown.kind or "str", "default": shown.default}
            if shown.values:
                entry["values"] = list(shown.values)
            content["options"][name] = dict(entry, read={})
            changes.append(f"{name} is new: {shown.kind or 'of unknown type'}")
    newest = version == versions[-1]
    for name, entry in content["options"].items():
        before = entry["read"].get(version)
        entry["read"] = {one: entry["read"].get(one) for one in versions}
        entry["read"][version] = name in found
        if before is not (name in found):
            changes.append(f"{name}: {_spelled(before)} -> {_spelled(name in found)}")
        if name in found:
            changes += _differences(name, entry, found[name], version, newest)
    return content, changes


def dumped(content: Dict[str, Any]) -> str:
    """The table as text: one line for each entry, so that a change of one option is one line."""
    blocks = []
    for name, entries in content.items():
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in entries.items()]
        blocks.append(f" {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def _differences(
    name: str, entry: Dict[str, Any], shown: Found, version: str, newest: bool
) -> List[str]:
    """Writes what the source shows and the entry has not; an older column gets a variant."""
    current = dict(entry, **entry.get("variants", {}).get(version, {}))
    update: Dict[str, Any] = {}
    if shown.kind and shown.kind != current["type"]:
        update["type"] = shown.kind
        update["values"] = []
    if shown.default not in (None, "") and shown.default != current["default"]:
        update["default"] = shown.default
    if shown.values and set(shown.values) - set(current.get("values", ())):
        update["values"] = list(shown.values)
    if update and newest:
        entry.update(update)
    elif update:
        variants = entry.setdefault("variants", {})
        variants[version] = dict(variants.get(version, {}), **update)
    return [f"{name}: {key} is {json.dumps(value)}" for key, value in update.items()]


def _found(name: str, text: str) -> Found:
    kinds = re.findall(rf'params\.at\("{name}"\)\.([bis])\(\)', text)
    kind = _TYPES[kinds[-1]] if kinds else None
    lists = re.search(rf'CheckValueAllowed<[^>]*>\(\s*"{name}",.*?(\w+)\)', text, re.DOTALL)
    values: Tuple[Any, ...] = ()
    if lists:
        items = re.search(rf"\b{lists.group(1)} = \{{(.*?)\}}", text, re.DOTALL)
        values = tuple(_literal(item, kind) for item in items.group(1).split(",")) if items else ()
    return Found(kind, _default(name, kind, text), values)


def _default(name: str, kind: Optional[str], text: str) -> Any:
    """The first value of the variable that an option is read into."""
    target = re.search(rf'\b(\w+) =\s[^;=]*?params\.at\("{name}"\)\.[bis]\(\)', text)
    if target is None or kind is None:
        return None
    begin = max(text.find(READS), 0)
    declared = re.search(
        rf"\b(?:bool|int\w*|std::string) {target.group(1)}(?: = ([^;]+))?;", text[begin:]
    )
    if declared is None:
        return None
    return _literal(declared.group(1) or '""', kind)


def _literal(text: str, kind: Optional[str]) -> Any:
    """A literal of C++ as the value of an option of that type; None: it is no literal."""
    text = text.strip().strip('"')
    if kind == "bool":
        return {"true": True, "false": False, "1": True, "0": False}.get(text)
    if kind == "int":
        number = re.match(r"^(-?\d+)[uUlL]*$", text)
        return int(number.group(1)) if number else None
    return text


def _spelled(read: Optional[bool]) -> str:
    return {None: "unknown", True: "read", False: "not read"}[read]


if __name__ == "__main__":
    run(main)
