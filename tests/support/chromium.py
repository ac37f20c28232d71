"""A small client of the system's Chromium over its DevTools pipe: open a page, measure it, photograph and print it."""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

__all__ = ["Browser", "Page", "find_chromium"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_OPTIONS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)
# Chromium reads its orders from descriptor 3 and answers on 4.
_PLACE = """
import os, sys
ends = [os.dup(int(end)) for end in sys.argv[1:3]]
while min(ends) < 5:
    ends = [os.dup(end) for end in ends]
os.dup2(ends[0], 3)
os.dup2(ends[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_chromium():
    """``$CHROMIUM``, else the first of the usual names that is installed; else an error that says what to install."""
    named = os.environ.get("CHROMIUM")
    found = named or next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None or not Path(found).exists():
        raise FileNotFoundError(
            f"No Chromium was found ({named or ', '.join(NAMES)}). Install it (Debian: apt-get install chromium), "
            "or put its path into the environment variable CHROMIUM."
        )
    return found


class Browser:
    """A headless Chromium for the length of a ``with`` block."""

    def __init__(self, timeout=60.0):
        self.timeout = timeout

    def __enter__(self):
        path = find_chromium()
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        reads, self._out = os.pipe()
        self._in, writes = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PLACE, str(reads), str(writes), path, *_OPTIONS]
            + [f"--user-data-dir={self._profile.name}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(reads, writes),
        )
        os.close(reads)
        os.close(writes)
        self._rest, self._last, self._events = b"", 0, []
        return self

    def __exit__(self, *_):
        try:
            self.send("Browser.close")
            self._process.wait(10)
        except (OSError, RuntimeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)
        self._profile.cleanup()

    def send(self, method, session=None, **params):
        """Give an order and return what it answers; events that come meanwhile are kept."""
        self._last += 1
        order = {"id": self._last, "method": method, "params": params}
        if session:
            order["sessionId"] = session
        data = json.dumps(order).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        while True:
            message = self._next()
            if message.get("id") == self._last:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
            self._events.append(message)

    def wait(self, session, event):
        """Return once an event of a page has come."""
        while True:
            for message in self._events:
                if message.get("sessionId") == session and message.get("method") == event:
                    return
            self._events.append(self._next())

    def take(self, session, *methods):
        """The parameters of the events of a page that have come so far."""
        self.send("Browser.getVersion")
        return [m["params"] for m in self._events if m.get("sessionId") == session and m.get("method") in methods]

    def forget(self, session):
        self._events = [m for m in self._events if m.get("sessionId") != session]

    def page(self):
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        return Page(self, target, self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])

    def _next(self):
        end = time.monotonic() + self.timeout
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise RuntimeError(f"Chromium did not answer within {self.timeout:g} s")
            part = os.read(self._in, 1 << 20)
            if not part:
                raise RuntimeError(f"Chromium ended (status {self._process.poll()})")
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)


class Page:
    """One tab."""

    def __init__(self, browser, target, session):
        self._browser, self._target, self._session = browser, target, session
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._send(f"{domain}.enable")

    def _send(self, method, **params):
        return self._browser.send(method, self._session, **params)

    def open(self, address, *, width=1200, height=900, phone=False, dark=False, media="", scale=1.0):
        """Load a file or an address in a window of a width in CSS pixels, in light or dark mode."""
        self._browser.forget(self._session)
        self._send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._send("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.address = Path(address).absolute().as_uri() if "://" not in str(address) else str(address)
        answer = self._send("Page.navigate", url=self.address)
        if "errorText" in answer:
            raise RuntimeError(f"{self.address}: {answer['errorText']}")
        self._browser.wait(self._session, "Page.loadEventFired")
        self.evaluate("document.fonts.ready.then(() => true)")
        return self

    def evaluate(self, expression):
        """The value of a JavaScript expression (of what it promises) as Python."""
        answer = self._send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"].get("exception", answer["exceptionDetails"])))
        return answer["result"].get("value")

    @property
    def requests(self):
        """Addresses that the page asked for, itself left out."""
        found = [event["request"]["url"] for event in self._events("Network.requestWillBeSent")]
        return [url for url in found if url != self.address and not url.startswith("data:")]

    @property
    def errors(self):
        """What the console shows as errors or warnings, and what was not caught."""
        said = [
            e["entry"]["text"] for e in self._events("Log.entryAdded") if e["entry"]["level"] in ("error", "warning")
        ]
        said += [str(e["args"]) for e in self._events("Runtime.consoleAPICalled") if e["type"] in ("error", "warning")]
        return said + [e["exceptionDetails"]["text"] for e in self._events("Runtime.exceptionThrown")]

    def _events(self, method):
        return self._browser.take(self._session, method)

    def press(self, key):
        """Press a key that moves the focus, such as Tab."""
        for kind in ("keyDown", "keyUp"):
            self._send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode={"Tab": 9}[key])

    def screenshot(self, path):
        """Write the whole page, from top to bottom, as PNG."""
        answer = self._send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return _write(path, answer["data"])

    def pdf(self, path, **options):
        """Print to a PDF file (A4 unless told otherwise; lengths in inches)."""
        paper = {"paperWidth": 8.27, "paperHeight": 11.69, "printBackground": True, **options}
        return _write(path, self._send("Page.printToPDF", **paper)["data"])

    def close(self):
        self._browser.send("Target.closeTarget", targetId=self._target)


def _write(path, data):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(base64.b64decode(data))
    return path
