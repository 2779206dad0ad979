"""A plan: steps of a run, and the mistakes that are found before a graph."""

import pytest

from data.formats.manifest import Manifest
from runtime.distributed.ranks import Ranks
from tests.training.graph.test_step import config_of
from training.plan import (
    check_dataset_unchanged,
    check_output_dir_is_new,
    data_identity,
    make_plan,
    unreached,
)

MANIFEST = Manifest(31, 7, (("a", 20), ("b", 11)), seed=3, checksum="12ab")


def plan_of(small, output, ranks=None, **flags):
    config = config_of(small, output, **flags)
    return make_plan(config, ranks) if ranks else make_plan(config)


def test_durations_become_steps(small, tmp_path):
    """24 images in batches of 8: an epoch is 3 steps."""
    flags = dict(epoch="4", ckpt_interval="0.5run", validate_interval="1ep", warmup="16img")
    plan = plan_of(small, tmp_path, **flags)
    assert (plan.total_steps, plan.ckpt_steps, plan.validate_steps) == (12, 6, 3)
    assert plan.rates.warmup_steps == 2


def test_the_head_has_the_identities_of_the_data_or_more(small, tmp_path):
    assert plan_of(small, tmp_path).identities == small.identities
    assert plan_of(small, tmp_path, num_output=9).identities == 9
    with pytest.raises(ValueError, match="--num_output 2 is too small"):
        plan_of(small, tmp_path, num_output=2)


@pytest.mark.parametrize(
    "flags, sentence",
    [
        (dict(epoch="0step"), "--epoch 0step is less than one step"),
        (dict(accumulate=3), "cannot be divided into --accumulate 3 equal parts"),
        (dict(accumulate=2, sample_rate=0.5, num_output=40), "sums gradients of all centers"),
        (dict(image_size=(64, 32)), "has images of 32 x 32, but --image_size is 64 x 32"),
        (dict(profile="3"), "--profile 3 is not a range of steps"),
    ],
)
def test_a_mistake_is_one_sentence(small, tmp_path, flags, sentence):
    with pytest.raises(ValueError, match=sentence):
        plan_of(small, tmp_path, **flags)


def test_a_batch_that_devices_cannot_share_is_refused_with_one_that_they_can(small, tmp_path):
    with pytest.raises(ValueError, match="among 3 devices; pass a multiple of 3, for example 9"):
        plan_of(small, tmp_path, ranks=Ranks(3))


def test_a_directory_that_cannot_be_written_is_refused(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written .* pass another --output_path"):
        plan_of(small, tmp_path / "file")


def test_parts_of_the_plan_beyond_its_end_are_named(small, tmp_path):
    flags = dict(epoch="3", schedule="piecewise", eval_db_path=small.folder)
    sentences = unreached(plan_of(small, tmp_path, **flags))
    assert [sentence.split(",")[0] for sentence in sentences[:1]] == ["the run ends at step 9"]
    assert "the only validation is at the end" in sentences[1]
    assert "the only checkpoint is at the end" in sentences[2]
    within = dict(ckpt_interval="0.5run", validate_interval="0.5run", lr_steps=("0.5run",))
    within["lr_factors"] = (1.0, 0.1)
    assert unreached(plan_of(small, tmp_path, **dict(flags, **within))) == []


def test_a_new_run_does_not_start_over_checkpoints(small, tmp_path):
    config = config_of(small, tmp_path)
    (tmp_path / "ckpt").mkdir()
    (tmp_path / "ckpt" / "InsightFace_iter_5.ckpt.json").write_text("{}")
    with pytest.raises(ValueError, match="already has 1 checkpoints; pass --resume .* step 5"):
        check_output_dir_is_new(config)
    check_output_dir_is_new(config_of(small, tmp_path, resume=True))


@pytest.mark.parametrize("change", [dict(images=30), dict(checksum="34cd"), dict(seed=4)])
def test_a_run_is_not_resumed_on_other_data(change):
    saved = data_identity(MANIFEST)
    check_dataset_unchanged(MANIFEST, saved, "run/ckpt")
    other = Manifest(**dict(vars(MANIFEST), **change))
    with pytest.raises(ValueError, match="--resume: run/ckpt was trained on data with"):
        check_dataset_unchanged(other, saved, "run/ckpt")
