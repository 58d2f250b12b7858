"""The admin port: feedback, and the model repository."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock_runtime.server.openapi.document import Paths, document
from penstock_runtime.server.openapi.parts import answered, json_body, operation, parameter

if TYPE_CHECKING:
    from penstock_runtime.server.repository.repository import Repository

_ABOUT = (
    "Not for the public: what is sent here decides rollouts. Every failure is answered as JSON with an 'error'. A "
    "method that a path does not have is a 405 with 'Allow', a path that does not exist a 404, bytes that are not HTTP "
    "a 400."
)
_BODY_ERRORS = (400, 408, 413, 415)
_CODING = {"parameters": [parameter("contentEncoding")]}


def admin_document(repository: Repository) -> dict[str, Any]:
    """Return the document of the admin port of a server that has the models of `repository`."""
    return document("Penstock model server: administration", _ABOUT, PATHS, list(repository.models))


# To describe another path, add it here.
PATHS: Paths = {
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
