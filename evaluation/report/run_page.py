"""A Run -> the HTML of its report: the result and its health first, what was run last."""

import html
import time

from evaluation.report import diagnostics, sections
from evaluation.report.charts import Scale, spell
from evaluation.report.page import SYNTHETIC, colour_of, percent, value_text

SCALE_MARKS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9999)
SCALE_LABELS = 5
ICONS = {
    diagnostics.OK: "M3 9.5l4 4 8-9",
    diagnostics.WATCH: "M9 3v8M9 14.2v.6",
    diagnostics.BAD: "M4 4l10 10M14 4L4 14",
}


def run_body(run):
    """Everything between <body> and </body> of one run's report."""
    parts = [
        _header(run),
        '<div class="first">',
        _scoreboard(run),
        _checks(run),
        "</div>",
        sections.accuracy(run),
        sections.training(run),
        sections.separation(run),
        sections.hardest(run),
        _facts(run),
        _footer(run),
    ]
    return "\n".join(part for part in parts if part)


def _header(run):
    level, sentence = diagnostics.verdict(diagnostics.checks(run))
    total = run.total_steps
    if total and run.last_step >= total:
        sentence += ", and done"
    steps = f"step {run.last_step:,}" + (f" of {total:,}" if total else "")
    stamp = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    synthetic = f'<p class="synthetic">{SYNTHETIC}</p>' if run.synthetic else ""
    return (
        f'<header><div class="top"><b>{html.escape(run.name)}</b><span>{steps}</span>'
        f"<span>drawn {stamp}</span></div><h1>{html.escape(sentence)}.</h1>"
        f'<p class="lede soft">{html.escape(_net_sentence(run))}</p>{synthetic}</header>'
    )


def _net_sentence(run):
    """What was trained on what, in a line, of what config.json says."""
    net, training, dataset = (run.section(name) for name in ("net", "training", "dataset"))
    if not net:
        return "config.json is not there, so the net and its data are not known."
    block = "SE-IR" if net.get("block") == "se" else "IR"
    depth = f"{block}-{net.get('net_depth')}"
    said = [f"{depth} of lineage {net.get('lineage')}"]
    if net.get("width", 1) != 1:
        said.append(f"{net['width']:g} of its width")
    said.append(f"{net.get('embedding_size')} numbers a face")
    if training.get("loss"):
        said.append(f"{training['loss']} loss")
    if dataset.get("images"):
        said.append(f"{dataset['identities']:,} people in {dataset['images']:,} images")
    return ", ".join(said) + "."


def _scoreboard(run):
    if not run.validations:
        return (
            '<div><h2>Accuracy on people it has not seen</h2><p class="empty">No validation yet. '
            "It comes with <code>--eval_db_path</code> and <code>--validate_interval</code>."
            "</p></div>"
        )
    scale = Scale(0.5, _top(run), 0, 100, "error", floor=1e-9)
    rows = "".join(_set_row(run, name, scale) for name in run.validations)
    marks = "".join(
        f'<span style="left:{scale(mark):g}%">{spell(mark, "percent")}</span>'
        for mark in _scale_marks(scale)
    )
    return (
        "<div><h2>Accuracy on people it has not seen</h2>"
        f'{rows}<div class="scale" aria-hidden="true">{marks}</div>'
        '<p class="key">○ before training&ensp;● best&ensp;▮ its 95 % interval over the folds. '
        "Each mark to the right is fewer errors by a constant factor; 50 % is a coin.</p></div>"
    )


def _top(run):
    """The scale's right end: the first mark beyond every accuracy and interval."""
    highest = max(
        max(line["accuracy_flip"], *line.get("accuracy_flip_interval", [0.0]))
        for lines in run.validations.values()
        for line in lines
    )
    return next((mark for mark in SCALE_MARKS if mark > highest), SCALE_MARKS[-1])


