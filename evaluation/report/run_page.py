"""The report of a run as HTML: result and health first, configuration last."""

import html
import os
import shlex
import time
from typing import Any, Dict, List, Optional

from evaluation.report import diagnostics, rates, sections
from evaluation.report.charts import Scale, spell
from evaluation.report.page import SYNTHETIC, colour_of, percent, value_text
from evaluation.report.run_logs import Line, Run

SCALE_MARKS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9999)
SCALE_LABELS = 5
ICONS = {
    diagnostics.OK: "M3 9.5l4 4 8-9",
    diagnostics.WATCH: "M9 3v8M9 14.2v.6",
    diagnostics.BAD: "M4 4l10 10M14 4L4 14",
}


def run_body(run: Run) -> str:
    """Everything between <body> and </body> of one run's report."""
    parts = [
        sections.accuracy(run),
        sections.training(run),
        sections.separation(run),
        rates.operating_section(run.best),
        rates.trust_section(run.best),
        sections.hardest(run),
        _files(run),
        _facts(run),
    ]
    shown = [part for part in parts if part]
    first = f'<div class="first">{_scoreboard(run)}{_checks(run)}</div>'
    return "\n".join([_header(run), _contents(shown), first, *shown, _footer(run)])


def _header(run: Run) -> str:
    level, sentence = diagnostics.verdict(diagnostics.checks(run))
    total = run.total_steps
    if total and run.last_step >= total and level == diagnostics.OK:
        sentence += ", and done"
    steps = f"step {run.last_step:,}" + (f" of {total:,}" if total else "")
    stamp = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    synthetic = f'<p class="synthetic">{SYNTHETIC}</p>' if run.synthetic else ""
    return (
        f'<header><div class="top"><b>{html.escape(run.name)}</b><span>{steps}</span>'
        f"<span>{html.escape(_duration(run.seconds))}</span><span>report of {stamp}</span></div>"
        f"<h1>{html.escape(sentence)}.</h1>"
        f'<p class="lede soft">{html.escape(_net_sentence(run))}</p>'
        f'<p class="soft">{html.escape(_host_sentence(run))}</p>{synthetic}</header>'
    )


def _contents(shown: List[str]) -> str:
    """Links to the sections."""
    links = []
    for part in shown:
        if part.startswith('<section id="'):
            anchor = part[len('<section id="') :].split('"')[0]
            title = part.split("<h2>")[1].split("</h2>")[0]
            links.append(f'<a href="#{anchor}">{title}</a>')
    return f'<nav class="contents">{"".join(links)}</nav>' if links else ""


def _duration(seconds: float) -> str:
    """Seconds as the two largest units: "1 h 05 min", "18 min 27 s"."""
    whole = int(round(seconds))
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def _net_sentence(run: Run) -> str:
    """Network, loss and data of config.json."""
    net, training, dataset = (run.section(name) for name in ("net", "training", "dataset"))
    if not net:
        return "config.json is missing, so the network and its data are unknown."
    block = "SE-IR" if net.get("block") == "se" else "IR"
    parts = [f"{block}-{net.get('net_depth')} of lineage {net.get('lineage')}"]
    if net.get("width", 1) != 1:
        parts.append(f"width {net['width']:g}")
    parts.append(f"{net.get('embedding_size')}-d embedding")
    if training.get("loss"):
        parts.append(f"{training['loss']} loss")
    if run.finetuned:
        parts.append(f"finetuned from {training['finetune']}")
    if dataset.get("images"):
        parts.append(f"{dataset['identities']:,} identities in {dataset['images']:,} images")
    return ", ".join(parts) + "."


def _host_sentence(run: Run) -> str:
    """Device, host and peak memory, as far as they were logged."""
    facts = run.section("environment")
    parts = []
    if facts.get("device"):
        parts.append(f"Device {facts['device']}")
    host = facts.get("processor") or facts.get("machine")
    if host:
        cores = f", {facts['cpus']} cores" if facts.get("cpus") else ""
        parts.append(f"host {host}{cores}")
    if facts.get("tensorflow"):
        parts.append(f"TensorFlow {facts['tensorflow']}")
    if run.peak_memory:
        parts.append(f"at most {run.peak_memory:g} GiB of main memory")
    return "; ".join(parts) + "." if parts else ""


def _scoreboard(run: Run) -> str:
    if not run.validations:
        return (
            '<div><h2>Verification accuracy</h2><p class="empty">No validation. Pass '
            "<code>--eval_db_path</code> and <code>--validate_interval</code> to the training."
            "</p></div>"
        )
    scale = Scale(0.5, _top(run), 0, 100, "error", floor=1e-9)
    rows = "".join(_set_row(run, name, scale) for name in run.validations)
    marks = "".join(
        f'<span style="left:{scale(mark):g}%">{spell(mark, "percent")}</span>'
        for mark in _scale_marks(scale)
    )
    return (
        f"<div><h2>Verification accuracy</h2>{_checkpoint(run)}"
        f'{rows}<div class="scale" aria-hidden="true">{marks}</div>'
        '<p class="key">○ before training&ensp;● this checkpoint&ensp;▮ its 95 % interval over the '
        "folds. Equal distances are equal factors of the error rate; 50 % is chance.</p></div>"
    )


