"""Fetching from volumes and from S3: folders, links, digests of many files."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import obstore
import pytest
from obstore.store import MemoryStore

from penstock_runtime.fetch.s3 import S3Source
from penstock_runtime.fetch.uri import parse_uri
from tests.unit.runtime.fetching import Place, make_place

pytestmark = pytest.mark.usefixtures("quiet_logs")

FILES = {"model.onnx": b"graph", "weights/a.bin": b"a" * 3_000_000, "weights/b.bin": b"b"}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_place(tmp_path)


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, body in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)


def digest_by_coreutils(folder: Path) -> str:
    """Compute a folder's digest the way the documentation tells people to."""
    script = "find * -type f -print0 | xargs -0 sha256sum | LC_ALL=C sort | sha256sum"
    done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, check=True)
    return f"sha256:{done.stdout.split()[0]}"


def test_a_folder_of_a_claim(place: Place) -> None:
    write(place.source / "fraud" / "7", FILES)
    code, report = place.fetch("pvc://models/fraud/7")
    expected = {"digest": digest_by_coreutils(place.source / "fraud" / "7"), "bytes": 3_000_006, "files": 3}
    assert (code, report) == (0, expected)
    assert place.files() == FILES
    place.put_lock(report["digest"])
    assert place.fetch("pvc://models/fraud/7") == (0, report)


def test_a_file_of_a_claim_in_the_numeric_layout(place: Place) -> None:
    write(place.source, {"m/saved_model.pb": b"tf"})
    assert place.fetch("pvc://models/m", "--layout", "numeric-version")[0] == 0
    assert place.files() == {"1/saved_model.pb": b"tf"}


def test_a_configmap_as_the_kubelet_mounts_it(place: Place) -> None:
    write(place.source / "..2026", {"model.onnx": b"m", "labels.txt": b"l"})
    (place.source / "..data").symlink_to("..2026")
    for name in ("model.onnx", "labels.txt"):
        (place.source / name).symlink_to(f"..data/{name}")
    assert place.fetch("configmap://models/model.onnx")[0] == 0
    assert place.files() == {"model.onnx": b"m"}
    code, report = place.fetch("configmap://models")
    assert (code, report["files"]) == (0, 2)
    assert place.files() == {"model.onnx": b"m", "labels.txt": b"l"}


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("pvc://models/nothing", "ModelNotFound"),
        ("pvc://models/hollow", "ModelNotFound"),
        ("pvc://models/zero", "InvalidModel"),
        ("pvc://models/outside", "InvalidModel"),
        ("pvc://models/inside/outside.onnx", "InvalidModel"),
        ("pvc://models/inside", "InvalidModel"),
    ],
)
def test_what_cannot_be_taken_from_a_volume(place: Place, tmp_path: Path, uri: str, reason: str) -> None:
    write(tmp_path, {"elsewhere/secret.onnx": b"secret"})
    write(place.source, {"zero/model.onnx": b"", "inside/model.onnx": b"m"})
    (place.source / "hollow").mkdir()
    (place.source / "outside").symlink_to(tmp_path / "elsewhere")
    (place.source / "inside" / "outside.onnx").symlink_to(tmp_path / "elsewhere" / "secret.onnx")
    assert place.refused(uri)[0] == reason


def test_a_volume_that_is_not_mounted(place: Place) -> None:
    place.source.rmdir()
    reason, message = place.refused("pvc://models/m", "--attempts", "2")
    assert reason == "SourceUnreachable"
    assert "nothing is mounted" in message


@dataclass(frozen=True)
class Store:
    """An S3 store of rclone: folders of `root` are its buckets."""

    root: Path
    endpoint: str

    def credentials(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": "reader",
            "AWS_SECRET_ACCESS_KEY": "s3cr3t",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "eu-central-1",
        }


