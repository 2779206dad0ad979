"""The report's figures for deployment: operating points, calibration, quality, groups.

P pairs. All of them are of one checkpoint; what cannot be computed from a set is omitted.
"""

import html
from typing import List, Mapping, NamedTuple, Optional, Sequence

import numpy as np

import verification
from evaluation.calibration import CalibrationResult, cross_validate
from evaluation.error_rates import (
    RULE_OF_30,
    Interval,
    OperatingPoint,
    d_prime,
    lowest_fmr,
    operating_points,
)
from evaluation.groups import GroupReport, Rate, difference_items, difference_text
from evaluation.identity_intervals import PairIdentities, curve_intervals, intervals_by_identity
from evaluation.quality import NORM, QUALITY_FMR, QualityMeasure, measure_quality
from evaluation.report.charts import Axis, Series, line_chart, spell
from evaluation.saved_pairs import SavedPairs

ROUNDS = 500  # of the bootstrap of EER and d': a report is drawn at every validation
SHOWN_DISCARD = 0.6  # of the pairs: what remains beyond is too few for a curve
PRIOR = 0.5  # of the reliability diagram


class SetExtras(NamedTuple):
    """What a report shows of a set besides its scores; from flags of eval_ckpt_file.py."""

    measures: Sequence[QualityMeasure] = ()  # besides the embedding norm
    groups: Optional[GroupReport] = None


def operating_section(best: Mapping[str, SavedPairs]) -> str:
    """The operating card: EER, d' and the rates at each FMR target, a table per set."""
    if not best:
        return ""
    tables = "".join(_operating_table(name, saved) for name, saved in best.items())
    return (
        '<section id="operating"><h2>Operating points</h2><p>FNMR at the threshold that keeps FMR '
        "at or below the target, over all pairs. In parentheses the 95 % interval over identities "
        "where the pairs imply them, else the exact binomial one. "
        f"~ fewer than {RULE_OF_30} errors: the rate is not known within 30 %.</p>"
        f"{tables}</section>"
    )


def _operating_table(name: str, saved: SavedPairs) -> str:
    distances_P, issame_P = saved.distances_P, saved.issame_P
    pairs = _identities(saved)
    eer = verification.auc_and_eer(distances_P, issame_P)[1]
    prime = d_prime(1.0 - distances_P / 2.0, issame_P)
    eer_text, prime_text = _percent(eer), f"{prime:.2f}"
    if pairs is not None:
        curve = curve_intervals(distances_P, pairs, ROUNDS)
        eer_text += f" ({_percent(curve.eer[0])} to {_percent(curve.eer[1])})"
        prime_text += " ({:.2f} to {:.2f})".format(*curve.d_prime)
    rows = "".join(
        _operating_row(point, distances_P, issame_P, pairs)
        for point in operating_points(distances_P, issame_P)
    )
    impostor = int((~issame_P).sum())
    heads = "".join(
        f'<th class="number">{head}</th>'
        for head in ("cosine", "squared L2", "achieved FMR", "FNMR", "TAR")
    )
    return (
        f'<h3>{html.escape(name)}</h3><p class="facts">EER {eer_text}, d\' {prime_text}. '
        f"{int(issame_P.sum()):,} genuine and {impostor:,} impostor pairs: the lowest FMR that "
        f"they can show is {spell(lowest_fmr(issame_P))}.</p>"
        f'<div class="scroll"><table><thead><tr><th>FMR target</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _operating_row(
    point: OperatingPoint,
    distances_P: np.ndarray,
    issame_P: np.ndarray,
    pairs: Optional[PairIdentities],
) -> str:
    fmr, fnmr = point.fmr_interval, point.fnmr_interval
    if pairs is not None:
        wrong_P = (distances_P < point.squared_l2) != issame_P
        fmr, fnmr = intervals_by_identity(wrong_P, pairs)
    cells = (
        f"{point.cosine:.4f}",
        f"{point.squared_l2:.4f}",
        _with_interval(point.fmr, fmr, point.false_matches),
        _with_interval(point.fnmr, fnmr, point.false_non_matches),
        _percent(1.0 - point.fnmr),
    )
    numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
    return f"<tr><th>{spell(point.fmr_target)}</th>{numbers}</tr>"


