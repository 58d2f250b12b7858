"""The admin port's page in a real browser: what it shows, what it runs, who can read it."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.webdriver import Browser, missing, wait_for
from tests.unit.runtime.model_files import write_iris
from tests.unit.runtime.process import SETOSA, VIRGINICA, ServerThread, iris_request

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

TOKEN = "let-me-see-" + 20 * "x"
# Contrast as WCAG 2 defines it, of every text with what it stands on; those below 4.5.
FAINT = """
const channel = (v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
const parse = (text) => text.match(/[0-9.]+/g).map(Number);
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const ground = (element) => {
  for (let each = element; each; each = each.parentElement) {
    const color = parse(getComputedStyle(each).backgroundColor);
    if (color.length === 3 || color[3] === 1) return color;
  }
  return parse("255 255 255");
};
const faint = [];
for (const element of document.body.querySelectorAll("*")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || !element.checkVisibility() || ["SCRIPT", "NOSCRIPT", "STYLE"].includes(element.tagName)) continue;
  const [a, b] = [light(parse(getComputedStyle(element).color)), light(ground(element))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < 4.5) faint.push([element.tagName, element.className, element.textContent.trim().slice(0, 30), ratio]);
}
return faint;
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    written = tmp_path_factory.mktemp("written")
    write_iris(written)
    folder = tmp_path_factory.mktemp("models")
    for version in ("3", "4"):
        shutil.copytree(written / "iris", folder / "iris" / version)
    shutil.copytree(written / "regression", folder / "petal-width")
    return folder


@pytest.fixture
def server(repository: Path) -> Iterator[ServerThread]:
    running = ServerThread("--model-repository", str(repository), "--model-control", "explicit",
                           env={"PENSTOCK_REVISION": "b8d4f7c2xk"})  # fmt: skip
    yield running.ready()
    running.kill()


def open_page(browser: Browser, server: ServerThread, login: str = "") -> None:
    browser.complaints()
    browser.screen(1280, 900)
    browser.open(f"http://{login}127.0.0.1:{server.admin_port}/")
    wait_for(lambda: browser.text("#uptime") != "…")


def model(name: str, inside: str = "") -> str:
    return f".model[data-model='{name}'] {inside}"


class Traffic:
    """Requests, of which each tenth is refused, until it is stopped."""

    def __init__(self, server: ServerThread) -> None:
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for number in range(100_000):
            if self._stop.wait(0.004):
                break
            rows = [SETOSA] * (1 + number % 4)
            self._server.infer({} if number % 10 == 9 else iris_request(*rows), model="iris")

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)


def test_it_shows_what_is_loaded(browser: Browser, server: ServerThread) -> None:
    open_page(browser, server)
    assert browser.text("#ready") == "Ready"
    assert browser.text(".facts").split()[:2] == ["Revision", "b8d4f7c2xk"]
    assert re.fullmatch(r"\d+ MiB", browser.text("#memory"))
    assert browser.run("return document.querySelectorAll('.model').length") == 2
    table = browser.text(model("petal-width", "table"))
    assert [line.split() for line in table.splitlines()] == [
        ["Version", "1:", "inputs", "and", "outputs"],
        ["Name", "Type", "Shape"],
        ["input", "X", "FP32", "any", "×", "4"],
        ["output", "variable", "FP32", "any", "×", "1"],
    ]
    assert "Rows run together, at most" in browser.text(model("petal-width", ".settings"))
    assert "Requests waiting, at most\n256" in browser.text(model("petal-width", ".settings"))
    captions = browser.run("return [...document.querySelectorAll('caption')].map((each) => each.textContent)")
    assert captions == ["Version 4: inputs and outputs", "Version 1: inputs and outputs"]
    assert browser.complaints() == []


def test_a_request_can_be_tried_and_counts_nowhere(browser: Browser, server: ServerThread) -> None:
    open_page(browser, server)
    before = server.metrics_text()
    form = model("petal-width", "form ")
    prefilled = json.loads(browser.run("return document.querySelector(arguments[0]).value", form + "textarea"))
    assert prefilled == {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [[0.0] * 4]}]}
    browser.type(form + "textarea", json.dumps(iris_request(SETOSA, VIRGINICA, id="mine")))
    browser.click(form + "button")
    wait_for(lambda: browser.text(form + "[data-took]").startswith("Answered in "))
    answer = json.loads(browser.text(form + "pre"))
    assert answer == {**server.infer(iris_request(SETOSA, VIRGINICA, id="mine"), model="petal-width").json}
    counted = server.metrics_text()
    browser.click(form + "button")
    wait_for(lambda: browser.text(form + "[data-took]").startswith("Answered in "))
    assert server.metrics_text() == counted
    assert before != counted, "what the data port answers does count"

    browser.type(form + "textarea", '{"inputs": []}')
    browser.click(form + "button")
    wait_for(lambda: browser.text(form + "[data-took]").startswith("Refused (400)"))
    assert browser.text(form + "pre") == "missing input 'X'; the model takes 'X'"


