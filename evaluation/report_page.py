"""A Run -> the HTML of its report, section by section. No request leaves the page."""

import base64
import html
import json
import os
import time

import verification
from evaluation import health
from evaluation.charts import (
    COLOURS,
    POINTS,
    Scale,
    Series,
    histogram,
    line_chart,
    smoothed,
    spell,
)

SHOWN_PAIRS = 6
SCALE_MARKS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9999)
SCALE_LABELS = 5
SMOOTH_FROM = 40  # points below which a line is drawn as it is
ROC_FLOOR = 1e-6
SYNTHETIC = (
    "Synthetic faces, drawn by a program. These figures show that the pipeline works; "
    "they say nothing about real people."
)
ICONS = {
    health.OK: "M3 9.5l4 4 8-9",
    health.WATCH: "M9 3v8M9 14.2v.6",
    health.BAD: "M4 4l10 10M14 4L4 14",
}


def page(title, body):
    """A whole document around a body; style and script are inside it."""
    here = os.path.dirname(os.path.abspath(__file__))
    style, script = (_text(os.path.join(here, name)) for name in ("report.css", "report.js"))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{html.escape(title)}</title>\n<style>\n{style}</style></head>\n"
        f"<body>\n{body}\n<script>\n{script}</script>\n</body></html>\n"
    )


def run_body(run):
    """Everything between <body> and </body> of one run's report."""
    parts = [
        _header(run),
        '<div class="first">',
        _scoreboard(run),
        _checks(run),
        "</div>",
        _accuracy(run),
        _training(run),
        _separation(run),
        _hardest(run),
        _facts(run),
        _footer(run),
    ]
    return "\n".join(part for part in parts if part)


def colour_of(names, name):
    return f"c{list(names).index(name) % COLOURS}"


def percent(value, digits=2):
    return f"{100 * value:.{digits}f}"


def _header(run):
    level, sentence = health.verdict(health.checks(run))
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
        for check in health.checks(run)
    )
    empty = '<p class="empty">Checks come with the first lines of metrics.jsonl.</p>'
    return (
        f'<div><h2>Is it training?</h2><ul class="checks">{rows}</ul>{"" if rows else empty}</div>'
    )


def _accuracy(run):
    if not any(len(lines) > 1 for lines in run.validations.values()):
        return ""
    return (
        "<section><h2>Accuracy through training</h2><p>Image and mirror image together, threshold "
        "chosen on nine tenths and judged on the tenth. The band is one standard deviation over "
        f'the folds.</p><div class="charts two">{accuracy_chart(run)}{far_chart(run)}</div>'
        "</section>"
    )


def accuracy_chart(run):
    """Accuracy-Flip over steps, a line a set, the best of each marked."""
    series = [
        _set_series(run, name, lines, colour_of(run.validations, name))
        for name, lines in run.validations.items()
    ]
    low = min(min(one.y) for one in series)
    high = max(max(one.y) for one in series)
    floor = max(1.0 - high, _one_mistake(run)) * 0.8
    return line_chart(
        series,
        "Accuracy",
        y_kind="error",
        y_format="percent",
        y_range=(min(low, 0.5), 1.0 - floor),
        floor=floor,
    )


def _one_mistake(run):
    """The smallest error rate above 0 that the sets can show."""
    pairs = [
        line["genuine"] + line["impostor"]
        for lines in run.validations.values()
        for line in lines
        if "genuine" in line
    ]
    return 1.0 / max(pairs, default=6000)


def _set_series(run, name, lines, colour):
    values = [line["accuracy_flip"] for line in lines]
    spread = [line.get("accuracy_flip_std", 0.0) for line in lines]
    band = (
        [value - std for value, std in zip(values, spread)],
        [min(1.0, value + std) for value, std in zip(values, spread)],
    )
    best = lines.index(run.best_line(name))
    steps = [line["step"] for line in lines]
    return Series(name, steps, values, colour, band, best, f"{percent(values[best])} %")


def far_chart(run, target="0.001"):
    """TAR at FAR 1e-3 over steps: what a door's lock would care for."""
    series = [
        Series(
            name,
            [line["step"] for line in lines],
            [line.get("tar_at_far", {}).get(target) for line in lines],
            colour_of(run.validations, name),
        )
        for name, lines in run.validations.items()
    ]
    return line_chart(
        series, "True accepts at 0.1 % false accepts", y_format="percent", y_range=(0, 1.02)
    )


