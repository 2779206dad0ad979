"""The lower sections of a run's report: curves, separation of identities, the hardest pairs."""

import html
from typing import List, Sequence, Tuple

import numpy as np

import verification
from evaluation.report.charts import POINTS, Axis, Series, histogram, line_chart, smoothed, spell
from evaluation.report.page import colour_of, pair_item, percent
from evaluation.report.run_logs import Line, Run
from evaluation.saved_pairs import SavedPairs

SHOWN_PAIRS = 6
SMOOTH_FROM = 40  # points below which a line is drawn as it is
ROC_FLOOR = 1e-6


def accuracy(run: Run) -> str:
    """Accuracy over steps, as charts and as a table."""
    if not run.validations:
        return ""
    charts = ""
    if any(len(lines) > 1 for lines in run.validations.values()):
        drawn = accuracy_chart(run) + far_chart(run) + norm_chart(run)
        charts = f'<div class="charts two">{drawn}</div>'
    return (
        '<section id="accuracy"><h2>Accuracy through training</h2><p>Accuracy-Flip: embeddings of '
        "image and mirror image added; the threshold is chosen on nine folds and applied to the "
        "tenth. The band is the 95 % interval, a bootstrap over the folds. The marked step is the "
        f"best by the mean over all sets.</p>{charts}{_validation_table(run)}</section>"
    )


def accuracy_chart(run: Run) -> str:
    """Accuracy-Flip over steps, a line per set, the best step marked."""
    series = [
        _set_series(run, name, lines, colour_of(run.validations, name))
        for name, lines in run.validations.items()
    ]
    low = min(min(one.band[0]) for one in series if one.band)
    high = max(max(one.band[1]) for one in series if one.band)  # the band is inside the axis
    floor = max(1.0 - high, _one_error(run)) * 0.8
    reach = (min(low, 0.5), 1.0 - floor)
    return line_chart(series, "Accuracy", y_axis=Axis("", "error", "percent", reach, floor))


