"""Shifted verification crops are found before the first step."""

import types

import cv2
import pytest

from data.crop_geometry import Shift
from data.formats.manifest import read_manifest
from data.formats.tfrecord import example_bytes
from tests.data.test_crop_geometry import faces
from tests.data.tiny_shards import write_shard
from training.preflight.geometry import warn_of_shifts


def encoded(*arguments):
    return [cv2.imencode(".png", image)[1].tobytes() for image in faces(*arguments)]


@pytest.fixture(scope="module")
def run_of_faces(tmp_path_factory):
    """(config, plan) of shards of drawn faces, as far as the check reads them."""
    directory = tmp_path_factory.mktemp("shards")
    examples = [example_bytes(i % 9, image) for i, image in enumerate(encoded(0))]
    write_shard(directory / "train-00000.tfrecords", examples)
    plan = types.SimpleNamespace(manifest=read_manifest(str(directory)))
    path = str(directory)
    return types.SimpleNamespace(image_size=(112, 112), tfrecords_file_path=path), plan


def test_a_set_that_is_cut_8_pixels_off_is_named(run_of_faces, caplog):
    found = warn_of_shifts(*run_of_faces, {"lfw": encoded(1), "agedb_30": encoded(2, 8)})
    assert found == {"agedb_30": Shift(8, 0)}
    (line,) = caplog.messages
    assert line.startswith("agedb_30: its mean face is 8 pixels down of that of the training")


def test_a_pixel_is_not_named(run_of_faces, caplog):
    assert warn_of_shifts(*run_of_faces, {"lfw": encoded(3, 1)}) == {} and not caplog.messages
