import json
import os

import numpy as np
import pytest

from data.eval_data_reader import decode_images, write_pairs
from evaluation.saved_pairs import load
from evaluation.verification_set import (
    NetFunction,
    OpenSets,
    VerificationSet,
    find_sets,
    hardest_pairs,
    identities_of,
)
from inference.backends.checkpoint import CheckpointEmbedder
from inference.batches import embed_encoded
from tests.evaluation import tiny_sets
from verification import evaluate

SIZE = (16, 20)


@pytest.fixture
def path(tmp_path):
    tiny_sets.write_set(tmp_path / "lfw.bin")
    return str(tmp_path / "lfw.bin")


@pytest.fixture
def result(path):
    return VerificationSet.open(path).evaluate(tiny_sets.FAKE_NET)


def test_accuracy_is_of_plain_and_flip_is_of_plain_plus_mirrored(tmp_path, result):
    encoded, issame_P = tiny_sets.write_set(tmp_path / "again.bin")
    plain_ND, mirrored_ND = tiny_sets.fake_embed(decode_images(encoded, SIZE))
    row = result.row()
    assert row["accuracy"] == evaluate(plain_ND, issame_P).accuracy
    assert row["accuracy_flip"] == evaluate(plain_ND, issame_P, mirrored_ND=mirrored_ND).accuracy


def test_an_image_of_several_pairs_is_embedded_once(path):
    seen = []

    def counting(images_BHWC):
        seen.append(len(images_BHWC))
        return tiny_sets.fake_embed(images_BHWC)

    pairs = VerificationSet.open(path)
    pairs.evaluate(NetFunction(counting, SIZE, 1))
    assert len(pairs.images) == 18  # 12 pairs, 6 of them of one image twice
    assert len(seen) == 18


def test_distinct_images_alone_give_the_metrics_of_all_entries(tmp_path):
    encoded, _ = tiny_sets.write_set(tmp_path / "lfw.bin")
    pairs = VerificationSet.open(str(tmp_path / "lfw.bin"))
    with CheckpointEmbedder(tiny_sets.prefix(), batch_size=4) as net:
        once = pairs.embed(net)
        every = embed_encoded(net.embed_batch, encoded, SIZE, 4)
    for once_ND, every_ND in zip(once, every):  # the last bit depends on the place in a batch
        assert np.abs(once_ND - every_ND).max() < 1e-5 * np.abs(every_ND).max()
    found, expected = pairs.score(*once).flip, pairs.score(*every).flip
    assert np.array_equal(found.accuracies, expected.accuracies)
    assert found.tar_at_far == expected.tar_at_far


def test_progress_counts_each_distinct_image(path):
    steps = []
    VerificationSet.open(path).evaluate(tiny_sets.FAKE_NET, steps.append)
    assert sum(steps) == 18


def test_the_file_is_read_once(tmp_path, path):
    pairs = VerificationSet.open(path)
    (tmp_path / "lfw.bin").unlink()
    first = pairs.evaluate(tiny_sets.FAKE_NET)
    assert pairs.evaluate(tiny_sets.FAKE_NET).row() == first.row()


def test_a_pair_gives_its_two_entries(tmp_path):
    encoded, _ = tiny_sets.write_set(tmp_path / "lfw.bin")
    pairs = VerificationSet.open(str(tmp_path / "lfw.bin"))
    assert [image for pair in range(len(pairs)) for image in pairs.pair(pair)] == encoded


def test_a_broken_image_is_named_by_its_entry_in_the_file(tmp_path):
    encoded, issame_P = tiny_sets.write_set(tmp_path / "lfw.bin")
    encoded[9] = b"no image"  # of the distinct images it is number 7
    write_pairs(str(tmp_path / "lfw.bin"), encoded, issame_P)
    with pytest.raises(ValueError, match=r"lfw.bin: image 9 "):
        VerificationSet.open(str(tmp_path / "lfw.bin")).evaluate(tiny_sets.FAKE_NET)


def test_identities_follow_from_genuine_pairs_and_equal_images():
    row_N = [0, 1, 2, 3, 1, 4, 5, 2]
    issame_P = np.array([True, False, True, False])
    assert identities_of(row_N, issame_P).tolist() == [0, 0, 1, 2, 0, 0, 3, 1]


def test_row_is_json_with_text_keys(result):
    row = result.row()
    assert json.loads(json.dumps(row)) == row
    for name in ("tar_at_far", "tar_std", "achieved_far"):
        assert "0.001" in row[name]


