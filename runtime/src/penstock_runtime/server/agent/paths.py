"""Which requests are inference, in the protocols that an agent knows."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, get_args

ProtocolName = Literal["oip", "tfserving"]
PROTOCOLS: tuple[ProtocolName, ...] = get_args(ProtocolName)

_PATHS: dict[ProtocolName, re.Pattern[str]] = {
    "oip": re.compile(r"/v2/models/(?P<model>[^/]+)(?P<version>/versions/[^/]+)?/(?P<verb>infer)"),
    "tfserving": re.compile(
        r"/v1/models/(?P<model>[^/]+?)(?P<version>/(?:versions|labels)/[^/]+)?:(?P<verb>predict|classify|regress)"
    ),
}


class Inference(NamedTuple):
    """A request to infer. `versioned`: it names a version, or a label that stands for one."""

    protocol: ProtocolName
    verb: str
    versioned: bool


def find_inference(path: str, model: str, protocol: ProtocolName | None) -> Inference | None:
    """Return what a request to `path` infers with `model`, None if it does not.

    `protocol` None: the path tells which it is.
    """
    for name in PROTOCOLS if protocol is None else (protocol,):
        match = _PATHS[name].fullmatch(path)
        if match is not None and match["model"] == model:
            return Inference(name, match["verb"], match["version"] is not None)
    return None
