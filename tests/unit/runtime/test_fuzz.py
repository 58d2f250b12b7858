"""The fuzzer that `make fuzz` runs for long: it finds nothing in the server, and finds what is put there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock_runtime.protocol.decode import Decoder
from penstock_runtime.server.repository.model import Model
from tests.fuzz.__main__ import SHARES, Fuzz
from tests.fuzz.models import write_models
from tests.fuzz.requests import Request
from tests.fuzz.server import Complaints, InProcess
from tests.fuzz.verdict import Wrong, check
from tests.fuzz.watch import Watch
from tests.fuzz.wire import answers

ROUNDS = 1000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("fuzz")
    write_models(made / "models")
    return made


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    root, own = logging.getLogger(), logging.getLogger("penstock_runtime")
    before = root.handlers, root.level, own.level
    yield Complaints()
    root.handlers = before[0]
    root.setLevel(before[1])
    own.setLevel(before[2])


async def run(folder: Path, seed: int, rounds: int) -> Fuzz:
    server = InProcess(folder / "models")
    try:
        await server.load()
        made = Fuzz(server, folder, seed)
        for first in range(0, rounds, 10):
            await asyncio.gather(*(made.one(number) for number in range(first, first + 10)))
        return made
    finally:
        server.close()


async def test_nothing_breaks_the_server(folder: Path, complaints: Complaints) -> None:
    counts = (await run(folder, 3, ROUNDS)).counts
    assert counts.total() == ROUNDS
    assert {kind for kind, _ in counts} == set(SHARES)
    answered = sum(count for (_, status), count in counts.items() if status == "200")
    assert ROUNDS / 10 < answered < ROUNDS / 2, "inputs must be neither all refused nor all answered"
    assert complaints.lines == []


async def test_a_decoder_that_breaks_is_seen(
    folder: Path, complaints: Complaints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Decoder, body: bytes) -> object:
        raise KeyError("name")

    monkeypatch.setattr(Decoder, "_decode_raw", broken)
    with pytest.raises(Wrong, match="status 500") as error:
        await run(folder, 3, ROUNDS)
    assert "of seed 3" in str(error.value.__notes__)
    assert "unexpected failure" in complaints.lines[0]


async def test_an_exception_of_the_application_is_seen(
    folder: Path, complaints: Complaints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Model, version: str | None = None) -> None:
        raise SystemError("broken")

    server = InProcess(folder / "models")
    await server.load()
    monkeypatch.setattr(Model, "find", broken)
    for port, path in (("data", "/v2/models/iris"), ("data", "/v2/models/iris/versions/1/infer")):
        status, headers, body = await server.call(Request(port, "POST" if "infer" in path else "GET", path, (), b"{}"))
        assert (status, body) == (500, b'{"error":"internal error"}')
        with pytest.raises(Wrong, match="status 500"):
            check(status, headers, body, "POST")
    monkeypatch.setattr(server.repository, "index", broken)
    status, _, body = await server.call(Request("admin", "POST", "/v2/repository/index", (), b"{}"))
    assert (status, body) == (500, b'{"error":"internal error"}')
    assert len(complaints.lines) == 3
    server.close()


LENGTH = b"content-length"
JSON = (b"content-type", b"application/json")


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (500, [JSON, (LENGTH, b"13")], b'{"error":"a"}'),
        (400, [JSON, (LENGTH, b"12")], b'{"error":""}'),
        (400, [JSON, (LENGTH, b"14")], b'{"detail":"a"}'),
        (400, [(b"content-type", b"text/plain"), (LENGTH, b"13")], b'{"error":"a"}'),
        (405, [JSON, (LENGTH, b"13")], b'{"error":"a"}'),
        (200, [JSON, (LENGTH, b"3")], b"{}"),
        (200, [JSON, (LENGTH, b"65")], b'{"model_name":"m","outputs":[{"name":"y","shape":[2],"data":[1]}]}'),
    ],
)
def test_answers_that_are_not_as_they_must_be(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    with pytest.raises(Wrong):
        check(status, headers, body, "POST")


def test_bytes_that_are_no_response_are_seen() -> None:
    good = b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}"
    assert answers(good + good, ["POST"]) == [(404, [(LENGTH, b"2")], b"{}")] * 2
    for bad in (good[:-1], b"{}" + good, good + b"x"):
        with pytest.raises(Wrong):
            answers(bad, ["POST"])


def test_memory_and_descriptors_that_grow_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    held = iter(range(1000))
    monkeypatch.setattr("tests.fuzz.watch.rss_mib", lambda: float(next(held)))
    monkeypatch.setattr("tests.fuzz.watch.descriptors", lambda: 3 + next(held))
    watch = Watch(10**9)
    for done in range(0, 10**9, 10**7):
        watch.at(done)
    before, after, opened = watch.growth()
    assert after - before > 100
    assert opened > 100
