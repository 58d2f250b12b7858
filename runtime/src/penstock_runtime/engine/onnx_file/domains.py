"""Which operators a model may use, by their domain."""

from __future__ import annotations

from collections.abc import Collection, Iterable

Operator = tuple[str, str]

# Those of the ONNX standard and of ONNX Runtime itself, the internal ones of models that it has optimised included.
BUILT_IN = frozenset({
    "", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training", "ai.onnx.training",
    "com.microsoft", "com.microsoft.experimental", "com.microsoft.nchwc", "com.ms.internal.nhwc",
})  # fmt: skip


def custom(operators: Iterable[Operator], functions: Collection[Operator]) -> list[Operator]:
    """Return those of `operators` that neither ONNX Runtime nor the model itself defines, in order of name."""
    return sorted({each for each in operators if each[0] not in BUILT_IN and each not in functions})


def why_refused(operator: Operator) -> str:
    """Return why a custom operator that was not allowed is refused, for people."""
    domain, name = operator
    return (
        f"operator '{name}' is of the custom domain '{domain}', which is not allowed: no library of custom operators "
        f"is loaded. If this image's ONNX Runtime has it, allow it with --allow-custom-domains {domain} or "
        "PENSTOCK_ALLOW_CUSTOM_DOMAINS"
    )
