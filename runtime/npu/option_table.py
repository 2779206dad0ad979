"""The options of NpuOptimizer by version of CANN: runtime/npu/options.json, read and looked up.

`python -m tools.npu_options_table` updates the file from checkouts of the adapter. A version's
column holds for all versions up to the next column: its adapter reads an option (True), does not
(False), or it is unknown (None).
"""

import functools
import json
import os
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "options.json")
KINDS = {"bool": bool, "int": int, "str": str}

Version = Tuple[int, int]  # of CANN


class Option(NamedTuple):
    """An option of NpuOptimizer, as the adapters of one version of CANN read it."""

    kind: type  # bool, int or str: the field of the option's value (b, i, s)
    default: Any  # the adapter's own; None: the adapter sets none
    choices: Tuple[Any, ...]  # the allowed values; empty: all
    low: Optional[int]  # the smallest int
    high: Optional[int]  # the largest int
    pattern: Optional[str]  # a regular expression that a str matches
    path: str  # "file" or "directory" that must exist; "": any text
    cards: Optional[Tuple[str, ...]]  # the cards that have it; None: all
    value_cards: Mapping[str, Tuple[str, ...]]  # the cards that have a value; all have the others
    ignored_from: Optional[Version]  # from here on it is read and has no effect; None: never
    read: Mapping[Version, Optional[bool]]  # column -> whether the adapter reads it


class Table(NamedTuple):
    """The whole file."""

    columns: Tuple[Version, ...]  # versions of CANN, ascending
    adapters: Mapping[Version, Optional[str]]  # the adapter's branch or commit of each
    sources: Mapping[Version, str]  # what each column rests on
    options: Mapping[str, Option]  # in the newest column
    variants: Mapping[Tuple[str, Version], Option]  # where a column differs from the newest


def load(path: str = PATH) -> Table:
    """The table of a file that tools.npu_options_table wrote."""
    with open(path, encoding="utf-8") as stream:
        content = json.load(stream)
    columns = {version_of(text): entry for text, entry in content["versions"].items()}
    options, variants = {}, {}
    for name, entry in content["options"].items():
        options[name] = _option(entry)
        for text, changes in entry.get("variants", {}).items():
            variants[name, version_of(text)] = _option(dict(entry, **changes))
    return Table(
        tuple(sorted(columns)),
        {version: entry["adapter"] for version, entry in columns.items()},
        {version: content["sources"][entry["source"]] for version, entry in columns.items()},
        options,
        variants,
    )


@functools.lru_cache(maxsize=1)
def table() -> Table:
    """The table that is committed."""
    return load()


def version_of(text: str) -> Version:
    """ "9.0" -> (9, 0)."""
    major, minor = text.split(".")
    return int(major), int(minor)


def spelled(version: Version) -> str:
    """(9, 0) -> "9.0"."""
    return ".".join(map(str, version))


def column(version: Version) -> Version:
    """The column that holds for a version: the newest one that is not later."""
    return max(one for one in table().columns if one <= version)


def option_at(name: str, version: Version) -> Option:
    """An option as the adapter of a version of CANN reads it."""
    found = table().variants.get((name, column(version)))
    return found if found is not None else table().options[name]


def is_read(name: str, version: Version) -> Optional[bool]:
    """Whether the adapter of a version reads an option; None: unknown. Where no source of a version
    was at hand, it is what the versions before and after it agree on."""
    read, at = table().options[name].read, column(version)
    if read[at] is not None:
        return read[at]
    before = [read[one] for one in sorted(read) if one < at and read[one] is not None]
    after = [read[one] for one in sorted(read) if one > at and read[one] is not None]
    around = {before[-1] if before else None, after[0] if after else None}
    return around.pop() if len(around) == 1 else None


def history(name: str) -> str:
    """When an option came and went, in one phrase: "came with CANN 6.0", "came with a CANN from 8.0
    to 9.0, is gone since CANN 9.0"."""
    found: List[str] = []
    state: Optional[bool] = None
    unsure: Optional[Version] = None
    for at in table().columns:
        now = is_read(name, at)
        if now is None:
            unsure = unsure or at
        elif now != state:
            span = f"a CANN from {spelled(unsure)} to {spelled(at)}" if unsure else ""
            if now and (state is False or unsure):
                found.append(f"came with {span or 'CANN ' + spelled(at)}")
            elif not now and state:
                found.append(f"is gone since {span or 'CANN ' + spelled(at)}")
        if now is not None:
            state, unsure = now, None
    return ", ".join(found)


def first(name: str) -> Optional[Version]:
    """The oldest version that is known to read an option."""
    read = table().options[name].read
    return min((version for version in read if read[version]), default=None)


def _option(entry: Dict[str, Any]) -> Option:
    ignored = entry.get("without_effect_from")
    return Option(
        kind=KINDS[entry["type"]],
        default=entry["default"],
        choices=tuple(entry.get("values", ())),
        low=entry.get("low"),
        high=entry.get("high"),
        pattern=entry.get("pattern"),
        path=entry.get("path", ""),
        cards=tuple(entry["cards"]) if "cards" in entry else None,
        value_cards={key: tuple(cards) for key, cards in entry.get("value_cards", {}).items()},
        ignored_from=version_of(ignored) if ignored else None,
        read={version_of(text): value for text, value in entry["read"].items()},
    )