def _training(run):
    if not run.train:
        return ""
    rates = [line["learning_rate"] for line in run.train if line.get("learning_rate")]
    wide = rates and max(rates) > 30 * min(rates)
    charts = [
        _curve(run, "Loss", (("loss", "with decay"), ("inference_loss", "margin loss"))),
        _curve(
            run,
            "Training accuracy",
            (("accuracy", "without margin"), ("accuracy_margin", "with margin")),
            y_format="percent",
        ),
        _curve(run, "Learning rate", (("learning_rate", ""),), y_kind="log" if wide else "linear"),
        _curve(run, "Images a second", (("images_per_second", ""),)),
    ]
    return f'<section><h2>Training</h2><div class="charts two">{"".join(charts)}</div></section>'


def _curve(run, title, names, **style):
    """One or more columns of metrics.jsonl; noisy lines get a smooth one over them."""
    series = []
    for i, (name, label) in enumerate(names):
        lines = [line for line in run.train if isinstance(line.get(name), (int, float))]
        x, y = [line["step"] for line in lines], [line[name] for line in lines]
        if len(y) > SMOOTH_FROM and name != "learning_rate":
            series.append(Series("", x, y, f"c{i}", faint=True))
            y = smoothed(y)
        series.append(Series(label, x, y, f"c{i}"))
    return line_chart(series, title, **style)


def _separation(run):
    if not run.best:
        return ""
    charts = [roc_chart(run)] + [_histogram(name, saved) for name, saved in run.best.items()]
    steps = sorted({saved.row.get("step") for saved in run.best.values()} - {None})
    which = f" at step {steps[-1]:,}" if steps else ""
    return (
        f"<section><h2>How well it tells people apart</h2><p>The best checkpoint{which}. Pairs "
        "right of the threshold are taken for one person; the solid parts are its mistakes.</p>"
        f'<div class="charts">{"".join(charts)}</div>{_far_table(run)}</section>'
    )


def roc_chart(run):
    """TAR over FAR on a log axis, down to the smallest FAR that the pairs can show."""
    series, lowest = [], 1.0
    for name, saved in run.best.items():
        far, tar, _ = verification.roc_curve(saved.distances_P, saved.issame_P)
        smallest = 1.0 / max(1, int((~saved.issame_P).sum()))
        lowest = min(lowest, smallest)
        keep = _corners(far, tar)
        x = [max(float(far[i]), smallest / 2) for i in keep]
        y = [float(tar[i]) for i in keep]
        series.append(Series(name, x, y, _colour_in(run, name)))
    lowest = max(lowest, ROC_FLOOR)
    low = min(min((b for a, b in zip(one.x, one.y) if a >= lowest), default=0) for one in series)
    return line_chart(
        series,
        "ROC",
        x_label="false accept rate",
        x_kind="log",
        x_range=(lowest, 1.0),
        y_format="percent",
        y_range=(max(0.0, low - 0.05) if low > 0.5 else 0.0, 1.01),
    )


def _colour_in(run, name):
    return colour_of(run.validations, name) if name in run.validations else "c7"


def _corners(far, tar):
    """The points of a ROC that a screen can show: its ends and a few hundred between, log-spaced
    in FAR."""
    count = len(far)
    if count <= POINTS:
        return list(range(count))
    wanted = [10 ** (-6 * (1 - i / (POINTS - 2.0))) for i in range(POINTS - 1)]
    found = {0, count - 1} | {
        min(count - 1, int(far.searchsorted(at, "right")) - 1) for at in wanted
    }
    return sorted(i for i in found if i >= 0)


def _histogram(name, saved):
    cosines = 1.0 - saved.distances_P / 2.0
    genuine, impostor = cosines[saved.issame_P], cosines[~saved.issame_P]
    threshold = 1.0 - saved.row.get("threshold", 1.0) / 2.0
    return histogram(genuine.tolist(), impostor.tolist(), threshold, f"Pairs of {name}")


