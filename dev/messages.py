"""Writes the Python of the gRPC messages from the .proto files, so that nobody has to have the compiler.

`python dev/messages.py` writes it, `--check` fails where it is out of date.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

SOURCES = Path(__file__).parents[1] / "runtime" / "src"
PROTOS = tuple(Path("penstock_runtime") / "protocol" / "grpc" / f"{name}.proto" for name in ("inference", "passing"))


def generate(folder: Path) -> list[Path]:
    """Write the modules below `folder` and return their paths relative to it."""
    options = [f"-I{SOURCES}", f"--python_out={folder}", f"--pyi_out={folder}"]
    if protoc.main(["protoc", *options, *(str(SOURCES / proto) for proto in PROTOS)]):
        raise SystemExit(1)
    return [proto.with_name(f"{proto.stem}_pb2{ending}") for proto in PROTOS for ending in (".py", ".pyi")]


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
