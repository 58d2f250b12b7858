"""Fuzzing guided by coverage (Atheris, libFuzzer): bytes for each decoder, in a process of its own.

Whatever a target raises is a failure; libFuzzer prints it, and keeps the input in build/fuzz/. With `--input FILE`
a target runs once.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from contextlib import redirect_stderr, suppress
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import atheris

# It tells of every module.
with redirect_stderr(StringIO()), atheris.instrument_imports(include=["penstock_runtime"]):
    from penstock_runtime.engine.errors import ModelLoadError
    from penstock_runtime.engine.session import Session
    from penstock_runtime.protocol.binary_data import read_header_length
    from penstock_runtime.protocol.decode import Decoder
    from penstock_runtime.protocol.depth import MAX_DEPTH, check_depth
    from penstock_runtime.protocol.encode import encode_response
    from penstock_runtime.protocol.errors import InvalidRequest, ProtocolError
    from penstock_runtime.protocol.fit import InferRequest
    from penstock_runtime.protocol.large_json import LARGE_BYTES
    from penstock_runtime.protocol.schema import ELEMENTS, ModelSchema, TensorSpec
    from penstock_runtime.server.compression import choose_coding, compress, decompress
    from penstock_runtime.server.feedback import ids
    from penstock_runtime.server.feedback.intake import Intake
    from penstock_runtime.server.feedback.judge import Judge
    from penstock_runtime.server.feedback.keys import Keys
    from penstock_runtime.server.feedback.ledger import Ledger
    from penstock_runtime.server.feedback.tally import Tally
    from penstock_runtime.server.repository.golden import FILE, rehearse_golden
    from penstock_runtime.server.settings import Feedback

from tests.fuzz.models import write_models
from tests.unit.runtime.binary import blob_input, request, to_bytes
from tests.unit.runtime.process import tensor

SCHEMA = ModelSchema(
    inputs=tuple(TensorSpec(kind, kind, (-1,) if index % 2 else None) for index, kind in enumerate(ELEMENTS)),
    outputs=(TensorSpec("y", "FP32", (-1,)), TensorSpec("h", "FP16", None)),
)
SMALL = ModelSchema(
    (TensorSpec("x", "BYTES", None), TensorSpec("b", "FP32", (-1, 2))),
    (TensorSpec("y", "FP32", (-1,)),),
)
LIMIT = 2**16
RSS_LIMIT_MB = 1024
# Inputs of a target that reads files are as much dearer.
_SHARES = {"golden": 0.02}
KEPT = Path(__file__).parents[2] / "build" / "fuzz"
_KEYS = Keys(Path("/nonexistent"))
_MODEL = "m"

Target = Callable[[bytes], None]


def _refused(run: Callable[[], Any]) -> Any:
    """Return what `run` does, None if it refuses with a 4xx and a reason."""
    try:
        return run()
    except ProtocolError as error:
        if 400 <= error.status < 500 and error.message:
            return None
        raise


def depth(data: bytes) -> None:
    """What parses is refused exactly if it nests deeper than 100."""
    try:
        check_depth(data)
        accepted = True
    except InvalidRequest:
        accepted = False
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError):
        return
    assert (_height(parsed) <= MAX_DEPTH) == accepted


def _height(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_height, value.values()), default=0)
    return 1 + max(map(_height, value), default=0) if isinstance(value, list) else 0


def requests_in_json(data: bytes) -> None:
    """A request in JSON is decoded or refused, and so by the reader of large ones."""
    for decoder in (_ALL, _SMALL):
        decoded = _refused(partial(decoder.decode, data))
        large = _refused(partial(decoder.decode, data + b" " * LARGE_BYTES))
        assert (decoded is None) == (large is None)
        if decoded is not None:
            assert _plain(decoded) == _plain(large)


def _plain(request: InferRequest) -> tuple[object, ...]:
    tensors = {name: (array.dtype, array.shape, array.tolist()) for name, array in request.inputs.items()}
    # As text, in which NaN is equal to NaN.
    return repr(tensors), request._replace(inputs={})


def requests_in_binary(data: bytes) -> None:
    """A request of JSON and blobs is decoded or refused; what is decoded can be encoded."""
    length = int.from_bytes(data[:2], "little")
    for decoder, schema in ((_ALL, SCHEMA), (_SMALL, SMALL)):
        decoded = _refused(partial(decoder.decode, data[2:], length))
        if decoded is not None:
            assert len(decoded.inputs) == len(schema.inputs)
            outputs = [(spec.name, spec.datatype, decoded.inputs[spec.name]) for spec in schema.inputs]
            encode_response(_MODEL, "1", decoded.id, outputs, frozenset(decoded.inputs))


def tensors_alone(data: bytes) -> None:
    """A body without JSON is a tensor of any datatype, or refused."""
    _refused(lambda: _ALONE[data[0] % len(_ALONE)].decode(data[1:], 0) if data else None)


def compression(data: bytes) -> None:
    """A compressed body is decompressed within the limit, or refused."""
    for coding in (b"gzip", b"deflate"):
        parts = _refused(partial(decompress, data, coding, LIMIT))
        if parts is not None:
            assert sum(map(len, parts)) <= LIMIT


def headers(data: bytes) -> None:
    """Headers' values are understood or refused."""
    assert choose_coding(data) in (b"gzip", b"deflate", None)
    length = _refused(lambda: read_header_length(data))
    assert length is None or 0 <= length < 10**20


