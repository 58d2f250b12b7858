"""`make demo`: prepare, play, sum up. Exit status 0 only if every outcome was seen in the cluster's objects."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

from e2e.cluster import kube
from e2e.cluster.console import Problem, say
from e2e.cluster.places import cluster_name
from e2e.demo import models, plot, prepare, screen, wrapup
from e2e.demo.journal import Journal
from e2e.demo.kube import Unreachable, Window
from e2e.demo.settings import DEMO_LOGS, MODEL, NAMESPACE, Options
from e2e.demo.story import Story, kubectl_line
from e2e.demo.watch import Watcher

OUTCOMES = {1, 2, 3, 4, 5, 6, 7}
LOOK = f"{kubectl_line()} describe mdep -n {NAMESPACE} {MODEL}"


def parse(words: list[str] | None = None) -> Options:
    """The command line."""
    default = Options()
    parser = argparse.ArgumentParser(prog="e2e/demo/run", description=__doc__)
    parser.add_argument("--story-only", action="store_true", help="cluster and operator are there: only play")
    parser.add_argument("--plain", action="store_true", help="plain lines instead of the live view")
    parser.add_argument("--rate", type=float, default=default.rate, help="requests a second (default: 400)")
    parser.add_argument("--label-delay", type=float, default=default.label_delay, help="seconds until labels (2)")
    parser.add_argument("--patience", type=float, default=default.patience, help="seconds for one chapter (150)")
    parser.add_argument("--plot", type=Path, default=default.plot, help="file for the plot (penstock-demo.png)")
    return Options(**vars(parser.parse_args(words)))


def play(options: Options) -> bool:
    """Everything; whether all outcomes were seen. Problem where it cannot go on."""
    began = time.monotonic()
    if options.story_only and not kube.answers():
        raise Problem(f"cluster {cluster_name()} does not answer", "leave out --story-only: that makes it")
    trained = prepare.put_models() if options.story_only else prepare.everything()
    if text := models.summary():
        say(text)
    prepare.stage()
    say(f"the stage is set after {time.monotonic() - began:.0f} s; the story begins")
    journal = Journal()
    show = screen.choose(journal, plain=options.plain)
    window = Window()
    story = Story(options, journal, window, trained / MODEL / "held-out.npz", show.tell)
    started = time.monotonic()
    try:
        with Watcher(window.get, journal), show:
            story.play()
    except BaseException:
        folder = wrapup.keep_evidence(journal, story.results)
        say(f"what was seen until then is in {folder}")
        raise
    finally:
        window.close()
        problem = plot.try_to_draw(journal, options.plot)
        wrapup.show(wrapup.console(), story.results, story.report, problem or f"{options.plot}")
        say(f"the story took {time.monotonic() - started:.0f} s")
    return {result.number for result in story.results if result.seen} >= OUTCOMES


def main() -> int:
    """Run the demo; 0 if all was seen, 1 if not, 130 if stopped."""
    options = parse()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    DEMO_LOGS.mkdir(parents=True, exist_ok=True)
    try:
        return 0 if play(options) else 1
    except Problem as problem:
        hint = problem.fix or f"see the logs; make demo goes on from here; to look around: {LOOK}"
        return _failed(problem.what, hint)
    except Unreachable as error:
        return _failed(f"the cluster's API server does not answer: {error}", f"make demo plays it again; or {LOOK}")
    except OSError as error:
        return _failed(f"{error.strerror or error}: {error.filename or ''}", "make room or mend that, then make demo")
    except (RuntimeError, subprocess.SubprocessError) as error:
        return _failed(str(error), f"make demo plays it again from the start; to look around: {LOOK}")
    except KeyboardInterrupt:
        say("stopped; the cluster stays: make demo goes on with it, make down removes it")
        return 130


def _failed(what: str, fix: str) -> int:
    say(f"error: {what}\n  do this: {fix}\n  logs: {DEMO_LOGS}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
