"""A browser driven by WebDriver, as far as these tests need it: JSON over HTTP to Debian's chromedriver."""

from __future__ import annotations

import base64
import http.client
import json
import os
import queue
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

DEADLINE = 60.0
T = TypeVar("T")
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


def missing() -> str | None:
    """Return what is missing for these tests to run; None if nothing is."""
    absent = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"{' and '.join(absent)} not installed (make browser-test installs them on Debian)" if absent else None


class Browser:
    """A headless Chromium with one window."""

    def __init__(self, profile: Path) -> None:
        self._driver = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL, env={**os.environ, "HOME": str(profile)},
        )  # fmt: skip
        try:
            self._port = self._read_port()
            arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                         "--disable-background-networking", f"--user-data-dir={profile}"]  # fmt: skip
            wanted = {"goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}}
            session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            self._session = f"/session/{session['sessionId']}"
        except BaseException:
            self._driver.kill()
            self._driver.wait(DEADLINE)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._call("DELETE", self._session)
        finally:
            self._driver.terminate()
            self._driver.wait(DEADLINE)

    def _read_port(self) -> int:
        found: queue.Queue[int] = queue.Queue()

        def read() -> None:
            assert self._driver.stdout is not None
            with self._driver.stdout as stream:
                for line in stream:
                    if (match := re.search(r"started successfully on port (\d+)", line)) is not None:
                        found.put(int(match[1]))

        threading.Thread(target=read, daemon=True).start()
        return found.get(timeout=DEADLINE)

    def _call(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=DEADLINE)
        try:
            connection.request(method, path, None if method == "GET" else json.dumps(body or {}))
            response = connection.getresponse()
            value = json.loads(response.read())["value"]
        finally:
            connection.close()
        assert response.status == 200, value
        return value

    def open(self, url: str) -> None:
        """Go there, and return when it is loaded."""
        self._call("POST", f"{self._session}/url", {"url": url})

    def run(self, script: str, *arguments: object) -> Any:
        """Return what the body of a JavaScript function returns."""
        return self._call("POST", f"{self._session}/execute/sync", {"script": script, "args": arguments})

    def command(self, name: str, **parameters: object) -> Any:
        """Give a command of the DevTools protocol."""
        return self._call("POST", f"{self._session}/goog/cdp/execute", {"cmd": name, "params": parameters})

    def find(self, selector: str) -> str:
        """Return the first element that a CSS selector finds."""
        found = self._call("POST", f"{self._session}/element", {"using": "css selector", "value": selector})
        return str(found[_ELEMENT])

    def text(self, selector: str) -> str:
        """Return the text of an element as it is shown."""
        return str(self._call("GET", f"{self._session}/element/{self.find(selector)}/text"))

    def label(self, selector: str) -> str:
        """Return an element's name as assistive technology is told it."""
        return str(self._call("GET", f"{self._session}/element/{self.find(selector)}/computedlabel"))

    def click(self, selector: str) -> None:
        """Click on an element, which must be in view or be brought there."""
        self._call("POST", f"{self._session}/element/{self.find(selector)}/click")

    def type(self, selector: str, text: str) -> None:
        """Replace a field's content by typing."""
        element = self.find(selector)
        self._call("POST", f"{self._session}/element/{element}/clear")
        self._call("POST", f"{self._session}/element/{element}/value", {"text": text})

    def complaints(self) -> list[str]:
        """Return what the browser has complained about since it was last asked: errors, blocked content."""
        entries = self._call("POST", f"{self._session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]

    def screenshot(self) -> bytes:
        """Return a picture of the window, PNG."""
        return base64.b64decode(self._call("GET", f"{self._session}/screenshot"))

    def screen(self, width: int, height: int, *, dark: bool = False, scale: float = 1) -> None:
        """Have a screen of that size in CSS pixels, and prefer the dark colours or the light ones."""
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale,
                     mobile=width < 600)  # fmt: skip
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[feature])


def wait_for(what: Callable[[], T]) -> T:
    """Return the first value of `what` that is true."""
    end = time.monotonic() + DEADLINE
    while not (value := what()):
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.05)
    return value
