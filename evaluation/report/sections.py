"""The lower parts of a run's report: curves, how well people are told apart, the hardest pairs."""

import html

import verification
from evaluation.report.charts import POINTS, Series, histogram, line_chart, smoothed, spell
from evaluation.report.page import colour_of, pair_item, percent

SHOWN_PAIRS = 6
SMOOTH_FROM = 40  # points below which a line is drawn as it is
ROC_FLOOR = 1e-6


def accuracy(run):
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


def training(run):
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


def separation(run):
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


def hardest(run):
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
        + "".join(_item(saved, pair) for pair in pairs[:SHOWN_PAIRS])
        + "</ul></div>"
        for what, pairs in kinds
        if pairs
    )


def _item(saved, pair):
    distance, same = saved.distances_P[pair], bool(saved.issame_P[pair])
    right = (distance < saved.row["threshold"]) == same
    return pair_item(pair, saved.hardest[pair], same, right, distance)
