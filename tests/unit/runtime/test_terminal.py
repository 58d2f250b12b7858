"""`penstock-runtime serve model.onnx` at a terminal: what it says is for people, and works as it stands there."""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from penstock_runtime.log import TextFormatter, event
from penstock_runtime.protocol.schema import ModelSchema, TensorSpec
from penstock_runtime.server.banner import banner, curl_line
from penstock_runtime.terminal import for_people, printable
from tests.unit.runtime.hostile_files import write
from tests.unit.runtime.process import DEADLINE, PORTS, SOURCES


class Terminal:
    """A process whose stderr is a terminal."""

    def __init__(self, *arguments: str, **env: str) -> None:
        self._ours, theirs = pty.openpty()
        clean = {key: value for key, value in os.environ.items() if key != "KUBERNETES_SERVICE_HOST"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "penstock_runtime", *arguments],
            env={**clean, "PYTHONPATH": str(SOURCES), **env}, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)
        self.text = ""

    def read(self, until: str | None = None) -> str:
        """Return what was printed, up to a line that contains `until`, or to the end."""
        while until is None or until not in self.text:
            try:
                data = os.read(self._ours, 4096)
            except OSError:  # how a terminal ends on Linux
                break
            if not data:
                break
            self.text += data.decode().replace("\r\n", "\n")
        assert until is None or until in self.text, self.text
        return self.text

    def close(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)
        os.close(self._ours)


@pytest.fixture
def at_terminal() -> Iterator[type[Terminal]]:
    """Terminals of a test, closed with it."""
    opened: list[Terminal] = []

    class Kept(Terminal):
        def __init__(self, *arguments: str, **env: str) -> None:
            super().__init__(*arguments, **env)
            opened.append(self)

    yield Kept
    for each in opened:
        each.close()


