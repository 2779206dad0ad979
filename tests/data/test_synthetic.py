"""data/synthetic.py: what is in the files, that a seed makes the same bytes, what it refuses."""

import dataclasses
import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from data import synthetic
from data.eval_data_reader import decode_images, read_pairs
from data.formats import recordio
from data.synthetic_faces import head, portrait
from data.synthetic_faces import view as camera
from runtime.cli import ROOT

SMALL = ["--identities", "3", "--images_per_identity", "2", "--eval_pairs", "20"]
SIZE = 48


def draw(path, *flags):
    argv = ["--output_path", str(path), "--image_size", str(SIZE), *SMALL, *flags]
    return synthetic.main(argv)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("synthetic") / "demo"
    draw(path, "--workers", "1")
    return path


def records(path):
    """{key: (labels, encoded)} of train.rec, read by its .idx."""
    content = (path / "train.rec").read_bytes()
    found = {}
    for line in (path / "train.idx").read_text().splitlines():
        key, offset = map(int, line.split())
        length = int.from_bytes(content[offset + 4 : offset + 8], "little") & recordio.LENGTH_MASK
        found[key] = recordio.unpack(content[offset + 8 : offset + 8 + length])
    return found


def digests(path):
    return {
        name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in os.listdir(path)
    }


def portrait_of(person, image_size=SIZE):
    identity = head.draw_identity(np.random.RandomState([5, person]))
    return portrait.Portrait(identity, image_size)


def test_records_are_laid_out_as_insightface_lays_them_out(dataset):
    found = records(dataset)
    labels = {key: list(label) for key, (label, _) in found.items()}
    assert labels == {
        0: [7, 10],  # the identities' records are 7, 8, 9
        **{1: [0], 2: [0], 3: [1], 4: [1], 5: [2], 6: [2]},
        **{7: [1, 3], 8: [3, 5], 9: [5, 7]},
    }
    assert [key for key in found if not found[key][1]] == [7, 8, 9, 0]  # no image; the header last


def test_property_names_identities_and_size(dataset):
    assert recordio.read_property(str(dataset / "property")) == (3, (SIZE, SIZE))


def test_images_decode_at_their_size(dataset):
    images = [encoded for _, encoded in records(dataset).values() if encoded]
    assert decode_images(images, (SIZE, SIZE)).std(axis=(1, 2, 3)).min() > 5


@pytest.mark.parametrize("name", ["lfw.bin", "cfp_fp.bin"])
def test_each_fold_is_half_the_same_person(dataset, name):
    encoded, issame = read_pairs(str(dataset / name))
    assert len(encoded) == 40 and len(set(encoded)) == 40
    assert (issame.reshape(10, -1).mean(axis=1) == 0.5).all()


def test_folds_share_no_person_and_different_pairs_differ():
    pairs, issame = synthetic.plan_pairs(60)
    people = [{person for pair in pairs[i : i + 6] for person in pair} for i in range(0, 60, 6)]
    assert len(set.union(*people)) == sum(map(len, people)) == 30
    assert [left == right for left, right in pairs] == issame


def test_workers_change_no_byte(dataset, tmp_path):
    draw(tmp_path / "two", "--workers", "2")
    assert digests(tmp_path / "two") == digests(dataset)


def test_another_seed_draws_other_people(dataset, tmp_path):
    draw(tmp_path / "other", "--seed", "1", "--workers", "1")
    assert digests(tmp_path / "other")["train.rec"] != digests(dataset)["train.rec"]


def test_a_finished_data_set_is_left_as_it_is(dataset, capsys):
    before = os.stat(str(dataset / "train.rec")).st_mtime_ns
    draw(dataset)
    assert "already" in capsys.readouterr().out
    assert os.stat(str(dataset / "train.rec")).st_mtime_ns == before


def test_another_data_set_is_not_overwritten(dataset):
    with pytest.raises(ValueError, match="seed 0.*choose another"):
        draw(dataset, "--seed", "3")