def _validation_table(run: Run) -> str:
    """Every validation: a row per step, two columns per set."""
    by_step = {
        name: {line["step"]: line for line in lines} for name, lines in run.validations.items()
    }
    steps = sorted({step for lines in by_step.values() for step in lines})
    heads = "".join(
        f'<th class="number">{html.escape(name)}</th><th class="number">TAR@FAR=1e-3</th>'
        for name in by_step
    )
    rows = "".join(
        f"<tr><th>{step:,}{' (best)' if step == run.best_step else ''}</th>"
        + "".join(_validation_cells(lines.get(step)) for lines in by_step.values())
        + "</tr>"
        for step in steps
    )
    return (
        f"<details><summary>All validations <span>{len(steps)} steps</span></summary>"
        f'<div class="scroll"><table><thead><tr><th>step</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def _validation_cells(line):
    if line is None:
        return '<td class="number">–</td>' * 2
    tar = line.get("tar_at_far", {}).get("0.001")
    spread = percent(line.get("accuracy_flip_std", 0.0))
    return (
        f'<td class="number">{percent(line["accuracy_flip"])} ± {spread}</td>'
        f'<td class="number">{"–" if tar is None else percent(tar)}</td>'
    )


def _one_error(run: Run) -> float:
    """The smallest error rate above 0 on the sets: one error of all pairs."""
    pairs = [
        line["genuine"] + line["impostor"]
        for lines in run.validations.values()
        for line in lines
        if "genuine" in line
    ]
    return 1.0 / max(pairs, default=6000)


def _set_series(run: Run, name: str, lines: Sequence[Line], colour: str) -> Series:
    values = [line["accuracy_flip"] for line in lines]
    bands = [_interval(line) for line in lines]
    best, steps = lines.index(run.best_line(name)), [line["step"] for line in lines]
    band = ([low for low, _ in bands], [high for _, high in bands])
    return Series(name, steps, values, colour, band, best, f"{percent(values[best])} %")


def _interval(line: Line) -> Tuple[float, float]:
    """The 95 % interval of a validation; logs of old runs have the standard deviation alone."""
    value, std = line["accuracy_flip"], line.get("accuracy_flip_std", 0.0)
    low, high = line.get("accuracy_flip_interval", (value - std, min(1.0, value + std)))
    return min(low, value), max(high, value)


def far_chart(run: Run, target: str = "0.001") -> str:
    """TAR at FAR 1e-3 over steps."""
    series = [
        Series(
            name,
            [line["step"] for line in lines],
            [line.get("tar_at_far", {}).get(target) for line in lines],
            colour_of(run.validations, name),
        )
        for name, lines in run.validations.items()
    ]
    y_axis = Axis(form="percent", range=(0, 1.02))
    return line_chart(series, "TAR at FAR 0.1 %", y_axis=y_axis)


def norm_chart(run: Run) -> str:
    """Mean length of the embeddings over steps (XNorm), "" where it is not logged."""
    series = []
    for name, lines in run.validations.items():
        logged = [line for line in lines if "xnorm" in line]
        x, y = [line["step"] for line in logged], [line["xnorm"] for line in logged]
        series.append(Series(name, x, y, colour_of(run.validations, name)))
    return line_chart(series, "Embedding norm") if any(one.x for one in series) else ""


def training(run: Run) -> str:
    """Loss, accuracy, learning rate and throughput over steps."""
    if not run.train:
        return ""
    rates = [line["learning_rate"] for line in run.train if line.get("learning_rate")]
    wide = bool(rates) and max(rates) > 30 * min(rates)
    percents, rate_axis = Axis(form="percent"), Axis("", "log" if wide else "linear")
    charts = [
        _curve(run, "Loss", (("loss", "with weight decay"), ("inference_loss", "margin loss"))),
        _curve(
            run,
            "Training accuracy",
            (("accuracy", "without margin"), ("accuracy_margin", "with margin")),
            percents,
        ),
        _curve(run, "Learning rate", (("learning_rate", ""),), rate_axis),
        _curve(run, "Images per second", (("images_per_second", ""),)),
        _curve(run, "Share of time waiting for input", (("input_share", ""),), percents),
        _curve(run, "Gradient norm", (("gradient_norm", ""),)),
        _curve(run, "Floating-point operations per second", (("flops_per_second", ""),)),
        _curve(run, "Share of the device's peak", (("flops_share", ""),), percents),
        _curve(run, "Goodput: share of time in steps", (("goodput_share", ""),), percents),
    ]
    drawn = "".join(chart for chart in charts if chart)
    return (
        f'<section id="training"><h2>Training</h2><div class="charts two">{drawn}</div></section>'
    )


def _curve(run: Run, title: str, names: Sequence[Tuple[str, str]], y_axis: Axis = Axis()) -> str:  # noqa: B008
    """One or more columns of metrics.jsonl, "" where none is logged; noisy ones are smoothed."""
    series: List[Series] = []
    for i, (name, label) in enumerate(names):
        lines = [line for line in run.train if isinstance(line.get(name), (int, float))]
        x, y = [line["step"] for line in lines], [line[name] for line in lines]
        if len(y) > SMOOTH_FROM and name != "learning_rate":
            series.append(Series("", x, y, f"c{i}", faint=True))
            y = smoothed(y)
        if y:
            one = Series(label, x, y, f"c{i}")
            if name == "learning_rate":  # smoothed curves have no exact last value
                one = one._replace(mark=len(y) - 1, mark_text=spell(y[-1]))
            series.append(one)
    return line_chart(series, title, y_axis=y_axis) if series else ""


def separation(run: Run) -> str:
    """ROC, DET, histograms of cosines and the table of rates, all of the best checkpoint."""
    if not run.best:
        return ""
    charts = [roc_chart(run), det_chart(run)]
    charts += [_histogram(name, saved) for name, saved in run.best.items()]
    steps = sorted(saved.row["step"] for saved in run.best.values() if saved.row.get("step"))
    which = f" at step {steps[-1]:,}" if steps else ""
    return (
        f'<section id="separation"><h2>Separation of identities</h2><p>The best checkpoint{which}. '
        "A pair is accepted right of the threshold; the solid areas are errors. ROC and DET end at "
        "the smallest rate that the number of pairs can show.</p>"
        f'<div class="charts">{"".join(charts)}</div>{_far_table(run)}</section>'
    )


def roc_chart(run: Run) -> str:
    """TAR over FAR on a log axis, down to one false accept."""
    series, lowest = [], 1.0
    for name, saved in run.best.items():
        far, tar, _ = verification.roc_curve(saved.distances_P, saved.issame_P)
        smallest = _one_of(~saved.issame_P)
        lowest = min(lowest, smallest)
        start = int(far.searchsorted(0.0, "right")) - 1  # the last point without a false accept
        far, tar = far[start:], tar[start:]
        keep = _corners(far)
        x = [max(float(far[i]), smallest / 2) for i in keep]
        series.append(Series(name, x, [float(tar[i]) for i in keep], _colour_in(run, name)))
    lowest = max(lowest, ROC_FLOOR)
    low = min(min((b for a, b in zip(one.x, one.y) if a >= lowest), default=0) for one in series)
    bottom = max(0.0, low - 0.05) if low > 0.5 else 0.0
    return line_chart(
        series,
        "ROC",
        Axis("false accept rate", "log", range=(lowest, 1.0)),
        Axis(form="percent", range=(bottom, 1.01)),
    )


def det_chart(run: Run) -> str:
    """False reject rate over false accept rate, both on log axes (detection error trade-off)."""
    series, lowest = [], [1.0, 1.0]
    for name, saved in run.best.items():
        far, tar, _ = verification.roc_curve(saved.distances_P, saved.issame_P)
        smallest = [_one_of(~saved.issame_P), _one_of(saved.issame_P)]
        lowest = [max(ROC_FLOOR, min(pair)) for pair in zip(lowest, smallest)]
        keep = [i for i in _corners(far) if tar[i] < 1.0 and far[i] > 0.0]
        x, y = [float(far[i]) for i in keep], [float(1.0 - tar[i]) for i in keep]
        series.append(Series(name, x, y, _colour_in(run, name)))
    return line_chart(
        series,
        "DET",
        Axis("false match rate (FMR); upward: false non-match rate", "log", range=(lowest[0], 1.0)),
        Axis("", "log", "percent", (lowest[1], 1.0)),
    )


def _one_of(which_P: np.ndarray) -> float:
    """The rate of one error among the pairs of a kind."""
    return 1.0 / max(1, int(which_P.sum()))


def _colour_in(run: Run, name: str) -> str:
    return colour_of(run.validations, name) if name in run.validations else "c7"


def _corners(far: np.ndarray) -> List[int]:
    """The points of a ROC that a chart needs: its ends and POINTS between, log-spaced in FAR."""
    count = len(far)
    if count <= POINTS:
        return list(range(count))
    wanted = [10 ** (-6 * (1 - i / (POINTS - 2.0))) for i in range(POINTS - 1)]
    found = {0, count - 1} | {
        min(count - 1, int(far.searchsorted(at, "right")) - 1) for at in wanted
    }
    return sorted(i for i in found if i >= 0)


def _histogram(name: str, saved: SavedPairs) -> str:
    cosines = 1.0 - saved.distances_P / 2.0
    genuine, impostor = cosines[saved.issame_P], cosines[~saved.issame_P]
    threshold = 1.0 - saved.row.get("threshold", 1.0) / 2.0
    return histogram(genuine.tolist(), impostor.tolist(), threshold, f"Pairs of {name}")


def _far_table(run: Run) -> str:
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
        '<p class="key">~ the set has too few impostor pairs for this rate: a single false accept '
        "exceeds it.</p>"
    )
    return (
        '<div class="scroll"><table><thead><tr><th>TAR ± std at</th>'
        f'{heads}<th class="number">AUC</th><th class="number">EER</th>'
        '<th class="number">threshold, squared distance</th><th class="number">as cosine</th>'
        f'<th class="number">pairs</th></tr></thead><tbody>{rows}</tbody></table></div>'
        f"{note if rough else ''}"
    )


