"""The metrics in OpenMetrics' text format 1.0, which can carry exemplars.

Every series keeps the name and value that it has in Prometheus' own format, whatever Prometheus asks for: queries
must not depend on it. OpenMetrics knows no counters without _total at the end, and no histograms of negative numbers
with a sum; those series are told as of unknown type.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from penstock_runtime.server.metrics import families

CONTENT_TYPE = b"application/openmetrics-text; version=1.0.0; charset=utf-8"
_TYPE = b"application/openmetrics-text"
_VERSIONS = (None, b"1.0.0", b"0.0.1")
_PLAIN = (b"text/plain", b"text/*", b"*/*")
_SUFFIXES = ("bucket", "sum", "count")


def openmetrics(parts: Iterable[Iterable[str]], exemplars: Mapping[str, str]) -> bytes:
    """Return the text of all `parts`. `exemplars`: by the series of a bucket, as it stands there."""
    lines: list[str] = []
    for name, kind, text, samples in families(parts):
        if kind == "counter" and name.endswith("_total"):
            lines += (*_head(name.removesuffix("_total"), kind, text), *samples)
        elif kind == "counter":
            lines += (*_head(name, "unknown", text), *samples)
        elif kind == "histogram" and any('le="-' in sample for sample in samples):
            lines += _apart(name, text, samples)
        elif kind == "histogram":
            lines += (*_head(name, kind, text), *(_with_exemplar(sample, exemplars) for sample in samples))
        else:
            lines += (*_head(name, kind, text), *samples)
    return "\n".join((*lines, "# EOF\n")).encode()


def is_wanted(accept: bytes) -> bool:
    """Return whether a client that accepts this prefers OpenMetrics to Prometheus' format, or likes both as well."""
    best, plain = 0.0, 0.0
    for item in accept.split(b","):
        kind, *rest = (word.strip().lower() for word in item.split(b";"))
        parameters = dict(word.partition(b"=")[::2] for word in rest)
        quality = _quality(parameters.get(b"q", b"1"))
        if kind == _TYPE and parameters.get(b"version") in _VERSIONS:
            best = max(best, quality)
        elif kind in _PLAIN:
            plain = max(plain, quality)
    return best > 0 and best >= plain


def _quality(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# TYPE {name} {kind}", f"# HELP {name} {text}"


def _apart(name: str, text: str, samples: Iterable[str]) -> Iterator[str]:
    for suffix in _SUFFIXES:
        series = f"{name}_{suffix}"
        yield from _head(series, "unknown", text)
        yield from (sample for sample in samples if sample.startswith(f"{series}{{"))


def _with_exemplar(sample: str, exemplars: Mapping[str, str]) -> str:
    exemplar = exemplars.get(sample.rpartition(" ")[0])
    return sample if exemplar is None else f"{sample} # {exemplar}"
