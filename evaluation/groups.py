"""Error rates by group of people at one threshold, and how much they differ (ISO/IEC 19795-10).

N = 2 P images, P pairs, G groups, I identities, R bootstrap rounds. The groups come from a file;
nothing is inferred from images.
"""

import csv
import os
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from evaluation.error_rates import (
    RULE_OF_30,
    Interval,
    OperatingPoint,
    binomial_interval,
    lowest_fmr,
    operating_points,
)
from evaluation.identity_intervals import draws

NONE = -1  # group of an image that the file does not name
ALPHA = 0.5  # weight of FMR in FDR and GARBE, 1 - ALPHA is that of FNMR
ROUNDS = 1000
CHUNK = 200
KEYS = ("path", "identity")


class Rate(NamedTuple):
    """Errors of trials; the interval is the exact binomial one."""

    errors: int
    trials: int
    rate: Optional[float]  # None without a trial
    interval: Interval


class GroupRates(NamedTuple):
    """The rates of one group at the global threshold."""

    name: str
    images: int
    fmr: Rate  # of impostor pairs within the group
    fnmr: Rate


class Difference(NamedTuple):
    """A figure for how much the groups differ; None where a rate that it needs is unknown."""

    value: Optional[float]
    interval: Optional[Interval]  # bootstrap over identities


class GroupReport(NamedTuple):
    """Groups of a set at one threshold."""

    point: OperatingPoint  # the threshold and the rates of all pairs
    groups: List[GroupRates]
    cross_fmr: List[List[Rate]]  # [G, G], symmetric: impostor pairs of two groups
    fmr_ratio: Difference  # highest over lowest
    fnmr_ratio: Difference
    fdr: Difference  # fairness discrepancy rate: 1 is fair
    garbe: Difference  # Gini aggregation rate: 0 is fair
    warnings: List[str]


class Groups(NamedTuple):
    """The group of each image."""

    names: List[str]
    group_N: np.ndarray  # int, NONE for an image without one


def read_groups(path: str, names_N: Sequence[str], identity_N: np.ndarray) -> Groups:
    """Groups from a CSV with the header `path,group` or `identity,group`.

    names_N: what the file may call each image. identity_N: int, the identity of each image."""
    key, given = _read_csv(path)
    known_N = list(names_N) if key == "path" else [str(identity) for identity in identity_N]
    unknown = [name for name in given if name not in set(known_N)]
    if unknown:
        shown = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        kind = "images" if key == "path" else "identities"
        raise ValueError(
            f"{path}: {len(unknown)} of its {kind} are not in the set: {shown}. The set has "
            f"{known_N[0]} to {known_N[-1]}."
        )
    names = sorted(set(given.values()))
    if len(names) < 2:
        raise ValueError(f"{path} has one group only ({names[0]}); a comparison needs two or more.")
    number = {name: i for i, name in enumerate(names)}
    group_N = np.array([number[given[name]] if name in given else NONE for name in known_N])
    return Groups(names, group_N)


def _read_csv(path: str) -> Tuple[str, Dict[str, str]]:
    """(path or identity, {its value: group})."""
    if not os.path.isfile(path):
        raise ValueError(f"--groups {path} is not a file; pass a CSV with path,group.")
    with open(path, encoding="utf-8-sig", newline="") as stream:
        rows = [row for row in csv.reader(stream) if any(cell.strip() for cell in row)]
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if len(header) != 2 or header[0] not in KEYS or header[1] != "group":
        raise ValueError(f"{path}: its first line must be path,group or identity,group.")
    given: Dict[str, str] = {}
    for number, row in enumerate(rows[1:], 2):
        if len(row) != 2 or not row[0].strip() or not row[1].strip():
            raise ValueError(f"{path}: row {number} is not {header[0]},group: {','.join(row)[:60]}")
        name, group = row[0].strip(), row[1].strip()
        if given.setdefault(name, group) != group:
            raise ValueError(f"{path}: row {number} puts {name} into a second group, {group}.")
    if not given:
        raise ValueError(f"{path} names no image; add lines {header[0]},group.")
    return header[0], given


