"""What a person sees: progress of long steps on stderr, and failures as one line and what to do."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

QUIET_S = 5.0  # a step shorter than this prints nothing
_COMPLAINT = re.compile(r"error|cannot|failed|missing|denied|refused|unknown|invalid|not found|no space|^E:", re.I)
REPEAT_S = 15.0  # how often a long step prints where the terminal cannot rewrite a line


class Problem(Exception):  # noqa: N818 - the word people read
    """A failure a person can act on: what is wrong and what to do about it."""

    def __init__(self, what: str, fix: str = "") -> None:
        """Keep `what` (one line, for people) and `fix` (what to do, may be empty)."""
        super().__init__(what)
        self.what = what
        self.fix = fix


def say(text: str) -> None:
    """Print one line on stderr; stdout is for a command's result."""
    print(text, file=sys.stderr, flush=True)


class Progress:
    """Elapsed time of one step, told once it takes longer than QUIET_S."""

    def __init__(self, title: str) -> None:
        """Start the clock of the step called `title`."""
        self.title = title
        self.started = time.monotonic()
        self._next = QUIET_S
        self._open_line = False

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def tick(self) -> None:
        """Print the elapsed time where it is due; cheap to call often."""
        if self.elapsed < self._next:
            return
        line = f"  {self.title} ... {self.elapsed:.0f} s"
        if sys.stderr.isatty():
            print(f"\r{line}", end="", file=sys.stderr, flush=True)
            self._open_line = True
            self._next = self.elapsed + 1
        else:
            say(line)
            self._next = self.elapsed + REPEAT_S

    def close(self, outcome: str = "done") -> None:
        """End the step; says the outcome where anything was printed before."""
        if self._next > QUIET_S:
            say(("\r" if self._open_line else "") + f"  {self.title}: {outcome} after {self.elapsed:.0f} s")


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """A Progress that is closed at the end, as failed where an exception passes."""
    step = Progress(title)
    try:
        yield step
    except BaseException:
        step.close("failed")
        raise
    step.close()


def logged(
    title: str,
    command: Sequence[str | Path],
    log: Path,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    fix: str = "",
) -> None:
    """Run `command` with its output in the file `log`, showing progress under `title`.

    `env` is added to this process's environment. Raises Problem with the last line of the output
    where the command fails; `fix` then says what to do (the log's path is always told).
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with progress(title) as step, log.open("w") as out:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=cwd,
            env={**os.environ, **(env or {})},
        )
        try:
            while process.poll() is None:
                try:
                    process.wait(timeout=0.5)
                except subprocess.TimeoutExpired:
                    step.tick()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        if process.returncode != 0:
            cause = telling_line(log.read_text(errors="replace"))
            raise Problem(f"{title} failed: {cause}", f"{fix}{'; ' if fix else ''}its output is in {log}")


def telling_line(text: str) -> str:
    """The line of a failed program's output that most likely names the cause: the last that complains."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    complaints = [line for line in lines if _COMPLAINT.search(line)]
    return (complaints or lines or ["no output"])[-1]


def output(command: Sequence[str | Path], *, stdin: str = "", timeout: float = 60) -> str:
    """The stdout of a short command, stripped; Problem where it fails or takes over `timeout` seconds."""
    words = [str(word) for word in command]
    shown = " ".join([Path(words[0]).name, *words[1:6]])
    try:
        done = subprocess.run(
            words, input=stdin, capture_output=True, text=True, timeout=timeout, check=False, errors="replace"
        )
    except FileNotFoundError:
        raise Problem(f"{words[0]} is not installed", f"install {words[0]}") from None
    except subprocess.TimeoutExpired:
        raise Problem(f"`{shown}` did not end within {timeout:.0f} s") from None
    if done.returncode != 0:
        raise Problem(f"`{shown}` failed: {telling_line(done.stderr or done.stdout)}")
    return done.stdout.strip()


def succeeds(command: Sequence[str | Path], *, timeout: float = 60) -> bool:
    """Whether a short command ends with 0 within `timeout` seconds."""
    try:
        output(command, timeout=timeout)
    except Problem:
        return False
    return True


@contextmanager
def locked(path: Path, title: str) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` (made if absent), so that two runs do not do the same work."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        with progress(f"waiting for another run: {title}") as step:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    step.tick()
                    time.sleep(0.2)
        yield
