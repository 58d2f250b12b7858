"""Prediction ids: what a server must know when a label comes back, signed, in a header's room.

An id is URL-safe base64 of

    version u8 | issued u32 (s) | origin u32 | counter u32 | revision (u8 length, UTF-8)
    | cohort (u8 length, UTF-8) | rows u16 | kind u8 | predictions | keyed blake2s u96

`origin` is random per process and `counter` counts its ids, so ids are unique and a set of them is a bitmap.
Predictions of up to 32 rows are kept if they take at most 256 bytes; else only the row count is. Clients must
treat ids as opaque.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import os
import struct
from binascii import a2b_base64, b2a_base64
from collections.abc import Sequence
from dataclasses import dataclass

from penstock_runtime.server.feedback.keys import Keys

Prediction = int | str | float

MAX_ROWS = 32
MAX_PREDICTION_BYTES = 256
MAX_ID_CHARS = 1024
_VERSION = 1
_MAC_BYTES = 12
_HEAD = struct.Struct("!BIII")
_TAIL = struct.Struct("!HB")
_NONE, _SMALL, _INTEGERS, _NUMBERS, _TEXTS = range(5)
# The end of the id of one row whose class is a small number, as most are.
_ONE_SMALL = [_TAIL.pack(1, _SMALL) + bytes((number,)) for number in range(256)]
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


class ForgedId(Exception):  # noqa: N818 - reads as what it is in `except`
    """The text is no id, or not signed with a key we know."""


@dataclass(frozen=True, slots=True)
class PredictionId:
    """A verified id. `issued` is in Unix seconds; `predictions` is None where they were too large."""

    issued: int
    origin: int
    counter: int
    revision: str
    cohort: str
    rows: int
    predictions: tuple[Prediction, ...] | None


class Issuer:
    """Makes ids for the predictions of one model in one process."""

    def __init__(self, keys: Keys, revision: str, cohort: str, model: str) -> None:
        """Sign with `keys`' current key, for `revision` of `model` in `cohort`."""
        self._keys = keys
        self._model = _person(model)
        self._revision = revision
        self._origin = int.from_bytes(os.urandom(4), "big")
        # Its next() is atomic: ids are issued by several threads.
        self._counter = itertools.count(1)
        self._middle = b""
        self._keyed = self._key()
        self.set_cohort(cohort)

    def set_cohort(self, cohort: str) -> None:
        """Put `cohort` into the ids from now on."""
        self._middle = middle = _short_text(self._revision) + _short_text(cohort)
        self._small: dict[Prediction, bytes] = {number: middle + end for number, end in enumerate(_ONE_SMALL)}

    def issue(self, now: float, rows: int, predictions: Sequence[Prediction]) -> bytes:
        """Return the id of a request with `rows` rows, of which `predictions` holds one each (or none)."""
        head = _HEAD.pack(_VERSION, int(now), self._origin, next(self._counter) & 0xFFFFFFFF)
        raw = head + self._middle + _tail(rows, predictions)
        mac = self._current_key().copy()
        mac.update(raw)
        return _url_safe(raw + mac.digest())

    def issue_each(self, now: float, count: int, predictions: Sequence[Prediction]) -> list[bytes]:
        """Return the ids of `count` requests of one row each, of which `predictions` has one each (or none at all)."""
        start = _HEAD.pack(_VERSION, int(now), self._origin, 0)[:-4]
        begun = self._current_key().copy()
        begun.update(start)
        counter, raws = self._counter, []
        for ending in self._endings(count, predictions):
            rest = (next(counter) & 0xFFFFFFFF).to_bytes(4, "big") + ending
            mac = begun.copy()
            mac.update(rest)
            raws.append(rest + mac.digest())
        return _url_safe_each(start, raws)

    def _endings(self, count: int, predictions: Sequence[Prediction]) -> list[bytes]:
        """Return what comes after the counter in each id."""
        middle, small = self._middle, self._small
        if predictions and type(predictions[0]) is int:
            known = [small.get(item) for item in predictions]
            if None not in known:
                return known  # type: ignore[return-value]
        return [middle + _tail(1, predictions[index : index + 1]) for index in range(count)]

    def _current_key(self) -> hashlib.blake2s:
        key, keyed = self._keyed
        if key is not self._keys.current:
            key, keyed = self._keyed = self._key()
        return keyed

    def _key(self) -> tuple[bytes, hashlib.blake2s]:
        key = self._keys.current
        return key, _keyed(key, self._model)


