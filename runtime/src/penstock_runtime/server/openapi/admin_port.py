"""The admin port: feedback, the model repository, what is told, and the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock_runtime.server.openapi.document import document
from penstock_runtime.server.openapi.parts import (
    Part,
    Paths,
    answered,
    json_body,
    operation,
    parameter,
    readable,
)
from penstock_runtime.server.openapi.tokens import Guarded

if TYPE_CHECKING:
    from penstock_runtime.server.repository.repository import Repository

_ABOUT = (
    "Not for the public: what is sent here decides rollouts. Every failure is answered as JSON with an 'error'. A "
    "method that a path does not have is a 405 with 'Allow', a path that does not exist a 404, bytes that are not HTTP "
    "a 400."
)
_BODY_ERRORS = (400, 408, 413, 415)
_CODING = {"parameters": [parameter("contentEncoding")]}


def admin_document(repository: Repository, tokens: bool) -> dict[str, Any]:
    """Return the document of the admin port of a server that has the models of `repository`.

    `tokens`: whether the port asks for tokens.
    """
    guarded = Guarded(pages=_PAGE) if tokens else None
    return document("Penstock model server: administration", _ABOUT, PATHS, list(repository.models), guarded)


def _told(name: str, what: str) -> Part:
    """Return the path of a setting that is told; `what` it decides."""
    state = answered("The state, after what was asked for.", f"{name}State")
    item = readable(operation(f"get{name}", f"Show {what}", "traffic", state))
    item["put"] = operation(
        f"put{name}", f"Say {what}", "traffic", state, errors=(*_BODY_ERRORS, 409),
        more={**_CODING, "requestBody": json_body(f"{name}Request", "It replaces the setting as a whole.")},
    )  # fmt: skip
    item["delete"] = operation(f"delete{name}", "Take the setting back", "traffic", state)
    return item


def _try(suffix: str, *named: str) -> Part:
    return {
        "parameters": [parameter(name) for name in named],
        "post": operation(
            f"try{suffix}", "Run the model for a person: it counts nowhere and waits in no line", "page",
            answered("The outputs, which must not be in binary form.", "InferResponse"),
            errors=(*_BODY_ERRORS, 403, 404, 429, 500, 503, 504),
            more={**_CODING, "requestBody": json_body(
                "InferRequest", "With the header Content-Type: application/json.")},
        ),
    }  # fmt: skip


# For browsers.
_PAGE: dict[str, Part] = {
    "/": readable(operation("getPage", "The page for people", "page", {
        "description": "The page.", "content": {"text/html": {"schema": {"type": "string"}}},
    })),
    "/state": readable(operation("getState", "What the page shows", "page", answered("Sums.", "State"))),
    "/try/{model}": _try("", "model"),
    "/try/{model}/versions/{version}": _try("Version", "model", "version"),
}  # fmt: skip
# To describe another path, add it here.
PATHS: Paths = {
    **_PAGE,
    "/v2": readable(operation("getServer", "What this port is for", "server",
                              answered("Name, version and the extensions of this port.", "Server"))),
    "/v2/forward": _told("Forward", "which requests another server answers"),
    "/v2/shadow": _told("Shadow", "which requests another server gets copies of"),
    "/v2/logging": _told("Logging", "which requests are logged"),
    "/v2/models/{model}/feedback": {
        "parameters": [parameter("model")],
        "post": operation(
            "giveFeedback", "Say what was right", "feedback",
            answered("How many items were counted, and how many not, by reason.", "FeedbackCounts"),
            errors=(*_BODY_ERRORS, 404, 503),
            more={**_CODING, "requestBody": json_body(
                "FeedbackBatch", "Refused as a whole if it is malformed; an item counts once within the window.")},
        ),
    },
    "/v2/repository/index": {
        "post": operation(
            "getIndex", "List models and versions", "repository", answered("Each with its state.", "Index"),
            errors=_BODY_ERRORS,
            more={**_CODING, "requestBody": json_body("IndexRequest", "May be empty.", required=False)},
        ),
    },
    "/v2/repository/models/{model}/load": {
        "parameters": [parameter("newModel")],
        "post": operation(
            "loadModel", "Load what lies in the model's folder", "repository",
            answered("It serves.", "Nothing"), errors=(*_BODY_ERRORS, 403, 404, 503),
            more={**_CODING, "requestBody": json_body("LoadRequest", "May be empty.", required=False)},
        ),
    },
    "/v2/repository/models/{model}/unload": {
        "parameters": [parameter("newModel")],
        "post": operation(
            "unloadModel", "Take the model out of service", "repository",
            answered("Its last request has been answered.", "Nothing"), errors=(*_BODY_ERRORS, 403, 404, 503),
            more={**_CODING, "requestBody": json_body("UnloadRequest", "May be empty.", required=False)},
        ),
    },
}  # fmt: skip
