"""atc's command line and what it accepts."""

import pytest

from export.ascend import check, command
from nets.lineages import NetSpec


def test_command_is_the_guides():
    words = command("m.onnx", "m_bs16.om", NetSpec(), "image", 16, "Ascend310P3")
    assert "--input_shape=image:16,3,112,112" in words
    assert "--output=m_bs16" in words and "--framework=5" in words


@pytest.mark.parametrize(
    "values, message",
    [
        (("310P3", 11, "scaled"), "is no Ascend chip"),
        (("Ascend310P3", 19, "scaled"), "atc reads 9 to 18"),
        (("Ascend310P3", 11, "uint8"), "input is NCHW"),
    ],
)
def test_what_atc_refuses_is_one_sentence(values, message):
    with pytest.raises(ValueError, match=message):
        check(*values)
