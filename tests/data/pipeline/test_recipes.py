"""The recipes of augmentation."""

import dataclasses

import pytest

from data.pipeline.recipes import RECIPES, recipe


def test_strong_is_flip_and_a_fifth_of_each():
    strong = dataclasses.asdict(RECIPES["strong"])
    assert strong.pop("flip") == 0.5 and set(strong.values()) == {0.2}
    assert recipe("strong", crop=0.1).crop == 0.1


def test_a_probability_above_one_is_refused():
    with pytest.raises(ValueError, match="probability of jpeg is 1.5"):
        recipe("flip", jpeg=1.5)


def test_an_unknown_recipe_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="--augment weak is not known; choose one of none, flip"):
        recipe("weak")
