"""Structured logs: one JSON object a line on stderr, or words at a terminal; never anything of a request."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import orjson

from penstock_runtime.terminal import for_people, printable

FIELDS = "penstock_fields"


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON with time, level, msg and the fields given to `event`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; an exception is given by its type alone, since its text may quote a request."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "msg": record.getMessage(),
        }
        line.update(getattr(record, FIELDS, {}))
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
        return orjson.dumps(line, default=str).decode()


class TextFormatter(logging.Formatter):
    """Formats a record as a line for people: the time of day, what happened, and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; as in JSON, an exception is given by its type alone."""
        fields = dict(getattr(record, FIELDS, {}))
        if record.exc_info and record.exc_info[0] is not None:
            fields["exception"] = record.exc_info[0].__name__
        level = f"{record.levelname}: " if record.levelno >= logging.WARNING else ""
        told = ", ".join(
            f"{key.replace('_', ' ')} {_plain(value)}" for key, value in fields.items() if value is not None
        )
        stamp = time.strftime("%H:%M:%S", time.localtime(record.created))
        return printable(f"{stamp}  {level}{record.getMessage()}{f': {told}' if told else ''}")


def _plain(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "none"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def configure() -> None:
    """Send this package's logs, and errors of libraries, to stderr: as JSON lines unless a person reads them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if for_people() else JsonFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.ERROR)
    logging.getLogger("penstock_runtime").setLevel(logging.INFO)


def event(logger: logging.Logger, msg: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log `msg` with `fields` as further keys of the JSON line."""
    logger.log(level, msg, extra={FIELDS: fields})


def origin(error: BaseException) -> str:
    """Return file and line where `error` was raised: what can be logged of it without its text."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "unknown" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
