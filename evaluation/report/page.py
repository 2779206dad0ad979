"""What every page here shares: the document around it, and how a pair of faces is shown."""

import base64
import html
import json
import os

from evaluation.report.charts import COLOURS

SYNTHETIC = (
    "Synthetic faces, drawn by a program. These figures show that the pipeline works; "
    "they say nothing about real people."
)


def page(title, body):
    """A whole document around a body; style and script are inside it."""
    here = os.path.dirname(os.path.abspath(__file__))
    style, script = (_text(os.path.join(here, name)) for name in ("report.css", "report.js"))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{html.escape(title)}</title>\n<style>\n{style}</style></head>\n"
        f"<body>\n{body}\n<script>\n{script}</script>\n</body></html>\n"
    )


def write_page(path, text):
    """A reader never meets half a page."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(f"{path}.tmp", "w", encoding="utf-8") as stream:
        stream.write(text)
    os.replace(f"{path}.tmp", path)
    return path


def colour_of(names, name):
    return f"c{list(names).index(name) % COLOURS}"


def percent(value, digits=2):
    return f"{100 * value:.{digits}f}"


def value_text(value):
    """A value of a configuration as a person writes it."""
    if value is None:
        return "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(value_text, value))
    if isinstance(value, float):
        return f"{value:.10g}"
    return json.dumps(value, sort_keys=True) if isinstance(value, (dict, bool)) else str(value)


def data_uri(image):
    """Encoded image bytes -> a URI that carries them."""
    kind = "png" if image[:4] == b"\x89PNG" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def pair_item(number, images, same, right, distance):
    """A pair as a list item: two encoded images, what was said of them, and how sure."""
    said = "false reject" if same else "false accept"
    verdict = f'<span class="verdict">{said}</span>'
    if right:
        verdict = '<span class="fine">right</span>'
    pictures = "".join(
        f'<img src="{data_uri(image)}" alt="{side} image of pair {number}" loading="lazy">'
        for side, image in zip(("first", "second"), images)
    )
    return (
        f'<li><div class="images">{pictures}</div><p>{verdict}, cosine {1 - distance / 2:.3f}<br>'
        f'<span class="fine">pair {number}</span></p></li>'
    )


def _text(path):
    with open(path, encoding="utf-8") as stream:
        return stream.read()
