"""The JSON schemas of what the protocol and its extensions send and answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penstock_runtime.protocol.fit import MAX_DIMENSIONS
from penstock_runtime.protocol.schema import ELEMENTS
from penstock_runtime.server.feedback.intake import MAX_BATCH
from penstock_runtime.server.feedback.tally import REASONS
from penstock_runtime.server.forward.setting import MAX_SALT
from penstock_runtime.server.metrics import SHADOW_RESULTS
from penstock_runtime.server.told import ADMIN, FILE

Part = dict[str, Any]

_TEXT: Part = {"type": "string"}
_FLAG: Part = {"type": "boolean"}
_COUNT: Part = {"type": "integer", "minimum": 0}


def record(properties: dict[str, Part], *, optional: Sequence[str] = (), closed: bool = True) -> Part:
    """Return the schema of an object; all but the `optional` properties are required.

    `closed`: it has no others. What clients send is not: they may send more, which is ignored.
    """
    found: Part = {"type": "object", "properties": properties}
    required = [name for name in properties if name not in optional]
    if required:
        found["required"] = required
    if closed:
        found["additionalProperties"] = False
    return found


def items(of: Part, **more: Any) -> Part:
    """Return the schema of a list."""
    return {"type": "array", "items": of, **more}


def _ref(name: str) -> Part:
    return {"$ref": f"#/components/schemas/{name}"}


def _told(name: str, setting: dict[str, Part], counted: dict[str, Part], optional: Sequence[str] = ()) -> Part:
    """Return the schema of the state of what is told; `counted` is there while a setting is in force.

    A setting need not have its `optional` properties.
    """
    return {
        "description": "The setting in force, where it came from, and what became of requests since.",
        **record({
            name: {"oneOf": [{"type": "null"}, record(setting, optional=optional)]},
            "source": {"enum": [ADMIN, FILE, None]}, "generation": {"oneOf": [{"type": "null"}, _ref("Generation")]},
            **counted,
        }, optional=tuple(counted)),
    }  # fmt: skip


_COUNTS: Part = {"type": "object", "additionalProperties": _COUNT}
_SHAPE = items({"type": "integer", "minimum": 0}, maxItems=MAX_DIMENSIONS)
_DATATYPE: Part = {"type": "string", "enum": list(ELEMENTS)}
_TARGETS: dict[str, Part] = {
    "target": _ref("Target"), "target_grpc": {"oneOf": [{"type": "null"}, _ref("GrpcTarget")]},
}  # fmt: skip
_STAGES = ("compute_input", "compute_infer", "compute_output")

SCHEMAS: dict[str, Part] = {
    "Error": record({"error": {"type": "string", "minLength": 1}}),
    "Live": record({"live": {"const": True}}),
    "Ready": record({"ready": {"const": True}}),
    "NotReady": record({"ready": {"const": False}, "error": _TEXT}),
    "ModelReady": record({"name": _TEXT, "ready": {"const": True}}),
    "ModelNotReady": record({"name": _TEXT, "ready": {"const": False}, "error": _TEXT}),
    "Server": record({"name": _TEXT, "version": _TEXT, "extensions": items(_TEXT)}),
    "TensorMetadata": record(
        {"name": _TEXT, "datatype": _DATATYPE, "shape": items({"type": "integer", "minimum": -1})}
    ),
    "ModelMetadata": record({
        "name": _TEXT, "versions": items(_TEXT, minItems=1), "platform": _TEXT,
        "inputs": items(_ref("TensorMetadata")), "outputs": items(_ref("TensorMetadata")),
    }),
    "Parameters": {
        "type": "object",
        "description": "Unknown ones are ignored.",
        "additionalProperties": {"type": ["string", "number", "boolean"]},
    },
    "TensorData": {
        "type": "array",
        "description": "The elements, nested to the shape or flat in row-major order. Never converted: an integer "
                       "tensor takes integers within its range, BOOL booleans, BYTES strings. FP16 has no JSON form.",
    },
    "InputTensor": {
        "description": "With 'data', or with 'binary_data_size' among its parameters: then its data follows the JSON.",
        **record({
            "name": _TEXT, "shape": _SHAPE, "datatype": _DATATYPE, "data": _ref("TensorData"),
            "parameters": {
                "allOf": [
                    _ref("Parameters"),
                    {"properties": {"binary_data_size": {**_COUNT, "description": "Bytes behind the JSON."}}},
                ],
            },
        }, optional=("data", "parameters"), closed=False),
    },
    "RequestedOutput": record({
        "name": _TEXT,
        "parameters": {
            "allOf": [
                _ref("Parameters"),
                {"properties": {"binary_data": {**_FLAG, "description": "Whether it comes in binary form."}}},
            ],
        },
    }, optional=("parameters",), closed=False),
    "InferRequest": record({
        "id": {"type": ["string", "null"], "description": "Comes back in the answer, if given."},
        "parameters": {
            "allOf": [
                _ref("Parameters"),
                {"properties": {"binary_data_output": {**_FLAG, "description": "The default of 'binary_data'."}}},
            ],
        },
        "inputs": items(_ref("InputTensor")),
        "outputs": {
            "type": ["array", "null"], "items": _ref("RequestedOutput"),
            "description": "Which outputs, in which order; none or absent: all.",
        },
    }, optional=("id", "parameters", "outputs"), closed=False),
    "OutputTensor": {
        "description": "With 'data', or with the size of its data behind the JSON.",
        **record({
            "name": _TEXT, "datatype": _DATATYPE, "shape": items(_COUNT),
            "data": items({"type": ["number", "string", "boolean", "null"]},
                          description="Flat, row-major; NaN and infinity are null."),
            "parameters": record({"binary_data_size": _COUNT}),
        }, optional=("data", "parameters")),
        "oneOf": [{"required": ["data"]}, {"required": ["parameters"]}],
    },
    "InferResponse": record({
        "model_name": _TEXT, "model_version": _TEXT, "id": _TEXT, "outputs": items(_ref("OutputTensor")),
    }, optional=("id",)),
    "ConfigTensor": record(
        {"name": _TEXT, "data_type": {"type": "string", "pattern": "^TYPE_"}, "dims": items({"type": "integer"})}
    ),
    "ModelConfig": record({
        "name": _TEXT, "platform": _TEXT, "backend": _TEXT, "max_batch_size": _COUNT,
        "input": items(_ref("ConfigTensor")), "output": items(_ref("ConfigTensor")),
        "instance_group": items(record({"name": _TEXT, "kind": _TEXT, "count": _COUNT})),
        "parameters": {"type": "object", "additionalProperties": record({"string_value": _TEXT})},
    }),
    "Duration": record({"count": _COUNT, "ns": {**_COUNT, "description": "Nanoseconds in all."}}),
    "InferStatistics": record({
        name: _ref("Duration") for name in ("success", "fail", "queue", *_STAGES, "cache_hit", "cache_miss")
    }),
    "ModelStatistics": record({
        "name": _TEXT, "version": _TEXT,
        "last_inference": {**_COUNT, "description": "Milliseconds since 1970; 0: never."},
        "inference_count": {**_COUNT, "description": "Rows."},
        "execution_count": {**_COUNT, "description": "Runs of the model."},
        "inference_stats": _ref("InferStatistics"),
        "batch_stats": items(record({"batch_size": _COUNT, **{stage: _ref("Duration") for stage in _STAGES}})),
        "memory_usage": items({"type": "object"}),
    }),
    "Statistics": record({"model_stats": items(_ref("ModelStatistics"))}),
    "FeedbackItem": {
        "description": "The true label, whether the prediction was right, or its error; for a request of several rows "
                       "a list of one a row, null where it is not known.",
        **record({
            "id": {"type": "string", "description": "The penstock-prediction-id of the answer."},
            "label": {}, "correct": {}, "error": {},
        }, optional=("label", "correct", "error"), closed=False),
        "oneOf": [{"required": [kind]} for kind in ("label", "correct", "error")],
    },
    "FeedbackBatch": items(_ref("FeedbackItem"), maxItems=MAX_BATCH),
    "FeedbackCounts": record({"accepted": _COUNT, "rejected": record(dict.fromkeys(REASONS, _COUNT))}),
    "IndexRequest": record(
        {"ready": {**_FLAG, "description": "True: only what serves."}}, optional=("ready",), closed=False
    ),
    "IndexEntry": record({
        "name": _TEXT, "version": {**_TEXT, "description": "Empty where no version is loaded."},
        "state": {"type": "string", "enum": ["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]}, "reason": _TEXT,
    }),
    "Index": items(_ref("IndexEntry")),
    "LoadRequest": record({
        "parameters": {"type": "object", "maxProperties": 0,
                       "description": "A model is loaded as it lies in its folder: there are none."},
    }, optional=("parameters",), closed=False),
    "UnloadRequest": record({"parameters": _ref("Parameters")}, optional=("parameters",), closed=False),
    "Nothing": record({}),
    "Url": {**_TEXT, "format": "uri", "description": "Scheme (http only), host and port of another model server."},
    "Endpoint": {**_TEXT, "description": "Host and port where the same server speaks gRPC, such as iris.ns.svc:9000."},
    "Share": {"type": "number", "minimum": 0, "maximum": 1},
    "Generation": {**_COUNT, "description": "A number that grows: what is lower than one told before is refused."},
    "By": {
        "description": "By chance (\"random\"), or by the salted hash of a header's value.",
        "oneOf": [
            {"const": "random"},
            record({"header": {**_TEXT, "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$"},
                    "salt": {**_TEXT, "maxLength": MAX_SALT}}, optional=("salt",)),
        ],
    },
    "Tolerance": record({key: {"type": "number", "minimum": 0} for key in ("absolute", "relative")},
                        optional=("absolute", "relative")),
    "Tolerances": {"type": "object", "description": "By the name of an output.",
                   "additionalProperties": _ref("Tolerance")},
    "ForwardRequest": {
        "description": "What to forward from now on; without 'to': nothing.",
        **record({"to": _ref("Url"), "to_grpc": _ref("Endpoint"), "share": _ref("Share"), "by": _ref("By"),
                  "generation": _ref("Generation")},
                 optional=("to", "to_grpc", "share", "by", "generation")),
        "dependentRequired": {"to": ["share"], "to_grpc": ["to"], "share": ["to"], "by": ["to"]},
    },
    "ShadowRequest": {
        "description": "What to copy from now on; without 'to': nothing. 'to_grpc' is for an agent before TensorFlow "
                       "Serving; a model server copies calls over gRPC to 'to'.",
        **record({"to": _ref("Url"), "to_grpc": _ref("Endpoint"), "fraction": _ref("Share"),
                  "tolerance": _ref("Tolerance"), "tolerances": _ref("Tolerances"), "generation": _ref("Generation")},
                 optional=("to", "to_grpc", "fraction", "tolerance", "tolerances", "generation")),
        "dependentRequired": {"to": ["fraction"], "to_grpc": ["to"], "fraction": ["to"], "tolerance": ["to"],
                              "tolerances": ["to"]},
    },
    "LoggingRequest": {
        "description": "The share of inference requests to log from now on; without it: what the command line says.",
        **record({"access_log": _ref("Share"), "generation": _ref("Generation")},
                 optional=("access_log", "generation")),
    },
    "Target": record(dict.fromkeys(("addresses", "failing", "connections", "idle"), _COUNT)),
    "GrpcTarget": record({"connected": _FLAG, "failing": _FLAG, "calls": _COUNT}),
    "ForwardState": _told(
        "forward", {"to": _ref("Url"), "to_grpc": _ref("Endpoint"), "share": _ref("Share"), "by": _ref("By")},
        {"counts": record(dict.fromkeys(("seen", "forwarded", "fallback", "timeout"), _COUNT)),
         "fallback_reasons": _COUNTS, **_TARGETS},
        optional=("to_grpc",),
    ),
    "ShadowState": _told(
        "shadow", {"to": _ref("Url"), "to_grpc": _ref("Endpoint"), "fraction": _ref("Share"),
                   "tolerance": _ref("Tolerance"), "tolerances": _ref("Tolerances")},
        {"counts": record(dict.fromkeys(("seen", *SHADOW_RESULTS, "dropped"), _COUNT)),
         "disagreements": _COUNTS, "error_reasons": _COUNTS, "waiting": _COUNT, **_TARGETS},
        optional=("to_grpc",),
    ),
    "LoggingState": _told("logging", {"access_log": _ref("Share")}, {"access_log": _ref("Share")}),
    "State": {
        "description": "What the page reads; it may change with any version.",
        **record({
            "uptime_seconds": _COUNT, "memory_bytes": _COUNT, "ready": _FLAG,
            "why_not_ready": {"type": ["string", "null"]}, "in_flight": _COUNT, "models": items({"type": "object"}),
        }, closed=False),
    },
}  # fmt: skip
