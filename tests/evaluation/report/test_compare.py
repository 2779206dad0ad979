"""The page that compares runs."""

from evaluation.report import __main__, writer
from evaluation.report.compare import differences, sets_of
from evaluation.report.run_logs import read_run
from tests.evaluation.report.tiny_runs import text_of, whole_run


def test_several_runs_are_compared_on_the_sets_they_share(tmp_path, capsys):
    runs = [
        whole_run(tmp_path / "one", best=0.85, lr=0.1),
        whole_run(tmp_path / "two", best=0.95, sets=("lfw",), lr=0.2),
    ]
    output = str(tmp_path / "compare.html")
    __main__.main(runs + ["--output", output])
    assert capsys.readouterr().out.strip() == output
    text = text_of(output)
    assert "two is ahead." in text and "over lfw, which both runs" in text
    loaded = [read_run(path) for path in runs]
    assert sets_of(loaded) == (["lfw", "cfp_fp"], ["lfw"])
    assert dict(differences(loaded))["training.lr"] == ["0.1", "0.2"]


def test_runs_that_share_no_set_are_not_ranked(tmp_path):
    runs = [whole_run(tmp_path / name, sets=(name,)) for name in ("lfw", "agedb_30")]
    assert "share no set" in text_of(writer.write_comparison(runs, str(tmp_path / "c.html")))


def test_a_lead_within_the_spread_is_no_lead(tmp_path):
    runs = [
        whole_run(tmp_path / "one", best=0.9000, sets=("lfw",)),
        whole_run(tmp_path / "two", best=0.9005, sets=("lfw",)),
    ]
    text = text_of(writer.write_comparison(runs, str(tmp_path / "c.html")))
    assert "No clear winner." in text
