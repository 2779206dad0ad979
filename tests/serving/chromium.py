"""A headless Chromium over its DevTools pipe: open a page, choose files, press keys."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-component-update --disable-background-networking --disable-sync "
    "--disable-dev-shm-usage --hide-scrollbars "
    "--remote-debugging-pipe"
).split()
SECONDS = 15


def executable():
    """Path of a Chromium, or None."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """One tab. requests: the addresses that were fetched; errors: what the console got."""

    def __init__(self):
        self._profile = tempfile.mkdtemp()
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        high_in, high_out = os.dup(theirs_in), os.dup(theirs_out)

        def connect():
            os.dup2(high_in, 3)
            os.dup2(high_out, 4)

        self._process = subprocess.Popen(
            [executable(), f"--user-data-dir={self._profile}"] + FLAGS,
            preexec_fn=connect,
            pass_fds=(3, 4),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for descriptor in (theirs_in, theirs_out, high_in, high_out):
            os.close(descriptor)
        self._reader, self._writer = os.fdopen(ours_in, "rb"), os.fdopen(ours_out, "wb")
        self._ids, self._session, self._buffer = itertools.count(1), None, b""
        self.requests, self.errors = [], []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.send(f"{domain}.enable")

    def send(self, method, **parameters):
        """A DevTools command and its result."""
        message = {"id": next(self._ids), "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._writer.write(json.dumps(message).encode() + b"\0")
        self._writer.flush()
        while True:
            answer = self._read()
            if answer.get("id") == message["id"]:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, url, width=1440, height=1000, dark=False, languages="en"):
        """Loads a page of that size and colour scheme."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        agent = self.send("Browser.getVersion")["userAgent"]
        self.send("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage=languages)
        self.send("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def run(self, script):
        """The value of a JavaScript expression."""
        answer = self.send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, script):
        """Waits until an expression is true and returns its value."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            value = self.run(f"new Promise(r => setTimeout(() => r({script}), 20))")
            if value not in (None, False, ""):
                return value
        raise AssertionError(f"{script} stays {value!r}")

    def choose(self, selector, *paths):
        """Chooses files in an <input type=file>."""
        document = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=document, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=list(map(str, paths)))

    def press(self, key, text="", code=0):
        """A key, as a person presses it."""
        common = dict(key=key, windowsVirtualKeyCode=code)
        if text:
            common["text"] = text
        self.send("Input.dispatchKeyEvent", type="keyDown", **common)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def type(self, text):
        """Text into what has the focus."""
        self.send("Input.insertText", text=text)

    def picture(self):
        """PNG bytes of the whole page."""
        answer = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(answer["data"])

    def close(self):
        """Ends the browser."""
        self._session = None
        try:
            self.send("Browser.close")
        except (OSError, EOFError):
            pass
        self._process.wait(SECONDS)
        self._reader.close()
        shutil.rmtree(self._profile, ignore_errors=True)

    def _read(self):
        while b"\0" not in self._buffer:
            block = self._reader.read1(1 << 16)
            if not block:
                raise EOFError("Chromium ended")
            self._buffer += block
        line, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(line.decode())
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        elif message.get("method") == "Log.entryAdded":
            self.errors.append(message["params"]["entry"]["text"])
        elif message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(message["params"]["exceptionDetails"]))
        return message
