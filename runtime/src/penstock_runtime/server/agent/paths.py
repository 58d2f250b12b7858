"""Which requests are inference, and which are commands, in the protocols that an agent knows."""

from __future__ import annotations

import posixpath
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


# What changes the server rather than using it, whoever its author is: Triton's extensions among them, of which those of
# the shared memory let a client map memory of the server's host.
_COMMAND_PATH = re.compile(
    r"/v2/repository/.+/(?:load|unload)"
    r"|/v2/(?:system|cuda)sharedmemory/(?:region/[^/]+/)?(?:register|unregister)"
    r"|/v2/(?:logging|trace/setting|models/[^/]+/(?:versions/[^/]+/)?trace/setting)"
)
COMMANDS = frozenset((
    *(f"/inference.GRPCInferenceService/{name}".encode() for name in (
        "RepositoryModelLoad", "RepositoryModelUnload", "TraceSetting", "LogSettings", "SystemSharedMemoryRegister",
        "SystemSharedMemoryUnregister", "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister",
    )),
    b"/tensorflow.serving.ModelService/HandleReloadConfigRequest",
))  # fmt: skip
NO_COMMANDS = "commands do not pass through an agent; send them to the upstream server itself"


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


def is_command(method: str, path: str) -> bool:
    """Return whether a request tells the server to change something; `path` is decoded.

    Some servers see through `//` and `..`, so they are seen through here.
    """
    plain = posixpath.normpath("/" + path.lstrip("/"))
    return method not in ("GET", "HEAD") and _COMMAND_PATH.fullmatch(plain) is not None
