"""The commands of this folder: their arguments, and how a failure is told."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence

from e2e.cluster.console import Problem, say
from e2e.cluster.tools import tool


def _tool(words: Sequence[str]) -> None:
    for name in words or _usage("tool NAME...: prints each program's path, building it where missing"):
        print(tool(name))


def _usage(text: str) -> Sequence[str]:
    raise Problem(f"usage: e2e/cluster/{text}")


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {"tool": _tool}


def main(name: str, words: Sequence[str]) -> int:
    """Run the command `name` with its arguments; the exit status, after telling any Problem."""
    if name not in COMMANDS:
        say(f"error: no command is called {name}\n  do this: use one of {', '.join(sorted(COMMANDS))}")
        return 2
    try:
        COMMANDS[name](words)
    except Problem as problem:
        say(f"error: {problem.what}" + (f"\n  do this: {problem.fix}" if problem.fix else ""))
        return 1
    except KeyboardInterrupt:
        say("stopped")
        return 130
    except subprocess.SubprocessError as error:
        say(f"error: {error}")
        return 1
    return 0
