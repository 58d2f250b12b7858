"""`penstock-runtime bench`: loads a server of the Open Inference Protocol and tells how fast it answers."""

from __future__ import annotations

import asyncio
import signal
import ssl
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path

import orjson

from penstock_runtime import __version__
from penstock_runtime.bench.errors import BenchError
from penstock_runtime.bench.latencies import Latencies
from penstock_runtime.bench.load import Load, Plan, Results
from penstock_runtime.bench.report import Report, lines, make_report, progress
from penstock_runtime.bench.rows import Payload, read_payloads, synthetic_payloads
from penstock_runtime.bench.target import Target, fetch_metadata, fetch_statistics, find_model, read_url
from penstock_runtime.protocol.metadata import read_metadata
from penstock_runtime.protocol.schema import ModelSchema
from penstock_runtime.terminal import printable

MAX_CONNECTIONS = 10_000
MAX_SECONDS = 86_400.0
MAX_RATE = 1e6


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("url", help="the server, such as http://localhost:8080; nothing else is asked")
    parser.add_argument("--model", help="its name (default: that in the URL, or the only one the server has)")
    parser.add_argument("--connections", type=_between(int, 1, MAX_CONNECTIONS), default=8, metavar="N",
                        help="connections, each with one request at a time (default: 8)")  # fmt: skip
    parser.add_argument("--seconds", type=_between(float, 0.1, MAX_SECONDS), default=10.0, metavar="S",
                        help="how long (default: 10)")  # fmt: skip
    parser.add_argument("--rate", type=_between(float, 0.01, MAX_RATE), metavar="R",
                        help="requests/s, at even intervals (default: as many as the connections carry)")  # fmt: skip
    parser.add_argument("--timeout", type=_between(float, 0.01, MAX_SECONDS), default=30.0, metavar="S",
                        help="how long an answer may take (default: 30)")  # fmt: skip
    parser.add_argument("--binary", action="store_true", help="tensors in binary form, both ways")
    parser.add_argument("--row-file", type=Path, metavar="FILE",
                        help="what to send, a JSON document or one a line: requests, objects of values by input, or "
                             "rows of the only input (default: a row of zeros)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: Namespace) -> int:
    """Measure, print, and return 0; 1 if nothing was answered."""
    import uvloop

    plan = Plan(args.connections, args.seconds, args.rate, args.timeout)
    try:
        target = find_model(read_url(args.url, args.model))
        payloads = _payloads(target, args)
        before = fetch_statistics(target)
        results = uvloop.run(_measure(target, payloads, plan))
        report = make_report(target, plan, payloads, results, (before, fetch_statistics(target)))
    except BenchError as error:
        return _refuse(str(error), as_json=args.json)
    _print(report, as_json=args.json)
    return 0 if report["requests"]["ok"] else 1


def _between(kind: Callable[[str], float], least: float, most: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = kind(text)
        if not least <= value <= most:
            raise ArgumentTypeError(f"{text} is not between {least:g} and {most:g}")
        return value

    read.__name__ = "number"
    return read


def _payloads(target: Target, args: Namespace) -> list[Payload]:
    try:
        schema = read_metadata(fetch_metadata(target))
    except ValueError as error:
        if args.row_file is None:
            raise BenchError(f"{target.url}, model '{target.model}': {error}; give a request with --row-file") from None
        schema = ModelSchema((), ())
    if args.row_file is None:
        return synthetic_payloads(schema, binary=args.binary)
    return read_payloads(args.row_file, schema, binary=args.binary)


def http_request(target: Target, payload: Payload) -> bytes:
    """Return the bytes of one request as they go over the wire."""
    body, header = payload
    kind = "application/json" if header is None else "application/octet-stream"
    length = "" if header is None else f"Inference-Header-Content-Length: {header}\r\n"
    return (
        f"POST {target.path}/infer HTTP/1.1\r\nHost: {target.address}\r\nUser-Agent: penstock-bench/{__version__}\r\n"
        f"Content-Type: {kind}\r\n{length}Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def _measure(target: Target, payloads: list[Payload], plan: Plan) -> Results:
    tls = ssl.create_default_context() if target.secure else None
    requests = [http_request(target, payload) for payload in payloads]
    live = sys.stderr.isatty()

    def show(seconds: float, recent: Latencies, failed: int) -> None:
        if live:
            sys.stderr.write(f"\r\x1b[K{progress(seconds, recent, failed)}")
            sys.stderr.flush()

    load = Load((target.host, target.port), tls, requests, plan, show)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, load.stop)
    try:
        return await load.run()
    except OSError as error:
        raise BenchError(f"cannot connect to {target.url}: {error.strerror or error}") from None
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        if live:
            sys.stderr.write("\r\x1b[K")


def _refuse(message: str, *, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(orjson.dumps({"error": message}).decode() + "\n")
    else:
        sys.stderr.write(f"penstock-runtime bench: {printable(message)}\n")
    return 1


def _print(report: Report, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        sys.stdout.write("".join(f"{printable(line)}\n" for line in lines(report)))
