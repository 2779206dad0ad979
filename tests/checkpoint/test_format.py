"""The record's schema, the search for checkpoints, and names that are no names."""

import json
import os

import pytest

from checkpoint.format import (
    BEST_PREFIX,
    BEST_RECORD,
    PREFIX,
    RECORD_BYTES,
    check_path,
    clear_unfinished,
    find_checkpoint,
    find_checkpoints,
    newest_whole,
    plain_prefix,
    read_record,
    remove_checkpoint,
    size_and_crc,
    step_of,
    steps_in,
    write_record,
)


@pytest.fixture
def checkpoint(tmp_path):
    """checkpoint(step_in_name, **changes): its prefix; its record has the changes."""

    def write(step_in_name, **changes):
        prefix = str(tmp_path / PREFIX.format(step_in_name))
        files = {}
        for ending in (".index", ".data-00000-of-00001"):
            with open(prefix + ending, "w") as stream:
                stream.write(f"{ending} of {step_in_name}")
            files[os.path.basename(prefix) + ending] = size_and_crc(prefix + ending)
        record = {"net": {}, "training": {}, "dataset": {}, "step": step_in_name, "files": files}
        write_record(prefix, dict(record, **changes))
        return prefix

    return write


def test_a_record_is_read_as_it_was_written(checkpoint):
    record = read_record(checkpoint(3, best={"lfw": 0.5}))
    assert (record["step"], record["best"]) == (3, {"lfw": 0.5})


@pytest.mark.parametrize(
    "changes",
    [
        {"step": "x"},
        {"step": 1e308},
        {"step": -5},
        {"step": 2.5},
        {"step": True},
        {"images_seen": None},
        {"total_steps": "9"},
        {"best": [1]},
        {"best": {"lfw": "high"}},
        {"best": {"lfw": float("nan")}},
        {"training": None},
        {"training": []},
        {"dataset": 7},
        {"files": None},
        {"files": []},
        {"files": {"a": 1}},
        {"files": {"a": {"bytes": -1, "crc32": 0}}},
        {"files": {"a": {"bytes": 1, "crc32": 2**32}}},
        {"net": {"lineage": ["x"]}},
        {"net": {"lineage": "none_such"}},
        {"net": {"net_depth": "50"}},
        {"net": {"width": "wide"}},
        {"net": {"width": float("nan")}},
        {"net": {"embedding_size": 2.5}},
        {"net": {"image_size": "ab"}},
        {"net": {"image_size": [112]}},
        {"net": {"image_size": [112, "x"]}},
        {"net": {"no_such_field": 1}},
    ],
)
def test_a_field_of_another_type_or_range_is_refused_with_the_path(checkpoint, changes):
    prefix = checkpoint(3, **changes)
    with pytest.raises(ValueError, match="^[^\n]*InsightFace_iter_3.ckpt.json: [^\n]*$"):
        read_record(prefix)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"net":' * 100_000,
        b"\xff\xfe{}",
        b"",
        b'{"net": {}, "step": ' + b"9" * 100_000 + b"}",
        b'{"net": {}}' + b" " * RECORD_BYTES,
    ],
    ids=["deep list", "deep object", "not UTF-8", "empty", "long number", "large"],
)
def test_a_file_that_is_no_record_is_refused_and_the_older_checkpoint_used(
    checkpoint, caplog, content
):
    older, newer = checkpoint(1), checkpoint(2)
    with open(newer + ".json", "wb") as stream:
        stream.write(content)
    with pytest.raises(ValueError, match="^[^\n]*json [^\n]*$"):
        read_record(newer)
    assert newest_whole(os.path.dirname(newer))[0] == older
    assert "InsightFace_iter_2.ckpt is not usable" in caplog.text


@pytest.mark.parametrize("missing", ["files", "step", "training", "dataset"])
def test_a_checkpoint_whose_record_lacks_an_entry_is_skipped(checkpoint, caplog, missing):
    older, newer = checkpoint(1), checkpoint(2)
    record = read_record(newer)
    del record[missing]
    write_record(newer, record)
    assert newest_whole(os.path.dirname(newer))[0] == older
    assert f'no "{missing}" entry' in caplog.text


SOME = {"bytes": 1, "crc32": 1}


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"../../x": SOME},
        {"/dev/zero": SOME},
        {"InsightFace_iter_1.ckpt.index": SOME},
        {"InsightFace_iter_2.ckpt.index/../x": SOME},
        {"InsightFace_iter_2.ckpt.data-00000-of-00001": SOME},
    ],
)
def test_a_checkpoint_whose_record_lists_other_files_is_skipped(checkpoint, files):
    older, newer = checkpoint(1), checkpoint(2)
    write_record(newer, dict(read_record(newer), files=files))
    assert newest_whole(os.path.dirname(newer))[0] == older


