"""The page that compares several runs: accuracy, curves, and differences of configuration."""

import html
from typing import Dict, Iterator, List, Sequence, Tuple

from evaluation.report import diagnostics
from evaluation.report.charts import COLOURS, Axis, Series, line_chart, smoothed
from evaluation.report.page import SYNTHETIC, percent, value_text
from evaluation.report.run_logs import Run

MISSING = "–"
FOLDS = 10  # that the spread is over
HIDDEN = {"output_path", "ckpt_path", "summary_path", "log_file_path", "resume", "config"}


def compare_body(runs: Sequence[Run]) -> str:
    """Everything between <body> and </body> of a comparison."""
    names = dict(zip([run.path for run in runs], distinct_names(runs)))
    colours = {run.path: f"c{i % COLOURS}" for i, run in enumerate(runs)}
    return "\n".join(
        [
            _header(runs, names),
            _table(runs, names),
            _curves(runs, names, colours),
            _differences(runs, names),
        ]
    )


def distinct_names(runs: Sequence[Run]) -> List[str]:
    """Each run's name, or its path where two names are equal."""
    names = [run.name for run in runs]
    return [name if names.count(name) == 1 else run.path for run, name in zip(runs, names)]


def sets_of(runs: Sequence[Run]) -> Tuple[List[str], List[str]]:
    """(every set that some run validates on, the sets that all of them validate on)."""
    every = list(dict.fromkeys(name for run in runs for name in run.validations))
    return every, [name for name in every if all(name in run.validations for run in runs)]


def _header(runs, names):
    _, shared = sets_of(runs)
    title, lede = _ranking(runs, names, shared)
    synthetic = f'<p class="synthetic">{SYNTHETIC}</p>' if any(r.synthetic for r in runs) else ""
    return (
        f'<header><div class="top"><b>{len(runs)} runs</b></div><h1>{html.escape(title)}.</h1>'
        f'<p class="lede soft">{html.escape(lede)}</p>{synthetic}</header>'
    )


def _ranking(runs, names, shared):
    """(headline, sentence): who leads on the sets that all runs share, if the lead is one."""
    if not shared:
        lede = "No verification set is common to all of them, so there is no ranking."
        return "These runs share no set", lede
    ranked = sorted(runs, key=lambda run: -_mean(run, shared))
    best, second = _mean(ranked[0], shared), _mean(ranked[1], shared)
    spread = sum(ranked[0].best_line(name)["accuracy_flip_std"] for name in shared) / len(shared)
    leader = names[ranked[0].path]
    lede = (
        f"Mean Accuracy-Flip over {_listed(shared)}, which {_all(runs)} validate on: "
        f"{percent(best)} % for {leader}, then {percent(second)} % for {names[ranked[1].path]}."
    )
    if best - second < spread / FOLDS**0.5:
        note = " The difference is within the standard error over the folds."
        return "No clear winner", lede + note + _overlap(runs, names, shared)
    return f"{leader} is ahead", lede + _overlap(runs, names, shared)


def _overlap(runs: Sequence[Run], names: Dict[str, str], shared: Sequence[str]) -> str:
    """A warning for sets with training images; "" where no run logged one."""
    found = [
        f"{name} ({names[run.path]})" for run in runs for name in shared if run.overlaps.get(name)
    ]
    return f" Sets with images of the training data: {', '.join(found)}." if found else ""


def _all(runs):
    return "both runs" if len(runs) == 2 else f"all {len(runs)} runs"


def _mean(run, sets):
    return sum(run.best_line(name)["accuracy_flip"] for name in sets) / len(sets)


def _table(runs, names):
    every, _ = sets_of(runs)
    best = {
        name: max(run.best_line(name)["accuracy_flip"] for run in runs if name in run.validations)
        for name in every
    }
    heads = "".join(f'<th class="number">{html.escape(name)}</th>' for name in every)
    rows = "".join(_row(run, names[run.path], every, best) for run in runs)
    return (
        "<section><h2>Best checkpoint of each run</h2><p>The checkpoint with the highest mean over "
        "the run's sets. Accuracy-Flip ± standard deviation over the folds; the highest of a set "
        "is bold.</p>"
        f'<div class="scroll"><table><thead><tr><th>run</th><th>state</th>{heads}'
        '<th class="number">images/s</th><th class="number">steps</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _row(run, name, sets, best):
    level, sentence = diagnostics.verdict(diagnostics.checks(run))
    cells = "".join(f'<td class="number">{_cell(run, one, best)}</td>' for one in sets)
    rates = sorted(line["images_per_second"] for line in run.train if "images_per_second" in line)
    speed = f"{rates[len(rates) // 2]:,.0f}" if rates else MISSING
    return (
        f"<tr><th>{html.escape(name)}</th>"
        f'<td class="state {level}">{html.escape(sentence)}</td>{cells}'
        f'<td class="number">{speed}</td><td class="number">{run.last_step:,}</td></tr>'
    )


def _cell(run, name, best):
    if name not in run.validations:
        return MISSING
    line = run.best_line(name)
    text = f"{percent(line['accuracy_flip'])} ± {percent(line.get('accuracy_flip_std', 0))}"
    return f"<b>{text}</b>" if line["accuracy_flip"] == best[name] else text


def _curves(runs, names, colours):
    every, _ = sets_of(runs)
    charts = [
        line_chart(
            [
                _series(names[run.path], run.validations[name], "accuracy_flip", colours[run.path])
                for run in runs
                if name in run.validations
            ],
            f"Accuracy, {name}",
            y_axis=Axis(form="percent"),
            always_named=True,
        )
        for name in every
    ]
    for column, title in (("inference_loss", "Margin loss"), ("images_per_second", "Images/s")):
        lines = [_series(names[run.path], run.train, column, colours[run.path]) for run in runs]
        charts.append(line_chart([_smooth(line) for line in lines], title))
    return f'<section><h2>Curves</h2><div class="charts two">{"".join(charts)}</div></section>'


def _series(name, lines, column, colour):
    return Series(
        name, [line["step"] for line in lines], [line.get(column) for line in lines], colour
    )


def _smooth(series):
    known = [i for i, value in enumerate(series.y) if isinstance(value, (int, float))]
    values = smoothed([series.y[i] for i in known])
    return series._replace(x=[series.x[i] for i in known], y=values)


def _differences(runs, names):
    rows = "".join(
        f"<tr><th>{html.escape(key)}</th>"
        + "".join(f"<td>{html.escape(value)}</td>" for value in values)
        + "</tr>"
        for key, values in differences(runs)
    )
    if not rows:
        return (
            "<section><h2>Configuration</h2><p>The runs have the same configuration.</p></section>"
        )
    heads = "".join(f"<th>{html.escape(names[run.path])}</th>" for run in runs)
    return (
        "<section><h2>Differences of configuration</h2>"
        f'<div class="scroll"><table><thead><tr><th></th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def differences(runs: Sequence[Run]) -> Iterator[Tuple[str, List[str]]]:
    """(name, its value in each run as text) of every setting that is not equal in all runs, except
    paths."""
    flat = [
        {
            f"{section}.{key}": value_text(value)
            for section in ("net", "training", "dataset", "environment")
            for key, value in run.section(section).items()
            if key not in HIDDEN
        }
        for run in runs
    ]
    for key in sorted({key for facts in flat for key in facts}):
        values = [facts.get(key, MISSING) for facts in flat]
        if len(set(values)) > 1:
            yield key, values


def _listed(names):
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
