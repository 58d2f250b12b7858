"""The data port: health, metadata, inference, and the extensions of these."""

from __future__ import annotations

from typing import Any

import orjson

from penstock_runtime.protocol.synthetic import synthetic_request
from penstock_runtime.server.openapi.document import document
from penstock_runtime.server.openapi.parts import (
    Part,
    answered,
    header,
    operation,
    parameter,
    readable,
    schema,
)
from penstock_runtime.server.openapi.tokens import Guarded
from penstock_runtime.server.repository.repository import Repository
from penstock_runtime.server.security.guard import HEALTH

_MODEL = "/v2/models/{model}"
_VERSION = f"{_MODEL}/versions/{{version}}"
# A document with an example for each of a thousand models would help nobody.
_MAX_EXAMPLES = 20
_ABOUT = (
    "Every failure is answered as JSON with an 'error'. A method that a path does not have is a 405 with 'Allow', a "
    "path that does not exist a 404, bytes that are not HTTP a 400. The admin port has a document of its own."
)


def data_document(repository: Repository, tokens: bool) -> dict[str, Any]:
    """Return the document of the data port of a server that has the models of `repository`.

    `tokens`: whether the port asks for tokens.
    """
    paths = _paths(_examples(repository))
    if "stats" in repository.models:
        del paths["/v2/models/stats"]
    guarded = Guarded(open_paths=HEALTH) if tokens else None
    return document("Penstock model server", _ABOUT, paths, list(repository.models), guarded)


def _examples(repository: Repository) -> Part:
    found: Part = {}
    for model in list(repository.models.values())[:_MAX_EXAMPLES]:
        if model.current is not None:
            body, header_length = synthetic_request(model.current.schema)
            if header_length is None:
                found[model.name] = {"summary": f"One row for {model.name}", "value": orjson.loads(body)}
    return found


def _paths(examples: Part) -> dict[str, Part]:
    paths: dict[str, Part] = {
        "/v2": readable(operation("getServer", "What this server is", "server",
                                  answered("Name, version and extensions.", "Server"))),
        "/v2/health/live": readable(operation("getLive", "Whether the process works", "health",
                                              answered("It does.", "Live"))),
        "/v2/health/ready": readable(_ready("getReady", "Whether requests should be sent here", "Ready", "NotReady")),
        "/v2/models/stats": readable(operation("getStatistics", "Statistics of all models", "models",
                                               answered("Sums since the process began.", "Statistics"))),
    }  # fmt: skip
    for path, suffix, named in ((_MODEL, "", ["model"]), (_VERSION, "Version", ["model", "version"])):
        given = {"parameters": [parameter(name) for name in named]}
        for tail, each in _model_paths(suffix).items():
            paths[path + tail] = {**readable(each), **given}
        paths[f"{path}/infer"] = {"post": _infer(suffix, examples), **given}
    return paths


def _model_paths(suffix: str) -> dict[str, Part]:
    return {
        "": operation(f"getModel{suffix}", "Names, datatypes and shapes", "models",
                      answered("The model's metadata.", "ModelMetadata"), errors=(404, 503)),
        "/ready": _ready(f"getModelReady{suffix}", "Whether the model answers", "ModelReady", "ModelNotReady", (404,)),
        "/config": operation(f"getModelConfig{suffix}", "Limits and threads", "models",
                             answered("The model's configuration.", "ModelConfig"), errors=(404, 503)),
        "/stats": operation(f"getModelStatistics{suffix}", "Requests, runs and the time they took", "models",
                            answered("Sums since the process began.", "Statistics"), errors=(404, 503)),
    }  # fmt: skip


def _ready(name: str, summary: str, ready: str, not_ready: str, errors: tuple[int, ...] = ()) -> Part:
    found = operation(name, summary, "health", answered("It is.", ready), errors=errors)
    found["responses"]["503"] = answered("It is not; 'error' says why.", not_ready)
    return found


def _infer(suffix: str, examples: Part) -> Part:
    json: Part = {"schema": schema("InferRequest")}
    if examples:
        json["examples"] = examples
    return operation(
        f"infer{suffix}", "Run the model", "inference", _inferred(),
        errors=(400, 404, 408, 413, 415, 429, 500, 503, 504),
        more={
            "parameters": [
                parameter(name)
                for name in ("inferenceHeader", "contentEncoding", "acceptEncoding", "forwarded", "shadow")
            ],
            "requestBody": {
                "required": True,
                "description": "JSON, or JSON with binary tensors behind it, or a tensor alone: the header "
                               "Inference-Header-Content-Length tells, whatever the content type is.",
                "content": {"application/json": json, "application/octet-stream": {}},
            },
        },
    )  # fmt: skip


def _inferred() -> Part:
    named = ("penstock-revision", "penstock-prediction-id", "Inference-Header-Content-Length", "Content-Encoding",
             "Vary")  # fmt: skip
    return {
        "description": "The outputs; as application/octet-stream if any of them is in binary form. A server that "
        "forwards passes the other one's answer on as it came, with its headers.",
        "headers": {name: header(name) for name in named},
        "content": {
            "application/json": {"schema": schema("InferResponse")},
            "application/octet-stream": {},
        },
    }