def group_report(
    distances_P: np.ndarray,
    issame_P: np.ndarray,
    identity_P2: np.ndarray,
    groups: Groups,
    fmr_target: float,
) -> GroupReport:
    """The rates of each group at the threshold of `fmr_target` over all pairs."""
    found = operating_points(distances_P, issame_P, (fmr_target,))
    if not found:
        raise ValueError(
            f"FMR {fmr_target:g} needs {1 / fmr_target:,.0f} impostor pairs; the lowest FMR that "
            f"these {int((~issame_P).sum()):,} can show is {lowest_fmr(issame_P):.3g}."
        )
    group_P2, count = groups.group_N.reshape(-1, 2), len(groups.names)
    _check_genuine(group_P2, issame_P, groups.names)
    wrong_P = (distances_P < found[0].squared_l2) != issame_P
    named_P = (group_P2 != NONE).all(axis=1)
    cross = _cross(group_P2, named_P & ~issame_P, wrong_P, count)
    rejected = [named_P & issame_P & (group_P2[:, 0] == group) for group in range(count)]
    rows = [
        GroupRates(
            name,
            int((groups.group_N == i).sum()),
            cross[i][i],
            _rate(int((rejected[i] & wrong_P).sum()), int(rejected[i].sum())),
        )
        for i, name in enumerate(groups.names)
    ]
    resampled = _resampled_rates(wrong_P, issame_P, identity_P2, group_P2, count)
    return GroupReport(
        found[0],
        rows,
        cross,
        _difference(fmr_ratio, rows, resampled),
        _difference(fnmr_ratio, rows, resampled),
        _difference(fairness_discrepancy_rate, rows, resampled),
        _difference(garbe, rows, resampled),
        _warnings(rows, named_P),
    )


def _check_genuine(group_P2: np.ndarray, issame_P: np.ndarray, names: List[str]) -> None:
    mixed_P = issame_P & (group_P2[:, 0] != group_P2[:, 1]) & (group_P2 != NONE).all(axis=1)
    if mixed_P.any():
        pair = int(np.argmax(mixed_P))
        first, second = (names[group] for group in group_P2[pair])
        raise ValueError(
            f"pair {pair} is of one identity, but its images are in the groups {first} and "
            f"{second} ({int(mixed_P.sum())} such pairs); give both images the same group."
        )


def _cross(
    group_P2: np.ndarray, impostor_P: np.ndarray, wrong_P: np.ndarray, count: int
) -> List[List[Rate]]:
    key_Q = group_P2[impostor_P].min(axis=1) * count + group_P2[impostor_P].max(axis=1)
    trials = np.bincount(key_Q, minlength=count * count)
    errors = np.bincount(key_Q[wrong_P[impostor_P]], minlength=count * count)
    rates = [_rate(int(a), int(b)) for a, b in zip(errors, trials)]
    return [[rates[min(i, j) * count + max(i, j)] for j in range(count)] for i in range(count)]


def _rate(errors: int, trials: int) -> Rate:
    if not trials:
        return Rate(0, 0, None, (0.0, 1.0))
    return Rate(errors, trials, errors / trials, binomial_interval(errors, trials))


def _warnings(rows: Sequence[GroupRates], named_P: np.ndarray) -> List[str]:
    found = []
    if not named_P.all():
        omitted = int((~named_P).sum())
        found.append(f"{omitted:,} of {len(named_P):,} pairs have an image without a group.")
    for row in rows:
        for name, kind, rate in (("FMR", "impostor", row.fmr), ("FNMR", "genuine", row.fnmr)):
            if rate.rate is None:
                found.append(f"group {row.name} has no {kind} pair: its {name} is unknown.")
            elif rate.errors < RULE_OF_30:
                found.append(
                    f"group {row.name}: {name} is from {rate.errors} errors of {rate.trials:,} "
                    f"pairs; {RULE_OF_30} are needed for a rate known within 30 %."
                )
    return found


def fmr_ratio(fmr_RG: np.ndarray, fnmr_RG: np.ndarray) -> np.ndarray:
    """Highest over lowest FMR of the groups: [R]; infinite where the lowest is 0."""
    return _ratio(fmr_RG)


