"""The first records of the training data."""

import dataclasses

import pytest

from tests.training.graph.test_step import config_of, run  # noqa: F401
from tests.training.preflight.test_checks import relabelled
from training.plan import make_plan
from training.preflight.first_batch import first_batch


def test_a_label_without_a_class_is_refused_by_record(small, tmp_path):
    config = config_of(small, tmp_path / "run")
    plan = make_plan(config)._replace(identities=2)
    with pytest.raises(ValueError, match=r"record \d+ has label [23], but the head has 2 ident"):
        first_batch(config, plan, 24)
    skipping = dataclasses.replace(config, on_error="skip")
    assert set(first_batch(skipping, plan, 24)[1]) == {0, 1}


def test_data_in_the_order_of_their_source_are_doubted(small, tmp_path, caplog):
    folder = relabelled(small, tmp_path / "one", lambda label, image: (0, image))
    config = config_of(small, tmp_path / "run", tfrecords_file_path=folder, num_output=4)
    images, labels = first_batch(config, make_plan(config), 16)
    assert "the first 16 records are of 1 identities only" in caplog.text
    assert images.shape == (16, 32, 32, 3) and not labels.any()
