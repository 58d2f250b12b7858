"""The server's descriptions of itself: valid, and true, by tools that others wrote."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from conformance.conftest import Served, environment

SEED = 1
# Of each operation and phase.
EXAMPLES = 25
SECONDS = 300


def described(address: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://{address}/openapi.json", timeout=30) as reply:
        found: dict[str, Any] = json.load(reply)
        return found


@pytest.mark.parametrize("port", ["http", "admin"])
def test_the_document_is_openapi_3_1(server: Served, port: str) -> None:
    document = described(getattr(server, port))
    assert document["openapi"] == "3.1.0"
    validate(document, cls=OpenAPIV31SpecValidator)


@pytest.mark.parametrize("port", ["http", "admin"])
def test_the_server_does_as_its_document_says(own_server: Served, port: str, tmp_path: Path) -> None:
    """Statuses, content types, headers and bodies are as documented, bad requests refused; nothing is a 5xx."""
    command = [
        str(Path(sys.executable).parent / "schemathesis"),
        "--config-file", str(Path(__file__).parent / "schemathesis.toml"),
        "run", f"http://{getattr(own_server, port)}/openapi.json",
        "--seed", str(SEED), "--max-examples", str(EXAMPLES), "--continue-on-failure",
        "--generation-database", "none", "--no-color",
    ]  # fmt: skip
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    print(ran.stdout)
    assert ran.returncode == 0, ran.stdout + ran.stderr
