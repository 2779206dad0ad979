import os

import pytest

from runtime.cli import ROOT
from runtime.npu.cards import CARDS
from runtime.npu.option_table import table
from tools import npu_docs


@pytest.mark.parametrize("path", sorted(npu_docs.pages()), ids=os.path.basename)
def test_the_committed_page_is_the_generated_one(path):
    with open(path, encoding="utf-8") as stream:
        assert stream.read() == npu_docs.pages()[path]


def test_check_ends_with_0_on_the_committed_pages():
    assert npu_docs.main(["--check"]) == 0


def test_every_option_and_every_version_has_a_cell():
    lines = npu_docs.options_page().splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    assert len(rows) == len(table().options)
    counts = {row.replace("\\|", "").count("|") for row in rows}
    assert counts == {5 + len(table().columns) + 1, 2 + len(table().columns) + 1}


def test_every_card_has_a_column():
    assert npu_docs.card_table().splitlines()[0].split(" | ")[1:] == list(CARDS)[:-1] + [
        f"{list(CARDS)[-1]} |"
    ]


def test_a_page_that_lacks_the_marks_is_noticed():
    with pytest.raises(AssertionError, match="has no <!-- cards -->"):
        npu_docs._between("no marks", "cards", "x")


def test_the_guide_links_the_generated_page():
    with open(os.path.join(ROOT, "docs", "ascend.md"), encoding="utf-8") as stream:
        assert "(ascend_options.md)" in stream.read()
