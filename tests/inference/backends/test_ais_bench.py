"""Against a stand-in for Ascend's package: there is no card here."""

import os

import numpy as np
import pytest

import tests.inference
from inference.embedder import Embedder
from tests.inference.tiny_models import HEIGHT, IMAGES, WEIGHTS, WIDTH, expected, write_manifest

DOUBLE = os.path.join(os.path.dirname(tests.inference.__file__), "ais_bench_double")


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(DOUBLE)
    path = tmp_path / "model.om"
    with open(str(path), "wb") as stream:
        np.savez(stream, weights=WEIGHTS, shape=np.array([4, 3, HEIGHT, WIDTH]))
    write_manifest(path)
    return str(path)


def test_a_short_last_batch_is_filled_to_the_fixed_size(model):
    with Embedder(model) as embedder:
        found = embedder.embed(IMAGES)
    np.testing.assert_allclose(found, expected(IMAGES), rtol=1e-4, atol=1e-4)


def test_it_has_the_fixed_batch_of_the_file(model):
    with Embedder(model) as embedder:
        assert (embedder.backend_name, embedder.batch_size) == ("ais_bench", 4)