def test_norms_are_the_lengths_of_plain_plus_mirrored(path):
    pairs = VerificationSet.open(path)
    plain_ND, mirrored_ND = pairs.embed(tiny_sets.FAKE_NET)
    expected_N = [np.sqrt(((a + b) ** 2).sum()) for a, b in zip(plain_ND, mirrored_ND)]
    np.testing.assert_allclose(pairs.score(plain_ND, mirrored_ND).norms_N, expected_N, rtol=1e-5)


def test_hardest_pairs_are_the_most_alike_impostors_and_the_least_alike_genuine():
    distances_P = np.array([0.1, 0.2, 0.9, 0.3, 1.5, 0.8])
    issame_P = np.array([True, False, True, False, False, True])
    assert hardest_pairs(distances_P, issame_P, count=2) == [1, 3, 2, 5]


def test_a_result_is_saved_with_its_step(tmp_path, result):
    result.save(str(tmp_path / "lfw.npz"), step=7)
    saved = load(str(tmp_path / "lfw.npz"))
    assert saved.row == dict(result.row(), step=7)
    assert saved.hardest == result.hardest


def test_a_set_is_synthetic_when_its_directory_holds_the_generators_settings(tmp_path, path):
    assert not VerificationSet.open(path).synthetic
    (tmp_path / "synthetic.json").write_text("{}")
    assert VerificationSet.open(path).synthetic


def test_finds_all_sets_or_those_named(tmp_path):
    for name in ("lfw", "agedb_30"):
        tiny_sets.write_set(tmp_path / f"{name}.bin")
    assert list(find_sets(str(tmp_path))) == ["agedb_30", "lfw"]
    assert list(find_sets(str(tmp_path), ("lfw.bin",))) == ["lfw"]


def test_an_unknown_set_is_an_error_that_lists_the_existing_ones(tmp_path):
    tiny_sets.write_set(tmp_path / "lfw.bin")
    with pytest.raises(ValueError, match=r"cplfw.bin is missing; .* holds lfw"):
        find_sets(str(tmp_path), ("cplfw",))


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_a_directory_without_sets_is_an_error(tmp_path, make):
    make(tmp_path / "db")
    with pytest.raises(ValueError, match="db"):
        find_sets(str(tmp_path / "db"))


@pytest.mark.parametrize("issame", [[True] * 12, [False] * 12])
def test_a_set_of_one_kind_is_an_error_at_opening(tmp_path, issame):
    path = str(tmp_path / "lfw.bin")
    write_pairs(path, tiny_sets.encoded_images(24), issame)
    with pytest.raises(ValueError, match="lfw.bin: all 12 pairs are of"):
        VerificationSet.open(path)


def test_too_few_pairs_for_the_folds_are_an_error_at_opening(path):
    with pytest.raises(ValueError, match="lfw.bin: 12 pairs do not make 13 folds"):
        VerificationSet.open(path, folds=13)


def test_embeddings_with_nan_are_an_error_that_names_the_file(path):
    def broken(images_BHWC):
        plain_BD, mirrored_BD = tiny_sets.fake_embed(images_BHWC)
        return plain_BD * np.nan, mirrored_BD

    with pytest.raises(ValueError, match="lfw.bin: 24 of 24 embeddings hold NaN"):
        VerificationSet.open(path).evaluate(NetFunction(broken, SIZE, 5))


def test_an_open_set_is_read_once(tmp_path):
    path = str(tmp_path / "lfw.bin")
    tiny_sets.write_set(path)
    opened = OpenSets(limit=1 << 20)
    first = opened.open(path)
    os.remove(path)
    assert opened.open(path) is first


def test_a_set_that_exceeds_the_limit_is_read_again(tmp_path):
    path = str(tmp_path / "lfw.bin")
    tiny_sets.write_set(path)
    opened = OpenSets(limit=100)
    first = opened.open(path)
    assert opened.open(path) is not first and opened.limit == 100


def test_measures_of_a_set_are_in_the_order_of_its_entries(tmp_path):
    path = str(tmp_path / "lfw.bin")
    tiny_sets.write_set(path)
    pairs = VerificationSet.open(path)
    found = pairs.measures((16, 20))["brightness"]
    expected = pairs.decode(pairs.row_N, (16, 20)).mean(axis=(1, 2)) @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(found, expected, atol=1.0)
