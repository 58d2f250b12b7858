"""Settings, units, CPU limits and where a model is found: small parts by themselves."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

import pytest

from penstock_runtime.engine.cpu import concurrent_runs, cpu_quota, intra_op_threads
from penstock_runtime.engine.errors import ModelLoadError
from penstock_runtime.engine.locate import locate_model
from penstock_runtime.server.settings import (
    Feedback,
    Settings,
    SettingsError,
    add_arguments,
    read_feedback,
    read_serving,
    read_settings,
)
from penstock_runtime.server.units import parse_duration, parse_size


def parsed(*arguments: str, **env: str) -> Settings:
    parser = ArgumentParser()
    add_arguments(parser)
    return read_settings(parser.parse_args(arguments), env)


def settings(*arguments: str, **env: str) -> Settings:
    return parsed("--model-path", "/models/fraud.onnx", *arguments, **env)


@pytest.mark.parametrize(
    ("text", "size"), [("64Mi", 64 * 2**20), ("1k", 1000), ("5", 5), (7, 7), ("2Gi", 2**31), ("0", 0)]
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1.5Mi", "64MB", "Mi", "1 Mi", "1m"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("7d", 604800), ("1h30m", 5400), ("250ms", 0.25), (60, 60), ("1.5s", 1.5), ("1w", 604800)]
)
def test_durations(text: str | int, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5", "1d2", "-1s", "1 d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration(text)


def test_names_come_from_the_command_line_then_the_environment_then_the_path() -> None:
    assert settings("--model-name", "a", PENSTOCK_MODEL="b").model_name == "a"
    assert settings(PENSTOCK_MODEL="b").model_name == "b"
    assert settings().model_name == "fraud"
    assert settings().revision == "none"
    assert settings(PENSTOCK_REVISION="r").revision == "r"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/data/fraud.onnx", "fraud"),
        ("/data/fraud", "fraud"),
        ("/data/fraud/model.onnx", "fraud"),
        ("/data/fraud/12/model.onnx", "fraud"),
        ("/data/fraud/12", "fraud"),
        ("/data/fraud.v2.onnx", "fraud.v2"),
        ("/data/Fraud (new).onnx", "Fraud-new-"),
        ("/model.onnx", "model"),
        ("/1/2.onnx", "model"),
    ],
)
def test_a_model_without_a_name_is_called_by_its_file_or_folder(path: str, name: str) -> None:
    assert parsed(path).model_name == name


def test_a_model_is_named_by_position_or_by_option() -> None:
    assert parsed("a.onnx").model_path == Path("a.onnx")
    assert parsed("a.onnx", "--model-path", "./a.onnx").model_path == Path("a.onnx")
    assert parsed("--model-repository", "models").model_name is None
    with pytest.raises(SettingsError, match=r"both a\.onnx and b\.onnx are given; give one"):
        parsed("a.onnx", "--model-path", "b.onnx")
    with pytest.raises(SettingsError, match="both a and b are given"):
        parsed("a", "--model-repository", "b")
    with pytest.raises(SettingsError, match=r"none is given; name an \.onnx file"):
        parsed()


def test_custom_domains_come_from_the_command_line_or_the_environment() -> None:
    assert settings().serving.custom_domains == frozenset()
    assert settings(PENSTOCK_ALLOW_CUSTOM_DOMAINS="a.b, c").serving.custom_domains == {"a.b", "c"}
    found = settings("--allow-custom-domains", "d,e", PENSTOCK_ALLOW_CUSTOM_DOMAINS="a.b")
    assert found.serving.custom_domains == {"d", "e"}


def test_serving_has_defaults_and_ignores_what_it_does_not_know() -> None:
    found = read_serving({"threads": "auto", "batching": {"maxSize": 32}, "maxQueue": 0, "maxBodyBytes": "1Mi"})
    assert (found.threads, found.max_queue, found.max_body_bytes, found.timeout) == (None, 0, 2**20, 60.0)
    assert read_serving({"threads": 2}).threads == 2


@pytest.mark.parametrize(
    ("batching", "rows"), [(None, 32), ({}, 32), ({"maxSize": 1}, 1), ({"maxSize": 4096}, 4096), ({"new": 1}, 32)]
)
def test_how_many_rows_run_together(batching: object, rows: int) -> None:
    assert read_serving({"batching": batching}).max_batch_rows == rows


@pytest.mark.parametrize(
    ("batching", "message"),
    [
        ({"maxSize": 0}, "serving: 0 is less than 1"),
        ({"maxSize": 4097}, r"serving: batching\.maxSize 4097 is more than 4096"),
        (32, "serving: batching must be an object"),
        ({"maxSize": "many"}, "serving: .*'many'"),
    ],
)
def test_what_is_no_batching(batching: object, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_serving({"batching": batching})


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, Feedback()),
        ({"output": "label", "decision": "argmax", "window": "7d"}, Feedback("label", "argmax")),
        ({"threshold": 0.8}, Feedback(decision="threshold", threshold=0.8)),
        ({"tolerance": 0.1, "window": "1h"}, Feedback(decision="tolerance", tolerance=0.1, window=3600)),
        ({"output": None, "decision": None, "threshold": None, "tolerance": None}, Feedback()),
    ],
)
def test_feedback_settings(spec: dict[str, object], expected: Feedback) -> None:
    assert read_feedback(spec) == expected


def cgroup(tmp_path: Path, line: str, files: dict[str, str]) -> float:
    (tmp_path / "self").write_text(line)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return cpu_quota(tmp_path, tmp_path / "self", cpus=8)


@pytest.mark.parametrize(
    ("line", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/pod/box\n", {"pod/cpu.max": "200000 100000\n", "pod/box/cpu.max": "max 100000\n"}, 2),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ("0::/\n", {"cpu.max": "nonsense"}, 8),
        ("", {}, 8),
    ],
)
def test_the_cpu_quota_is_the_least_of_all_levels(
    tmp_path: Path, line: str, files: dict[str, str], quota: float
) -> None:
    assert cgroup(tmp_path, line, files) == quota


def test_threads_fill_the_quota() -> None:
    assert [intra_op_threads(None, quota) for quota in (0.5, 1, 2.9, 8)] == [1, 1, 2, 8]
    assert intra_op_threads(3, 8) == 3
    assert [concurrent_runs(8, threads) for threads in (1, 3, 8, 16)] == [8, 2, 1, 1]
    assert concurrent_runs(0.5, 1) == 1


@pytest.mark.parametrize(
    ("files", "found", "version"),
    [
        (["model.onnx", "other.onnx"], "model.onnx", "1"),
        (["fraud.onnx", "labels.txt"], "fraud.onnx", "1"),
        (["1/model.onnx", "12/m.onnx", "2/model.onnx"], "12/m.onnx", "12"),
        (["1/model.onnx", "2/readme.txt", "notes/a.onnx"], "1/model.onnx", "1"),
    ],
)
def test_where_the_model_is_in_a_folder(tmp_path: Path, files: list[str], found: str, version: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert locate_model(tmp_path) == (tmp_path / found, version)
    assert locate_model(tmp_path / found).path == tmp_path / found


def test_a_folder_without_a_model_tells_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "model.tar.gz").touch()
    with pytest.raises(ModelLoadError, match=r"no \.onnx file in .*: it holds model\.tar\.gz"):
        locate_model(tmp_path)


def test_a_version_that_is_a_link_must_stay_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "1").mkdir(parents=True)
    (tmp_path / "elsewhere" / "1" / "model.onnx").touch()
    (tmp_path / "models" / "..data").mkdir(parents=True)
    (tmp_path / "models" / "..data" / "model.onnx").touch()
    (tmp_path / "models" / "1").symlink_to("..data")
    assert locate_model(tmp_path / "models").path == tmp_path / "models" / "1" / "model.onnx"
    (tmp_path / "models" / "2").symlink_to("../elsewhere/1")
    with pytest.raises(ModelLoadError, match=r"models/2 is a link that leads out of .*/models, to .*/elsewhere/1"):
        locate_model(tmp_path / "models")
