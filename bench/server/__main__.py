"""`make bench-server`: prepare, measure, report. Exit status 0 if all was measured, whatever the bars say."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bench.server import host, payloads, profile
from bench.server.cases import (
    CASES,
    EXTRAS,
    KSERVE,
    MLSERVER,
    OVERLOAD,
    PENSTOCK,
    SHADOW,
    START,
    WORKERS,
    Case,
    choose,
)
from bench.server.measure import Pace, Results, measure_model
from bench.server.models import ModelFile, write_models
from bench.server.overload import measure_overload
from bench.server.plot import draw_all
from bench.server.processes import CLIENT_CORE
from bench.server.record import Asked, Record
from bench.server.report import judgements, read_notes, render
from bench.server.screen import Screen, draw_table
from bench.server.servers import peer_python
from bench.server.shadow import measure_shadow
from bench.server.starting import measure_starts
from bench.server.stats import cells_of
from bench.server.workers import measure_workers
from e2e.cluster.console import Problem, progress, say
from e2e.cluster.places import CACHE, ROOT

FULL, QUICK = Pace(warm=1, seconds=4, rounds=3), Pace(warm=1, seconds=1, rounds=1)
DOCS = ROOT / "docs" / "benchmarks"
NOTES = ROOT / "bench" / "server" / "notes.md"
METHOD = ROOT / "bench" / "server" / "method.md"
SHOWN_FUNCTIONS = 30


@dataclass(frozen=True, slots=True)
class Options:
    """The command line. `out` None: docs/benchmarks for a whole run, else a folder in the cache."""

    quick: bool
    cases: str
    rounds: int | None
    seconds: int | None
    out: Path | None
    plain: bool
    profile: str
    server: str
    report: bool


def parse(words: Sequence[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="bench/server/run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: numbers to look at, not to keep")
    names = ", ".join([*(case.id for case in CASES), *EXTRAS])
    parser.add_argument("--cases", default="", help=f"beginnings of names, of {names} (default: all)")
    parser.add_argument("--rounds", type=int, help="rounds over all servers (3)")
    parser.add_argument("--seconds", type=int, help="of one measured run (4)")
    parser.add_argument("--out", type=Path, help="folder for the report")
    parser.add_argument("--plain", action="store_true", help="plain lines instead of the live table")
    parser.add_argument("--profile", default="", metavar="CASE", help="show where a server's time goes in that case")
    parser.add_argument("--server", default=PENSTOCK, help="the server to profile (default: penstock)")
    parser.add_argument("--report", action="store_true", help="write the report of docs/benchmarks anew from its JSON")
    return Options(**vars(parser.parse_args(words)))


def run(options: Options) -> None:
    """Do what was asked for; Problem where it cannot go on."""
    if options.report:
        _write(Record.read(DOCS / "server.json"), DOCS)
        return
    try:
        cases, extras = choose(options.cases)
    except ValueError as error:
        raise Problem(str(error)) from None
    host.need_tools()
    with progress("environments of the peers"):
        for peer in (MLSERVER, KSERVE):
            peer_python(peer)
    # The measured core is for the server alone.
    os.sched_setaffinity(0, {CLIENT_CORE})
    models = write_models()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        if options.profile:
            _profile(options, models, Path(folder))
            return
        record = _measure(options, cases, extras, models, Path(folder))
    whole = not options.cases and not options.quick
    stamp = time.strftime("%Y%m%d-%H%M%S")
    _write(record, options.out or (DOCS if whole else CACHE / "bench" / "server" / stamp))


def _pace(options: Options) -> Pace:
    pace = QUICK if options.quick else FULL
    return Pace(pace.warm, options.seconds or pace.seconds, options.rounds or pace.rounds)


def _measure(
    options: Options, cases: Sequence[Case], extras: frozenset[str], models: dict[str, ModelFile], folder: Path
) -> Record:  # fmt: skip
    pace = _pace(options)
    record = Record(host.look(), _command(options), pace.rounds, pace.seconds)
    record.models = [_asked(model) for model in models.values()]
    for asked in record.models:
        if asked.mflop:
            say(f"{asked.name}: {asked.text}, {asked.mflop:.1f} MFLOP a row")
    results = Results()
    try:
        _fill(record, options, cases, extras, models, folder, results)
    except BaseException:
        kept = CACHE / "bench" / "server" / "unfinished.json"
        kept.parent.mkdir(parents=True, exist_ok=True)
        _take(record, results).write(kept)
        say(f"what was measured until then is in {kept}")
        raise
    return _take(record, results)


def _take(record: Record, results: Results) -> Record:
    record.runs = results.runs
    record.skipped = [(case, server, why) for (case, server), why in results.skipped.items()]
    return record


def _fill(  # noqa: PLR0913, PLR0917 - the parts of a run, named at the only call
    record: Record, options: Options, cases: Sequence[Case], extras: frozenset[str], models: dict[str, ModelFile],
    folder: Path, results: Results,
) -> None:  # fmt: skip
    pace = _pace(options)
    with Screen(cases, lambda: cells_of(results.runs, results.skipped, cases), plain=options.plain) as screen:
        for name, model in models.items():
            of_model = [case for case in cases if case.model == name]
            if of_model:
                measure_model(model, of_model, pace, folder, results, screen.tell)
        if START in extras:
            record.starts = measure_starts(models["iris"], 1 if options.quick else 5, folder, screen.tell)
        if OVERLOAD in extras:
            record.floods = measure_overload(models["conv"], pace, folder, screen.tell)
        if WORKERS in extras:
            record.scaled = measure_workers(models, pace, folder, screen.tell)
        if SHADOW in extras:
            record.shadowed = measure_shadow(models, pace, folder, screen.tell)


def _command(options: Options) -> str:
    words = ["make bench-server"]
    words += ["BENCH=quick"] if options.quick else []
    words += [f"CASES={options.cases}"] if options.cases else []
    return " ".join(words)


def _asked(model: ModelFile) -> Asked:
    sizes = [len(payloads.request(protocol, "x", model.row)[0]) for protocol in ("json", "binary")]
    return Asked(model.name, model.text, model.mflop, *sizes)


def _write(record: Record, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    cells = record.cells()
    pictures = draw_all(record.cases, cells, out)
    (out / "server.md").write_text(render(record, METHOD.read_text(), read_notes(NOTES.read_text()), pictures))
    record.write(out / "server.json")
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)  # a file has no width, and the table must not be folded
    console.print(draw_table(record.cases, cells))
    for name, judged in judgements(record, cells):
        for each in judged:
            console.print(f"{each.verdict:12} {name:16} {each.text}: {each.reached}", markup=False, soft_wrap=True)
    console.print(f"report: {out / 'server.md'}", markup=False, soft_wrap=True)


def _profile(options: Options, models: dict[str, ModelFile], folder: Path) -> None:
    case = next((case for case in CASES if case.id == options.profile), None)
    if case is None:
        raise Problem(f"there is no case '{options.profile}'", f"one of {', '.join(each.id for each in CASES)}")
    pace = _pace(options)
    stacks = profile.profile(case, options.server, models[case.model], 2 * pace.seconds, folder)
    out = options.out or CACHE / "bench" / "profiles"
    out.mkdir(parents=True, exist_ok=True)
    kept = Path(shutil.copy(stacks, out))
    print(f"{case.title}: {options.server}\n   own  with callees  function")
    for spent in profile.sum_up(stacks.read_text().splitlines())[:SHOWN_FUNCTIONS]:
        print(f"{spent.own:6.1%}  {spent.total:12.1%}  {spent.function}")
    print(f"all stacks (for a flame graph): {kept}")


def main() -> int:
    """Run the benchmark; 0 if it was measured, 1 if not, 130 if stopped."""
    options = parse()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run(options)
    except Problem as problem:
        say(f"error: {problem.what}" + (f"\n  do this: {problem.fix}" if problem.fix else ""))
        return 1
    except KeyboardInterrupt:
        say("stopped")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
