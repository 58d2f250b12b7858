"""Running `penstock-runtime fetch` in this process, for tests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock_runtime.__main__ import main


@dataclass(frozen=True)
class Place:
    """The folders of one fetch, as in a pod."""

    root: Path

    @property
    def dest(self) -> Path:
        return self.root / "models" / "model"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def credentials(self) -> Path:
        return self.root / "credentials"

    @property
    def source(self) -> Path:
        return self.root / "source"

    def files(self) -> dict[str, bytes]:
        """Return what is at dest by relative path; nothing else may be left beside it."""
        assert [item.name for item in self.dest.parent.iterdir()] in ([], ["model"])
        found = (item for item in sorted(self.dest.rglob("*")) if item.is_file())
        return {item.relative_to(self.dest).as_posix(): item.read_bytes() for item in found}

    def fetch(self, uri: str, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Return the exit code and the termination message."""
        log = self.root / "termination"
        log.write_bytes(b"")
        code = main(
            ["fetch", "--uri", uri, "--dest", str(self.dest), "--lock-dir", str(self.lock),
             "--credentials-dir", str(self.credentials), "--source-dir", str(self.source),
             "--termination-log", str(log), "--retry-seconds", "0.01", *arguments]
        )  # fmt: skip
        return code, json.loads(log.read_bytes())

    def refused(self, uri: str, *arguments: str) -> tuple[str, str]:
        """Return reason and message of a fetch that must fail, and leave nothing behind."""
        before = self.files()
        code, report = self.fetch(uri, *arguments)
        assert code == 1
        assert self.files() == before, "a failed fetch changes nothing"
        return report["reason"], report["message"]

    def put_credentials(self, **values: str) -> None:
        self.credentials.mkdir(exist_ok=True)
        for name, value in values.items():
            (self.credentials / name).write_text(value + "\n")

    def put_lock(self, digest: str) -> None:
        self.lock.mkdir(exist_ok=True)
        (self.lock / "digest").write_text(digest + "\n")


def make_place(root: Path) -> Place:
    place = Place(root)
    place.dest.parent.mkdir()
    place.source.mkdir()
    return place
