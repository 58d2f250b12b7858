"""The page as HTML: all of it in one answer, so that it works without any other place."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from pathlib import Path

import orjson

from penstock_runtime import __version__
from penstock_runtime.protocol.schema import TensorSpec
from penstock_runtime.server.page.example import MAX_ELEMENTS, example_request
from penstock_runtime.server.repository.model import Model
from penstock_runtime.server.repository.repository import Repository
from penstock_runtime.server.serving import Serving

_HERE = Path(__file__).parent
_STYLE = (_HERE / "page.css").read_text()
_SCRIPT = (_HERE / "page.js").read_text()
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Crect width='16' height='16' rx='4' fill='%230f6a85'/%3E"
    "%3Cpath d='M4 3v10M12 3v10M4 6h8M4 10h8' stroke='white' stroke-width='1.6'/%3E%3C/svg%3E"
)
_SETTINGS = {
    "instances": "Runs at once",
    "threads": "Threads a run",
    "max_batch_rows": "Rows run together, at most",
    "max_queue": "Requests waiting, at most",
    "timeout_seconds": "Time for a request",
    "max_body_bytes": "Body, at most",
}
_STATES = {"READY": "Ready", "LOADING": "Loading", "UNLOADING": "Unloading", "UNAVAILABLE": "Not loaded"}
# Kind, title, what it says until there are numbers, what its lines are.
_TILES = (
    ("rate", "Requests", "a second, by outcome", "all; dashed: not answered with 200"),
    ("latency", "Latency", "successful requests, last 10 s", "median; dashed: p99"),
    ("queue", "Queue", "mean wait, last 10 s", "mean wait"),
    ("batch", "Batch", "rows a run, last 10 s", "mean rows a run"),
)
# Lines of the field for a request.
_LINES = (6, 20)


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


# Nothing but the page's own script and style may run, and nothing may be asked of another place.
POLICY = (
    f"default-src 'none'; script-src {_hash(_SCRIPT)}; style-src {_hash(_STYLE)}; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def document(repository: Repository, revision: str) -> bytes:
    """Return the page."""
    models = "".join(_model(number, model) for number, model in enumerate(repository.models.values()))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Penstock model server</title>
<link rel="icon" href="{_ICON}">
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>Penstock <span>model server</span></h1>
<p id="ready" class="badge" role="status">…</p>
<dl class="facts">
<div><dt>Revision</dt><dd>{escape(revision)}</dd></div>
<div><dt>Version</dt><dd>{escape(__version__)}</dd></div>
<div><dt>Up</dt><dd id="uptime">…</dd></div>
<div><dt>Memory</dt><dd id="memory">…</dd></div>
<div><dt>In flight</dt><dd id="in-flight">…</dd></div>
</dl>
</header>
<p id="notice" role="alert" hidden></p>
<main>{models or "<p>This server has no model.</p>"}</main>
<noscript><p class="note">Live numbers and trying a request need JavaScript.</p></noscript>
<script>{_SCRIPT}</script>
</body>
</html>
""".encode()


def _model(number: int, model: Model) -> str:
    versions = "".join(_version(f"{number}-{index}", each) for index, each in enumerate(model.versions.values()))
    tiles = "".join(_tile(*tile) for tile in _TILES)
    return f"""
<section class="model" data-model="{escape(model.name)}" aria-labelledby="model-{number}">
<h2 id="model-{number}">{escape(model.name)} <span class="badge" data-state>{_STATES[model.state]}</span></h2>
<p class="note" data-reason>{escape(model.reason)}</p>
<div class="tiles">{tiles}</div>
{versions}
</section>"""


def _tile(kind: str, title: str, unit: str, lines: str) -> str:
    return f"""
<div class="tile" data-tile="{kind}">
<h3>{title}</h3>
<p class="number" data-number>–</p>
<svg viewBox="0 0 120 32" preserveAspectRatio="none" role="img"><title>{title} over the last minute: {lines}</title>
<path class="area"></path><path class="line"></path><path class="line second"></path></svg>
<p class="unit" data-detail>{unit}</p>
</div>"""


def _version(key: str, serving: Serving) -> str:
    version = escape(serving.version)
    rows = "".join(
        _row(kind, spec)
        for kind, specs in (("input", serving.schema.inputs), ("output", serving.schema.outputs))
        for spec in specs
    )
    return f"""
<div class="version">
<div class="about">
<table>
<caption>Version {version}: inputs and outputs</caption>
<thead><tr><th scope="col">Name</th><th scope="col">Type</th><th scope="col">Shape</th></tr></thead>
<tbody>{rows}</tbody>
</table>
<dl class="settings" aria-label="Settings of version {version}">{_settings(serving)}</dl>
</div>
{_form(key, serving)}
</div>"""


def _row(kind: str, spec: TensorSpec) -> str:
    dims = ["any" if dim == -1 else str(dim) for dim in spec.shape or ()]
    shape = " × ".join(dims) or "any number of dimensions"
    return (
        f'<tr><th scope="row"><span class="kind {kind}">{kind}</span> {escape(spec.name)}</th>'
        f"<td>{spec.datatype}</td><td>{shape}</td></tr>"
    )


def _settings(serving: Serving) -> str:
    config = orjson.loads(serving.config)
    values = {name: item["string_value"] for name, item in config["parameters"].items()}
    values["instances"] = config["instance_group"][0]["count"]
    values["timeout_seconds"] = f"{float(values['timeout_seconds']):g} s"
    values["max_body_bytes"] = f"{int(values['max_body_bytes']) / 2**20:.3g} MiB"
    return "".join(
        f"<div><dt>{label}</dt><dd>{escape(str(values[name]))}</dd></div>" for name, label in _SETTINGS.items()
    )


def _form(key: str, serving: Serving) -> str:
    example = example_request(serving.schema)
    note = "It is run beside the traffic, gets no prediction id and counts nowhere."
    if example is None:
        note = f"No example: there is FP16, or a tensor of over {MAX_ELEMENTS} elements. What is tried counts nowhere."
    lines = min(max((example or "").count("\n") + 2, _LINES[0]), _LINES[1])
    path = escape(f"/try/{serving.name}/versions/{serving.version}")
    return f"""
<form data-path="{path}">
<label for="request-{key}">Try a request</label>
<textarea id="request-{key}" rows="{lines}" spellcheck="false" autocomplete="off" aria-describedby="note-{key}">
{escape(example or "")}</textarea>
<div class="actions"><button type="submit">Run</button><span class="took" data-took role="status"></span></div>
<pre data-answer tabindex="0" aria-label="Answer" hidden></pre>
<p class="note" id="note-{key}">{note}</p>
</form>"""
