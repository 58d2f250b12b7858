"""`make fuzz`: inputs of every kind through the server in this process, each answered or refused cleanly.

Input number N of a seed is always the same but for what the server itself chose (prediction ids), so a failure
is shown again by `--seed S --first N --inputs 1`.
"""

from __future__ import annotations

import asyncio
import copy
import json
import random
import sys
import tempfile
import warnings
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from penstock_runtime.engine.errors import ModelLoadError
from penstock_runtime.engine.session import Session
from penstock_runtime.server.lifecycle import freeze
from penstock_runtime.server.repository.golden import FILE, rehearse_golden
from tests.fuzz import messages, requests, wire
from tests.fuzz.calls import Calls
from tests.fuzz.changes import change_bytes, change_value
from tests.fuzz.models import write_models
from tests.fuzz.requests import Request, World
from tests.fuzz.server import Answer, Complaints, InProcess
from tests.fuzz.verdict import Wrong, check
from tests.fuzz.watch import MAX_GROWTH_MIB, Watch
from tests.unit.runtime.process import SETOSA, tensor

Maker = Callable[[random.Random, World], Request]
MAKERS: dict[str, tuple[Maker, float]] = {
    "JSON": (lambda rng, world: requests.inference(rng, world, 0.0), 0.29),
    "binary": (lambda rng, world: requests.inference(rng, world, 0.7), 0.21),
    "raw": (requests.raw, 0.05),
    "feedback": (requests.feedback, 0.1),
    "other paths": (requests.elsewhere, 0.08),
}
WIRE, GOLDEN, GRPC = "HTTP bytes", "golden.json", "gRPC"
SHARES = {**{kind: share for kind, (_, share) in MAKERS.items()}, WIRE: 0.15, GOLDEN: 0.02, GRPC: 0.1}
# An input and an output of models, with values that fit.
GOLDENS = {
    "scaled": (tensor("x", "FP32", [1, 1], [1.5]), {"name": "y", "shape": [1, 1], "data": [[3.0]]}),
    "iris": (tensor("X", "FP32", [1, 4], SETOSA), {"name": "label", "data": [0]}),
}
# Requests that are under way together.
TOGETHER = 16


