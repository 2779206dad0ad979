"""The choices of flags are those of the code behind them."""

import pytest

from losses.choices import LOSS_NAMES, MARGIN_GRADIENTS, PAST_PI
from losses.face_losses import LOSSES, find_loss


def test_the_names_are_those_of_the_losses():
    assert LOSS_NAMES == tuple(LOSSES)


@pytest.mark.parametrize("past_pi", PAST_PI)
@pytest.mark.parametrize("margin_gradient", MARGIN_GRADIENTS)
def test_every_choice_is_taken_by_arcface(past_pi, margin_gradient):
    options = find_loss("arcface", None, None, past_pi, margin_gradient)[1]["options"]
    assert (options.past_pi, options.margin_gradient) == (past_pi, margin_gradient)
