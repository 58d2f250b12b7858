"""The cluster as the demo sees it: kubectl for what a user would type, a proxy for what is looked at often."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
from pathlib import Path
from typing import Any

from e2e.cluster.console import Problem
from e2e.cluster.kube import kubectl
from e2e.cluster.places import kubeconfig
from e2e.cluster.tools import tool

GET_SECONDS = 5.0


def apply(manifest: Path, namespace: str) -> str:
    """`kubectl apply -f`, as a user would."""
    return kubectl("apply", f"--namespace={namespace}", f"--filename={manifest}")


class Unreachable(Exception):  # noqa: N818 - a state of the world, shown to people
    """The API server did not answer."""


class Window:
    """Reads objects through `kubectl proxy`: any way to log in works, and a read costs a millisecond."""

    def __init__(self) -> None:
        """Start the proxy on a free port; Problem where it does not start."""
        self._process = subprocess.Popen(
            [tool("kubectl"), "--kubeconfig", kubeconfig(), "proxy", "--port=0", "--address=127.0.0.1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        said = self._process.stdout.readline().strip()
        found = re.search(r"127\.0\.0\.1:(\d+)", said)
        if found is None:
            self.close()
            raise Problem(f"kubectl proxy does not start: {said}", "run the demo again")
        self._port = int(found.group(1))

    def get(self, path: str) -> dict[str, Any] | None:
        """The object or list at an API path; None where there is none. Raises Unreachable."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=GET_SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(str(error) or type(error).__name__) from None
        finally:
            connection.close()
        match response.status:
            case 200:
                found: dict[str, Any] = json.loads(body)
                return found
            case 404:
                return None
            case status:
                raise Unreachable(f"{status}: {body[:200].decode(errors='replace')}")

    def close(self) -> None:
        """End the proxy."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