def _with_interval(rate: float, interval: Interval, errors: int) -> str:
    rough = "~ " if errors < RULE_OF_30 else ""
    return f"{rough}{_percent(rate)} ({_percent(interval[0])} to {_percent(interval[1])})"


def _percent(rate: float) -> str:
    """Two significant digits more than a rate of 1 % needs: low rates stay legible."""
    value = 100.0 * rate
    return f"{value:.2f} %" if value >= 0.1 or value == 0 else f"{value:.2g} %"


def _identities(saved: SavedPairs) -> Optional[PairIdentities]:
    if saved.identity_N is None or len(saved.identity_N) != 2 * len(saved.issame_P):
        return None
    return PairIdentities(saved.issame_P, saved.identity_N.reshape(-1, 2))


def trust_section(
    best: Mapping[str, SavedPairs], extras: Optional[Mapping[str, SetExtras]] = None
) -> str:
    """Calibration and error-versus-discard curves as charts, with a sentence per set."""
    more = extras or {}
    calibrated = {name: _calibration(saved) for name, saved in best.items()}
    measured = {
        name: _measures(saved) + list(more.get(name, SetExtras()).measures)
        for name, saved in best.items()
    }
    charts = [_reliability_chart(calibrated), *_discard_charts(measured)]
    sentences = [
        f"{html.escape(name)}: {text}"
        for name in best
        for text in _trust_sentences(calibrated[name], measured[name])
    ]
    drawn = "".join(chart for chart in charts if chart)
    if not drawn:
        return ""
    return (
        '<section id="trust"><h2>Confidence and quality</h2><p>Reliability: how often pairs with a '
        "predicted probability are genuine, the fit cross-validated by identity; the diagonal is "
        f"exact. Error versus discard: FNMR at FMR {QUALITY_FMR:g} when the genuine pairs of "
        "lowest quality are discarded; a pair has the worse quality of its two images.</p>"
        f'<div class="charts">{drawn}</div>'
        + "".join(f'<p class="key">{sentence}</p>' for sentence in sentences)
        + "</section>"
    )


def _calibration(saved: SavedPairs) -> Optional[CalibrationResult]:
    """None where the set's identities are unknown or too few."""
    if saved.identity_N is None:
        return None
    identity_P2 = saved.identity_N.reshape(-1, 2)
    try:
        cosine_P = 1.0 - saved.distances_P / 2.0
        return cross_validate(cosine_P, saved.issame_P, identity_P2, PRIOR)
    except ValueError:
        return None


def _measures(saved: SavedPairs) -> List[QualityMeasure]:
    """The embedding norm, where it was saved and the set can show the threshold's FMR."""
    points = operating_points(saved.distances_P, saved.issame_P, (QUALITY_FMR,))
    if saved.norms_N is None or not points:
        return []
    limit = points[0].squared_l2
    return [measure_quality(NORM, saved.norms_N, saved.distances_P, saved.issame_P, limit)]


def _trust_sentences(
    calibration: Optional[CalibrationResult], measures: Sequence[QualityMeasure]
) -> List[str]:
    found = []
    if calibration is not None:
        found.append(
            f"Cllr {calibration.cllr:.3f} bits (minimum {calibration.min_cllr:.3f}), ECE "
            f"{100 * calibration.ece:.1f} % at a prior of {100 * PRIOR:.0f} %."
        )
    for one in measures:
        direction = {1: "high is good", -1: "low is good"}.get(one.sign, "no measurable direction")
        found.append(
            f"{html.escape(one.name)}: {direction} (rank correlation with the cosine "
            f"{one.correlation:+.2f}, {one.interval[0]:+.2f} to {one.interval[1]:+.2f})."
        )
    return found


