import csv
import json
import os
import subprocess
import sys

import pytest

import eval_ckpt_file
from evaluation.thresholds import read_thresholds
from evaluation.verification_set import VerificationSet
from tests.evaluation import tiny_sets

FIELDS = {
    "checkpoint",
    "step",
    "set",
    "accuracy",
    "accuracy_std",
    "accuracy_flip",
    "accuracy_flip_std",
    "threshold",
    "tar_at_far",
}


@pytest.fixture
def sets(tmp_path):
    for seed, name in enumerate(("lfw", "cfp_fp")):
        tiny_sets.write_set(tmp_path / f"{name}.bin", seed=seed)
    return tmp_path


def evaluate(sets, *flags):
    eval_ckpt_file.main(["--eval_db_path", str(sets), "--batch_size", "4"] + list(flags))


def test_table_json_csv_plots_and_pairs_of_every_checkpoint_and_set(sets, tmp_path, capsys):
    out = tmp_path / "new" / "directory"
    flags = ["--json", str(out / "e.json"), "--csv", str(out / "e.csv"), "--plot", str(out)]
    flags += ["--pairs_report", str(out / "p"), "--thresholds", str(out / "t")]
    evaluate(sets, "--ckpt_path", tiny_sets.checkpoints(), *flags)
    rows = json.load(open(str(out / "e.json")))
    keys = [(row["step"], row["set"]) for row in rows]
    assert keys == [(3, "cfp_fp"), (3, "lfw"), (40, "cfp_fp"), (40, "lfw")]
    assert all(FIELDS <= set(row) and "0.001" in row["tar_at_far"] for row in rows)
    assert f"{rows[0]['accuracy_flip']:.5f} +-" in capsys.readouterr().out
    lines = list(csv.DictReader(open(str(out / "e.csv"))))
    assert [float(line["accuracy"]) for line in lines] == [row["accuracy"] for row in rows]
    assert os.path.getsize(str(out / "lfw_roc.png")) > 1000
    assert os.path.exists(str(out / "p" / "InsightFace_iter_40.ckpt" / "lfw_pairs.csv"))
    found = read_thresholds(str(out / "t" / "InsightFace_iter_40.ckpt" / "thresholds.json"))
    assert list(found) == ["cfp_fp", "lfw"]


def test_calibration_is_printed_with_its_prior(sets, capsys):
    tiny_sets.write_set(sets / "lfw.bin", pairs=60)
    prefix = tiny_sets.prefix()
    evaluate(sets, "--ckpt_file", prefix, "--eval_datasets", "lfw", "--prior", "0.01")
    lines = [line for line in capsys.readouterr().out.splitlines() if "Cllr" in line]
    assert len(lines) == 2 and all("at prior 0.01" in line for line in lines)


def test_one_checkpoint_of_the_original_flags(sets, capsys):
    base = os.path.join(tiny_sets.checkpoints(), "InsightFace_iter_")
    flags = ["--ckpt_file", base, "--ckpt_index_list", "40.ckpt", "--eval_datasets", "lfw"]
    evaluate(sets, "--net_depth", "10", "--image_size", "16,20", "--num_output", "9", *flags)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:2]] == [["InsightFace_iter_40.ckpt", "lfw"]]


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--ckpt_path", "nowhere"], "nowhere is not a directory"),
        (["--ckpt_path", "EMPTY"], "holds no checkpoint"),
        (["--ckpt_file", "nowhere.ckpt"], "names no checkpoint"),
        ([], "either --ckpt_path"),
        (["--ckpt_path", "CKPT", "--eval_datasets", "agedb_30"], "agedb_30.bin is missing"),
        (["--ckpt_path", "CKPT", "--net_depth", "50"], "depth 10, not --net_depth 50"),
        (["--ckpt_path", "CKPT", "--image_size", "112", "112"], "images of 16 x 20"),
        (["--ckpt_path", "CKPT", "--folds", "13"], "do not make 13 folds"),
        (["--ckpt_path", "CKPT", "--batch_size", "0"], "--batch_size 0 is out of range"),
    ],
)
def test_refuses_before_the_net_runs(sets, tmp_path, flags, words):
    (tmp_path / "empty").mkdir()
    real = {"CKPT": tiny_sets.checkpoints(), "EMPTY": str(tmp_path / "empty")}
    with pytest.raises(ValueError, match=words):
        evaluate(sets, *[real.get(flag, flag) for flag in flags])


def test_a_set_of_no_pairs_is_refused(sets):
    import pickle

    (sets / "lfw.bin").write_bytes(pickle.dumps(([], []), 2))
    with pytest.raises(ValueError, match="lfw.bin"):
        evaluate(sets, "--ckpt_path", tiny_sets.checkpoints())


def test_a_mistake_is_one_sentence_and_exit_code_2(tmp_path):
    done = subprocess.run(
        [sys.executable, "eval_ckpt_file.py", "--ckpt_path", "x", "--eval_db_path", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert done.returncode == 2
    errors = [line for line in done.stderr.decode().splitlines() if line.startswith("error: ")]
    assert errors == [
        "error: --ckpt_path x is not a directory; pass a run's ckpt directory, or one checkpoint "
        "as --ckpt_file."
    ]


def test_quality_groups_and_the_report_are_of_every_checkpoint_and_set(sets, tmp_path, capsys):
    tiny_sets.write_set(sets / "lfw.bin", pairs=200)
    path = tmp_path / "groups.csv"
    path.write_text("path,group\n" + "".join(f"{i},{'ab'[i // 200]}\n" for i in range(400)))
    flags = ["--quality", "yes", "--groups", str(path), "--groups_fmr", "0.1"]
    flags += ["--report", str(tmp_path / "r"), "--eval_datasets", "lfw"]
    evaluate(sets, "--ckpt_file", tiny_sets.prefix(), *flags)
    printed = capsys.readouterr().out
    assert all(f"lfw  {name}: " in printed for name in ("embedding norm", "sharpness"))
    assert "GARBE" in printed
    out = tmp_path / "r" / "InsightFace_iter_3.ckpt"
    text = (out / "report.html").read_text()
    assert all(title in text for title in ("Error versus discard, sharpness", "<h2>Groups</h2>"))
    assert [one["name"] for one in json.load(open(str(out / "groups.json")))["lfw"]["groups"]] == [
        "a",
        "b",
    ]


def test_groups_that_name_unknown_images_are_refused_before_the_net_runs(sets, tmp_path):
    path = tmp_path / "groups.csv"
    path.write_text("path,group\nnobody.jpg,a\n0,b\n")
    flags = ["--ckpt_file", tiny_sets.prefix(), "--groups", str(path)]
    with pytest.raises(ValueError, match="are not in the set: nobody.jpg"):
        evaluate(sets, *flags)


def test_groups_name_images_by_the_names_file_beside_the_set(sets, tmp_path):
    names = [f"person {i % 2}/{i}.jpg" for i in range(24)]
    (sets / "lfw.names.txt").write_text("\n".join(names))
    assert VerificationSet.open(str(sets / "lfw.bin")).image_names() == names
    (sets / "lfw.names.txt").write_text("one\n")
    with pytest.raises(ValueError, match="1 lines for 24 images"):
        VerificationSet.open(str(sets / "lfw.bin")).image_names()
