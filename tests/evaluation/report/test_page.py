"""The document around every page, also as a browser shows it."""

import html
import json
import re
import shutil
import subprocess

import pytest

from evaluation.report import writer
from tests.evaluation import tiny_sets
from tests.evaluation.report.tiny_runs import text_of, whole_run
from tests.evaluation.tiny_sets import validation_line

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

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


def test_a_report_requests_nothing_from_the_network(tmp_path):
    text = text_of(writer.write_report(whole_run(tmp_path / "demo")))
    addresses = re.findall(r'(?:src|href|srcset|url)\s*[=(]\s*["\']?([^"\')\s>]+)', text)
    assert addresses and all(re.match("data:|#[a-z]+$|[a-z./]+$", one) for one in addresses)
    assert "http" not in re.sub(r"base64,[^\"]+", "", text)


def test_a_report_of_synthetic_faces_is_marked(tmp_path):
    lines = [validation_line(0, 0.5, synthetic=True)]
    assert "Synthetic faces." in text_of(
        writer.write_report(tiny_sets.write_run(tmp_path / "a", lines))
    )
    lines = [validation_line(0, 0.5, synthetic=False)]
    real = text_of(writer.write_report(tiny_sets.write_run(tmp_path / "b", lines)))
    assert "Synthetic faces." not in real


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