def _reliability_chart(calibrated: Mapping[str, Optional[CalibrationResult]]) -> str:
    series = []
    for i, (name, found) in enumerate(calibrated.items()):
        if found is not None:
            x = [100.0 * bar.probability for bar in found.bins]
            series.append(Series(name, x, [bar.frequency for bar in found.bins], f"c{i % 8}"))
    if not series:
        return ""
    diagonal = Series("", [0.0, 100.0], [0.0, 1.0], "c7", faint=True)
    return line_chart(
        [diagonal, *series],
        "Reliability",
        Axis("predicted probability, %; upward: genuine share", range=(0.0, 100.0)),
        Axis(form="percent", range=(0.0, 1.0)),
        always_named=True,
    )


def _discard_charts(measured: Mapping[str, Sequence[QualityMeasure]]) -> List[str]:
    """A chart per measure, a line per set."""
    names = list(dict.fromkeys(one.name for measures in measured.values() for one in measures))
    return [_discard_chart(name, measured) for name in names]


def _discard_chart(name: str, measured: Mapping[str, Sequence[QualityMeasure]]) -> str:
    series = []
    for i, (of_set, measures) in enumerate(measured.items()):
        for one in measures:
            if one.name == name:
                x = [100.0 * share for share in one.curve.discarded]
                band = [list(side) for side in zip(*one.curve.intervals)]
                kept = sum(share <= SHOWN_DISCARD for share in one.curve.discarded)
                low, high = band[0][:kept], band[1][:kept]
                y = one.curve.fnmr[:kept]
                series.append(Series(of_set, x[:kept], y, f"c{i % 8}", (low, high)))
    top = max(max(one.band[1]) for one in series if one.band)
    return line_chart(
        series,
        f"Error versus discard, {name}",
        Axis("discarded genuine pairs, %; upward: FNMR"),
        Axis(form="percent", range=(0.0, min(1.0, 1.05 * top))),
        always_named=True,
    )


def groups_section(extras: Mapping[str, SetExtras]) -> str:
    """Rates by group, a table per set that has groups."""
    shown = {name: extra.groups for name, extra in extras.items() if extra.groups is not None}
    if not shown:
        return ""
    tables = "".join(_group_tables(name, report) for name, report in shown.items())
    return (
        '<section id="groups"><h2>Groups</h2><p>FMR and FNMR of each group at one threshold. '
        "Groups are those of the given file. In parentheses 95 % intervals: exact binomial for "
        f"rates, a bootstrap over identities for differences.</p>{tables}</section>"
    )


def _group_tables(name: str, report: GroupReport) -> str:
    point = report.point
    rows = "".join(
        f'<tr><th>{html.escape(row.name)}</th><td class="number">{row.images:,}</td>'
        f'<td class="number">{_rate_cell(row.fmr)}</td>'
        f'<td class="number">{_rate_cell(row.fnmr)}</td></tr>'
        for row in report.groups
    )
    names = [html.escape(row.name) for row in report.groups]
    heads = "".join(f'<th class="number">{one}</th>' for one in names)
    cross = "".join(
        f"<tr><th>{one}</th>"
        + "".join(f'<td class="number">{_rate_cell(rate, False)}</td>' for rate in rates)
        + "</tr>"
        for one, rates in zip(names, report.cross_fmr)
    )
    differences = "; ".join(
        f"{html.escape(title)} {difference_text(one)}" for title, one in difference_items(report)
    )
    warnings = "".join(f'<p class="key">~ {html.escape(text)}</p>' for text in report.warnings)
    return (
        f'<h3>{html.escape(name)}</h3><p class="facts">Threshold at cosine {point.cosine:.4f}: FMR '
        f"{_percent(point.fmr)}, FNMR {_percent(point.fnmr)} of all pairs. {differences}.</p>"
        '<div class="scroll"><table><thead><tr><th>group</th><th class="number">images</th>'
        '<th class="number">FMR within the group</th><th class="number">FNMR</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        f'<div class="scroll"><table><thead><tr><th>FMR of groups</th>{heads}</tr></thead>'
        f"<tbody>{cross}</tbody></table></div>{warnings}"
    )


def _rate_cell(rate: Rate, interval: bool = True) -> str:
    if rate.rate is None:
        return "–"
    rough = "~ " if rate.errors < RULE_OF_30 else ""
    if not interval:
        return f"{rough}{_percent(rate.rate)}"
    return rough + _with_interval(rate.rate, rate.interval, RULE_OF_30)
