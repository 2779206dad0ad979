"""Sizes of nets against published figures, and the docs against the table."""

import os

import pytest

from nets.lineages import NetSpec
from nets.summary import count, lineage_table, main
from tests.nets.tiny_nets import shapes_of

DOCS = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "docs"
)


def test_parameters_and_multiply_adds_are_the_published_ones():
    parameters, trained, adds = count(NetSpec("arcface_torch", 100))
    assert round(parameters / 1e6, 2) == 65.16 and parameters - trained == 512
    assert round(2 * adds / 1e9, 1) == 24.2  # GFLOPs of the ONNX model zoo's LResNet100E-IR


@pytest.mark.parametrize(
    "lineage, depth, megabytes", [("insightface_tf", 50, 174.5), ("insightface_tf_wide", 50, 705)]
)
def test_backbones_take_the_bytes_of_the_originals_checkpoints(lineage, depth, megabytes):
    numbers = 0
    for shape in shapes_of(NetSpec(lineage, depth)).values():
        size = 1
        for side in shape:
            size *= side
        numbers += size
    assert abs(numbers * 4 / 1e6 - megabytes) < 0.5


def test_the_docs_hold_the_table_that_the_code_makes():
    with open(os.path.join(DOCS, "lineages.md"), encoding="utf-8") as stream:
        assert "\n".join(lineage_table()) in stream.read()


def test_the_command_prints_a_row_a_block(capsys):
    main(["--lineage", "cvlface", "--net_depth", "18"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[2].split()[:3] == ["cvlface", "18", "se"]
