"""Train a logistic regression on the iris data and export it: `python -m examples.iris.train --out models`.

Writes OUT/iris/v1/model.onnx. Takes a second.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from examples.onnx_export import accuracy, check_agreement, export

FEATURES = 4


def train(folder: Path) -> float:
    """Train, export to `folder`/v1/model.onnx; returns the accuracy on flowers held out, 0 to 1."""
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, labels = load_iris(return_X_y=True)
    rows = rows.astype(np.float32)
    seen, held_out, seen_labels, held_out_labels = train_test_split(
        rows, labels, test_size=0.4, random_state=0, stratify=labels
    )
    classifier = make_pipeline(StandardScaler(), LogisticRegression()).fit(seen, seen_labels)
    model = export(classifier, FEATURES)
    check_agreement(classifier, model, held_out)
    path = folder / "v1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model)
    return accuracy(model, held_out, held_out_labels)


def main() -> None:
    """Train into the folder named on the command line."""
    parser = argparse.ArgumentParser(description="Train iris v1 and export it to ONNX.")
    parser.add_argument("--out", type=Path, default=Path("models"), help="folder for the models (default: models)")
    folder = parser.parse_args().out / "iris"
    share = train(folder)
    print(f"{folder}/v1/model.onnx: logistic regression, {share:.1%} right on flowers it has not seen")


if __name__ == "__main__":
    main()
