"""The page of one evaluated model: every figure of its sets, without a training run."""

import html
import json
import os
from typing import Dict, Mapping, Sequence, Tuple

from evaluation.groups import to_json
from evaluation.report import rates, sections
from evaluation.report.page import SYNTHETIC, page, percent, write_page
from evaluation.report.rates import SetExtras
from evaluation.report.run_logs import Run
from evaluation.saved_pairs import SavedPairs
from evaluation.verification_set import SetResult
from runtime.files import atomic_write

Extras = Dict[Tuple[str, str], SetExtras]  # of each checkpoint and set


def model_page(model: str, best: Mapping[str, SavedPairs], extras: Mapping[str, SetExtras]) -> str:
    """A document. model: its name; best: set -> scores."""
    run = Run(model, {}, [], {name: [saved.row] for name, saved in best.items()}, dict(best))
    parts = [
        _header(model, best),
        sections.separation(run),
        rates.operating_section(best),
        rates.trust_section(best, extras),
        rates.groups_section(extras),
        sections.hardest(run),
    ]
    body = "\n".join(part for part in parts if part)
    return page(f"{model}: evaluation", f"{body}\n{_footer()}")


def _header(model: str, best: Mapping[str, SavedPairs]) -> str:
    rows = "".join(_accuracy_row(name, saved) for name, saved in best.items())
    synthetic = any(saved.row.get("synthetic") for saved in best.values())
    note = f'<p class="synthetic">{SYNTHETIC}</p>' if synthetic else ""
    heads = "".join(
        f'<th class="number">{head}</th>' for head in ("Accuracy-Flip, %", "95 % interval", "pairs")
    )
    return (
        f'<header><div class="top"><b>evaluation</b></div><h1>{html.escape(model)}</h1>{note}'
        f'<div class="scroll"><table><thead><tr><th>set</th>{heads}</tr></thead><tbody>{rows}'
        "</tbody></table></div></header>"
    )


def _accuracy_row(name: str, saved: SavedPairs) -> str:
    row = saved.row
    low, high = row["accuracy_flip_interval"]
    cells = (
        f"{percent(row['accuracy_flip'])} ± {percent(row['accuracy_flip_std'])}",
        f"{percent(low)} to {percent(high)}",
        f"{row['genuine'] + row['impostor']:,}",
    )
    numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
    return f"<tr><th>{html.escape(name)}</th>{numbers}</tr>"


def _footer() -> str:
    return (
        "<footer>Written by <code>eval_ckpt_file.py --report</code>; docs/evaluation.md explains "
        "the figures.</footer>"
    )


def write_model_pages(
    directory: str, results: Sequence[Tuple[str, SetResult]], extras: Extras
) -> None:
    """Writes <directory>/<checkpoint>/report.html, and groups.json where --groups is given."""
    for prefix in dict.fromkeys(prefix for prefix, _ in results):
        name = os.path.basename(prefix)
        of_sets = {result.name: result for other, result in results if other == prefix}
        of_extras = {each: extras[prefix, each] for each in of_sets}
        saved = {each: result.saved() for each, result in of_sets.items()}
        path = os.path.join(directory, name, "report.html")
        print(write_page(path, model_page(name, saved, of_extras)))
        groups = {each: extra.groups for each, extra in of_extras.items() if extra.groups}
        if groups:
            with atomic_write(os.path.join(directory, name, "groups.json")) as stream:
                json.dump({each: to_json(one) for each, one in groups.items()}, stream, indent=1)
