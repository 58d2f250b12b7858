"""The vocabulary that all resources are built from: the base model and the bounded scalar types.

A rule that users meet is written in CEL with a message of its own, seldom as a `pattern`: the API server
reports a pattern as a bare regular expression, and skips the CEL rules of an object whose pattern failed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Self, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

MESSAGE_LIMIT = 2048
"""Characters of a message for people in a status; longer ones are cut, so that no write fails."""


def rules(*pairs: tuple[str, str]) -> dict[str, Any]:
    """Schema extension holding CEL rules, each a (rule, message for people)."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in pairs]}


def list_map(*keys: str) -> dict[str, Any]:
    """Schema extension: a list whose entries are merged by these keys, which must be unique."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


ATOMIC: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}
"""Schema extension: a list that is replaced as a whole."""

OPEN_OBJECT: dict[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
"""Schema of an object whose content is not described here."""


class ApiModel(BaseModel):
    """A part of a resource: immutable, camelCase on the wire, deaf to fields newer than this code."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    def to_wire(self) -> dict[str, Any]:
        """Plain JSON data with the API's field names; what is absent, empty by default, or a number that JSON
        cannot write (infinite evidence) is left out."""
        wire = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if value is None or (value in _EMPTY and value == field.get_default(call_default_factory=True)):
                continue
            if isinstance(value, float) and not math.isfinite(value):
                continue
            wire[field.alias or name] = _plain(value)
        return wire

    @classmethod
    def from_wire(cls, data: Mapping[str, Any] | None) -> Self:
        """Parse the API server's JSON; None reads as an empty object. Raises pydantic.ValidationError."""
        return cls.model_validate(data or {})


_EMPTY: tuple[Any, ...] = ((), {})


def _plain(value: Any) -> Any:
    match value:
        case ApiModel():
            return value.to_wire()
        case str():  # also enums and the types below
            return str(value)
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return value


class _Text(str):
    """A string with a grammar of its own: checked on parsing, plain on the wire."""

    __slots__ = ()

    @classmethod
    def checked(cls, value: str) -> Self:
        """The value as this type; ValueError, with a message for people, if it breaks the grammar."""
        raise NotImplementedError

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The OpenAPI schema of the type."""
        raise NotImplementedError

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls.checked, core_schema.str_schema())

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return cls.json_schema()


class Duration(_Text):
    """A span of time as people write it: `90s`, `10m`, `1h30m`, `7d`. Zero (`0s`) is allowed."""

    __slots__ = ()

    _UNITS: Mapping[str, int] = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    _EXAMPLES = "such as 90s, 10m, 1h30m or 7d"

    @classmethod
    def checked(cls, value: str) -> Self:
        """The value as a Duration; ValueError if it is none."""
        if len(value) > 32 or not re.fullmatch(r"([0-9]{1,6}[dhms])+", value):
            raise ValueError(f"must be a duration {cls._EXAMPLES}, not {value!r}")
        return cls(value)

    def seconds(self) -> float:
        """The span in seconds."""
        parts = re.findall(r"([0-9]+)([dhms])", self)
        return float(sum(int(count) * self._UNITS[unit] for count, unit in parts))

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The OpenAPI schema of the type."""
        rule = ("self.matches('^([0-9]{1,6}[dhms])+$')", f"must be a duration {cls._EXAMPLES}")
        return {"type": "string", "title": "duration", "maxLength": 32, **rules(rule)}


class PositiveDuration(Duration):
    """A Duration longer than zero."""

    __slots__ = ()

    @classmethod
    def checked(cls, value: str) -> Self:
        """The value as a PositiveDuration; ValueError if it is none."""
        span = super().checked(value)
        if not span.seconds():
            raise ValueError(f"must be a duration longer than zero, {cls._EXAMPLES}, not {value!r}")
        return span

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The OpenAPI schema of the type."""
        rule = (
            "self.matches('^([0-9]{1,6}[dhms])+$') && self.matches('[1-9]')",
            f"must be a duration longer than zero, {cls._EXAMPLES}",
        )
        return {"type": "string", "title": "duration", "maxLength": 32, **rules(rule)}


class Timestamp(_Text):
    """A moment in UTC, RFC 3339: `2026-11-23T21:49:00Z`; milliseconds only where there are any."""

    __slots__ = ()

    @classmethod
    def at(cls, unix: float) -> Self:
        """The moment that many seconds after the epoch, to the millisecond."""
        moment = datetime.fromtimestamp(round(unix * 1000) / 1000, UTC)
        digits = "milliseconds" if moment.microsecond else "seconds"
        return cls(moment.isoformat(timespec=digits).replace("+00:00", "Z"))

    @classmethod
    def checked(cls, value: str) -> Self:
        """The value as a Timestamp; ValueError if it is none."""
        if datetime.fromisoformat(value).tzinfo is None:
            raise ValueError(f"must be a time with its zone, such as 2026-11-23T21:49:00Z, not {value!r}")
        return cls(value)

    def unix(self) -> float:
        """Seconds since the epoch."""
        return datetime.fromisoformat(self).timestamp()

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The OpenAPI schema of the type."""
        return {"type": "string", "title": "time", "format": "date-time", "maxLength": 40}


def clip(limit: int) -> Callable[[Any], Any]:
    """A validator that cuts text to `limit` characters, marking the cut with an ellipsis."""

    def cut(value: Any) -> Any:
        return value[: limit - 1] + "…" if isinstance(value, str) and len(value) > limit else value

    return cut


def _text(limit: int, *pairs: tuple[str, str], at_least: int = 0) -> Any:
    extra = rules(*pairs) if pairs else None
    return Field(min_length=at_least or None, max_length=limit, json_schema_extra=extra)


Message: TypeAlias = Annotated[str, BeforeValidator(clip(MESSAGE_LIMIT)), Field(max_length=MESSAGE_LIMIT)]
"""Text for people in a status."""

Word: TypeAlias = Annotated[str, Field(max_length=64)]
"""A short machine-written word: a reason, an id, a hash."""

ShortText: TypeAlias = Annotated[str, Field(max_length=256)]
"""A short machine-written string."""

_NAME_MESSAGE = "must be the name of a Kubernetes object: lower-case letters, digits, '-' and '.'"

ObjectName: TypeAlias = Annotated[
    str,
    _text(
        253,
        ("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')", _NAME_MESSAGE),
    ),
]
"""The name of another Kubernetes object."""

Label: TypeAlias = Annotated[
    str,
    _text(
        63,
        (
            "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
            "must be lower-case letters, digits and '-', beginning and ending with a letter or digit",
        ),
    ),
]
"""A name within a list: a gate's, a format's."""

Digest: TypeAlias = Annotated[
    str,
    _text(
        128,
        (
            "self.matches('^sha256:[0-9a-f]{64}$')",
            "must be sha256: followed by 64 lower-case hexadecimal digits, as `sha256sum FILE` prints them",
        ),
    ),
]
"""A sha256 digest in the form `sha256:<64 hex digits>`."""

Quantity: TypeAlias = Annotated[
    int | str,
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "maxLength": 32,
            **rules(
                (
                    "type(self) == int ? self >= 0 : isQuantity(self) && !self.startsWith('-')",
                    "must be an amount that is not negative, such as 2, 500m, 4Gi",
                )
            ),
        }
    ),
]
"""An amount as Kubernetes writes it: `2`, `500m`, `4Gi`."""

Int32: TypeAlias = Annotated[int, Field(json_schema_extra={"format": "int32"})]
Int64: TypeAlias = Annotated[int, Field(json_schema_extra={"format": "int64"})]
