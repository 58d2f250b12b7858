"""Structured logs: one JSON object a line on stderr; never anything of a request."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import orjson

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


def configure() -> None:
    """Send this package's logs, and errors of libraries, to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
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
