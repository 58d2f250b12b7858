"""Writes the Python of the gRPC messages from inference.proto, so that nobody has to have the compiler.

`python dev/messages.py` writes it, `--check` fails where it is out of date.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

SOURCES = Path(__file__).parents[1] / "runtime" / "src"
PROTO = Path("penstock_runtime") / "protocol" / "grpc" / "inference.proto"


def generate(folder: Path) -> list[Path]:
    """Write the modules below `folder` and return their paths relative to it."""
    options = [f"-I{SOURCES}", f"--python_out={folder}", f"--pyi_out={folder}", str(SOURCES / PROTO)]
    if protoc.main(["protoc", *options]):
        raise SystemExit(1)
    return [PROTO.with_name(f"inference_pb2{ending}") for ending in (".py", ".pyi")]


def main() -> int:
    """Write or check the modules."""
    if "--check" not in sys.argv[1:]:
        generate(SOURCES)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        old = [
            path
            for path in generate(folder)
            if not (SOURCES / path).exists() or (SOURCES / path).read_bytes() != (folder / path).read_bytes()
        ]
    for path in old:
        print(f"{path} is out of date: run `make generate`", file=sys.stderr)  # noqa: T201
    return 1 if old else 0


if __name__ == "__main__":
    sys.exit(main())