def fnmr_ratio(fmr_RG: np.ndarray, fnmr_RG: np.ndarray) -> np.ndarray:
    """Highest over lowest FNMR of the groups: [R]."""
    return _ratio(fnmr_RG)


def _ratio(rate_RG: np.ndarray) -> np.ndarray:
    high_R, low_R = rate_RG.max(axis=1), rate_RG.min(axis=1)
    ratio_R = high_R / np.where(low_R > 0, low_R, 1.0)
    return np.where(low_R > 0, ratio_R, np.where(high_R > 0, np.inf, 1.0))


def fairness_discrepancy_rate(fmr_RG: np.ndarray, fnmr_RG: np.ndarray) -> np.ndarray:
    """FDR: 1 - alpha * the largest difference in FMR - (1 - alpha) * that in FNMR: [R] (de Freitas
    Pereira and Marcel, IEEE TBIOM 2022)."""
    parts = [rate.max(axis=1) - rate.min(axis=1) for rate in (fmr_RG, fnmr_RG)]
    return 1.0 - ALPHA * parts[0] - (1.0 - ALPHA) * parts[1]


def garbe(fmr_RG: np.ndarray, fnmr_RG: np.ndarray) -> np.ndarray:
    """GARBE: the Gini coefficients of FMR and FNMR over the groups, weighted: [R] (Howard et al.,
    arXiv:2203.05051)."""
    return ALPHA * gini(fmr_RG) + (1.0 - ALPHA) * gini(fnmr_RG)


def gini(rate_RG: np.ndarray) -> np.ndarray:
    """Gini coefficient of the groups' rates, with the factor G / (G - 1) for a few groups."""
    count = rate_RG.shape[1]
    apart_R = np.abs(rate_RG[:, :, np.newaxis] - rate_RG[:, np.newaxis, :]).sum(axis=(1, 2))
    mean_R = rate_RG.mean(axis=1)
    scale_R = 2.0 * count**2 * np.where(mean_R > 0, mean_R, 1.0) * (count - 1.0) / count
    return apart_R / scale_R


def _difference(
    figure: Callable[[np.ndarray, np.ndarray], np.ndarray],
    rows: Sequence[GroupRates],
    resampled: Tuple[np.ndarray, np.ndarray],
) -> Difference:
    fmr_RG, fnmr_RG = resampled
    rates = [[row.fmr.rate for row in rows], [row.fnmr.rate for row in rows]]
    used = rates[:1] if figure is fmr_ratio else rates[1:] if figure is fnmr_ratio else rates
    if any(rate is None for part in used for rate in part):
        return Difference(None, None)
    known = [np.array([[rate or 0.0 for rate in part]]) for part in rates]
    value = float(figure(*known)[0])
    usable = np.isfinite(fmr_RG).all(axis=1) & np.isfinite(fnmr_RG).all(axis=1)
    values = np.sort(figure(np.nan_to_num(fmr_RG[usable]), np.nan_to_num(fnmr_RG[usable])))
    if not len(values):
        return Difference(_finite(value), None)
    low, high = (values[int(round(at * (len(values) - 1)))] for at in (0.025, 0.975))
    return Difference(_finite(value), (float(low), float(high)))


def _finite(value: float) -> Optional[float]:
    return value if np.isfinite(value) else None


def _resampled_rates(
    wrong_P: np.ndarray,
    issame_P: np.ndarray,
    identity_P2: np.ndarray,
    group_P2: np.ndarray,
    count: int,
) -> Tuple[np.ndarray, np.ndarray]:
    """(FMR, FNMR) of each group in each round: [R, G], NaN where no pair was drawn. A genuine pair
    weighs as often as its identity is drawn, an impostor pair as in identity_intervals."""
    identities = int(identity_P2.max()) + 1
    within_P = (group_P2[:, 0] == group_P2[:, 1]) & (group_P2[:, 0] != NONE)
    tables = []
    for kind, sides in ((~issame_P, (0, 1)), (issame_P, (0,))):
        for which_P in (kind & within_P & wrong_P, kind & within_P):
            table = np.zeros(identities * count)
            for side in sides:
                key = identity_P2[which_P, side] * count + group_P2[which_P, 0]
                table += np.bincount(key, minlength=len(table))
            tables.append(table.reshape(identities, count))
    columns, random, rounds = np.concatenate(tables, axis=1), np.random.RandomState(0), []
    for start in range(0, ROUNDS, CHUNK):
        rounds.append(draws(random, min(CHUNK, ROUNDS - start), identities) @ columns)
    false_RG, impostor_RG, missed_RG, genuine_RG = np.split(np.concatenate(rounds), 4, axis=1)
    false_RG = np.maximum(false_RG - tables[0].sum(axis=0) / 2.0, 0.0)
    impostor_RG = impostor_RG - tables[1].sum(axis=0) / 2.0
    return _shares(false_RG, impostor_RG), _shares(missed_RG, genuine_RG)


