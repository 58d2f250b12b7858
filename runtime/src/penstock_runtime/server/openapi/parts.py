"""What operations are put together from: responses, headers, parameters, bodies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Part = dict[str, Any]
Paths = Mapping[str, Mapping[str, Any]]

# A list of more names helps nobody.
MAX_NAMES = 100


def schema(name: str) -> Part:
    """Return a reference to a schema of `schemas.py`."""
    return {"$ref": f"#/components/schemas/{name}"}


def parameter(name: str) -> Part:
    """Return a reference to one of `parameters`."""
    return {"$ref": f"#/components/parameters/{name}"}


def header(name: str) -> Part:
    """Return a reference to one of `HEADERS`."""
    return {"$ref": f"#/components/headers/{name}"}


def answered(description: str, content: str | Part, headers: Sequence[str] = ()) -> Part:
    """Return a response of JSON; `content`: its schema, or a schema's name; `headers`: of `HEADERS`."""
    body = schema(content) if isinstance(content, str) else content
    response: Part = {"description": description, "content": {"application/json": {"schema": body}}}
    if headers:
        response["headers"] = {name: header(name) for name in headers}
    return response


def json_body(name: str, description: str, *, required: bool = True) -> Part:
    """Return a request body of JSON by the schema `name`."""
    return {"description": description, "required": required, "content": {"application/json": {"schema": schema(name)}}}


def operation(
    name: str,
    summary: str,
    tag: str,
    ok: Part,
    *,
    errors: Sequence[int] = (),
    more: Mapping[str, Any] | None = None,
) -> Part:
    """Return an operation that answers 200 with `ok`, or one of `errors`; `more`: its other fields."""
    responses = {"200": ok, **{str(status): {"$ref": f"#/components/responses/{status}"} for status in errors}}
    return {"operationId": name, "summary": summary, "tags": [tag], **(more or {}), "responses": responses}


def refused(status: int, method: str) -> Part:
    """Return the response of an error by `method`, which for HEAD has no body."""
    return {"description": _WORDS[status]} if method == "head" else {"$ref": f"#/components/responses/{status}"}


def readable(get: Part) -> Part:
    """Return the path of an operation for GET, which HEAD has as well, without a body."""
    responses = {status: {"description": _words(response)} for status, response in get["responses"].items()}
    return {"get": get, "head": {**get, "operationId": f"{get['operationId']}Head", "responses": responses}}


def _words(response: Part) -> str:
    if "$ref" in response:
        response = RESPONSES[response["$ref"].rpartition("/")[2]]
    return str(response["description"])


def parameters(models: Sequence[str]) -> dict[str, Part]:
    """Return the parameters that operations share, for a server that has `models`."""
    known: Part = {"type": "string"}
    if 0 < len(models) <= MAX_NAMES:
        known["enum"] = list(models)
    coding = {"type": "string", "enum": ["gzip", "deflate", "identity"]}
    return {
        "model": _in("path", "model", "Name of a model that this server has.", known),
        "newModel": _in("path", "model", "Name of a model, or of a folder that was added to the repository.",
                        {"type": "string"}),
        "version": _in("path", "version", "Version of the model.", {"type": "string"}),
        "contentEncoding": _in("header", "Content-Encoding",
                               "How the body is compressed; the limit on its size holds for what it decompresses to.",
                               coding),
        "acceptEncoding": _in("header", "Accept-Encoding",
                              "gzip or deflate, by weight: answers of 4 KiB and more are compressed so.",
                              {"type": "string"}),
        "forwarded": _in("header", "penstock-forwarded",
                         "Whatever it says: the request is answered here and not forwarded. Another server sent it on, "
                         "or its client wants no canary.", {"type": "string"}),
        "shadow": _in("header", "penstock-shadow",
                      "Whatever it says: the request is a copy. It is answered in binary form, neither forwarded nor "
                      "copied, and counted apart.", {"type": "string"}),
        "inferenceHeader": _in("header", "Inference-Header-Content-Length",
                               "The length of the body's JSON part in (decompressed) bytes; binary tensors follow it. "
                               "0: there is no JSON, the body is the only input's tensor. Absent: the body is JSON.",
                               {"type": "integer", "minimum": 0}),
    }  # fmt: skip


def _in(place: str, name: str, description: str, kind: Part) -> Part:
    return {"name": name, "in": place, "required": place == "path", "description": description, "schema": kind}


def _header(description: str, kind: str = "string") -> Part:
    return {"description": description, "schema": {"type": kind}}


HEADERS: dict[str, Part] = {
    "penstock-prediction-id": _header("Opaque and signed: what feedback on this prediction names it by."),
    "penstock-revision": _header("The revision that answered."),
    "Inference-Header-Content-Length": _header(
        "The length of the answer's JSON part; present if binary tensors follow it.", "integer"
    ),
    "Content-Encoding": _header("gzip or deflate, where the answer is compressed."),
    "Vary": _header("Accept-Encoding, where the answer is compressed."),
    "WWW-Authenticate": _header("How to bring a token."),
    "Retry-After": _header("Seconds after which to try again.", "integer"),
    "Accept-Encoding": _header("The codings that a request's body may have."),
}

_WORDS = {
    400: "The request contradicts the protocol or the model's schema; nothing has been done.",
    401: "The token is missing or not valid.",
    403: "The server was not started so that this is allowed, or the request comes from a page of another site.",
    404: "There is no such model or version.",
    408: "The body did not arrive in time.",
    409: "A newer generation has been told already; nothing has changed.",
    413: "The body is too large, by its Content-Length, as it came, or decompressed.",
    415: "The Content-Encoding is not known; Accept-Encoding says which are.",
    429: "Too many requests wait for the model.",
    500: "The model failed on this request, or the server did.",
    503: "The model is not loaded (yet), or the server is shutting down.",
    504: "The answer did not come within the request's time.",
}
_HEADERS = {401: ("WWW-Authenticate",), 415: ("Accept-Encoding",), 429: ("Retry-After",), 503: ("Retry-After",)}
RESPONSES: dict[str, Part] = {
    str(status): answered(words, "Error", _HEADERS.get(status, ())) for status, words in _WORDS.items()
}
