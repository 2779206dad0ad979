import json

import numpy as np
import pytest

from data.eval_data_reader import write_pairs
from evaluation.saved_pairs import load
from evaluation.verification_set import evaluate_set, find_sets, hardest_pairs
from tests.evaluation import tiny_sets
from verification import evaluate


def judged(tmp_path, pairs=12, batch_size=5):
    path = str(tmp_path / "lfw.bin")
    tiny_sets.write_set(path, pairs)
    return evaluate_set(tiny_sets.fake_embed, path, "lfw", (16, 20), batch_size), path


def test_accuracy_is_of_plain_and_flip_is_of_plain_plus_mirrored(tmp_path):
    result, path = judged(tmp_path)
    encoded, issame_P = tiny_sets.write_set(path)
    from data.eval_data_reader import decode_images

    plain_ND, mirrored_ND = tiny_sets.fake_embed(decode_images(encoded, (16, 20)))
    row = result.row()
    assert row["accuracy"] == evaluate(plain_ND, issame_P).accuracy
    assert row["accuracy_flip"] == evaluate(plain_ND, issame_P, mirrored_ND=mirrored_ND).accuracy


def test_row_is_json_with_text_keys(tmp_path):
    row = judged(tmp_path)[0].row()
    assert json.loads(json.dumps(row)) == row
    assert "0.001" in row["tar_at_far"]


def test_hardest_pairs_are_the_most_alike_impostors_and_the_least_alike_genuine():
    distances_P = np.array([0.1, 0.2, 0.9, 0.3, 1.5, 0.8])
    issame_P = np.array([True, False, True, False, False, True])
    assert hardest_pairs(distances_P, issame_P, count=2) == [1, 3, 2, 5]


def test_saved_pairs_come_back(tmp_path):
    result, _ = judged(tmp_path)
    result.save(str(tmp_path / "lfw.npz"), step=7)
    saved = load(str(tmp_path / "lfw.npz"))
    assert saved.row == dict(result.row(), step=7)
    assert np.array_equal(saved.distances_P, result.distances_P)
    assert np.array_equal(saved.issame_P, result.issame_P)
    assert saved.hardest == result.hardest


def test_a_half_written_file_of_pairs_is_none(tmp_path):
    result, _ = judged(tmp_path)
    path = tmp_path / "lfw.npz"
    result.save(str(path))
    path.write_bytes(path.read_bytes()[:-200])
    assert load(str(path)) is None
    assert load(str(tmp_path / "missing.npz")) is None


def test_a_set_beside_a_recipe_is_called_synthetic(tmp_path):
    assert not judged(tmp_path)[0].row()["synthetic"]
    (tmp_path / "synthetic.json").write_text("{}")
    assert judged(tmp_path)[0].row()["synthetic"]


def test_finds_all_sets_or_those_named(tmp_path):
    for name in ("lfw", "agedb_30"):
        tiny_sets.write_set(tmp_path / f"{name}.bin")
    assert list(find_sets(str(tmp_path))) == ["agedb_30", "lfw"]
    assert list(find_sets(str(tmp_path), ("lfw.bin",))) == ["lfw"]


def test_an_unknown_set_lists_what_is_there(tmp_path):
    tiny_sets.write_set(tmp_path / "lfw.bin")
    with pytest.raises(ValueError, match=r"cplfw.bin is not there; .* holds lfw"):
        find_sets(str(tmp_path), ("cplfw",))


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_a_directory_without_sets_is_refused(tmp_path, make):
    make(tmp_path / "db")
    with pytest.raises(ValueError, match="db"):
        find_sets(str(tmp_path / "db"))


@pytest.mark.parametrize("issame", [[True] * 12, [False] * 12])
def test_a_set_of_one_kind_is_refused_by_name_before_the_net_runs(tmp_path, issame):
    path = str(tmp_path / "lfw.bin")
    write_pairs(path, tiny_sets.encoded_images(24), issame)
    with pytest.raises(ValueError, match="lfw.bin: all 12 pairs are of"):
        evaluate_set(None, path, "lfw", (16, 20), 5)


def test_embeddings_with_nan_are_refused_by_name(tmp_path):
    path = str(tmp_path / "lfw.bin")
    tiny_sets.write_set(path)

    def broken(images_BHWC):
        plain_BD, mirrored_BD = tiny_sets.fake_embed(images_BHWC)
        return plain_BD * np.nan, mirrored_BD

    with pytest.raises(ValueError, match="lfw.bin: 24 of 24 embeddings hold NaN"):
        evaluate_set(broken, path, "lfw", (16, 20), 5)
