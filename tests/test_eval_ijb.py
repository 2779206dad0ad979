import csv
import json
import os

import numpy as np
import pytest

import eval_ijb
from tests.evaluation import tiny_ijb, tiny_sets


@pytest.fixture
def release(tmp_path):
    """Flags for embeddings that are there already."""
    tiny_ijb.write(tmp_path / "IJBC", images=True)
    for name, array in zip(("plain", "mirrored"), tiny_ijb.embeddings()):
        np.save(str(tmp_path / f"{name}.npy"), array)
    return tmp_path


def flags_of(release, *more):
    files = [
        "--embeddings",
        str(release / "plain.npy"),
        "--mirrored",
        str(release / "mirrored.npy"),
    ]
    return ["--data_path", str(release)] + files + list(more)


def test_all_modes_from_embeddings_as_table_json_csv_and_plot(release, capsys):
    out = release / "out"
    eval_ijb.main(
        flags_of(release, "--all_modes", "--json", str(out / "i.json"), "--csv", str(out / "i.csv"))
        + ["--plot", str(out / "roc.png")]
    )
    modes = json.load(open(str(out / "i.json")))["modes"]
    assert len(modes) == 8
    assert set(modes["N1D1F1"]["1:1"]) >= {"tar_at_far", "auc", "eer"}
    assert set(modes["N1D1F1"]["1:N"]) >= {"ranks", "tpir_at_fpir", "open_set_tpir_at_fpir"}
    one = modes["N1D1F1"]["1:N"]
    assert one["fnir_at_fpir"] == {fpir: 1 - tpir for fpir, tpir in one["tpir_at_fpir"].items()}
    printed = capsys.readouterr().out
    assert "N0D1F0" in printed and "rank-1" in printed
    rows = list(csv.DictReader(open(str(out / "i.csv"))))
    auc = [float(row["value"]) for row in rows if row["figure"] == "auc"]
    assert auc == [figures["1:1"]["auc"] for figures in modes.values()]
    assert os.path.getsize(str(out / "roc.png")) > 1000


def test_a_checkpoint_and_its_saved_embeddings_say_the_same(release):
    base = ["--data_path", str(release), "--protocols", "1:1"]
    kept = ["--save_embeddings", str(release / "kept"), "--batch_size", "8"]
    eval_ijb.main(
        base + ["--ckpt_file", tiny_sets.prefix(), "--json", str(release / "a.json")] + kept
    )
    files = ["--embeddings", str(release / "kept" / "plain.npy")]
    files += ["--mirrored", str(release / "kept" / "mirrored.npy")]
    eval_ijb.main(base + files + ["--json", str(release / "b.json")])
    first, second = (
        json.load(open(str(release / name)))["modes"]["N1D1F1"]["1:1"]
        for name in ("a.json", "b.json")
    )
    assert (first["tar_at_far"], first["auc"]) == (second["tar_at_far"], second["auc"])
    assert np.load(str(release / "kept" / "plain.npy")).shape == (tiny_ijb.IMAGES, 6)


def test_a_missing_image_is_named_before_the_net_runs(release):
    os.remove(str(release / "IJBC" / "loose_crop" / "17.jpg"))
    with pytest.raises(ValueError, match=r"17.jpg does not exist \(1 of 41 images"):
        eval_ijb.main(["--data_path", str(release), "--ckpt_file", tiny_sets.prefix()])


@pytest.mark.parametrize(
    "flags, words",
    [
        ([], "either --ckpt_file"),
        (["--embeddings", "PLAIN"], "--use_flip needs --mirrored"),
        (["--embeddings", "PLAIN", "--mirrored", "SHORT"], "the lists have 41 images"),
        (["--ckpt_file", "x", "--protocols", "2:2"], "2:2 is not known"),
        (["--ckpt_file", "x"], "x names no checkpoint"),
        (["--ckpt_file", "CKPT", "--device", "tpu"], "--device tpu"),
        (["--ckpt_file", "CKPT", "--subset", "IJBB"], "ijbb_name_5pts_score.txt does not exist"),
    ],
)
def test_refuses_in_one_sentence(release, flags, words):
    np.save(str(release / "short.npy"), np.ones((40, 5), np.float32))
    real = {"PLAIN": str(release / "plain.npy"), "SHORT": str(release / "short.npy")}
    real["CKPT"] = tiny_sets.prefix()
    with pytest.raises(ValueError, match=words):
        eval_ijb.main(["--data_path", str(release)] + [real.get(flag, flag) for flag in flags])
