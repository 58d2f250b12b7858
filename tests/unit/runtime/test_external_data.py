"""External data of a model: found wherever it hides, and nothing but files of the model's own folder is read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from penstock_runtime.engine.errors import ModelLoadError
from penstock_runtime.engine.onnx_file.check import check_model, describe
from penstock_runtime.engine.session import Session
from tests.unit.runtime.hostile_files import adding_model, field, outside_tensor, places, varint, write, write_weights

PLACES = list(places(outside_tensor()))


def run(path: Path) -> list[float]:
    """Return what the model makes of a row of ones."""
    [y] = Session(path, 1).run(["y"], {"x": np.ones((1, 4), np.float32)})
    return y.ravel().tolist()


def refused(path: Path) -> str:
    """Return why the model is refused, by the check and by loading."""
    with pytest.raises(ModelLoadError) as first:
        check_model(path)
    with pytest.raises(ModelLoadError) as second:
        Session(path, 1)
    assert str(first.value) == str(second.value)
    return str(first.value)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [({}, [1, 2, 3, 4]), ({"offset": 16}, [5, 6, 7, 8]), ({"offset": 16, "length": 16}, [5, 6, 7, 8]),
     ({"offset": "0", "length": "16", "checksum": "abc"}, [1, 2, 3, 4])],
)  # fmt: skip
def test_data_beside_the_model_are_loaded(tmp_path: Path, entries: dict[str, object], expected: list[float]) -> None:
    write_weights(tmp_path)
    path = write(tmp_path, adding_model(outside_tensor(**entries)))  # type: ignore[arg-type]
    assert run(path) == expected
    assert describe(path).external == {"w.bin": 32}


def test_data_in_a_folder_below_are_loaded(tmp_path: Path) -> None:
    write_weights(tmp_path / "weights" / "part 1")
    path = write(tmp_path, adding_model(outside_tensor(location="weights/part 1/w.bin")))
    assert run(path) == [1, 2, 3, 4]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname"])
def test_no_place_hides_a_tensor(tmp_path: Path, place: str, location: str) -> None:
    write_weights(tmp_path)
    path = write(tmp_path / "model", places(outside_tensor(location=location))[place])
    message = refused(path)
    assert "model.onnx is refused: tensor 'w'" in message
    assert f"has external data at '{location}': the path" in message


@pytest.mark.parametrize("place", PLACES)
def test_every_place_may_have_data_beside_the_model(tmp_path: Path, place: str) -> None:
    write_weights(tmp_path)
    check_model(write(tmp_path, places(outside_tensor(dims=(1,)))[place]))


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("", "no file is named"),
        (".", "no file is named"),
        ("missing.bin", r"cannot be found \(no such file or directory\)"),
        ("../outside.bin", r"leads out of the model's folder with '\.\.'"),
        ("sub/../../outside.bin", r"leads out of the model's folder with '\.\.'"),
        ("sub/../w.bin", r"with '\.\.'"),
        ("link.bin", "the link leads out of the model's folder, to .*outside.bin"),
        ("folder", "leads out of the model's folder"),
        ("folder/outside.bin", "the link leads out of the model's folder"),
        ("loop.bin", "cannot be found"),
        ("pipe", "no regular file"),
        ("sub", "no regular file"),
        ("w.bin/x", r"cannot be found \(not a directory\)"),
        ("a" * 1500, "too long"),
        ("w.bin\n", "cannot be printed"),
        ("w.bin\0", "cannot be printed"),
        ("*/_ORT_MEM_ADDR_/*", "an address in memory"),
        ("./*/_ORT_MEM_ADDR_/*", "an address in memory"),
    ],
)
def test_locations_that_are_refused(tmp_path: Path, location: str, message: str) -> None:
    folder = tmp_path / "model"
    write_weights(folder)
    write_weights(tmp_path, "outside.bin")
    # Even a file of that very name does not make an address harmless.
    write_weights(folder / "*" / "_ORT_MEM_ADDR_", "*")
    (folder / "sub").mkdir()
    (folder / "link.bin").symlink_to("../outside.bin")
    (folder / "folder").symlink_to("..")
    (folder / "loop.bin").symlink_to("loop.bin")
    os.mkfifo(folder / "pipe")
    path = write(folder, adding_model(outside_tensor(location=location)))
    with pytest.raises(ModelLoadError, match=message):
        check_model(path)
    refused(path)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": 20, "length": 16}, "16 bytes at offset 20 lie beyond the end of the file, which has 32 bytes"),
        ({"offset": 33}, "offset 33 lie beyond the end"),
        ({"length": 33}, "33 bytes at offset 0 lie beyond"),
        ({"length": 8}, "the tensor takes 16 bytes, and only 8 are there"),
        ({"offset": 20}, "the tensor takes 16 bytes, and only 12 are there"),
        ({"offset": -4}, "the offset '-4' is no whole number of bytes"),
        ({"length": "16 "}, "the length '16 ' is no whole number"),
        ({"offset": "0x10"}, "is no whole number"),
        ({"offset": "٣"}, "is no whole number"),
        ({"length": 10**30}, "is no whole number"),
        ({"length": 2**62}, "lie beyond the end"),
    ],
)
def test_bytes_that_are_not_there(tmp_path: Path, entries: dict[str, object], message: str) -> None:
    write_weights(tmp_path)
    path = write(tmp_path, adding_model(outside_tensor(**entries)))  # type: ignore[arg-type]
    assert message in refused(path)


def test_a_location_that_is_no_text_is_refused_whatever_lies_there(tmp_path: Path) -> None:
    write_weights(tmp_path, "w\\xff")
    (tmp_path / os.fsdecode(b"w\xff")).symlink_to("/etc/hostname")
    made = adding_model(outside_tensor(location="w?")).SerializeToString()
    path = write(tmp_path, made.replace(b"w?", b"w\xff"))
    assert "cannot be printed" in refused(path)


def test_what_is_told_twice_is_refused(tmp_path: Path) -> None:
    write_weights(tmp_path)
    tensor = outside_tensor()
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../w.bin"
    assert "described twice" in refused(write(tmp_path, adding_model(tensor)))


def test_an_entry_behind_many_others_is_seen(tmp_path: Path) -> None:
    write_weights(tmp_path)
    tensor = TensorProto(name="w", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    for index in range(64):
        entry = tensor.external_data.add()
        entry.key, entry.value = f"k{index}", ""
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/hostname"
    assert "more than 64 entries" in refused(write(tmp_path, adding_model(tensor)))


def test_halves_that_protobuf_would_put_together_are_refused(tmp_path: Path) -> None:
    """A message that occurs twice is merged by protobuf: harmless halves can make one tensor with external data."""
    write_weights(tmp_path)
    constant = places(outside_tensor())["constant"].graph.node[0].attribute[0]
    half = TensorProto(data_location=TensorProto.EXTERNAL).SerializeToString()
    attribute = constant.SerializeToString() + b"\x2a" + bytes([len(half)]) + half
    made = places(outside_tensor())["constant"]
    made.graph.node[0].attribute[0].ParseFromString(attribute)
    assert made.graph.node[0].attribute[0].t.data_location == TensorProto.EXTERNAL
    assert "value twice" in refused(write(tmp_path, regrown(made, attribute)))


def regrown(made: ModelProto, attribute: bytes) -> bytes:
    """Return `made` with the first attribute of its first node replaced by these bytes."""
    node = made.graph.node[0]
    node.ClearField("attribute")
    node_bytes = node.SerializeToString() + field(5, attribute)
    graph = made.graph
    rest = list(graph.node)[1:]
    graph.ClearField("node")
    graph_bytes = field(1, node_bytes) + b"".join(field(1, each.SerializeToString()) for each in rest)
    graph_bytes += graph.SerializeToString()
    made.ClearField("graph")
    return bytes(made.SerializeToString()) + field(7, graph_bytes)


def test_a_place_of_unknown_kind_is_refused(tmp_path: Path) -> None:
    """Protobuf takes the low 32 bits of a number, and skips an enum's unknown ones: neither hides external data."""
    write_weights(tmp_path)
    for place in (1 + 2**32, 7):
        tensor = outside_tensor(location="/etc/hostname").SerializeToString()
        made = adding_model(outside_tensor())
        made.graph.ClearField("initializer")
        graph = made.graph.SerializeToString() + field(5, tensor + b"\x70" + varint(place))
        made.ClearField("graph")
        message = refused(write(tmp_path, made.SerializeToString() + field(7, graph)))
        assert "the path is absolute" in message or "unknown kind (7)" in message