def _far_row(name: str, saved: SavedPairs, targets: Sequence[str]) -> str:
    row = saved.row
    cells = []
    for far in targets:
        tar = row["tar_at_far"].get(far)
        rough = "~ " if tar is not None and float(far) * row["impostor"] < 1 else ""
        spread = row.get("tar_std", {}).get(far)
        text = f"{rough}{percent(tar or 0.0)} %" + (
            "" if spread is None else f" ± {percent(spread)}"
        )
        cells.append("–" if tar is None else text)
    cells += [f"{row['auc']:.4f}", f"{percent(row['eer'])} %", f"{row['threshold']:.3f}"]
    cells += [f"{1 - row['threshold'] / 2:.3f}", f"{row['genuine'] + row['impostor']:,}"]
    numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
    return f"<tr><th>{html.escape(name)}</th>{numbers}</tr>"


def hardest(run: Run) -> str:
    """The images of the pairs with the highest error."""
    parts = [_hardest_of(name, saved) for name, saved in run.best.items() if saved.hardest]
    if not parts:
        return ""
    return (
        '<section id="hardest"><h2>Hardest pairs</h2><p>Wrong labels, bad crops and occlusion are '
        f"visible here.</p>{''.join(parts)}</section>"
    )


def _hardest_of(name: str, saved: SavedPairs) -> str:
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
        + "".join(_item(saved, pair) for pair in pairs[:SHOWN_PAIRS])
        + "</ul></div>"
        for what, pairs in kinds
        if pairs
    )


def _item(saved: SavedPairs, pair: int) -> str:
    distance, same = float(saved.distances_P[pair]), bool(saved.issame_P[pair])
    right = (distance < saved.row["threshold"]) == same
    return pair_item(pair, saved.hardest[pair], same, right, distance)