class Fuzz:
    """One run: the server, what it is asked, and how often it answered what."""

    def __init__(self, server: InProcess, folder: Path, seed: int) -> None:
        """`folder`: for files that golden requests are read from."""
        self._server = server
        self._folder = folder
        self._seed = seed
        self._world = World({model.name: next(iter(model.versions.values())).schema
                             for model in server.repository.models.values()})  # fmt: skip
        self._calls = Calls(server.repository)
        models = server.repository.models
        self._golden = {name: Session(models[name].path / "model.onnx", 1) for name in GOLDENS}
        self.counts: Counter[tuple[str, str]] = Counter()

    async def one(self, number: int) -> None:
        """Run input `number`; raises whatever is not as it must be."""
        rng = random.Random((self._seed << 40) + number)
        kind = rng.choices(list(SHARES), list(SHARES.values()))[0]
        try:
            if kind == GOLDEN:
                self._try_golden(rng)
            elif kind == WIRE:
                await self._try_bytes(rng)
            elif kind == GRPC:
                await self._try_call(rng)
            else:
                await self._try_request(kind, MAKERS[kind][0](rng, self._world), rng)
        except Exception as error:
            error.add_note(f"input {number} of seed {self._seed} ({kind})")
            raise

    async def _try_request(self, kind: str, request: Request, rng: random.Random) -> None:
        """Run a request by one of the ways that it can take, or by both, which must answer the same."""
        way = rng.randrange(8)
        try:
            answer = await (self._server.call(request) if way < 4 else self._by_connection(request, rng))
            named = check(*answer[:2], b"" if request.method == "HEAD" else answer[2], request.method)
            if way == 7:
                other = await self._server.call(request)
                if request.method == "POST" and request.path.endswith("/infer") and answer[::2] != other[::2]:
                    raise Wrong(f"by the connection {answer}, by the application {other}")
            status = answer[0]
        except Exception as error:
            error.add_note(repr(request)[:4000])
            raise
        self.counts[kind, str(status)] += 1
        if (identity := named.get(b"penstock-prediction-id")) is not None:
            self._world.remember(identity.decode())

    async def _by_connection(self, request: Request, rng: random.Random) -> Answer:
        sent = wire.serialize(rng, request, exact=True)
        pieces = [sent] if rng.random() < 0.8 else wire.in_pieces(rng, sent)
        (answer,) = wire.answers(await self._server.feed(request.port, pieces), [request.method])
        return answer

    async def _try_bytes(self, rng: random.Random) -> None:
        sent, methods, exact = b"", [], rng.random() < 0.2
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            request = MAKERS[rng.choice(list(MAKERS))][0](rng, self._world)
            methods.append(request.method)
            sent += wire.serialize(rng, request, exact)
        if not exact:
            # After a change nobody knows which methods the parser saw; an answer to HEAD has no body to check.
            sent, methods = wire.changed(rng, sent), ["POST"]
        try:
            written = await self._server.feed(rng.choice(("data", "admin")), wire.in_pieces(rng, sent))
            found = [] if not exact and b"HEAD" in sent else wire.answers(written, methods)
            for index, (status, headers, body) in enumerate(found):
                check(status, headers, body, methods[min(index, len(methods) - 1)])
        except Exception as error:
            error.add_note(repr(sent)[:4000])
            raise
        self.counts[WIRE, str(found[0][0]) if found else "not read or no answer"] += 1

    async def _try_call(self, rng: random.Random) -> None:
        method, payload = messages.call(rng, self._world)
        try:
            self.counts[GRPC, await self._calls.call(method, payload)] += 1
        except Exception as error:
            error.add_note(f"{method} {payload!r}"[:4000])
            raise

    def _try_golden(self, rng: random.Random) -> None:
        name, (x, y) = rng.choice(list(GOLDENS.items()))
        value = [{"inputs": [copy.deepcopy(x)], "outputs": [copy.deepcopy(y)],
                  "tolerance": {"absolute": 1e-4, "relative": 1e-4}}]  # fmt: skip
        for _ in range(rng.randrange(4)):
            change_value(rng, value)
        text = json.dumps(value).encode("utf-8", "surrogatepass")
        for _ in range(rng.choice((0, 0, 1))):
            text = change_bytes(rng, text, text)
        (self._folder / FILE).write_bytes(text)
        try:
            rehearse_golden(self._golden[name], self._folder)
        except ModelLoadError:
            self.counts[GOLDEN, "refused"] += 1
        except Exception as error:
            error.add_note(repr(text))
            raise
        else:
            self.counts[GOLDEN, "taken"] += 1


async def fuzz(args: Namespace, folder: Path) -> int:
    """Run the inputs that `args` asks for; return the exit code."""
    warnings.simplefilter("error")
    complaints = Complaints()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.lines.append(str(context)))
    write_models(folder / "models")
    server = InProcess(folder / "models")
    await server.load()
    freeze()
    run = Fuzz(server, folder, args.seed)
    watch = Watch(args.inputs)
    try:
        for first in range(0, args.inputs, TOGETHER):
            numbers = range(args.first + first, args.first + min(first + TOGETHER, args.inputs))
            waiting: list[Awaitable[None]] = [run.one(number) for number in numbers]
            await asyncio.gather(*waiting)
            if complaints.lines:
                raise Wrong(f"logged at input {numbers[0]} to {numbers[-1]} of seed {args.seed}: {complaints.lines}")
            watch.at(first + len(numbers))
    finally:
        server.close()
    return report(run.counts, watch, args)


def report(counts: Counter[tuple[str, str]], watch: Watch, args: Namespace) -> int:
    """Print what was done and found; return the exit code: 1 if memory or descriptors grew."""
    print(f"{'input':<14}{'inputs':>10}   answers")
    for kind in SHARES:
        answers = {status: count for (of, status), count in sorted(counts.items()) if of == kind}
        print(f"{kind:<14}{sum(answers.values()):>10,}   " + ", ".join(f"{k}: {v:,}" for k, v in answers.items()))
    before, after, opened = watch.growth()
    print(f"{sum(counts.values()):,} inputs of seed {args.seed}, {watch.rate(args.inputs):,.0f}/s; none failed.")
    print(f"RSS {before:.1f} MiB after a tenth, {after:.1f} MiB at the end; descriptors gained: {opened}")
    if after - before > MAX_GROWTH_MIB or opened > 0:
        print(f"penstock: memory may grow by {MAX_GROWTH_MIB:g} MiB, descriptors not at all", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    """Read the command line and run."""
    parser = ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="penstock-fuzz-") as folder:
        return uvloop.run(fuzz(args, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
