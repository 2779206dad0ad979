"""What is built for an NPU holds nothing that is not known to compile there."""

import pytest

from losses.face_losses import LOSSES
from runtime.flags import build
from runtime.tf1 import TF2
from tests.npu_double.fixtures import cards, npu, tiny_net  # noqa: F401
from tools import npu_lint

pytestmark = pytest.mark.skipif(TF2, reason="the adapter is for TensorFlow 1.15")
SMALL = dict(lineage="insightface_tf_vgg")  # whose place the tiny net takes


def faults(case, **config):
    return npu_lint.lint(build(npu_lint.LintConfig, config), **case)[1]


@pytest.mark.parametrize(
    "depth, block, lineage", [(50, "se", "insightface_tf"), (100, "ir", "arcface_torch")]
)
def test_the_nets_hold_nothing_unknown(npu, depth, block, lineage):  # noqa: F811
    case = dict(net_depth=depth, block=block, loss="arcface")
    assert faults(case, lineage=lineage) == []


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_every_loss_on_eight_cards_and_a_sample_holds_nothing_unknown(npu, tiny_net, loss):  # noqa: F811
    case = dict(net_depth=16, block="ir", loss=loss, cards=8, sample_rate=0.5)
    assert faults(case, **SMALL) == []


@pytest.mark.parametrize(
    "case",
    [
        dict(sample_rate=0.5),
        dict(cards=8),
        dict(optimizer="adamw"),
        dict(optimizer="lars", sub_centers=2, interclass_filtering_threshold=0.4),
        dict(optimizer="nesterov", clip_norm=1.0, schedule="cosine", freeze_backbone="5step"),
    ],
)
def test_what_else_changes_the_graph_adds_nothing_unknown(npu, tiny_net, case):  # noqa: F811
    assert faults(dict(net_depth=16, loss="arcface", **case), **SMALL) == []


def test_the_command_names_what_it_finds(npu, tiny_net, monkeypatch, capsys):  # noqa: F811
    words = ["--lineage", "insightface_tf_vgg", "--net_depth", "16", "--block", "ir"]
    assert npu_lint.main(words) == 0
    assert "operations of" in capsys.readouterr().out
    monkeypatch.delitem(npu_lint.compiled_ops.EVIDENCE, "Exp")
    assert npu_lint.main(words) == npu_lint.FAULTS
    assert (
        "  training: there is no evidence that the device supports Exp (first: Exp"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize("npu", ["main 910B"], indirect=True)
def test_the_graph_of_a_card_with_infinities_holds_nothing_unknown(npu, tiny_net):  # noqa: F811
    assert faults(dict(net_depth=16, loss="arcface", cards=8, sample_rate=0.5), **SMALL) == []


def test_an_option_of_another_version_is_refused_by_the_version_that_added_it(npu):  # noqa: F811
    with pytest.raises(ValueError, match="--external_weight came with CANN 6.0"):
        npu_lint.main(["--cann", "5.1", "--npu_option", "external_weight=true"])


def test_an_option_of_another_card_is_refused_by_the_cards_that_have_it(npu):  # noqa: F811
    with pytest.raises(ValueError, match="--aicore_num is for 910B and 910C"):
        npu_lint.main(["--cann", "9", "--npu_card", "910A", "--npu_option", "aicore_num=2|4"])
