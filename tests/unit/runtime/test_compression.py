"""Content codings: requests come compressed, answers go compressed where that is asked for; neither is a bomb."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_runtime.protocol.errors import ProtocolError
from penstock_runtime.server.compression import MIN_COMPRESSED, choose_coding, compress, decoded, decompress
from tests.unit.runtime.binary import LENGTH, blob_input, outputs, request, to_bytes
from tests.unit.runtime.conftest import Start
from tests.unit.runtime.process import SETOSA, Reply, Server, call, iris_request
from tests.unit.runtime.scrape import requests_by_outcome

CODINGS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
OPENED: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "deflate": zlib.decompress}
MANY = [SETOSA] * 500


@pytest.mark.parametrize("coding", ["gzip", "deflate", "GZIP", "identity"])
def test_requests_come_compressed(iris: Server, coding: str) -> None:
    body = json.dumps(iris_request(SETOSA)).encode()
    squeeze = CODINGS.get(coding.lower(), bytes)
    assert iris.infer(squeeze(body), **{"Content-Encoding": coding}).json["outputs"][0]["data"] == [0]


@pytest.mark.parametrize("rows", [1, 5000])
def test_the_header_counts_decompressed_bytes(iris: Server, rows: int) -> None:
    numbers = to_bytes("FP32", SETOSA * rows)
    body, length = request([blob_input("X", "FP32", [rows, 4], len(numbers))], numbers)
    reply = iris.infer(gzip.compress(body), **{"Content-Encoding": "gzip", LENGTH: str(length)})
    assert reply.json["outputs"][0]["data"] == [0] * rows
    raw = iris.infer(gzip.compress(numbers), **{"Content-Encoding": "gzip", LENGTH: "0"})
    assert outputs(raw)["label"]["data"] == [0] * rows


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, deflate", "x-gzip", ""])
def test_a_coding_we_do_not_know_is_refused_with_those_we_do(iris: Server, coding: str) -> None:
    reply = iris.infer(iris_request(SETOSA), **{"Content-Encoding": coding})
    assert (reply.status, reply.headers["accept-encoding"]) == (415, "gzip, deflate")
    assert list(reply.json) == ["error"]


BODY = b"a" * 5000
BROKEN = [
    (gzip.compress(BODY)[:-1], "gzip", "ends before"),
    (b"", "gzip", "ends before"),
    (b"", "deflate", "ends before"),
    (gzip.compress(BODY)[:20], "gzip", "ends before"),
    (gzip.compress(BODY) + b"x", "gzip", "goes on after the end"),
    (gzip.compress(BODY) * 2, "gzip", "goes on after the end"),
    (zlib.compress(BODY) + b"\0" * 200_000, "deflate", "goes on after the end"),
    (gzip.compress(BODY), "deflate", "is not deflate data"),
    (BODY, "gzip", "is not gzip data"),
    (gzip.compress(BODY)[:-8] + b"\0" * 8, "gzip", "is not gzip data"),
]


@pytest.mark.parametrize(("body", "coding", "message"), BROKEN)
def test_what_is_not_whole_is_refused(iris: Server, body: bytes, coding: str, message: str) -> None:
    reply = iris.infer(body, **{"Content-Encoding": coding})
    assert (reply.status, message in reply.json["error"]) == (400, True), reply.body


@pytest.mark.parametrize("coding", list(CODINGS))
@given(body=st.binary(max_size=200) | st.integers(0, 300_000).map(lambda size: b"ab" * size))
def test_both_ways_are_each_others_opposite(coding: str, body: bytes) -> None:
    name = coding.encode()
    assert b"".join(decompress(CODINGS[coding](body), name, len(body))) == body
    assert b"".join(decompress(compress(body, name), name, len(body))) == body


def test_the_limit_is_that_of_the_decompressed_body(start_server: Start) -> None:
    server = start_server("iris", PENSTOCK_SERVING='{"maxBodyBytes":"64Ki"}').ready()
    for size, status in ((65536, 400), (65537, 413)):
        reply = server.infer(gzip.compress(b" " * size), **{"Content-Encoding": "gzip"})
        assert reply.status == status, reply.body
    assert reply.json == {"error": "the body is larger than 65536 bytes"}
    assert requests_by_outcome(server)["client_error"] == 2


@pytest.mark.parametrize("coding", list(CODINGS))
def test_a_bomb_is_given_up_at_the_limit(coding: str) -> None:
    limit = 2**20
    bomb = CODINGS[coding](b"\0" * 2**28)
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError) as error:
            asyncio.run(decoded(bomb, coding.encode(), limit))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert error.value.status == 413
    assert peak < 2 * limit, f"{peak} bytes were held"


ACCEPTED = [
    (b"gzip", b"gzip"), (b"deflate", b"deflate"), (b"gzip, deflate, br", b"gzip"),
    (b"deflate;q=0.9, gzip;q=0.5", b"deflate"),
    (b"GZIP;Q=1", b"gzip"), (b"br;q=1.0, gzip;q=0.8, *;q=0.1", b"gzip"), (b"gzip;q=0", None), (b"identity", None),
    (b"*", None), (b"br", None), (b"", None), (b"gzip;q=x", None), (b"gzip;q=nan", None), (b",,;", None),
]  # fmt: skip


@pytest.mark.parametrize(("accepted", "coding"), ACCEPTED)
def test_the_coding_is_the_one_that_the_client_likes_best(accepted: bytes, coding: bytes | None) -> None:
    assert choose_coding(accepted) == coding


def plain(reply: Reply) -> Reply:
    assert reply.headers["vary"] == "accept-encoding"
    return Reply(reply.status, reply.headers, OPENED[reply.headers["content-encoding"]](reply.body))


@pytest.mark.parametrize("coding", list(CODINGS))
def test_large_answers_are_compressed_for_who_asks(iris: Server, coding: str) -> None:
    asked = iris_request(*MANY)
    whole = iris.infer(asked)
    assert "content-encoding" not in whole.headers
    small = iris.infer(asked, **{"Accept-Encoding": coding})
    assert len(small.body) < len(whole.body) / 5
    assert plain(small).body == whole.body
    assert small.headers["penstock-prediction-id"]
    binary = iris.infer(iris_request(*MANY, parameters={"binary_data_output": True}), **{"Accept-Encoding": coding})
    assert outputs(plain(binary))["label"]["data"] == [0] * 500


def test_small_answers_are_not(iris: Server) -> None:
    reply = iris.infer(iris_request(SETOSA), **{"Accept-Encoding": "gzip"})
    assert len(reply.body) < MIN_COMPRESSED
    assert "content-encoding" not in reply.headers
    assert reply.json["outputs"][0]["data"] == [0]


def test_feedback_comes_compressed_too(iris: Server) -> None:
    prediction = iris.infer(iris_request(SETOSA)).headers["penstock-prediction-id"]
    body = gzip.compress(json.dumps([{"id": prediction, "label": 0}]).encode())
    reply = call(iris.admin_port, "POST", "/v2/models/m/feedback", body, {"Content-Encoding": "gzip"})
    assert reply.json["accepted"] == 1