def _scale_marks(scale):
    """A few round accuracies from one end of the scale to the other."""
    marks = [mark for mark in SCALE_MARKS if mark <= scale.high]
    stride = -(-len(marks) // SCALE_LABELS)
    return [0.5] + [mark for mark in marks[::-1][::stride][::-1] if mark > 0.5]


def _set_row(run, name, scale):
    lines, best = run.validations[name], run.best_line(name)
    accuracy, std = best["accuracy_flip"], best.get("accuracy_flip_std", 0.0)
    low, high = best.get("accuracy_flip_interval", (accuracy, accuracy))
    start = lines[0]["accuracy_flip"] if lines[0]["step"] == 0 else None
    at = {key: scale(value) for key, value in dict(low=low, high=high, best=accuracy).items()}
    marks = "".join(f'<i style="left:{scale(mark):g}%"></i>' for mark in _scale_marks(scale))
    dots = ""
    if start is not None:
        left = scale(start)
        dots += (
            f'<span class="gain" style="left:{left:g}%;width:{max(at["best"] - left, 0):g}%">'
            f'</span><span class="start" style="left:{left:g}%"></span>'
        )
    dots += (
        f'<span class="range" style="left:{at["low"]:g}%;width:{at["high"] - at["low"]:g}%">'
        f'</span><span class="best" style="left:{at["best"]:g}%"></span>'
    )
    return (
        f'<div class="set"><div class="line"><span class="name">{html.escape(name)}</span>'
        f'<span class="big">{percent(accuracy)}<small> % ± {percent(std)}</small></span></div>'
        f'<p class="facts">{_set_facts(best, start)}</p>'
        f'<div class="track {colour_of(run.validations, name)}">{marks}{dots}</div></div>'
    )


def _set_facts(best, start):
    said = [f"step {best['step']:,}"]
    if start is not None:
        said.append(f"{percent(start, 1)} % before training")
    if "threshold" in best:
        said.append(f"same person from cosine {1 - best['threshold'] / 2:.3f}")
    tar = best.get("tar_at_far", {}).get("0.001")
    if tar is not None:
        rough = "about " if best.get("impostor", 1000) < 1000 else ""
        said.append(f"TAR {rough}{percent(tar, 1)} % at FAR 0.1 %")
    return ", ".join(said)


def _checks(run):
    rows = "".join(
        f'<li><svg viewBox="0 0 18 18" class="{check.level}" role="img" '
        f'aria-label="{check.level}"><path d="{ICONS[check.level]}" fill="none" '
        'stroke="currentColor" stroke-width="2.4" stroke-linecap="round"/></svg>'
        f"<p><b>{html.escape(check.question)}</b> {html.escape(check.answer)}</p></li>"
        for check in diagnostics.checks(run)
    )
    empty = '<p class="empty">Checks come with the first lines of metrics.jsonl.</p>'
    return (
        f'<div><h2>Is it training?</h2><ul class="checks">{rows}</ul>{"" if rows else empty}</div>'
    )


def _facts(run):
    titles = (
        ("training", "Configuration", "every flag of the run"),
        ("net", "Net", "what the checkpoint holds"),
        ("dataset", "Dataset", "what it was trained on"),
        ("environment", "Environment", "where it ran"),
    )
    parts = "".join(
        f"<details><summary>{title} <span>{what}</span></summary>"
        f"{_terms(run.section(name))}</details>"
        for name, title, what in titles
        if run.section(name)
    )
    return f"<section><h2>What was run</h2>{parts}</section>" if parts else ""


def _terms(facts):
    rows = "".join(
        f"<div><dt>{html.escape(str(name))}</dt><dd>{html.escape(value_text(value))}</dd></div>"
        for name, value in sorted(facts.items())
    )
    return f"<dl>{rows}</dl>"


def _footer(run):
    return (
        f"<footer>Drawn from <code>logs/metrics.jsonl</code>, <code>config.json</code> and "
        f"<code>best/</code> of the run. Again by hand: <code>python -m evaluation.report "
        f"{html.escape(run.path)}</code></footer>"
    )
