"""The page of an evaluated model."""

from evaluation.report.model_page import model_page
from tests.evaluation.report.tiny_scores import gaussian_result


def test_the_page_has_every_section_of_scores():
    best = {"lfw": gaussian_result().saved()}
    text = model_page("a<b.ckpt", best, {})
    for title in ("<b>ROC</b>", "<b>DET</b>", "Operating points", "<b>Reliability</b>"):
        assert title in text
    assert "a&lt;b.ckpt" in text and "a<b" not in text
