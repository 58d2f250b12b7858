"""Server-side apply in small: what a forced apply by one field manager does to a live object.

Deliberately simple: one applier is tracked, by its last intent instead of by managedFields. A field of the
last intent that the new one lacks is removed, unless another actor has changed it since (an update takes
ownership).
Lists are atomic but for those that Kubernetes merges by key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.fakes.copying import copied

Key = Callable[[Mapping[str, Any]], Any]

_BY_NAME: Key = lambda item: item["name"]  # noqa: E731
_LIST_KEYS: Mapping[str, Key] = {
    "containers": _BY_NAME,
    "initContainers": _BY_NAME,
    "env": _BY_NAME,
    "volumes": _BY_NAME,
    "imagePullSecrets": _BY_NAME,
    "volumeMounts": lambda item: item["mountPath"],
    "ports": lambda item: (item.get("containerPort", item.get("port")), item.get("protocol", "TCP")),
    "conditions": lambda item: item["type"],
    "ownerReferences": lambda item: item["uid"],
}


def applied(live: Any, last: Any, new: Any, field: str = "") -> Any:
    """`live` after an apply of `new` by the manager whose previous intent was `last` (None: nothing)."""
    if isinstance(new, Mapping):
        return _merge_maps(live, last, new)
    key = _LIST_KEYS.get(field)
    if key is not None and isinstance(new, list) and all(isinstance(item, Mapping) for item in new):
        return _merge_lists(live, last, new, key)
    return copied(new)


def _merge_maps(live: Any, last: Any, new: Mapping[str, Any]) -> dict[str, Any]:
    out = copied(dict(live)) if isinstance(live, Mapping) else {}
    before = last if isinstance(last, Mapping) else {}
    for name in before:
        if name not in new and name in out:
            left = _without(out[name], before[name], name)
            if left is None:
                del out[name]
            else:
                out[name] = left
    for name, value in new.items():
        if value is None:
            continue
        out[name] = applied(out.get(name), before.get(name), value, name)
    return out


def _merge_lists(live: Any, last: Any, new: list[Any], key: Key) -> list[Any]:
    lives = {key(item): item for item in live} if isinstance(live, list) else {}
    lasts = {key(item): item for item in last} if isinstance(last, list) else {}
    news = {key(item): item for item in new}
    merged = [applied(lives.get(k), lasts.get(k), item) for k, item in news.items()]
    # Entries of others keep their place behind ours; ours that we no longer apply go.
    merged += [copied(item) for k, item in lives.items() if k not in news and k not in lasts]
    return merged


def _without(live: Any, last: Any, field: str) -> Any:
    """What remains of `live` when its owner lets go of `last`; None for nothing."""
    if isinstance(live, Mapping) and isinstance(last, Mapping):
        left = {}
        for name, value in live.items():
            kept = _without(value, last[name], name) if name in last else value
            if kept is not None:
                left[name] = kept
        return left or None
    key = _LIST_KEYS.get(field)
    if key is not None and isinstance(live, list) and isinstance(last, list):
        ours = {key(item) for item in last}
        return [item for item in live if key(item) not in ours] or None
    return None if live == last else live