def _shares(errors_RG: np.ndarray, trials_RG: np.ndarray) -> np.ndarray:
    some = trials_RG > 0
    shares_RG = np.minimum(errors_RG / np.where(some, trials_RG, 1.0), 1.0)
    known_G = some.any(axis=0)  # a group without any pair is not the draw's fault
    return np.where(some, shares_RG, np.where(known_G, np.nan, 0.0))


def group_lines(report: GroupReport) -> List[str]:
    """The report as text."""
    point = report.point
    lines = [
        f"threshold {point.squared_l2:.4f} (cosine {point.cosine:.4f}) for all groups: "
        f"FMR {point.fmr:.3g}, FNMR {point.fnmr:.3g} of all pairs"
    ]
    width = max(len(row.name) for row in report.groups)
    for row in report.groups:
        lines.append(
            f"  {row.name.ljust(width)}  FMR {rate_text(row.fmr)}  FNMR {rate_text(row.fnmr)}"
        )
    lines.append("  FMR between groups:")
    for row, rates in zip(report.groups, report.cross_fmr):
        cells = "  ".join("-" if one.rate is None else f"{one.rate:.2e}" for one in rates)
        lines.append(f"  {row.name.ljust(width)}  {cells}")
    for name, one in difference_items(report):
        lines.append(f"  {name} {difference_text(one)}")
    return lines + [f"  warning: {text}" for text in report.warnings]


def difference_items(report: GroupReport) -> List[Tuple[str, Difference]]:
    """(name, Difference) of each figure."""
    return [
        ("FMR, highest / lowest", report.fmr_ratio),
        ("FNMR, highest / lowest", report.fnmr_ratio),
        ("FDR (1: no difference)", report.fdr),
        ("GARBE (0: no difference)", report.garbe),
    ]


def rate_text(rate: Rate) -> str:
    """`1.2e-03 (8.0e-04 to 1.7e-03; 24 of 20,000)`."""
    if rate.rate is None:
        return "unknown, no pair"
    low, high = rate.interval
    return f"{rate.rate:.2e} ({low:.1e} to {high:.1e}; {rate.errors:,} of {rate.trials:,})"


def difference_text(one: Difference) -> str:
    """`1.83 (1.20 to 2.75)`."""
    if one.value is None and one.interval is None:
        return "unknown"
    value = "infinite" if one.value is None else f"{one.value:.4g}"
    if one.interval is None:
        return value
    low, high = (f"{end:.4g}" if np.isfinite(end) else "infinite" for end in one.interval)
    return f"{value} ({low} to {high})"


def to_json(report: GroupReport) -> Dict[str, object]:
    """The report as a JSON object; an infinite end of an interval is null."""
    return {
        "squared_l2": report.point.squared_l2,
        "cosine": report.point.cosine,
        "fmr": report.point.fmr,
        "fnmr": report.point.fnmr,
        "groups": [
            {
                "name": row.name,
                "images": row.images,
                "fmr": dict(row.fmr._asdict()),
                "fnmr": dict(row.fnmr._asdict()),
            }
            for row in report.groups
        ],
        "cross_fmr": [[dict(one._asdict()) for one in rates] for rates in report.cross_fmr],
        "differences": {
            name: {
                "value": one.value,
                "interval": None if one.interval is None else [_finite(x) for x in one.interval],
            }
            for name, one in difference_items(report)
        },
        "warnings": report.warnings,
    }
