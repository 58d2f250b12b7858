"""The parts of bench by themselves: URLs, rows, percentiles."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from penstock_runtime.bench.errors import BenchError
from penstock_runtime.bench.latencies import Latencies
from penstock_runtime.bench.rows import read_payloads, synthetic_payloads
from penstock_runtime.bench.target import read_url
from penstock_runtime.protocol.decode import Decoder
from penstock_runtime.protocol.schema import ModelSchema, TensorSpec


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("localhost:8080", "http://localhost:8080/v2/models/m"),
        ("http://h", "http://h/v2/models/m"),
        ("https://h/", "https://h/v2/models/m"),
        ("https://h:443/some/where/v2", "https://h/some/where/v2/models/m"),
        ("http://[::1]:5", "http://[::1]:5/v2/models/m"),
        ("http://h/p/v2/models/a%20b/versions/3/infer", "http://h/p/v2/models/a%20b/versions/3"),
        ("http://h/v2/models/other", "http://h/v2/models/other"),
    ],
)
def test_urls(url: str, expected: str) -> None:
    target = read_url(url, None if "models" in url else "m")
    assert f"http{'s' if target.secure else ''}://{target.address}{target.path}" == expected
    assert read_url(url, "x y").path.endswith("/v2/models/x%20y")


@pytest.mark.parametrize(
    "url", ["", "ftp://h", "http://", "http://h:port", "http://u:p@h", "http://h/?a=b", "http://[h"]
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(BenchError, match=r"is no URL|cannot be part"):
        read_url(url, None)


SPECS = ModelSchema(
    (TensorSpec("x", "FP32", (-1, 2, 2)), TensorSpec("t", "BYTES", (-1,)), TensorSpec("h", "FP16", (-1, 1))),
    (TensorSpec("y", "FP16", (-1,)),),
)


@pytest.mark.parametrize("binary", [False, True])
def test_what_is_sent_is_what_our_own_decoder_reads(tmp_path: Path, binary: bool) -> None:
    document = {"x": [[1, 2], [3, 4]], "t": ["é"], "h": [0.5]}
    (tmp_path / "row").write_text(json.dumps(document))
    for [(body, header)] in (
        read_payloads(tmp_path / "row", SPECS, binary=binary),
        synthetic_payloads(SPECS, binary=binary),
    ):
        request = Decoder(SPECS).decode(body, header)
        assert request.rows == 1
        assert request.binary == {"y"}
        assert {name: array.shape for name, array in request.inputs.items()} == {"x": (1, 2, 2), "t": (1,), "h": (1, 1)}
    [(body, header)] = read_payloads(tmp_path / "row", SPECS, binary=binary)
    inputs = Decoder(SPECS).decode(body, header).inputs
    assert np.array_equal(inputs["x"], [[[1, 2], [3, 4]]])
    assert inputs["t"].tolist() == ["é"]
    assert inputs["h"].tolist() == [[0.5]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ('{"x": 1}\n{', "row line 2 is no JSON"),
        ('{"z": [1]}', "the model has no input 'z'; it has x, t, h"),
        ("[1]", "the model has 3 inputs; give an object of values by name"),
        ('{"x": [1, 2, 3]}', "the values of input 'x' are no FP32 of the shape"),
        ('{"x": ["a"]}', "the values of input 'x' are no FP32"),
        ('{"x": [[1], [2, 3]]}', "the values of input 'x' are no FP32"),
    ],
)
def test_what_is_no_row(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "row").write_text(text)
    with pytest.raises(BenchError, match=re.escape(message)):
        read_payloads(tmp_path / "row", SPECS, binary=False)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="cannot be read: No such file"):
        read_payloads(tmp_path / "row", SPECS, binary=False)


def test_percentiles_are_right_to_a_hundredth() -> None:
    generator = np.random.default_rng(0)
    for values in (generator.lognormal(-6, 1, 20_000), np.array([0.5]), np.array([0.0, 2e-6, 5000.0])):
        found = Latencies()
        for value in values:
            found.add(float(value))
        for share in (0.5, 0.9, 0.99):
            exact = float(np.quantile(values, share, method="inverted_cdf"))
            told = found.percentile(share)
            assert told is not None
            if exact < 1000:
                assert told == pytest.approx(exact, rel=0.01, abs=2e-6)
        assert found.max == values.max()
    assert Latencies().percentile(0.5) is None