def test_a_file_that_is_a_pipe_is_not_opened(checkpoint):
    older, newer = checkpoint(1), checkpoint(2)
    os.remove(newer + ".index")
    os.mkfifo(newer + ".index")
    assert newest_whole(os.path.dirname(newer))[0] == older


def test_a_record_of_another_step_than_its_name_is_skipped(checkpoint):
    older, newer = checkpoint(1), checkpoint(2, step=10**15)
    assert newest_whole(os.path.dirname(newer))[0] == older


def test_a_directory_in_the_place_of_a_record_is_skipped(checkpoint):
    older, newer = checkpoint(1), checkpoint(2)
    os.remove(newer + ".json")
    os.mkdir(newer + ".json")
    assert newest_whole(os.path.dirname(newer))[0] == older


def test_a_missing_record_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a.ckpt.json is missing"):
        read_record(str(tmp_path / "a.ckpt"))


def test_checkpoints_are_found_by_step(tmp_path):
    for name in ("iter_20.ckpt", "iter_100.ckpt", "iter_best_30.ckpt"):
        (tmp_path / f"InsightFace_{name}.index").write_text("")
    found = find_checkpoints(str(tmp_path))
    assert [step_of(prefix) for prefix in found] == [20, 30, 100]
    assert find_checkpoints(found[0]) == find_checkpoints(found[0] + ".index") == found[:1]
    assert find_checkpoint(str(tmp_path)) == plain_prefix(str(tmp_path)) == found[-1]


def test_the_directory_of_a_run_stands_for_its_checkpoints(tmp_path):
    (tmp_path / "ckpt").mkdir()
    (tmp_path / "ckpt" / "InsightFace_iter_2.ckpt.index").write_text("")
    expected = str(tmp_path / "ckpt" / "InsightFace_iter_2.ckpt")
    assert find_checkpoints(str(tmp_path)) == [expected]


def test_a_name_without_a_step_has_step_minus_one():
    assert step_of("a/best_m.ckpt") == -1


def test_a_prefix_or_directory_without_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no checkpoint"):
        find_checkpoints(str(tmp_path))
    with pytest.raises(ValueError, match="names no checkpoint"):
        find_checkpoints(str(tmp_path / "x.ckpt"))


@pytest.mark.parametrize("character", "[]*?\\")
def test_a_path_that_tensorflow_reads_as_a_pattern_is_refused(tmp_path, character):
    directory = tmp_path / f"out{character}1"
    directory.mkdir()
    (directory / "a.ckpt.index").write_text("")
    with pytest.raises(ValueError, match="Rename the directory"):
        find_checkpoints(str(directory))
    with pytest.raises(ValueError, match="Rename the directory"):
        find_checkpoints(str(directory / "a.ckpt"))


def test_a_path_of_usual_characters_is_accepted():
    check_path("/a b/人/out-1_{2}(3)!,;=+.ckpt")


def test_steps_of_the_best_are_counted_apart(tmp_path):
    for name in (PREFIX.format(4), BEST_PREFIX.format(3), PREFIX.format(10), "other"):
        (tmp_path / f"{name}.json").write_text("{}")
    assert steps_in(str(tmp_path)) == [4, 10]
    assert steps_in(str(tmp_path), BEST_RECORD) == [3]
    assert steps_in(str(tmp_path / "nowhere")) == []


def test_the_record_is_removed_before_the_files(tmp_path, monkeypatch):
    removed = []
    for ending in (".data-00000-of-00001", ".index", ".json"):
        (tmp_path / f"a.ckpt{ending}").write_text("")
    (tmp_path / "a.ckpt2.index").write_text("")
    monkeypatch.setattr(os, "remove", removed.append)
    remove_checkpoint(str(tmp_path / "a.ckpt"))
    assert removed[0].endswith(".json") and len(removed) == 3


def test_unfinished_directories_are_cleared(tmp_path):
    (tmp_path / ".writing-1-a").mkdir()
    (tmp_path / "kept").mkdir()
    clear_unfinished(str(tmp_path))
    assert os.listdir(str(tmp_path)) == ["kept"]


def test_a_record_ends_with_a_newline_and_has_sorted_keys(tmp_path):
    write_record(str(tmp_path / "a"), {"b": 1, "a": 2})
    text = (tmp_path / "a.json").read_text()
    assert text.endswith("}\n") and list(json.loads(text)) == ["a", "b"]
