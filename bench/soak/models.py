"""Two forests that answer alike and are made differently: an exchange that is seen only by those who look."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from e2e.cluster.places import CACHE, fingerprint

# What they are asked.
ROW = np.array([[5.1, 3.5, 1.4, 0.2]], np.float32)
FOLDER = CACHE / "bench" / "models"


def write_twins() -> tuple[Path, Path]:
    """Return two iris forests of 100 trees, written first where they are missing."""
    folder = FOLDER / fingerprint(Path(__file__))
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "one.onnx", folder / "other.onnx"
    for seed, path in enumerate(paths):
        if not path.exists():
            part = path.with_suffix(".part")
            part.write_bytes(_forest(seed))
            part.rename(path)
    return paths


def _forest(seed: int) -> bytes:
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier

    x, y = load_iris(return_X_y=True)
    model = RandomForestClassifier(100, random_state=seed).fit(x, y)
    exported: bytes = to_onnx(
        model, x[:1].astype(np.float32), options={id(model): {"zipmap": False}}
    ).SerializeToString()
    return exported
