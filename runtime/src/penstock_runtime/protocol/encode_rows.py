"""Inference responses to requests of one row each, from the outputs of a run of many rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import orjson


class RowTexts(NamedTuple):
    """Responses in JSON: what they begin with, and how the response of each row goes on."""

    head: bytes
    tails: list[bytes]


def encode_rows(model: str, version: str, outputs: Iterable[tuple[str, str, np.ndarray[Any, Any]]]) -> RowTexts:
    """Return what `encode_response` gives for each row of `outputs` (name, datatype, array).

    Raises what orjson raises if one of them cannot be carried by JSON.
    """
    described: list[bytes] = []
    columns: list[list[bytes]] = []
    for name, datatype, array in outputs:
        head = orjson.dumps({"name": name, "datatype": datatype, "shape": (1, *array.shape[1:])})
        described.append(head[:-1].replace(b"%", b"%%") + b',"data":[%b]}')
        columns.append(_row_texts(array.reshape(len(array), -1), datatype))
    tail = b'"outputs":[%b]}' % b",".join(described)
    head = orjson.dumps({"model_name": model, "model_version": version})
    return RowTexts(head[:-1] + b",", [tail % row for row in zip(*columns, strict=True)])


def with_id(texts: RowTexts, row: int, request_id: str | None) -> bytes:
    """Return the response of `row`, with the id of its request if it has one."""
    if request_id is None:
        return texts.head + texts.tails[row]
    return b'%b"id":%b,%b' % (texts.head, orjson.dumps(request_id), texts.tails[row])


def _row_texts(table: np.ndarray[Any, Any], datatype: str) -> list[bytes]:
    if datatype == "BYTES":
        return [orjson.dumps(row)[1:-1] for row in table.tolist()]
    if not table.shape[1]:
        return [b""] * len(table)
    return orjson.dumps(table, option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].split(b"],[")
