"""FNIR of 1:N figures."""

from evaluation.error_rates import binomial_interval
from evaluation.identification import fnir_figures


def test_fnir_is_the_share_of_probes_that_are_not_identified():
    figures = {
        "tpir_at_fpir": {0.01: 0.75, 0.1: 1.0},
        "open_set_tpir_at_fpir": {0.1: 0.5},
        "probes": 40,
    }
    found = fnir_figures(figures)
    assert found["fnir_at_fpir"] == {0.01: 0.25, 0.1: 0.0}
    assert found["open_set_fnir_at_fpir"] == {0.1: 0.5}
    assert found["fnir_interval"][0.01] == list(binomial_interval(10, 40))
