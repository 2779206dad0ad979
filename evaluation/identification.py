"""1:N error rates in the terms of ISO/IEC 19795: FNIR at FPIR, from InsightFace's rates."""

from typing import Any, Dict, List, Mapping

from evaluation.error_rates import binomial_interval


def fnir_figures(figures: Mapping[str, Any]) -> Dict[str, Any]:
    """FNIR = 1 - TPIR at each FPIR, of 1:N figures (evaluation/ijb.py), with the exact 95 %
    interval of the closed-set rate over its probes."""
    fnir = {target: 1.0 - tpir for target, tpir in figures["tpir_at_fpir"].items()}
    return {
        "fnir_at_fpir": fnir,
        "open_set_fnir_at_fpir": {
            target: 1.0 - tpir for target, tpir in figures["open_set_tpir_at_fpir"].items()
        },
        "fnir_interval": {
            target: _interval(rate, figures["probes"]) for target, rate in fnir.items()
        },
    }


def _interval(rate: float, probes: int) -> List[float]:
    return list(binomial_interval(int(round(rate * probes)), probes))