def test_rates_and_latencies_are_live(browser: Browser, server: ServerThread) -> None:
    open_page(browser, server)
    tile = model("iris", "[data-tile={}] ")

    def detail(kind: str, pattern: str) -> re.Match[str] | None:
        return re.fullmatch(pattern, browser.text(tile.format(kind) + "[data-detail]"))

    def points(kind: str) -> int:
        line = browser.run("return document.querySelector(arguments[0]).getAttribute('d')", tile.format(kind) + ".line")
        return str(line).count("L") + 1

    wait_for(lambda: detail("rate", "no requests"))
    assert browser.text(tile.format("rate") + "[data-number]") == "0/s"
    traffic = Traffic(server)
    try:
        rates = wait_for(lambda: detail("rate", r"ok ([\d.]+), client error ([\d.]+)"))
        assert rates is not None
        assert float(rates[1]) > float(rates[2]) > 0
        wait_for(lambda: detail("latency", r"median; p99 [\d.]+ (ms|µs|s)"))
        wait_for(lambda: re.fullmatch(r"[12]\.\d+", browser.text(tile.format("batch") + "[data-number]")))
        wait_for(lambda: min(map(points, ("rate", "latency", "queue", "batch"))) >= 4)
        _keep_screenshot(browser)
    finally:
        traffic.stop()
    assert browser.text(model("petal-width", "[data-tile=rate] [data-detail]")) == "no requests"
    assert browser.complaints() == []


def _keep_screenshot(browser: Browser) -> None:
    """Take the pictures for the documentation: PENSTOCK_SCREENSHOT=docs/images/server-page.png make browser-test."""
    if (wanted := os.environ.get("PENSTOCK_SCREENSHOT")) is None:
        return
    drawn = "return document.querySelector('.line').getAttribute('d')"
    wait_for(lambda: browser.run(drawn).count("L") >= 45)
    browser.click(model("iris", "form button"))
    wait_for(lambda: browser.text(model("iris", "form [data-took]")).startswith("Answered in "))
    browser.run("scrollTo(0, 0); document.activeElement.blur()")
    for suffix, dark, width, height in (
        ("", False, 1280, 960),
        ("-dark", True, 1280, 960),
        ("-phone", False, 390, 844),
    ):
        browser.screen(width, height, dark=dark)
        path = Path(wanted)
        path.with_stem(path.stem + suffix).write_bytes(browser.screenshot())


def test_a_change_of_models_is_told(browser: Browser, server: ServerThread) -> None:
    open_page(browser, server)
    assert server.command("models/petal-width/unload").status == 200
    wait_for(lambda: browser.text(model("petal-width", "[data-state]")) == "Not loaded")
    assert browser.text("#notice") == "Models have been loaded or unloaded since this page was made. Show them"
    browser.click("#notice a")
    wait_for(lambda: browser.text("#uptime") != "…")
    assert browser.run("return document.querySelector(arguments[0])", model("petal-width", "form")) is None
    assert "the model was unloaded" in browser.text(model("petal-width"))


def test_a_server_that_has_gone_is_told(browser: Browser, server: ServerThread) -> None:
    open_page(browser, server)
    server.kill()
    wait_for(lambda: browser.text("#notice").startswith("The server does not answer"))
    assert browser.text("#ready") == "Unknown"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844), (320, 640)])
def test_it_can_be_read_in_both_schemes_and_on_a_phone(
    browser: Browser, server: ServerThread, dark: bool, width: int, height: int
) -> None:
    open_page(browser, server)
    browser.screen(width, height, dark=dark)
    assert browser.run("return matchMedia('(prefers-color-scheme: dark)').matches") is dark
    assert browser.run(FAINT) == []
    assert browser.run("return document.scrollingElement.scrollWidth") <= width


def test_assistive_technology_is_told_what_everything_is(browser: Browser, server: ServerThread) -> None:
    open_page(browser, server)
    assert browser.label(model("iris", "textarea")) == "Try a request"
    assert browser.label(model("iris", "button")) == "Run"
    assert browser.label(model("iris", "svg")) == "Requests over the last minute: all; dashed: not answered with 200"
    assert browser.label(model("iris", "table")) == "Version 4: inputs and outputs"
    levels = browser.run("return [...document.querySelectorAll('h1, h2, h3')].map((each) => each.tagName)")
    assert levels == ["H1", *(["H2"] + ["H3"] * 4) * 2]
    assert browser.run("return [document.documentElement.lang, document.title]") == ["en", "Penstock model server"]


def test_nothing_is_asked_of_another_place(browser: Browser, server: ServerThread) -> None:
    open_page(browser, server)
    asked = browser.run("return performance.getEntriesByType('resource').map((each) => each.name)")
    assert {url.rpartition("/")[0] for url in asked} == {f"http://127.0.0.1:{server.admin_port}"}
    injected = "const s = document.createElement('script'); s.textContent = 'window.evil = 1'; document.body.append(s)"
    assert browser.run(f"{injected}; return window.evil") is None
    assert "Content Security Policy" in browser.complaints()[0]


def test_with_a_token_the_browser_asks_for_it_as_a_password(browser: Browser, repository: Path, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(TOKEN)
    server = ServerThread("--model-repository", str(repository), "--admin-token-file", str(file))
    try:
        server.ready()
        open_page(browser, server, f"me:{TOKEN}@")
        form = model("petal-width", "form ")
        browser.click(form + "button")
        wait_for(lambda: browser.text(form + "[data-took]").startswith("Answered in "))
        assert browser.text("#ready") == "Ready"
    finally:
        server.kill()