def prediction_ids(data: bytes) -> None:
    """What is signed, whatever it is, is an id or is not; so is what is not signed."""
    signed = data + ids._mac(data, _KEYS.current, ids._person(_MODEL))
    for text in (data.decode("latin-1"), urlsafe_b64encode(signed).decode().rstrip("=")):
        with suppress(ids.ForgedId):
            ids.read_id(text, _KEYS, _MODEL)


def feedback(data: bytes) -> None:
    """A batch of labels is counted or refused."""
    _INTAKE._ledger = Ledger()
    taking = _INTAKE.take(data)

    def run() -> None:
        with suppress(StopIteration):
            while True:
                taking.send(None)

    _refused(run)


def golden(data: bytes) -> None:
    """A file of golden requests is held to, or refused with the reason."""
    (_FOLDER / FILE).write_bytes(data)
    try:
        rehearse_golden(_SESSION, _FOLDER)
    except ModelLoadError as error:
        if not str(error):
            raise


_ALL, _SMALL = Decoder(SCHEMA, LIMIT), Decoder(SMALL, LIMIT)
_ALONE = [Decoder(ModelSchema((TensorSpec("v", kind, shape),), SCHEMA.outputs), LIMIT)
          for kind in ELEMENTS for shape in ((-1,), (-1, 2), (-1, 3, -1))]  # fmt: skip
_INTAKE = Intake(_MODEL, _KEYS, Judge(SMALL, Feedback()), Ledger(), Tally(_MODEL, "1", "none"))
_FOLDER = Path(tempfile.gettempdir())
_SESSION: Session

TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (depth, requests_in_json, requests_in_binary, tensors_alone, compression, headers, prediction_ids,
                   feedback, golden)
}  # fmt: skip


