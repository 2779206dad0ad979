"""The pages: from whole runs, from what a run has written so far, and as a browser shows them."""

import html
import json
import os
import re
import shutil
import subprocess
import time

import pytest

from evaluation.report import __main__, writer
from evaluation.report.compare import differences, sets_of
from evaluation.report.run_logs import read_run
from evaluation.verification_set import VerificationSet
from tests.evaluation import tiny_sets
from tests.evaluation.tiny_sets import train_line, validation_line

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def text_of(path):
    with open(str(path), encoding="utf-8") as stream:
        return stream.read()


def whole_run(path, best=0.9, sets=("lfw", "cfp_fp"), **config):
    lines = [train_line(step) for step in range(10, 600, 10)]
    for name in sets:
        lines += [validation_line(step, best - 0.1 + step / 6e3, name) for step in (0, 300, 600)]
    said = {"net": tiny_sets.SPEC.to_json(), "training": {"lr": 0.1, "total_steps": 600, **config}}
    said["dataset"] = {"images": 240, "identities": 40, "source": "train.rec"}
    run = tiny_sets.write_run(path, lines, said)
    os.makedirs(os.path.join(run, "best"))
    for name in sets:
        path = os.path.join(run, f"{name}.bin")
        tiny_sets.write_set(path, pairs=40)
        result = VerificationSet.open(path).evaluate(tiny_sets.FAKE_NET)
        result.save(os.path.join(run, "best", f"{name}.npz"), step=600)
    return run


def test_a_report_says_the_best_of_each_set_and_the_health(tmp_path):
    text = text_of(writer.write_report(whole_run(tmp_path / "demo")))
    assert "Training is healthy, and done." in text
    assert text.count("90.00<small> %") == 2  # 0.9 at step 600 of both sets
    assert "data:image/png;base64," in text
    assert "total_steps" in text and "Dataset" in text


def test_a_report_asks_nothing_of_the_network(tmp_path):
    text = text_of(writer.write_report(whole_run(tmp_path / "demo")))
    addresses = re.findall(r'(?:src|href|srcset|url)\s*[=(]\s*["\']?([^"\')\s>]+)', text)
    assert addresses and all(address.startswith("data:") for address in addresses)
    assert "http" not in re.sub(r"base64,[^\"]+", "", text)


@pytest.mark.parametrize(
    "lines, tail",
    [
        ([], ""),
        ([train_line(10)], '{"kind": "train", "step": 20, "lo'),
        ([validation_line(0, 0.5)], "\n\n[1, 2]\n"),
        ([train_line(10, loss=float("nan")), validation_line(10, 1.0)], "garbage"),
        ([{"kind": "train", "step": 5}, train_line(10), train_line(10)], ""),
    ],
)
def test_a_report_is_drawn_of_whatever_is_there(tmp_path, lines, tail):
    assert "</html>" in text_of(
        writer.write_report(tiny_sets.write_run(tmp_path / "r", lines, tail=tail))
    )


