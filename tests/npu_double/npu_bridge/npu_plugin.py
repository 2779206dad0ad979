"""npu_bridge.estimator.npu.npu_plugin: the device's overflow mode, and the end of the process."""

import os

import npu_bridge
from npu_bridge.world import Mistake

CARD = "NPU_DOUBLE_CARD"  # the card that the double stands for
_INF_NAN = {"910A": (False, False), "910B": (True, True), "910C": (True, True)}  # default, possible
_mode = {}
closed = []  # the calls of npu_close


def card():
    return os.environ.get(CARD, "910A")


def set_device_sat_mode(mode):
    """0: saturation, 1: INF/NaN, which the 910A does not have."""
    if mode not in (0, 1) or (mode and not _INF_NAN[card()][1]):
        raise Mistake(f"a {card()} has no overflow mode {mode}")
    _mode[card()] = bool(mode)


if npu_bridge.VERSION != "r1.5":

    def is_inf_nan_enabled():
        return _mode.get(card(), _INF_NAN[card()][0])


def npu_close():
    """What the adapter registers at exit: it ends the device's session, once a process."""
    closed.append(os.getpid())