def _seeds(target: str) -> list[bytes]:
    predicted: list[list[ids.Prediction]] = [[1], [0.5, 2.0], ["a", "å"], [10**6]]
    issuer = ids.Issuer(_KEYS, "1", "none", _MODEL)
    issued = [issuer.issue(time.time(), len(made), made) for made in predicted]
    inputs, blobs = [], []
    for spec in SCHEMA.inputs:
        flat = ["å"] if spec.datatype == "BYTES" else [1]
        blobs.append(to_bytes(spec.datatype, flat))
        inputs.append(blob_input(spec.name, spec.datatype, [1], len(blobs[-1])))
    body, length = request(inputs, *blobs, parameters={"binary_data_output": True})
    small = json.dumps({"id": "a", "outputs": [{"name": "y"}], "inputs": [
        tensor("x", "BYTES", [1, 2], ["a", "å"]), tensor("b", "FP32", [1, 2], [[1.5, -2e3]])]}).encode()  # fmt: skip
    match target:
        case "requests_in_json" | "depth":
            return [small, b"[" * 101 + b"]" * 101]
        case "requests_in_binary":
            return [length.to_bytes(2, "little") + body, len(small).to_bytes(2, "little") + small]
        case "tensors_alone":
            return [b"".join(blobs), b"\0" * 24]
        case "compression":
            return [compress(small, coding) for coding in (b"gzip", b"deflate")]
        case "headers":
            return [b"17", b"gzip;q=0.5, deflate, br"]
        case "prediction_ids":
            return [*issued, *(urlsafe_b64decode(each + b"==")[:-12] for each in issued)]
        case "feedback":
            said = (("label", 1), ("correct", [True, None]), ("error", 0.5))
            batches = [[{"id": each.decode(), kind: value}] for each in issued for kind, value in said]
            return [json.dumps(batch).encode() for batch in batches]
    return [json.dumps([{"inputs": [tensor("x", "FP32", [1, 1], [1.5])],
                         "outputs": [{"name": "y", "shape": [1, 1], "data": [[3.0]]}],
                         "tolerance": {"absolute": 1e-4, "relative": 1e-4}}]).encode()]  # fmt: skip


def fuzz(args: Namespace, folder: Path) -> None:
    """Fuzz one target; never returns."""
    global _FOLDER, _SESSION  # noqa: PLW0603 - a target takes bytes and nothing else
    _FOLDER = folder
    if args.target == golden.__name__:
        write_models(folder / "models")
        _SESSION = Session(folder / "models" / "scaled" / "model.onnx", 1)
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(_seeds(args.target)):
        (corpus / str(number)).write_bytes(seed)
    KEPT.mkdir(parents=True, exist_ok=True)
    options = [f"-artifact_prefix={KEPT}/{args.target}-", f"-runs={args.runs}", f"-seed={args.seed}", "-max_len=4096",
               f"-rss_limit_mb={RSS_LIMIT_MB}", "-timeout=10"]  # fmt: skip
    inputs = [str(args.input)] if args.input else [str(corpus)]
    atheris.Setup([sys.argv[0], *options, *inputs], TARGETS[args.target])
    atheris.Fuzz()


def fuzz_all(args: Namespace) -> int:
    """Fuzz every target in a process of its own; return the exit code."""
    failed = 0
    for target in TARGETS:
        runs = int(args.runs * _SHARES.get(target, 1.0))
        command = [sys.executable, "-m", "tests.fuzz.guided", target, f"--runs={runs}", f"--seed={args.seed}"]
        ran = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        done = re.search(r"#(\d+)\s+DONE\s+cov: (\d+)", ran.stderr)
        if ran.returncode or done is None:
            failed += 1
            print(f"{target}: FAILED\n{ran.stderr[-4000:]}", flush=True)
        else:
            seconds = re.search(r"runs in (\d+) second", ran.stderr)
            print(f"{target:<20}{int(done[1]):>10,} inputs, {done[2]} edges, {seconds and seconds[1]} s", flush=True)
    return 1 if failed else 0


def main() -> int:
    """Read the command line and run."""
    parser = ArgumentParser(prog="python -m tests.fuzz.guided", description=__doc__)
    parser.add_argument("target", nargs="?", choices=list(TARGETS), help="default: all")
    parser.add_argument("--runs", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--input", type=Path, help="run one input, such as one that was kept")
    args = parser.parse_args()
    if args.target is None:
        return fuzz_all(args)
    with tempfile.TemporaryDirectory(prefix="penstock-fuzz-") as folder:
        fuzz(args, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
