import pytest

from inference.backends.base import Backend, as_shape


def backend(shape):
    model = Backend()
    model.input_shape = shape
    return model


@pytest.mark.parametrize("shape, first", [((None, 3, 12, 16), True), ((None, 12, 16, 3), False)])
def test_the_shape_shows_where_the_channels_are(shape, first):
    assert backend(shape).channels_first is first
    assert backend(shape).image_size == (12, 16)


def test_an_open_height_has_no_image_size():
    assert backend((1, 3, None, 16)).image_size is None


def test_names_and_minus_one_are_dynamic_dimensions():
    assert as_shape(["N", 3, -1, None]) == (None, 3, None, None)
