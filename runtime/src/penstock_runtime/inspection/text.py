"""A report on a model as lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock_runtime.terminal import printable

_COLUMN = 12
_MOST = 20


def lines(report: dict[str, Any]) -> Iterator[str]:
    """Yield the report's lines; what a file could use to confuse a terminal is escaped."""
    yield printable(report["file"])
    for title, values in _sections(report):
        for index, value in enumerate(values):
            yield f"  {title if not index else '':<{_COLUMN}}{printable(value)}"


def _sections(report: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    yield "Digest", [report["digest"]]
    more = f"; {report['files']} files of {report['bytes']:,} bytes in all" if report["files"] > 1 else ""
    yield "Size", [f"{report['size']:,} bytes{more}"]
    yield "Made by", [_maker(report)]
    yield "Opsets", [", ".join(f"{domain} {version}" for domain, version in report["opsets"].items()) or "none"]
    yield "Inputs", _tensors(report["inputs"])
    yield "Outputs", _tensors(report["outputs"])
    yield "Parameters", [f"{report['parameters']:,}"]
    yield "Operators", _operators(report["operators"])
    yield "Functions", _some(report["functions"])
    yield "Weights in", [f"{each['file']}, {each['size']:,} bytes" for each in report["external_data"]]
    yield "Custom", [_custom(each) for each in report["custom_domains"]]
    yield "Metadata", _some([f"{key}: {value}" for key, value in report["metadata"].items()])
    yield "Batching", [_batching(report["batching"])]
    yield "Serving", report["problems"] or ["nothing in the files speaks against it"]


def _maker(report: dict[str, Any]) -> str:
    producer = " ".join(filter(None, report["producer"].values())) or "unknown"
    version = f", model version {report['model_version']}" if report["model_version"] else ""
    return f"{producer}, IR version {report['ir_version']}{version}"


def _tensors(tensors: list[dict[str, Any]]) -> list[str]:
    width = max((len(each["name"]) for each in tensors), default=0)
    return [f"{each['name']:<{min(width, 40)}}  {each['datatype'] or each['type']}{_shape(each['dims'])}"
            for each in tensors] or ["none"]  # fmt: skip


def _shape(dims: list[object] | None) -> str:
    if dims is None:
        return " of any shape"
    return f" [{', '.join('?' if dim is None else str(dim) for dim in dims)}]"


def _operators(operators: dict[str, int]) -> list[str]:
    listed = _some([f"{name} {count}" for name, count in operators.items()])
    return [f"{sum(operators.values()):,} in all: {', '.join(listed)}" if listed else "none"]


def _custom(entry: dict[str, Any]) -> str:
    return f"{entry['domain']} ({', '.join(_some(entry['operators']))}): {'' if entry['allowed'] else 'not '}allowed"


def _batching(batching: dict[str, Any]) -> str:
    if batching["by_schema"]:
        return "by the schema, requests can run together; serving tries whether they may"
    return f"requests run alone: {batching['reason']}"


def _some(values: list[str]) -> list[str]:
    return values if len(values) <= _MOST else [*values[:_MOST], f"and {len(values) - _MOST} more"]