def test_a_report_of_half_written_files_is_drawn(tmp_path):
    run = whole_run(tmp_path / "demo")
    for name in ("config.json", "best/lfw.npz"):
        path = os.path.join(run, name)
        content = open(path, "rb").read()
        open(path, "wb").write(content[: len(content) // 2])
    assert "config.json is not there" in text_of(writer.write_report(run))


def test_a_line_cut_short_is_passed_over_and_a_repeated_step_counts_once(tmp_path):
    lines = [train_line(10), train_line(20), train_line(20, loss=1.0), train_line(30)]
    run = read_run(tiny_sets.write_run(tmp_path / "r", lines, tail='{"kind": "tra'))
    assert [(line["step"], line["loss"]) for line in run.train][1] == (20, 1.0)
    assert len(run.train) == 3


def test_the_untrained_net_is_not_the_best(tmp_path):
    lines = [validation_line(0, 0.7), validation_line(5, 0.6), validation_line(9, 0.65)]
    assert read_run(tiny_sets.write_run(tmp_path / "r", lines)).best_line("lfw")["step"] == 9


def test_synthetic_faces_are_called_so(tmp_path):
    lines = [validation_line(0, 0.5, synthetic=True)]
    assert "Synthetic faces" in text_of(
        writer.write_report(tiny_sets.write_run(tmp_path / "a", lines))
    )
    lines = [validation_line(0, 0.5, synthetic=False)]
    real = text_of(writer.write_report(tiny_sets.write_run(tmp_path / "b", lines)))
    assert "Synthetic faces" not in real


def test_a_report_of_a_long_run_takes_under_a_second(tmp_path):
    lines = [train_line(step) for step in range(20, 200000, 20)]
    lines += [validation_line(step, 0.9) for step in range(0, 200000, 2000)]
    run = tiny_sets.write_run(tmp_path / "long", lines)
    start = time.perf_counter()
    path = writer.write_report(run)
    assert time.perf_counter() - start < 3.0  # 0.3 s on a quiet machine
    assert os.path.getsize(path) < 500000


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


@pytest.mark.parametrize("argv, words", [([], "pass the directory"), (["nowhere"], "nowhere is")])
def test_the_script_refuses_in_one_sentence(argv, words):
    with pytest.raises(ValueError, match=words):
        __main__.main(argv)


MEASURE = """
window.onload = () => {
  const found = [...document.querySelectorAll("iframe")].map((frame) => {
    const page = frame.contentDocument, sizes = [];
    for (const node of page.querySelectorAll("p, td, th, dd, li, h1, h2, svg text, figcaption")) {
      if (!node.getClientRects().length || !node.textContent.trim()) continue;
      const svg = node.ownerSVGElement;
      const scale = svg ? svg.getBoundingClientRect().width / 400 : 1;
      sizes.push(parseFloat(frame.contentWindow.getComputedStyle(node).fontSize) * scale);
    }
    const chart = page.querySelector("svg[data-hover]"), box = chart.getBoundingClientRect();
    chart.dispatchEvent(new frame.contentWindow.PointerEvent("pointermove",
      { clientX: box.left + box.width / 2, clientY: box.top + box.height / 2 }));
    const tip = page.querySelector(".tip:not([hidden])").getBoundingClientRect();
    const inside = tip.top >= box.top && tip.bottom <= box.bottom && tip.right <= box.right;
    const { clientWidth: width, scrollWidth: content } = page.documentElement;
    return { inside, width, content,
      smallest: Math.min(...sizes), tips: page.querySelectorAll(".tip:not([hidden])").length };
  });
  document.body.dataset.found = JSON.stringify(found);
};
"""
POLICY = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")
def test_chromium_shows_a_report_on_a_phone_and_a_desk(tmp_path):
    text = text_of(writer.write_report(whole_run(tmp_path / "demo")))
    text = text.replace("<meta charset", POLICY + "<meta charset", 1)  # a request is an error
    frames = "".join(
        f'<iframe style="border:0;width:{width}px;height:900px" '
        f'srcdoc="{html.escape(text)}"></iframe>'
        for width in (390, 1440)
    )
    page = tmp_path / "both.html"
    page.write_text(f"<html><body>{frames}<script>{MEASURE}</script></body></html>", "utf-8")
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--hide-scrollbars",
        ]
        + ["--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"]
        + ["--virtual-time-budget=4000", "--dump-dom", f"file://{page}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=120,
    )
    console = [line for line in done.stderr.decode().splitlines() if "CONSOLE" in line]
    assert console == []
    found = json.loads(
        html.unescape(re.search(r'data-found="([^"]*)"', done.stdout.decode()).group(1))
    )
    assert [one["width"] for one in found] == [390, 1440]
    for one in found:
        assert one["content"] <= one["width"], "the page scrolls sideways"
        assert one["smallest"] >= 10.0, "some text is too small to read"
        assert one["tips"] == 1, "the crosshair does not answer the pointer"
        assert one["inside"], "the values are not shown over their chart"
