"""The page of one evaluated model: every figure of its sets, without a training run."""

import html
from typing import Mapping

from evaluation.report import rates, sections
from evaluation.report.page import SYNTHETIC, page, percent
from evaluation.report.rates import SetExtras
from evaluation.report.run_logs import Run
from evaluation.saved_pairs import SavedPairs


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
