"""A setting that changes while the process runs, told on the admin port or by a mounted file.

Whichever changed last is in force. Files can be late (a kubelet takes up to a minute), so a setting may carry
a `generation`, a number that grows: one that is lower than the highest seen is old and ignored.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

import orjson

from penstock_runtime.log import event
from penstock_runtime.protocol.errors import InvalidRequest, ProtocolError
from penstock_runtime.server.http import Receive, Scope, read_body, require_method
from penstock_runtime.server.settings import SettingsError

logger = logging.getLogger(__name__)

MAX_BYTES = 64 * 2**10
ADMIN = "admin"
FILE = "file"


class Setting(Protocol):
    """What can be told."""

    def describe(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        ...


S = TypeVar("S", bound=Setting)


class Outdated(ProtocolError):  # noqa: N818
    """A 409: something newer has been told already."""

    status = 409


class Told(Generic[S]):
    """The setting in force, where it comes from, and what may replace it."""

    def __init__(
        self,
        name: str,
        parse: Callable[[Mapping[str, Any]], S | None],
        apply: Callable[[S | None], None],
        counts: Callable[[], dict[str, Any]],
    ) -> None:
        """`parse` raises SettingsError; `apply` is called with each new setting, `counts` tells how it does."""
        self._name = name
        self._parse = parse
        self._apply = apply
        self._counts = counts
        self._document: bytes | None = None
        self._missed = False
        self._source: str | None = None
        self._setting: S | None = None
        self._generation: int | None = None

    async def answer(self, scope: Scope, receive: Receive) -> dict[str, Any]:
        """Do what a request on the admin port asks and return the state after it; raises ProtocolError."""
        require_method(scope, "GET", "HEAD", "PUT", "DELETE")
        match scope["method"]:
            case "PUT":
                body = await read_body(dict(scope["headers"]), receive, MAX_BYTES)
                try:
                    setting, generation = self._read(body)
                except SettingsError as error:
                    raise InvalidRequest(f"{self._name}: {error}") from None
                if generation is not None and self._generation is not None and generation < self._generation:
                    raise Outdated(
                        f"{self._name}: generation {generation} is older than {self._generation}, told before"
                    )
                self._take(setting, generation, ADMIN)
            case "DELETE":
                self._take(None, None, ADMIN)
        return self.describe()

    def describe(self) -> dict[str, Any]:
        """Return the setting in force, where it comes from, and its counts."""
        return {
            self._name: None if self._setting is None else self._setting.describe(),
            "source": self._source,
            "generation": self._generation,
            **self._counts(),
        }

    def look(self, document: bytes | None) -> None:
        """Take notice of the mounted file's content, None if there is no file.

        A malformed one is logged and changes nothing; one that has vanished takes back what it told.
        """
        if document is None and self._document is not None and not self._missed:
            # The kubelet exchanges the folder behind a link; a single look may meet neither the old nor the new.
            self._missed = True
            return
        self._missed = False
        if document == self._document:
            return
        self._document = document
        if document is None:
            if self._source == FILE:
                self._take(None, None, FILE)
            return
        try:
            setting, generation = self._read(document)
        except SettingsError as error:
            event(logger, f"the file '{self._name}.json' is malformed and ignored",
                  level=logging.ERROR, error=str(error))  # fmt: skip
            return
        if generation is not None and self._generation is not None and generation <= self._generation:
            if generation == self._generation and setting == self._setting:
                self._source = FILE
            else:
                event(logger, f"the file '{self._name}.json' is old and ignored",
                      generation=generation, newest=self._generation)  # fmt: skip
            return
        self._take(setting, generation, FILE)

    def _read(self, body: bytes) -> tuple[S | None, int | None]:
        try:
            spec = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise SettingsError(f"no valid JSON: {error}") from None
        if not isinstance(spec, dict):
            raise SettingsError("it must be a JSON object")
        generation = spec.pop("generation", None)
        if generation is not None and (type(generation) is not int or generation < 0):
            raise SettingsError("'generation' must be an integer >= 0")
        return self._parse(spec), generation

    def _take(self, setting: S | None, generation: int | None, source: str) -> None:
        self._source = None if setting is None and source == FILE else source
        if generation is not None:
            self._generation = generation
        if setting == self._setting:
            return
        self._setting = setting
        self._apply(setting)
        event(logger, f"{self._name} changed", source=source, generation=generation,
              setting=None if setting is None else setting.describe())  # fmt: skip