def _far_table(run):
    targets = sorted({far for saved in run.best.values() for far in saved.row["tar_at_far"]})
    targets.sort(key=float, reverse=True)
    heads = "".join(f'<th class="number">FAR {spell(float(far))}</th>' for far in targets)
    rows = "".join(_far_row(name, saved, targets) for name, saved in run.best.items())
    rough = any(
        float(far) * saved.row["impostor"] < 1
        for saved in run.best.values()
        for far in saved.row["tar_at_far"]
    )
    note = (
        '<p class="key">~ the set has too few pairs of different people for this rate: one false '
        "accept is already more.</p>"
    )
    return (
        '<div class="scroll"><table><thead><tr><th>True accepts at</th>'
        f'{heads}<th class="number">AUC</th><th class="number">EER</th>'
        '<th class="number">threshold, squared distance</th><th class="number">as cosine</th>'
        f'<th class="number">pairs</th></tr></thead><tbody>{rows}</tbody></table></div>'
        f"{note if rough else ''}"
    )


def _far_row(name, saved, targets):
    row = saved.row
    cells = []
    for far in targets:
        tar = row["tar_at_far"].get(far)
        rough = "~ " if tar is not None and float(far) * row["impostor"] < 1 else ""
        cells.append("–" if tar is None else f"{rough}{percent(tar)} %")
    cells += [f"{row['auc']:.4f}", f"{percent(row['eer'])} %", f"{row['threshold']:.3f}"]
    cells += [f"{1 - row['threshold'] / 2:.3f}", f"{row['genuine'] + row['impostor']:,}"]
    numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
    return f"<tr><th>{html.escape(name)}</th>{numbers}</tr>"


def _hardest(run):
    parts = [_hardest_of(name, saved) for name, saved in run.best.items() if saved.hardest]
    if not parts:
        return ""
    return (
        "<section><h2>The hardest pairs</h2><p>Look here first: wrong labels, bad crops and "
        f"occlusion show as faces.</p>{''.join(parts)}</section>"
    )


def _hardest_of(name, saved):
    alike = [pair for pair in saved.hardest if not saved.issame_P[pair]]
    unlike = [pair for pair in saved.hardest if saved.issame_P[pair]]
    alike.sort(key=lambda pair: saved.distances_P[pair])
    unlike.sort(key=lambda pair: -saved.distances_P[pair])
    kinds = (
        ("different people, most alike", alike),
        ("one person, least alike", unlike),
    )
    return "".join(
        f'<div class="kind"><h3>{html.escape(name)}: {what}</h3><ul class="pairs">'
        + "".join(_pair(saved, pair) for pair in pairs[:SHOWN_PAIRS])
        + "</ul></div>"
        for what, pairs in kinds
        if pairs
    )


def _pair(saved, pair):
    distance, same = saved.distances_P[pair], bool(saved.issame_P[pair])
    wrong = (distance < saved.row["threshold"]) != same
    said = "false accept" if not same else "false reject"
    verdict = f'<span class="verdict">{said}</span>' if wrong else '<span class="fine">right</span>'
    images = "".join(
        f'<img src="{data_uri(image)}" alt="{side} image of pair {pair}" loading="lazy">'
        for side, image in zip(("first", "second"), saved.hardest[pair])
    )
    return (
        f'<li><div class="images">{images}</div><p>{verdict}, cosine {1 - distance / 2:.3f}<br>'
        f'<span class="fine">pair {pair}</span></p></li>'
    )


def data_uri(image):
    """Encoded image bytes -> a URI that carries them."""
    kind = "png" if image[:4] == b"\x89PNG" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


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
        f"<div><dt>{html.escape(str(name))}</dt><dd>{html.escape(_value(value))}</dd></div>"
        for name, value in sorted(facts.items())
    )
    return f"<dl>{rows}</dl>"


def _value(value):
    if value is None:
        return "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_value, value))
    return json.dumps(value) if isinstance(value, (dict, bool)) else str(value)


def _footer(run):
    return (
        f"<footer>Drawn from <code>logs/metrics.jsonl</code>, <code>config.json</code> and "
        f"<code>best/</code> of the run. Again by hand: <code>python -m evaluation.report "
        f"{html.escape(run.path)}</code></footer>"
    )


def _text(path):
    with open(path, encoding="utf-8") as stream:
        return stream.read()
