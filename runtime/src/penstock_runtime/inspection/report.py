"""What is known of a model by its files alone: the report of `penstock-runtime inspect`."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from penstock_runtime.engine.batch_schema import why_not_by_schema
from penstock_runtime.engine.errors import ModelLoadError
from penstock_runtime.engine.locate import locate_model
from penstock_runtime.engine.onnx_file.check import describe, why_not, why_outside
from penstock_runtime.engine.onnx_file.domains import custom
from penstock_runtime.engine.onnx_file.model import OnnxFile
from penstock_runtime.engine.onnx_file.types import Value
from penstock_runtime.engine.tensor_type import tensor_spec
from penstock_runtime.fetch.digest import hash_file, model_digest
from penstock_runtime.fetch.mounted import files_below
from penstock_runtime.protocol.schema import ModelSchema, TensorSpec

Report = dict[str, Any]


def inspect_model(path: Path, allowed: Collection[str] = ()) -> Report:
    """Return what the model at `path` (a file or folder) is, as JSON has it.

    `problems` is empty if nothing in the files speaks against serving them; whether ONNX Runtime can run them only
    loading tells. Nothing is loaded, and of weights only the digest is taken. Raises ModelLoadError if there is no
    model, or it cannot be read.
    """
    file = locate_model(path)
    found = describe(file.path)
    problems = why_not(found, allowed)
    if (outside := why_outside(file.path)) is not None:
        problems.insert(0, outside)
    inputs, outputs = (_specs(values, role, problems) for values, role in
                       ((found.inputs, "input"), (found.outputs, "output")))  # fmt: skip
    apart = "a type cannot be served"
    if all(inputs) and all(outputs):
        schema = ModelSchema(tuple(filter(None, inputs)), tuple(filter(None, outputs)))
        apart = why_not_by_schema(schema) or ""
    return {
        "file": os.fsencode(file.path).decode("utf-8", "backslashreplace"),
        "version": file.version,
        **_identity(path, file.path),
        "ir_version": found.ir_version,
        "opsets": {domain or "ai.onnx": version for domain, version in found.opsets.items()},
        "producer": {"name": found.producer, "version": found.producer_version},
        "domain": found.domain,
        "model_version": found.model_version,
        "doc": found.doc,
        "graph": found.graph,
        "metadata": found.metadata,
        "inputs": [_tensor(value, spec) for value, spec in zip(found.inputs, inputs, strict=True)],
        "outputs": [_tensor(value, spec) for value, spec in zip(found.outputs, outputs, strict=True)],
        "parameters": found.parameters,
        "external_data": [{"file": name, "size": size} for name, size in sorted(found.external.items())],
        "operators": {
            _full_name(operator): count
            for operator, count in sorted(found.operators.items(), key=lambda item: (-item[1], item[0]))
        },
        "functions": sorted(map(_full_name, found.functions)),
        "custom_domains": _custom_domains(found, allowed),
        "batching": {"by_schema": not apart, "reason": apart or None},
        "problems": problems,
    }


def _specs(values: list[Value], role: str, problems: list[str]) -> list[TensorSpec | None]:
    specs: list[TensorSpec | None] = []
    for value in values:
        try:
            specs.append(tensor_spec(value.name, value.type, value.shape or (), role))
        except ModelLoadError as error:
            specs.append(None)
            problems.append(str(error))
    return specs


def _tensor(value: Value, spec: TensorSpec | None) -> Report:
    """Return an input or output: `shape` as the protocol has it, `dims` with the names of variable sizes."""
    shape = None if value.shape is None else [dim if isinstance(dim, int) and dim >= 0 else -1 for dim in value.shape]
    dims = None if value.shape is None else list(value.shape)
    datatype = None if spec is None else spec.datatype
    return {"name": value.name, "datatype": datatype, "shape": shape, "dims": dims, "type": value.type}


def _identity(path: Path, file: Path) -> Report:
    """Return size and digest of what fetching `path` would bring: the file, or all files of the folder."""
    single = path.is_file()
    root = path.parent if single else path
    files = [hash_file(each, root) for each in ([path] if single else files_below(path))]
    digest = model_digest(files, single=single)
    return {"size": file.stat().st_size, "files": len(files), "bytes": sum(each.size for each in files),
            "digest": digest}  # fmt: skip


def _custom_domains(found: OnnxFile, allowed: Collection[str]) -> list[Report]:
    domains: dict[str, list[str]] = {}
    for domain, name in custom(found.operators, found.functions):
        domains.setdefault(domain, []).append(name)
    return [{"domain": domain, "operators": names, "allowed": domain in allowed} for domain, names in domains.items()]


def _full_name(operator: tuple[str, str]) -> str:
    domain, name = operator
    return f"{domain}.{name}" if domain else name
