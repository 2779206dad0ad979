"""Parameters and multiply-adds of every net in the table: python -m nets.summary.

--markdown writes docs/lineages.md's tables, which a test holds to what this prints.
"""

import dataclasses
from typing import List, Optional, Sequence, Tuple

import numpy as np

from nets.build import embeddings
from nets.lineages import LINEAGES, NetSpec
from nets.multiply_adds import multiply_adds
from runtime.cli import run
from runtime.flags import flag, parse_flags
from runtime.tf1 import tf

COLUMNS = (
    ("row", lambda row: f"`{row.name}`"),
    ("norm", lambda row: {"batch": "BN", "group": "GN 32", "renorm": "BRN"}[row.norm]),
    ("eps", lambda row: f"{row.eps:g}"),
    ("first shortcut", lambda row: {"conv": "conv + norm", "pool": "pool"}[row.first_shortcut]),
    ("norm after conv1", lambda row: "yes" if row.norm_after_conv1 else "no"),
    ("outputs", lambda row: f"x{row.expansion}"),
    ("last gamma", lambda row: row.last_gamma),
    ("dropout", lambda row: f"{row.dropout:g}"),
    ("length 1", lambda row: "yes" if row.l2 else "no"),
    ("PReLU from", lambda row: f"{row.prelu_init:g}"),
    ("pixels", lambda row: f"{row.pixels}, /{row.divisor:g}"),
    ("moving variance", lambda row: "n/(n-1)" if row.unbiased else "biased"),
)


@dataclasses.dataclass(frozen=True)
class SummaryConfig:
    lineage: Optional[str] = flag(None, "only this row", choices=tuple(LINEAGES))
    net_depth: Optional[int] = flag(None, "only this depth")
    markdown: bool = flag(False, "print the tables of docs/lineages.md")


def main(argv: Optional[Sequence[str]] = None) -> None:
    config = parse_flags(SummaryConfig, argv, __doc__.splitlines()[0])
    if config.markdown:
        print("\n".join(lineage_table()))
        return
    rows = [LINEAGES[config.lineage]] if config.lineage else LINEAGES.values()
    print(
        f"{'row':26}{'depth':>6} {'block':6}{'parameters':>12}{'trained':>12}{'multiply-adds':>15}"
    )
    for row in rows:
        for depth in [config.net_depth] if config.net_depth else sorted(row.units):
            for block in row.blocks:
                parameters, trained, adds = count(NetSpec(row.name, depth, block))
                print(
                    f"{row.name:26}{depth or '-':>6} {block:6}{parameters / 1e6:11.2f}M"
                    f"{trained / 1e6:11.2f}M{adds / 1e9:14.3f}G"
                )


def count(spec: NetSpec) -> Tuple[int, int, int]:
    """(numbers in the net's weights without moving statistics, those that are trained, multiply-
    adds of one image's convolutions and dense layers)."""
    with tf.Graph().as_default() as graph:
        embeddings(tf.placeholder(tf.uint8, [1] + list(spec.image_size) + [3]), spec, False)
        sizes = {v.op.name: int(np.prod(v.shape.as_list())) for v in tf.global_variables()}
        weights = [size for name, size in sizes.items() if "/moving_" not in name]
        trained = [sizes[v.op.name] for v in tf.trainable_variables()]
        adds = sum(multiply_adds(op) for op in graph.get_operations())
    return sum(weights), sum(trained), adds


def lineage_table() -> List[str]:
    """The table of the docs, a line each: a row a lineage, generated from nets/lineages.py."""
    titles = [title for title, _ in COLUMNS]
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    ir = [row for row in LINEAGES.values() if row.family == "ir"]
    lines += [f"| {' | '.join(show(row) for _, show in COLUMNS)} |" for row in ir]
    lines += ["", "| row | source | depths | blocks | decays | files | compared with |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for row in LINEAGES.values():
        depths = "one form" if list(row.units) == [0] else ", ".join(map(str, sorted(row.units)))
        blocks = "-" if row.family in ("vgg", "mobilefacenet") else ", ".join(row.blocks)
        cells = (f"`{row.name}`", row.source, depths, blocks, ", ".join(row.decays))
        lines.append(f"| {' | '.join(cells + (row.names or 'its checkpoints', row.checked))} |")
    return lines


if __name__ == "__main__":
    run(main)
