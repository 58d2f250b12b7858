"""Applies the chart's ClusterModelRuntimes (JSON files of one folder) when the operator's pod starts.

They cannot be part of the release itself: Helm refuses objects of a CRD which the same release installs.
Standard library only, since it is mounted from a ConfigMap; server-side apply, so that a second
run changes nothing.
"""
# ruff: noqa: T201

from __future__ import annotations

import argparse
import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
FIELD_MANAGER = "penstock-chart"
RETRIED = {HTTPStatus.NOT_FOUND, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
"""404 until the CRD is served; 401 and 403 until a fresh account and its role are known everywhere."""


class Refused(Exception):  # noqa: N818 - what the API server did
    """The API server does not take the runtime, or cannot be reached; the message is for people."""

    def __init__(self, message: str, *, passing: bool, conflict: bool = False) -> None:
        """`passing`: another try may help. `conflict`: somebody else edited the runtime."""
        super().__init__(message)
        self.passing = passing
        self.conflict = conflict


@dataclass(frozen=True)
class Server:
    """An API server and how to speak to it."""

    url: str
    token: str
    ca: Path | None

    def apply(self, manifest: dict[str, Any]) -> None:
        """Server-side apply without force: an admin's own edit is never overwritten. Raises Refused."""
        name = manifest["metadata"]["name"]
        path = f"/apis/{manifest['apiVersion']}/clustermodelruntimes/{name}?fieldManager={FIELD_MANAGER}"
        request = urllib.request.Request(  # noqa: S310 - the scheme is the caller's
            self.url + path,
            method="PATCH",
            data=json.dumps(manifest).encode(),
            headers={"Content-Type": "application/apply-patch+yaml", "Authorization": f"Bearer {self.token}"},
        )
        context = ssl.create_default_context(cafile=self.ca) if self.ca else None
        try:
            urllib.request.urlopen(request, timeout=10, context=context).close()  # noqa: S310
        except urllib.error.HTTPError as error:
            raise _refusal(error) from error
        except OSError as error:
            raise Refused(f"the API server cannot be reached: {error}", passing=True) from error


def _refusal(error: urllib.error.HTTPError) -> Refused:
    try:
        said = json.loads(error.read())["message"]
    except (ValueError, KeyError, TypeError):
        said = error.reason
    if error.code == HTTPStatus.NOT_FOUND:
        said = "the API server knows no ClusterModelRuntime: install the CRDs (crds.enabled=true)"
    passing = error.code in RETRIED or error.code >= HTTPStatus.INTERNAL_SERVER_ERROR
    return Refused(f"{error.code}: {said}", passing=passing, conflict=error.code == HTTPStatus.CONFLICT)


def apply_patiently(server: Server, manifest: dict[str, Any], patience: float, pause: float = 1.0) -> str:
    """Apply; try again for `patience` seconds where that may help. Returns what happened; raises Refused."""
    name = manifest["metadata"]["name"]
    deadline = time.monotonic() + patience
    while True:
        try:
            server.apply(manifest)
        except Refused as refused:
            if refused.conflict:
                return (
                    f"ClusterModelRuntime {name} was edited by somebody else and is left as it is ({refused}). To "
                    f"take the chart's: kubectl delete clustermodelruntime {name}, then restart the operator"
                )
            if not refused.passing or time.monotonic() >= deadline:
                raise
            time.sleep(pause)
        else:
            return f"ClusterModelRuntime {name} applied"


def main(arguments: list[str]) -> int:
    """Apply all `*.json` of the folder; 0 when each is there, 1 with one line on stderr otherwise."""
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    address = f"[{host}]" if ":" in host else host
    parser = argparse.ArgumentParser(description="Apply the chart's ClusterModelRuntimes.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--server", default=f"https://{address}:{port}")
    parser.add_argument("--token-file", type=Path, default=ACCOUNT / "token")
    parser.add_argument("--ca-file", type=Path, default=ACCOUNT / "ca.crt")
    parser.add_argument("--patience", type=float, default=60, help="seconds to try again where that may help")
    options = parser.parse_args(arguments)
    ca = options.ca_file if options.server.startswith("https://") else None
    server = Server(options.server, options.token_file.read_text().strip(), ca)
    for file in sorted(options.folder.glob("*.json")):
        try:
            print(apply_patiently(server, json.loads(file.read_text()), options.patience), flush=True)
        except Refused as refused:
            print(f"error: runtime {file.stem}: {refused}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