def test_a_directory_of_something_else_is_not_overwritten(tmp_path):
    (tmp_path / "train.rec").write_bytes(b"mine")
    with pytest.raises(ValueError, match="not a data set that this script made"):
        draw(tmp_path)
    assert os.listdir(str(tmp_path)) == ["train.rec"]


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "write_evaluation", stop)
    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path / "demo", "--workers", "1")
    assert os.listdir(str(tmp_path)) == []


def test_pairs_that_do_not_split_into_folds_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--eval_pairs 30.*multiple of 20"):
        draw(tmp_path / "demo", "--eval_pairs", "30")


def test_contact_sheet_shows_a_row_a_person(tmp_path):
    path = str(tmp_path / "sheet.png")
    synthetic.write_contact_sheet(path, seed=0, image_size=32, rows=2, columns=3)
    assert synthetic.cv2.imread(path).shape == (64, 96, 3)


def test_people_for_a_face_bank_are_enrolled_or_not(tmp_path):
    synthetic.write_people(str(tmp_path), seed=0, image_size=32)
    enrolled = sorted(os.listdir(str(tmp_path / "enrolled")))
    photos = {name[: -len(".jpg")] for name in os.listdir(str(tmp_path / "photos"))}
    assert enrolled == sorted(synthetic.ENROLLED)
    assert photos == set(synthetic.ENROLLED + synthetic.NOT_ENROLLED)
    ada = sorted(os.listdir(str(tmp_path / "enrolled" / "Ada")))
    assert ada == ["0.jpg", "1.jpg", "2.jpg"]
    photo = (tmp_path / "photos" / "Ada.jpg").read_bytes()
    assert all((tmp_path / "enrolled" / "Ada" / shot).read_bytes() != photo for shot in ada)


def test_contact_sheet_of_no_picture_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--contact_sheet"):
        synthetic.write_contact_sheet(str(tmp_path / "sheet"), 0, 32, rows=1, columns=1)


def test_a_shot_is_a_function_of_its_seed():
    shot = portrait.draw_shot(np.random.RandomState(4))
    first, again = portrait_of(1).take(shot), portrait_of(1).take(shot)
    assert first.shape == (SIZE, SIZE, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)


def test_two_people_differ_in_one_shot():
    shot = portrait.draw_shot(np.random.RandomState(4), "frontal")
    difference = np.abs(portrait_of(1).take(shot).astype(int) - portrait_of(2).take(shot)).mean()
    assert difference > 8


@pytest.mark.parametrize("view, low, high", [("frontal", 0, 25), ("profile", 52, 82)])
def test_a_view_keeps_to_its_angles(view, low, high):
    rng = np.random.RandomState(3)
    yaws = [abs(portrait.draw_shot(rng, view).yaw) for _ in range(100)]
    assert low <= min(yaws) and max(yaws) <= high


@pytest.mark.parametrize("style", head.STYLES)
@pytest.mark.parametrize("occluder", ["nothing", "sunglasses", "hat", "scarf", "hand"])
def test_every_style_can_be_photographed(style, occluder):
    person = dataclasses.replace(portrait_of(1).person, style=style, beard="full")
    shot = portrait.draw_shot(np.random.RandomState(6), "profile")
    image = portrait.Portrait(person, 32).take(dataclasses.replace(shot, occluder=occluder))
    assert image.std() > 5


def test_positive_yaw_turns_the_nose_to_the_right():
    rotation = camera.rotation_of(90.0, 0.0, 0.0)
    np.testing.assert_allclose(rotation @ [0.0, 0.0, 1.0], [1.0, 0.0, 0.0], atol=1e-6)


def test_progress_is_logged_where_there_is_no_terminal(tmp_path):
    script = os.path.join(ROOT, "data", "synthetic.py")
    words = ["--output_path", str(tmp_path / "out"), "--identities", "4", "--eval_pairs", "20"]
    words += ["--images_per_identity", "2", "--image_size", "32", "--workers", "1"]
    done = subprocess.run([sys.executable, script] + words, stderr=subprocess.PIPE)
    assert done.returncode == 0 and b"train.rec: 8/8 images, " in done.stderr
