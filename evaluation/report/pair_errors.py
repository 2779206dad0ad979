"""The errors of a checkpoint on a set: every pair's score, errors per identity, the hardest pairs.

P pairs, N = 2 P images.
"""

import csv
import html
import os
from typing import Any, Dict, Iterable, Iterator, List

import numpy as np

import verification
from evaluation.report.page import SYNTHETIC, data_uri, page, pair_item, write_page
from evaluation.verification_set import SetResult, VerificationSet, hardest_pairs
from runtime.files import atomic_write

SHOWN = 24  # hardest pairs of each kind
WORST_PEOPLE = 20
Row = Dict[str, Any]


def write_pairs_report(
    directory: str, result: SetResult, pairs: VerificationSet, title: str
) -> str:
    """Writes <set>_pairs.csv, <set>_people.csv and <set>.html; returns the page's path."""
    person_N = pairs.identity_N
    limit_P = result.flip.best_thresholds[
        verification.fold_of_pair(len(result.issame_P), len(result.flip.best_thresholds))
    ]
    accepted_P = result.distances_P < limit_P
    people = people_errors(result, person_N, accepted_P)
    os.makedirs(directory, exist_ok=True)
    base = os.path.join(directory, result.name)
    _write_csv(f"{base}_pairs.csv", pair_rows(result, person_N, limit_P, accepted_P))
    _write_csv(f"{base}_people.csv", people)
    return write_page(f"{base}.html", page(title, _body(title, result, pairs, accepted_P, people)))


def pair_rows(
    result: SetResult, person_N: np.ndarray, limit_P: np.ndarray, accepted_P: np.ndarray
) -> Iterator[Row]:
    """A dict per pair: its score, the decision, and its fold's threshold."""
    for pair, (distance, same) in enumerate(zip(result.distances_P, result.issame_P)):
        yield {
            "pair": pair,
            "same_person": int(same),
            "accepted": int(accepted_P[pair]),
            "right": int(accepted_P[pair] == same),
            "cosine": round(1.0 - distance / 2.0, 6),
            "squared_distance": round(float(distance), 6),
            "threshold": round(float(limit_P[pair]), 4),
            "first_person": int(person_N[2 * pair]),
            "second_person": int(person_N[2 * pair + 1]),
        }


def people_errors(result: SetResult, person_N: np.ndarray, accepted_P: np.ndarray) -> List[Row]:
    """A dict per identity, the one with most errors first."""
    wrong_P = accepted_P != result.issame_P
    people = int(person_N.max()) + 1
    counts: Dict[str, np.ndarray] = {
        name: np.zeros(people, int) for name in ("pairs", "false_accepts", "false_rejects")
    }
    for side in (0, 1):
        person_P = person_N[side::2]
        other = np.ones(len(person_P), bool) if side == 0 else person_P != person_N[0::2]
        kinds = (other, other & wrong_P & ~result.issame_P, other & wrong_P & result.issame_P)
        for name, which in zip(counts, kinds):
            counts[name] += np.bincount(person_P[which], minlength=people)
    images = np.bincount(person_N, minlength=people)
    rows = [
        dict(
            {"person": person, "first_image": int(np.argmax(person_N == person))},
            images=int(images[person]),
            **{name: int(count[person]) for name, count in counts.items()},
        )
        for person in range(people)
    ]
    rows.sort(key=lambda row: -(row["false_accepts"] + row["false_rejects"]) / row["pairs"])
    rows.sort(key=lambda row: -(row["false_accepts"] + row["false_rejects"]))
    return rows


def _body(title, result, pairs, accepted_P, people):
    wrong = int((accepted_P != result.issame_P).sum())
    synthetic = f'<p class="synthetic">{SYNTHETIC}</p>' if result.synthetic else ""
    alike, unlike = _hardest(result)
    return (
        f'<header><div class="top"><b>{html.escape(title)}</b></div>'
        f"<h1>{wrong:,} of {len(accepted_P):,} pairs are wrong.</h1>"
        f'<p class="lede soft">Accuracy-Flip {100 * result.flip.accuracy:.2f} % ± '
        f"{100 * result.flip.accuracy_std:.2f}, each pair compared with the threshold of the other "
        f"folds. Every pair is in {html.escape(result.name)}_pairs.csv.</p>{synthetic}</header>"
        + _gallery("Different people, most alike", alike, result, pairs, accepted_P)
        + _gallery("One person, least alike", unlike, result, pairs, accepted_P)
        + _people_section(people, pairs)
    )


def _hardest(result):
    pairs = hardest_pairs(result.distances_P, result.issame_P, SHOWN)
    return (
        [pair for pair in pairs if not result.issame_P[pair]],
        [pair for pair in pairs if result.issame_P[pair]],
    )


def _gallery(title, numbers, result, pairs, accepted_P):
    items = "".join(_item(number, result, pairs, accepted_P) for number in numbers)
    return f'<section><h2>{title}</h2><ul class="pairs">{items}</ul></section>'


def _item(number, result, pairs, accepted_P):
    same = bool(result.issame_P[number])
    right = accepted_P[number] == same
    return pair_item(number, pairs.pair(number), same, right, result.distances_P[number])


def _people_section(people, pairs):
    worst = [row for row in people if row["false_accepts"] + row["false_rejects"]][:WORST_PEOPLE]
    if not worst:
        return ""
    if worst[0]["false_accepts"] + worst[0]["false_rejects"] == 1:
        return "<section><h2>Identities</h2><p>No identity is in more than one error.</p></section>"
    rows = "".join(
        f'<tr><td><img width="56" height="56" src="{data_uri(pairs.image(row["first_image"]))}" '
        f'alt="person {row["person"]}"></td><th>{row["person"]}</th>'
        + "".join(
            f'<td class="number">{row[name]}</td>'
            for name in ("images", "pairs", "false_accepts", "false_rejects")
        )
        + "</tr>"
        for row in worst
    )
    heads = "".join(
        f'<th class="number">{name}</th>'
        for name in ("images", "pairs", "false accepts", "false rejects")
    )
    return (
        "<section><h2>Identities with most errors</h2><p>The set has no names: images of a genuine "
        "pair, and equal images, count as one identity.</p>"
        f'<div class="scroll people"><table><thead><tr><th></th><th>person</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _write_csv(path: str, rows: Iterable[Row]) -> None:
    rows = list(rows)
    with atomic_write(path, newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
