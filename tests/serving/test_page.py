"""The page in a headless Chromium: real uploads, keyboard, two widths, two colour schemes."""

import threading

import cv2
import numpy as np
import pytest

import facebank
from serving.web import WebConfig, build_server
from tests.serving import chromium
from tests.serving.tiny_models import face, write_calibration_set, write_model

pytestmark = pytest.mark.skipif(chromium.executable() is None, reason="needs Chromium")
NAMES = {"Anna": 1, "李明": 3, "<img src=x onerror=alert(1)>": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    for name, content in (("a", face(1, 0)), ("b", face(1, 1)), ("c", face(30, 0))):
        (folder / f"{name}.jpg").write_bytes(content)
    (folder / "text.jpg").write_bytes(b"text")
    model = write_model(folder / "model.onnx")
    pairs = write_calibration_set(folder / "lfw.bin", 10)
    flags = ["--bank", str(folder / "bank.db"), "--model", model, "--detector", "none"]
    facebank.main(["calibrate", "--pairs", pairs] + flags)
    return folder


@pytest.fixture(scope="module")
def address(folder):
    config = WebConfig(
        bank=str(folder / "bank.db"),
        model=str(folder / "model.onnx"),
        detector="none",
        threshold="cosine:0.95",
        port=0,
    )
    server = build_server(config)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    browser = chromium.Browser()
    yield browser
    browser.close()


def loaded(browser, address, **more):
    browser.requests.clear()
    browser.errors.clear()
    browser.open(address, **more)
    browser.until("/threshold|阈值/.test(document.getElementById('state').textContent)")


def answer(browser, name):
    """The text of an answer, once it is there."""
    content = f"document.getElementById('{name}-answer').textContent"
    return browser.until(f"/Working|处理中/.test({content}) ? '' : {content}")


def test_two_photos_are_compared_and_drawn(browser, address, folder):
    loaded(browser, address)
    browser.choose("#first", folder / "a.jpg")
    browser.choose("#second", folder / "a.jpg")
    assert answer(browser, "compare").startswith("Same person (cosine 1.000")
    browser.until("document.querySelector('#plot .score')")
    assert browser.run("document.querySelectorAll('#plot rect.genuine').length") > 2
    browser.choose("#second", folder / "c.jpg")
    browser.until("/Different/.test(document.getElementById('compare-answer').textContent)")
    assert browser.errors == []


def test_people_are_enrolled_identified_and_erased_by_keyboard(browser, address, folder):
    loaded(browser, address)
    browser.run("document.getElementById('name').focus()")
    browser.type("Anna")
    browser.choose("#photos", folder / "a.jpg", folder / "b.jpg")
    browser.run("document.querySelector('#enrol button').focus()")
    browser.press("Enter", "\r", 13)
    assert answer(browser, "enrol") == "Anna: 2 new samples."
    browser.until("document.querySelectorAll('#people li').length === 1")
    browser.choose("#probe", folder / "a.jpg")
    assert answer(browser, "identify").startswith("Anna (cosine 1.000")
    browser.run("document.querySelector('#people button').focus()")
    browser.press("Enter", "\r", 13)
    browser.until("document.getElementById('ask').open")
    assert browser.run("document.activeElement.textContent") == "Cancel"
    browser.press("Tab", code=9)
    browser.press("Enter", "\r", 13)
    browser.until("document.querySelectorAll('#people li').length === 0")
    browser.choose("#probe", folder / "c.jpg")
    browser.until("/empty/.test(document.getElementById('identify-answer').textContent)")
    assert browser.errors == []


def test_erasing_can_be_cancelled(browser, address, folder):
    loaded(browser, address)
    browser.run("document.getElementById('name').value = 'Ben'")
    browser.choose("#photos", folder / "c.jpg")
    browser.run("document.getElementById('enrol').requestSubmit()")
    browser.until("document.querySelectorAll('#people li').length === 1")
    browser.run("document.querySelector('#people button').click()")
    browser.press("Escape", code=27)
    browser.until("!document.getElementById('ask').open")
    loaded(browser, address)
    browser.until("document.querySelectorAll('#people li').length === 1")
    browser.run("document.querySelector('#people button').click()")
    browser.run("document.querySelector('#ask .danger').click()")
    browser.until("document.querySelectorAll('#people li').length === 0")


def test_names_are_text_and_not_markup(browser, address, folder):
    loaded(browser, address)
    browser.run("window.found = 0; window.alert = () => { window.found = 1; }")
    for name in ("<img src=x onerror=alert(1)>", "李明"):
        browser.run(f"document.getElementById('name').value = {name!r}")
        browser.run("document.getElementById('confirm').checked = true")
        browser.choose("#photos", folder / "a.jpg")
        browser.run("document.getElementById('enrol').requestSubmit()")
        browser.until(f"document.getElementById('people').textContent.includes({name!r})")
    assert browser.run("window.found") == 0
    assert browser.run("document.querySelectorAll('#people img').length") == 0


def test_unusable_photo_is_explained_in_the_pages_language(browser, address, folder):
    loaded(browser, address, languages="zh-CN")
    assert browser.run("document.documentElement.lang") == "zh-CN"
    browser.choose("#probe", folder / "text.jpg")
    assert "JPEG" in answer(browser, "identify") and "照片" in answer(browser, "identify")
    browser.run("document.getElementById('language').click()")
    assert browser.run("document.querySelector('h1').textContent") == "Face bank"


def test_no_request_leaves_the_server(browser, address, folder):
    loaded(browser, address)
    browser.choose("#probe", folder / "a.jpg")
    answer(browser, "identify")
    outside = [url for url in browser.requests if not url.startswith((address, "blob:" + address))]
    assert browser.requests and outside == []


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("dark", [False, True])
def test_page_fits_its_width_in_both_colour_schemes(browser, address, folder, width, dark):
    loaded(browser, address, width=width, dark=dark)
    browser.choose("#first", folder / "a.jpg")
    browser.choose("#second", folder / "c.jpg")
    browser.until("document.querySelector('#plot .score')")
    assert browser.run("document.documentElement.scrollWidth") <= width
    picture = cv2.imdecode(np.frombuffer(browser.picture(), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert picture.shape[1] == width and (np.median(picture) < 100) == dark


def test_every_text_of_the_page_has_a_translation(browser, address):
    loaded(browser, address)
    keys = browser.run("JSON.stringify([Object.keys(TEXTS.en), Object.keys(TEXTS.zh)])")
    english, chinese = eval(keys)
    assert english == chinese
