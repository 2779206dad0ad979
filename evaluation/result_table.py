"""The rows of evaluated checkpoints as aligned text and as CSV."""

import csv
import os
from typing import Any, Dict, List, Optional, Sequence, Tuple

from runtime.files import atomic_write

SHOWN_FAR = "0.001"
HEADINGS = (
    "checkpoint",
    "set",
    "Accuracy",
    "Accuracy-Flip",
    "95 % interval",
    "threshold",
    "TAR@FAR=1e-3",
    "achieved FAR",
)
Row = Dict[str, Any]  # SetResult.row() with checkpoint and step


def table(rows: Sequence[Row], width: Optional[int] = None) -> str:
    """Rows -> aligned text; the highest Accuracy-Flip of each set is marked. width: columns of the
    terminal; a table that is wider becomes a block of lines per row."""
    best: Dict[str, float] = {}
    for entry in rows:
        best[entry["set"]] = max(best.get(entry["set"], 0.0), entry["accuracy_flip"])
    lines = [HEADINGS] + [_cells(entry, best) for entry in rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    if width is not None and sum(widths) + 2 * (len(widths) - 1) > width:
        return "\n\n".join(_block(line) for line in lines[1:])
    return "\n".join(
        "  ".join(cell.ljust(size) for cell, size in zip(line, widths)).rstrip() for line in lines
    )


def _block(cells: Sequence[str]) -> str:
    size = max(map(len, HEADINGS))
    return "\n".join(f"{name.ljust(size)}  {cell}" for name, cell in zip(HEADINGS, cells))


def _cells(entry: Row, best: Dict[str, float]) -> Tuple[str, ...]:
    mark = " *" if entry["accuracy_flip"] == best[entry["set"]] else ""
    return (
        os.path.basename(entry["checkpoint"]),
        entry["set"],
        f"{entry['accuracy']:.5f} +- {entry['accuracy_std']:.5f}",
        f"{entry['accuracy_flip']:.5f} +- {entry['accuracy_flip_std']:.5f}{mark}",
        "{:.5f} to {:.5f}".format(*entry["accuracy_flip_interval"]),
        f"{entry['threshold']:.3f} (cosine {entry['cosine']:.3f})",
        f"{entry['tar_at_far'][SHOWN_FAR]:.5f} +- {entry['tar_std'][SHOWN_FAR]:.5f}{_rough(entry)}",
        f"{entry['achieved_far'][SHOWN_FAR]:.5f}",
    )


def _rough(entry: Row) -> str:
    """Marks a FAR target below one false accept of the set."""
    return " ~" if entry["impostor"] * float(SHOWN_FAR) < 1 else ""


def notes(rows: Sequence[Row]) -> str:
    """The meaning of the table's marks, and which sets hold synthetic faces."""
    lines = []
    if len(rows) > len({entry["set"] for entry in rows}):
        lines.append("* the highest of its set")
    if any(_rough(entry) for entry in rows):
        lines.append("~ fewer than 1,000 impostor pairs: a single false accept exceeds FAR 1e-3")
    lines += _best_mean(rows)
    synthetic = list(dict.fromkeys(entry["set"] for entry in rows if entry["synthetic"]))
    if synthetic:
        lines.append(f"synthetic faces, no measure of real ones: {', '.join(synthetic)}")
    return "\n".join(lines)


def _best_mean(rows: Sequence[Row]) -> List[str]:
    """A line that names the checkpoint with the highest mean over several sets."""
    sums: Dict[str, List[float]] = {}
    for entry in rows:
        sums.setdefault(entry["checkpoint"], []).append(entry["accuracy_flip"])
    if len(sums) < 2 or len(rows) == len(sums):
        return []
    means = {checkpoint: sum(values) / len(values) for checkpoint, values in sums.items()}
    best = max(means, key=lambda checkpoint: means[checkpoint])
    return [f"highest mean Accuracy-Flip: {os.path.basename(best)}, {means[best]:.5f}"]


def write_csv(path: str, rows: Sequence[Row]) -> None:
    """One line per row; each FAR target has its own columns."""
    flat = []
    for row in rows:
        entry = dict(row)
        low, high = entry.pop("accuracy_flip_interval")
        entry.update(accuracy_flip_low=low, accuracy_flip_high=high)
        for name in ("tar_at_far", "tar_std", "achieved_far"):
            entry.update((f"{name}_{far}", value) for far, value in entry.pop(name).items())
        flat.append(entry)
    names = list(dict.fromkeys(name for entry in flat for name in entry))
    with atomic_write(path, newline="") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(flat)