def test_links_as_kubernetes_makes_them_work(tmp_path: Path) -> None:
    write_weights(tmp_path / "..2026_01_01")
    write(tmp_path / "..2026_01_01", adding_model(outside_tensor()))
    (tmp_path / "..data").symlink_to("..2026_01_01")
    for name in ("model.onnx", "w.bin"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    assert run(tmp_path / "model.onnx") == [1, 2, 3, 4]


def test_a_folder_that_is_a_link_is_the_folder_it_leads_to(tmp_path: Path) -> None:
    write_weights(tmp_path / "real")
    write(tmp_path / "real", adding_model(outside_tensor()))
    (tmp_path / "link").symlink_to("real")
    assert run(tmp_path / "link" / "model.onnx") == [1, 2, 3, 4]


def test_a_model_that_is_a_link_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    write_weights(tmp_path)
    real = write(tmp_path / "real", adding_model(outside_tensor()))
    (tmp_path / "model.onnx").symlink_to("real/model.onnx")
    assert run(tmp_path / "model.onnx") == [1, 2, 3, 4]
    (tmp_path / "other").mkdir()
    link = tmp_path / "other" / "model.onnx"
    link.symlink_to(real)
    write_weights(tmp_path / "other")
    assert f"it is a link that leads out of its folder, to {real}" in refused(link)
