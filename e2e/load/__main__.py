"""The command: one line of JSON a second on stdout; `rate N`, `report` and `stop` as lines on stdin."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import stat
import sys
import time
from pathlib import Path
from typing import Any

import orjson

from e2e.load.feedback import LabelSender
from e2e.load.generator import Generator, Limits
from e2e.load.rows import Endpoint, prepare
from e2e.load.tally import Tally


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m e2e.load", description=__doc__)
    parser.add_argument("--url", required=True, help="where requests go, such as http://127.0.0.1:30080")
    parser.add_argument("--host", default="", help="Host header, by which a gateway routes")
    parser.add_argument("--model", required=True, help="model name in the path /v2/models/NAME/infer")
    parser.add_argument("--data", type=Path, required=True, help=".npz with rows [n, features] and labels [n]")
    parser.add_argument("--input", default="x", help="name of the model's input (default: x)")
    parser.add_argument("--rate", type=float, default=50, help="requests a second (default: 50)")
    parser.add_argument("--seconds", type=float, default=0, help="stop after this time (default: never)")
    parser.add_argument("--feedback-url", default="", help="where labels go, such as http://127.0.0.1:30091")
    parser.add_argument("--feedback-delay", type=float, default=2, help="seconds until a label is known (2)")
    parser.add_argument("--connections", type=int, default=64, help="at most this many at once (64)")
    parser.add_argument("--report", type=Path, help="file for the whole report, with the timeline, at the end")
    parser.add_argument("--seed", type=int, default=0, help="of the order of rows and the times between them")
    return parser.parse_args(words)


class Run:
    """One run of the command, from the first request to the report."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Encode the rows; raises ValueError or OSError for a bad URL or file."""
        self._args = args
        self._tally = Tally()
        self._stop = asyncio.Event()
        endpoint = Endpoint.parse(args.url, args.host)
        labels = None
        if args.feedback_url:
            target = Endpoint.parse(args.feedback_url)
            labels = LabelSender(target, args.model, args.feedback_delay, self._tally.feedback)
        rows = prepare(endpoint, args.model, args.data, args.input)
        limits = Limits(connections=args.connections)
        self._labels = labels
        self._generator = Generator(endpoint, rows, self._tally, labels=labels, limits=limits, seed=args.seed)

    async def until_stopped(self) -> None:
        """Send, and print a line a second, until told to stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        if _takes_orders():
            await self._listen()
        if self._args.seconds:
            loop.call_later(self._args.seconds, self._stop.set)
        sender = loop.create_task(self._labels.run()) if self._labels is not None else None
        self._generator.set_rate(self._args.rate)
        while not self._stop.is_set():
            try:
                await asyncio.wait_for(self._stop.wait(), 1)
            except TimeoutError:
                self._generator.sweep()
                self._print(self._line())
        await self._generator.close()
        if sender is not None:
            sender.cancel()
        self._print(self._line())
        if self._args.report:
            self._args.report.write_bytes(orjson.dumps(self._report()))

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        self._orders = loop.create_task(self._obey(reader))

    async def _obey(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            match line.decode().split():
                case ["rate", number]:
                    self._generator.set_rate(float(number))
                case ["report"] if self._args.report:
                    self._args.report.write_bytes(orjson.dumps(self._report()))
                case ["stop"]:
                    self._stop.set()
                case words:
                    print(f"unknown order {words}; there are: rate N, report, stop", file=sys.stderr)
        self._stop.set()  # whoever gave the orders is gone

    def _line(self) -> dict[str, Any]:
        second = self._tally.close_second(time.time())
        return {**self._tally.totals(), "rate": self._generator.rate, "second": second}

    def _report(self) -> dict[str, Any]:
        return {**self._tally.totals(), "timeline": list(self._tally.timeline)}

    def _print(self, line: dict[str, Any]) -> None:
        try:
            print(orjson.dumps(line).decode(), flush=True)
        except BrokenPipeError:
            self._stop.set()


def _takes_orders() -> bool:
    mode = os.fstat(sys.stdin.fileno()).st_mode if sys.stdin is not None else 0
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


async def _run(args: argparse.Namespace) -> None:
    await Run(args).until_stopped()


def main() -> int:
    """Run the command; 2 for a bad argument."""
    args = parse()
    try:
        import uvloop

        uvloop.run(_run(args))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