def read_id(text: str, keys: Keys, model: str) -> PredictionId:
    """Return the id that `text` is; raises ForgedId unless one of `keys` signed it for `model`."""
    if len(text) > MAX_ID_CHARS:
        raise ForgedId
    try:
        raw = a2b_base64(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4))
    except ValueError:
        raise ForgedId from None
    body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
    person = _person(model)
    if not any(hmac.compare_digest(mac, _mac(body, key, person)) for key in keys.verifying):
        raise ForgedId
    try:
        return _unpack(body)
    except (struct.error, IndexError, UnicodeDecodeError):
        raise ForgedId from None


def _url_safe(raw: bytes) -> bytes:
    return b2a_base64(raw, newline=False).translate(_URL_SAFE).rstrip(b"=")


def _url_safe_each(start: bytes, raws: Sequence[bytes]) -> list[bytes]:
    """Return `start`, whose length 3 divides, with each of `raws` in base64."""
    sizes = set(map(len, raws))
    if len(sizes) != 1:
        return [_url_safe(start + raw) for raw in raws]
    size = sizes.pop()
    # All at once: padded, each begins anew as well, and what stands for the padding is left out.
    padding = -size % 3
    text = b2a_base64(bytes(padding).join((*raws, b"")), newline=False).translate(_URL_SAFE)
    head, step = _url_safe(start), (size + padding) // 3 * 4
    return [head + text[at : at + step - padding] for at in range(0, step * len(raws), step)]


def _keyed(key: bytes, person: bytes) -> hashlib.blake2s:
    return hashlib.blake2s(digest_size=_MAC_BYTES, key=key, person=person)


def _mac(raw: bytes, key: bytes, person: bytes) -> bytes:
    mac = _keyed(key, person)
    mac.update(raw)
    return mac.digest()


def _person(model: str) -> bytes:
    # What makes an id of one model worthless for another one that signs with the same key.
    return hashlib.blake2s(model.encode(), digest_size=hashlib.blake2s.PERSON_SIZE).digest()


def _short_text(text: str) -> bytes:
    raw = text.encode()[:255]
    return bytes((len(raw),)) + raw


def _tail(rows: int, predictions: Sequence[Prediction]) -> bytes:
    if rows == 1 and len(predictions) == 1 and type(first := predictions[0]) is int and 0 <= first <= 255:
        return _ONE_SMALL[first]
    kind, payload = _pack(predictions) if 0 < len(predictions) == rows <= MAX_ROWS else (_NONE, b"")
    return _TAIL.pack(min(rows, 0xFFFF), kind) + payload


def _pack(predictions: Sequence[Prediction]) -> tuple[int, bytes]:
    first = type(predictions[0])
    if first is int:
        if all(0 <= item <= 255 for item in predictions):  # type: ignore[operator]
            return _SMALL, bytes(predictions)  # type: ignore[arg-type]
        try:
            return _fit(_INTEGERS, struct.pack(f"!{len(predictions)}q", *predictions))
        except struct.error:
            # UINT64 goes beyond what 64 bits with a sign hold.
            return _NONE, b""
    if first is float:
        return _fit(_NUMBERS, struct.pack(f"!{len(predictions)}d", *predictions))
    texts = [str(item).encode() for item in predictions]
    if any(len(text) > 255 for text in texts):
        return _NONE, b""
    return _fit(_TEXTS, b"".join(bytes((len(text),)) + text for text in texts))


def _fit(kind: int, payload: bytes) -> tuple[int, bytes]:
    return (kind, payload) if len(payload) <= MAX_PREDICTION_BYTES else (_NONE, b"")


def _unpack(body: bytes) -> PredictionId:
    version, issued, origin, counter = _HEAD.unpack_from(body)
    if version != _VERSION:
        raise ForgedId
    revision, offset = _read_text(body, _HEAD.size)
    cohort, offset = _read_text(body, offset)
    rows, kind = _TAIL.unpack_from(body, offset)
    offset += _TAIL.size
    predictions: tuple[Prediction, ...] | None
    match kind:
        case 1:
            predictions = tuple(body[offset : offset + rows])
        case 2:
            predictions = struct.unpack_from(f"!{rows}q", body, offset)
        case 3:
            predictions = struct.unpack_from(f"!{rows}d", body, offset)
        case 4:
            texts: list[str] = []
            for _ in range(rows):
                text, offset = _read_text(body, offset)
                texts.append(text)
            predictions = tuple(texts)
        case _:
            predictions = None
    return PredictionId(issued, origin, counter, revision, cohort, rows, predictions)


def _read_text(body: bytes, offset: int) -> tuple[str, int]:
    end = offset + 1 + body[offset]
    return body[offset + 1 : end].decode(), end