def rclone() -> str:
    """Return the rclone that the cluster's tools build; only PENSTOCK_S3_TESTS=1 builds it here."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    built = cache / "penstock" / "bin" / "rclone"
    if built.exists():
        return str(built)
    if os.environ.get("PENSTOCK_S3_TESTS") != "1":
        pytest.skip("rclone is not built; PENSTOCK_S3_TESTS=1 builds it (some minutes)")
    tool = Path(__file__).parents[3] / "e2e" / "cluster" / "tool"
    done = subprocess.run([tool, "rclone"], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    root = tmp_path_factory.mktemp("store")
    write(root / "models", {f"fraud/7/{name}": body for name, body in FILES.items()})
    write(root / "models", {"one.onnx": b"single", "zero.onnx": b""})
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [rclone(), "serve", "s3", str(root), "--addr", f"127.0.0.1:{port}", "--auth-key", "reader,s3cr3t",
         "--config", "/dev/null"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        end = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < end, "rclone does not listen"
                time.sleep(0.05)
        yield Store(root, f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(10)


def test_an_object_of_s3(store: Store, place: Place) -> None:
    place.put_credentials(**store.credentials())
    code, report = place.fetch("s3://models/one.onnx")
    digest = hashlib.sha256(b"single").hexdigest()
    assert (code, report) == (0, {"digest": f"sha256:{digest}", "bytes": 6, "files": 1})
    assert place.files() == {"model.onnx": b"single"}


@pytest.mark.parametrize("uri", ["s3://models/fraud/7", "s3://models/fraud/7/"])
def test_a_folder_of_s3(store: Store, place: Place, uri: str) -> None:
    place.put_credentials(**store.credentials())
    code, report = place.fetch(uri)
    assert code == 0, report
    assert report["digest"] == digest_by_coreutils(store.root / "models" / "fraud" / "7")
    assert place.files() == FILES


@pytest.mark.parametrize(
    ("uri", "reason", "words"),
    [
        ("s3://models/none.onnx", "ModelNotFound", "no such object, nor any below it"),
        ("s3://models/fraud/8", "ModelNotFound", "no such object, nor any below it"),
        ("s3://nobucket/m.onnx", "ModelNotFound", "nobucket"),
        ("s3://models/zero.onnx", "InvalidModel", "is empty"),
    ],
)
def test_what_s3_does_not_have(store: Store, place: Place, uri: str, reason: str, words: str) -> None:
    place.put_credentials(**store.credentials())
    found = place.refused(uri, "--attempts", "1")
    assert found[0] == reason, found
    assert words in found[1]


@pytest.mark.parametrize("wrong", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_keys_are_refused_and_not_told(
    store: Store, place: Place, wrong: str, capfd: pytest.CaptureFixture[str]
) -> None:
    place.put_credentials(**{**store.credentials(), wrong: "mistaken"})
    found = place.refused("s3://models/one.onnx")
    assert found[0] == "AccessDenied"
    assert "mistaken" not in str(found) + str(capfd.readouterr())


def test_empty_objects_that_stand_for_folders_are_left_out() -> None:
    bucket = MemoryStore()
    for key, body in {"7/weights": b"", "7/weights/deep": b"", "7/weights/deep/a.bin": b"a", "7/empty": b""}.items():
        obstore.put(bucket, key, body)
    listing = S3Source(parse_uri("s3://models/7"), {}, bucket).list()
    assert {file.path for file in listing.files} == {"weights/deep/a.bin", "empty"}


def test_an_s3_that_is_not_there(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    place.put_credentials(AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b", AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}")
    reason, message = place.refused("s3://models/m.onnx", "--attempts", "2")
    assert reason == "SourceUnreachable"
    assert "cannot be reached" in message


def test_the_command_as_a_process(place: Place) -> None:
    write(place.source, {"m.onnx": b"m"})
    source = Path(__file__).parents[3] / "runtime" / "src"
    done = subprocess.run(
        [sys.executable, "-m", "penstock_runtime", "fetch", "--uri", "pvc://c/m.onnx", "--dest", str(place.dest),
         "--source-dir", str(place.source)],
        env={**os.environ, "PYTHONPATH": str(source)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert '"bytes":1' in done.stdout
    assert place.files() == {"model.onnx": b"m"}
