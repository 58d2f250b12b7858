"""Identity: the hash of what a pod is made of, and the names that follow from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Kubernetes' safe alphabet: no vowels, no look-alikes."""
_LETTERS = ALPHABET[:20]
REVISION_LENGTH = 10

HASHED_FIELDS = ("model", "runtime", "resources", "template", "serving")
"""The fields of a ModelDeployment's spec that change a pod. Never replicas, rollout, traffic or feedback."""


def spec_hash(spec: Mapping[str, Any]) -> str:
    """Versioned hash of the fields that change a pod, of a raw spec as the API server holds it.

    Empty and absent are the same, and so are `1`, `1.0` and `"1"`, so that a manifest that was merely
    rewritten by a tool is no new revision.
    """
    canonical = {name: value for name in HASHED_FIELDS if (value := _canonical(spec.get(name))) is not None}
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "v1:" + hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    match value:
        case None | "":
            return None
        case bool():
            return "true" if value else "false"
        case float() if value.is_integer():
            return str(int(value))
        case int() | float():
            return str(value)
        case Mapping():
            return {k: c for k, v in value.items() if (c := _canonical(v)) is not None} or None
        case list():
            return [_canonical(item) for item in value] or None
        case _:
            return str(value)


def revision_name(hash_: str, collision_count: int = 0) -> str:
    """Ten characters of the safe alphabet, a letter first (else YAML may read a number)."""
    return _letters(f"{hash_}/{collision_count}", REVISION_LENGTH)


def rollout_id(revision: str, uid: str, attempt: int) -> str:
    """`<revision>-<5 letters>`: differs for each attempt and each incarnation of the object."""
    return f"{revision}-{_letters(f'{uid}/{attempt}', 5)}"


def _letters(text: str, length: int) -> str:
    number = int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
    number, first = divmod(number, len(_LETTERS))
    out = [_LETTERS[first]]
    while len(out) < length:
        number, digit = divmod(number, len(ALPHABET))
        out.append(ALPHABET[digit])
    return "".join(out)


def of_revision(model: str, revision: str) -> str:
    """Name of the Deployment, Service, ConfigMap and ControllerRevision of one revision."""
    return f"{model}-{revision}"


def analysis(model: str, revision: str, attempt: int) -> str:
    """Name of the RolloutAnalysis of one attempt."""
    return f"{model}-{revision}-{attempt}"


def stable_alias(model: str) -> str:
    """Service for people: whatever is stable now."""
    return f"{model}-stable"


def canary_alias(model: str) -> str:
    """Service for people: whatever is the canary now."""
    return f"{model}-canary"


def feedback_key(model: str) -> str:
    """Secret that signs prediction ids."""
    return f"{model}-feedback-key"