def asked(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line that the banner shows."""
    [line] = re.findall(r"^  (curl .*|head .*)$", text, re.MULTILINE)
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], cwd=folder, capture_output=True, text=True, check=True, timeout=DEADLINE
    )


def test_a_model_is_served_asked_by_the_line_shown_and_stopped(
    models: Path, tmp_path: Path, at_terminal: type[Terminal]
) -> None:
    terminal = at_terminal("serve", str(models / "iris" / "model.onnx"), *PORTS)
    text = terminal.read("Stop:     Ctrl-C\n")
    assert re.search(r"^iris is ready at http://127\.0\.0\.1:\d+/v2/models/iris$", text, re.MULTILINE)
    assert re.search(r"^\d\d:\d\d:\d\d  listening: http port \d+, ", text, re.MULTILINE)
    assert "{" not in text.partition("iris is ready")[0]
    answer = json.loads(asked(text, tmp_path).stdout)
    assert answer["model_name"] == "iris"
    assert [each["name"] for each in answer["outputs"]] == ["label", "probabilities"]
    start = time.monotonic()
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.process.wait(DEADLINE) == 0
    # A pod goes on answering for 5 s; a person does not want to wait for that.
    assert time.monotonic() - start < 3.0


def test_a_large_tensor_is_piped(tmp_path: Path, at_terminal: type[Terminal]) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["n", 3, 64, 64]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [x], [y])
    write(tmp_path / "picture", helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    terminal = at_terminal("serve", str(tmp_path / "picture"), *PORTS)
    text = terminal.read("Stop:     Ctrl-C\n")
    assert "head -c 24576 /dev/zero | curl" in text
    assert asked(text, tmp_path).stdout.startswith("200, ")
    answer = (tmp_path / "answer.bin").read_bytes()
    assert np.frombuffer(answer[-24576:], np.float16).tolist() == [0.0] * 12288


@pytest.mark.parametrize("name", ["echo", "half"])
def test_the_line_works_for_other_types(models: Path, tmp_path: Path, at_terminal: type[Terminal], name: str) -> None:
    terminal = at_terminal("serve", str(models / name), *PORTS)
    asked(terminal.read("Stop:     Ctrl-C\n"), tmp_path)


def test_each_model_of_a_repository_is_named(models: Path, tmp_path: Path, at_terminal: type[Terminal]) -> None:
    for name in ("iris", "half"):
        shutil.copytree(models / name, tmp_path / name)
    text = at_terminal("serve", "--model-repository", str(tmp_path), *PORTS).read("Stop:     Ctrl-C\n")
    assert re.findall(r"^(\w+) is ready at ", text, re.MULTILINE) == ["half", "iris"]


def test_what_cannot_be_served_is_said_in_words(models: Path, at_terminal: type[Terminal]) -> None:
    terminal = at_terminal("serve", str(models / "corrupt"), *PORTS)
    text = terminal.read()
    assert terminal.process.wait(DEADLINE) == 1
    assert re.search(r"^\d\d:\d\d:\d\d  ERROR: cannot serve: reason ModelLoadFailed, error model\.onnx is not an", text,
                     re.MULTILINE)  # fmt: skip


def test_a_taken_port_is_said_in_words(models: Path, at_terminal: type[Terminal]) -> None:
    first = at_terminal("serve", str(models / "iris"), *PORTS)
    [port] = re.findall(r"bench http://127\.0\.0\.1:(\d+)", first.read("Stop:     Ctrl-C\n"))
    second = at_terminal("serve", str(models / "iris"), *PORTS, "--http-port", port)
    assert f"error port {port} is taken by another process; choose another one" in second.read()


def test_a_terminal_in_a_pod_is_a_log(models: Path, at_terminal: type[Terminal]) -> None:
    terminal = at_terminal("serve", str(models / "corrupt"), *PORTS, KUBERNETES_SERVICE_HOST="10.0.0.1")
    last = terminal.read().splitlines()[-1]
    assert json.loads(last)["reason"] == "ModelLoadFailed"


def test_what_is_no_terminal_is_not_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with Path(os.devnull).open("w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        assert not for_people()


def schema(*inputs: TensorSpec, output: str = "FP32") -> ModelSchema:
    return ModelSchema(inputs, (TensorSpec("y", output, (-1,)),))


@pytest.mark.parametrize(
    ("made", "command"),
    [
        (schema(TensorSpec("x", "FP32", (-1, 2))), "\"datatype\":\"FP32\",\"shape\":[1,2],\"data\":[0.0,0.0]}]}'"),
        (schema(TensorSpec("it's", "BYTES", (1,))), "it'\"'\"'s"),
        (schema(TensorSpec("x", "FP32", (-1, 2)), output="FP16"), "head -c 8 /dev/zero"),
        (schema(TensorSpec("x", "INT64", (-1, 500, -1))), "-d '{"),
        (schema(TensorSpec("x", "INT64", (-1, 2000, -1))), "head -c 16000 /dev/zero"),
        (schema(TensorSpec("x", "INT64", (-1, -1, -1, 2000))), "curl http://h:1/v2/models/m"),
        (schema(TensorSpec("x", "BYTES", (9999,))), "curl http://h:1/v2/models/m"),
        (schema(TensorSpec("x", "FP32", (9999,)), TensorSpec("z", "FP32", (9999,))), "curl http://h:1/v2/models/m"),
        (schema(TensorSpec("x", "FP16", None)), "curl http://h:1/v2/models/m"),
    ],
)  # fmt: skip
def test_the_line_to_ask_with(made: ModelSchema, command: str) -> None:
    line = curl_line("http://h:1", "m", made)
    assert line == command if command.startswith("curl") else command in line
    assert len(line) < 2000


@pytest.mark.parametrize(
    ("host", "shown"),
    [(None, "127.0.0.1"), ("0.0.0.0", "127.0.0.1"),  # noqa: S104
     ("::", "[::1]"), ("::1", "[::1]"), ("box", "box")],
)  # fmt: skip
def test_a_server_is_named_so_that_it_can_be_reached(host: str | None, shown: str) -> None:
    lines = list(banner(host, {"http": 1, "metrics": 2}, [("a b", schema())]))
    assert f"a b is ready at http://{shown}:1/v2/models/a%20b" in "\n".join(lines)
    assert ("other addresses" in "\n".join(lines)) == (host is None)


def test_a_log_line_for_people() -> None:
    formatter = TextFormatter()
    logger = logging.getLogger("penstock_runtime.test")
    records: list[logging.LogRecord] = []

    def keep(record: logging.LogRecord) -> bool:
        records.append(record)
        return False

    logger.addFilter(keep)
    try:
        event(logger, "loaded", level=logging.WARNING, models=["a", "b"], load_seconds=0.123456, empty=[], gone=None,
              name="x\x1b[2J")  # fmt: skip
    finally:
        logger.removeFilter(keep)
    line = formatter.format(records[0])
    assert line[10:] == "WARNING: loaded: models a b, load seconds 0.123, empty none, name x\\x1b[2J"


def test_what_is_not_to_be_printed_is_escaped() -> None:
    assert printable("plain é 漢") == "plain é 漢"
    assert printable("a\x1b\u202e\ud800\n") == "a\\x1b\\u202e\\ud800\\n"
