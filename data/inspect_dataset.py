"""python data/inspect_dataset.py PATH: what a data set holds, what is broken in it, and a picture.

PATH: a .rec (or the folder of a train.rec), a directory of shards or one of them, a folder
<identity>/<image>, or a .bin.
"""

import dataclasses
import os
import sys
from typing import List, Optional

if __package__ in (None, ""):  # run as a file: imports start at the repository's root
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

from data.contact_sheet import write_sheet  # noqa: E402
from data.crop_geometry import FEWEST, face_shift, is_misaligned  # noqa: E402
from data.crop_geometry import describe as shift_text  # noqa: E402
from data.dataset_stats import SHOWN_EACH, Survey, survey  # noqa: E402
from data.eval_data_reader import decode_images  # noqa: E402
from runtime.cli import run  # noqa: E402
from runtime.flags import flag, parse_flags  # noqa: E402

SHOWN_BROKEN, SHOWN_SIZES, BAR = 10, 5, 40


@dataclasses.dataclass(frozen=True)
class InspectConfig:
    path: str = flag(
        dataclasses.MISSING, "the data set: a .rec, shards, a folder of identities or a .bin"
    )
    contact_sheet: str = flag("contact_sheet.png", "PNG to write; '' writes none")
    compare: Optional[str] = flag(
        None, "another data set; prints how far the mean faces of the two are shifted"
    )
    decode: bool = flag(False, "decode every image instead of looking at its first and last bytes")


def main(argv: Optional[List[str]] = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and not argv[0].startswith("-"):
        argv.insert(0, "--path")
    config = parse_flags(InspectConfig, argv, __doc__)
    found = _survey(config.path, config.decode)
    print("\n".join(describe(found)))
    if config.compare:
        print("\n".join(compared(found, _survey(config.compare, False))))
    rows = found.rows()
    if config.contact_sheet and rows:
        write_sheet(config.contact_sheet, rows, SHOWN_EACH)
        print(f"contact sheet        {config.contact_sheet}")


def _survey(path: str, decode: bool) -> Survey:
    return survey(path, decode, lambda items: tqdm(items, unit=" images", disable=None))


def compared(found: Survey, other: Survey) -> List[str]:
    """By how much the faces are shifted against those of another data set, as lines."""
    sizes = other.sizes.most_common(1)
    size = sizes[0][0] if sizes and sizes[0][0] else (112, 112)
    images, others = (decode_images(one.sample, size, one.path) for one in (found, other))
    shift = face_shift(images, others)
    if shift is None:
        text = f"unknown: too few images ({FEWEST} are needed), or the means have nothing in common"
    elif is_misaligned(shift, size[0]):
        text = (
            f"the mean face of {other.path} is {shift_text(shift)} of this one: the sets are cut "
            "with different templates, which costs accuracy"
        )
    else:
        text = f"none: the mean faces of both sets coincide (within {max(map(abs, shift))} pixels)"
    return _entry("shift of the faces", [text])


def describe(found: Survey) -> List[str]:
    """Survey -> lines."""
    lines = _entry("layout", found.layout) + _entry("images", [f"{found.images:,}"])
    if found.identities:
        lines += _entry("identities", [_identities(found.identities)])
        counts = np.array(list(found.identities.values()))
        spread = f"min {counts.min()}  median {np.median(counts):g}  max {counts.max()}"
        lines += _entry("images per identity", [spread] + histogram(counts))
    sizes = [f"{count:>9,}  {_size(size)}" for size, count in found.sizes.most_common(SHOWN_SIZES)]
    if len(found.sizes) > SHOWN_SIZES:
        sizes.append(f"{'':>9}  and {len(found.sizes) - SHOWN_SIZES} more sizes")
    broken = found.broken[:SHOWN_BROKEN]
    if len(found.broken) > SHOWN_BROKEN:
        broken = broken + [f"and {len(found.broken) - SHOWN_BROKEN:,} more"]
    lines += _entry("image sizes", sizes or ["none"])
    return lines + _entry("broken", [f"{len(found.broken):,}"] + broken)


def histogram(counts: np.ndarray) -> List[str]:
    """Images per identity, in classes that double: text lines."""
    classes = np.floor(np.log2(counts)).astype(int)
    heights = np.bincount(classes)
    lines = []
    for power in range(classes.min(), classes.max() + 1):
        low, high = 2**power, 2 ** (power + 1) - 1
        span = f"{low}" if low == high else f"{low}-{high}"
        bar = "#" * int(np.ceil(BAR * heights[power] / heights.max()))
        lines.append(f"{span:>13}  {heights[power]:>9,}  {bar}".rstrip())
    return lines


def _identities(identities):
    """How many, and whether their numbers have gaps."""
    text = f"{len(identities):,}"
    if all(isinstance(identity, int) for identity in identities):
        low, high = min(identities), max(identities)
        gaps = high - low + 1 - len(identities)
        text += f" (labels {low} to {high}, {gaps:,} of them without images)"
    return text


def _size(size):
    return "unknown" if size is None else f"{size[0]} x {size[1]}"


def _entry(name, texts):
    return [f"{name if i == 0 else '':<20} {text}" for i, text in enumerate(texts)]


if __name__ == "__main__":
    run(main)