def _checkpoint(run: Run) -> str:
    """The one checkpoint of all headline figures, with the commands that use it."""
    step = run.best_step
    if step == 0:
        return '<p class="facts">Step 0: no other step has been validated.</p>'
    which = f"Best mean over the sets: step {step:,}"
    if run.checkpoint is None:
        return f'<p class="facts">{which}. No checkpoint of this step is kept.</p>'
    prefix, sets = shlex.quote(run.checkpoint), run.section("training").get("eval_db_path")
    commands = [
        f"python eval_ckpt_file.py --ckpt_file {prefix} --eval_db_path "
        + (shlex.quote(str(sets)) if sets else "DIRECTORY"),
        f"python infer.py embed --ckpt_file {prefix} --images DIRECTORY --output embeddings.npy",
    ]
    name = html.escape(os.path.basename(run.checkpoint))
    return (
        f'<p class="facts">{which}, <code>{name}</code></p><details><summary>Commands '
        "<span>evaluate it, embed images with it</span></summary>"
        f"<pre>{html.escape(chr(10).join(commands))}</pre></details>"
    )


def _top(run: Run) -> float:
    """The scale's right end: the first mark above every accuracy and interval."""
    highest = max(
        max(line["accuracy_flip"], *line.get("accuracy_flip_interval", [0.0]))
        for lines in run.validations.values()
        for line in lines
    )
    return next((mark for mark in SCALE_MARKS if mark > highest), SCALE_MARKS[-1])


def _scale_marks(scale: Scale) -> List[float]:
    """A few round accuracies from one end of the scale to the other."""
    marks = [mark for mark in SCALE_MARKS if mark <= scale.high]
    stride = -(-len(marks) // SCALE_LABELS)
    return [0.5] + [mark for mark in marks[::-1][::stride][::-1] if mark > 0.5]


def _set_row(run: Run, name: str, scale: Scale) -> str:
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


def _set_facts(best: Line, start: Optional[float]) -> str:
    low, high = best.get("accuracy_flip_interval", (None, None))
    facts = [] if low is None else [f"95 % interval {percent(low)} to {percent(high)} %"]
    if start is not None:
        facts.append(f"{percent(start, 1)} % before training")
    if "threshold" in best:
        facts.append(f"threshold at cosine {1 - best['threshold'] / 2:.3f}")
    tar = best.get("tar_at_far", {}).get("0.001")
    if tar is not None:
        rough = "about " if best.get("impostor", 1000) < 1000 else ""
        facts.append(f"TAR {rough}{percent(tar, 1)} % at FAR 0.1 %")
    return ", ".join(facts)


def _checks(run: Run) -> str:
    rows = "".join(
        f'<li><svg viewBox="0 0 18 18" class="{check.level}" role="img" '
        f'aria-label="{check.level}"><path d="{ICONS[check.level]}" fill="none" '
        'stroke="currentColor" stroke-width="2.4" stroke-linecap="round"/></svg>'
        f"<p><b>{html.escape(check.question)}</b> {html.escape(check.answer)}</p></li>"
        for check in diagnostics.checks(run)
    )
    empty = '<p class="empty">No metrics yet.</p>'
    return f'<div><h2>Health</h2><ul class="checks">{rows}</ul>{"" if rows else empty}</div>'


def _files(run: Run) -> str:
    """Links to the run's files, relative to report.html in the run's directory."""
    names = ("config.json", "logs/metrics.jsonl", "logs", "ckpt", "best", "summary")
    there = [name for name in names if os.path.exists(os.path.join(run.path, name))]
    links = "".join(f'<li><a href="{name}">{name}</a></li>' for name in there)
    return (
        f'<section id="files"><h2>Files</h2><ul class="files">{links}</ul></section>'
        if links
        else ""
    )


def _facts(run: Run) -> str:
    titles = (
        ("training", "Configuration", "every flag of the run"),
        ("net", "Network", "as in the checkpoint's record"),
        ("dataset", "Dataset", "the training data"),
        ("environment", "Environment", "host and versions"),
    )
    parts = "".join(
        f"<details><summary>{title} <span>{what}</span></summary>"
        f"{_terms(run.section(name))}</details>"
        for name, title, what in titles
        if run.section(name)
    )
    return f'<section id="run"><h2>Run</h2>{parts}</section>' if parts else ""


def _terms(facts: Dict[str, Any]) -> str:
    rows = "".join(
        f"<div><dt>{html.escape(str(name))}</dt><dd>{html.escape(value_text(value))}</dd></div>"
        for name, value in sorted(facts.items())
    )
    return f"<dl>{rows}</dl>"


def _footer(run: Run) -> str:
    command = f"python -m evaluation.report {shlex.quote(run.path)}"
    return (
        "<footer>Drawn from <code>logs/</code>, <code>config.json</code> and <code>best/</code>. "
        f"Redraw it with <code>{html.escape(command)}</code>; docs/evaluation.md explains the "
        "figures.</footer>"
    )
