"""The document around every page, and the HTML of values and of a pair of faces."""

import base64
import html
import json
import os
from typing import Any, Iterable, Tuple

from evaluation.report.charts import COLOURS
from runtime.files import atomic_write

SYNTHETIC = (
    "Synthetic faces. These figures show that the pipeline works; "
    "they do not measure accuracy on real people."
)


def page(title: str, body: str) -> str:
    """A whole document around a body, with style and script inside it."""
    here = os.path.dirname(os.path.abspath(__file__))
    style, script = (_text(os.path.join(here, name)) for name in ("report.css", "report.js"))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{html.escape(title)}</title>\n<style>\n{style}</style></head>\n"
        f"<body>\n{body}\n<script>\n{script}</script>\n</body></html>\n"
    )


def write_page(path: str, text: str) -> str:
    """Writes a page and returns its path."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with atomic_write(path) as stream:
        stream.write(text)
    return path


def colour_of(names: Iterable[str], name: str) -> str:
    """The CSS class of one of several names, the same in all charts."""
    return f"c{list(names).index(name) % COLOURS}"


def percent(value: float, digits: int = 2) -> str:
    return f"{100 * value:.{digits}f}"


def value_text(value: Any) -> str:
    """A value of a configuration as text."""
    if value is None:
        return "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(value_text, value))
    if isinstance(value, float):
        return f"{value:.10g}"
    return json.dumps(value, sort_keys=True) if isinstance(value, (dict, bool)) else str(value)


def data_uri(image: bytes) -> str:
    """An encoded image as a data: URI."""
    kind = "png" if image[:4] == b"\x89PNG" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def pair_item(
    number: int, images: Tuple[bytes, bytes], same: bool, right: bool, distance: float
) -> str:
    """A pair as a list item: two encoded images, the decision, and the cosine."""
    error = "false reject" if same else "false accept"
    decision = f'<span class="verdict">{error}</span>'
    if right:
        decision = '<span class="fine">correct</span>'
    pictures = "".join(
        f'<img src="{data_uri(image)}" alt="{side} image of pair {number}" loading="lazy">'
        for side, image in zip(("first", "second"), images)
    )
    return (
        f'<li><div class="images">{pictures}</div><p>{decision}, cosine {1 - distance / 2:.3f}<br>'
        f'<span class="fine">pair {number}</span></p></li>'
    )


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as stream:
        return stream.read()
