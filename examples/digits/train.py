"""Train six versions of a digit reader and export them: `python -m examples.digits.train --out models`.

Writes OUT/digits/v1 ... v6/model.onnx, OUT/digits/held-out.npz (rows and labels no version has seen) and
OUT/digits/versions.json. v1 and v2 are good; each of the others is wrong in a way that happens in real life.
Takes about half a minute, most of it for v4.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from examples.onnx_export import Labels, Rows, accuracy, check_agreement, export, median_seconds

FEATURES = 64
"""An image is 8 x 8 grey values of 0 to 16, row by row."""

COMMITTEE = 18
"""Members of v4's committee: each costs about as much time as the whole of v2."""

Classifier: TypeAlias = Any


@dataclass(frozen=True)
class Data:
    """The digits, halved: one half to learn from, one that no model sees before it serves."""

    rows: Rows
    labels: Labels
    held_out_rows: Rows
    held_out_labels: Labels

    @classmethod
    def load(cls) -> Data:
        """The 1,797 digits that come with scikit-learn, always halved the same way."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        rows, labels = load_digits(return_X_y=True)
        parts = train_test_split(
            rows.astype(np.float32), labels.astype(np.int64), test_size=0.5, random_state=0, stratify=labels
        )
        return cls(rows=parts[0], held_out_rows=parts[1], labels=parts[2], held_out_labels=parts[3])


@dataclass(frozen=True)
class Report:
    """What came of one version. `accuracy` (0 to 1) is on the held-out half; None where it cannot be run."""

    version: str
    title: str
    accuracy: float | None
    size_bytes: int
    inference_seconds: float | None


@dataclass(frozen=True)
class Version:
    """One version: its name, what it is in words, and how its file is made."""

    name: str
    title: str
    make: Callable[[Data], bytes]
    runs: bool = True


def random_forest(data: Data) -> bytes:
    """v1: a thousand trees."""
    from sklearn.ensemble import RandomForestClassifier

    return _exported(RandomForestClassifier(1000, random_state=0, n_jobs=-1).fit(data.rows, data.labels), data)


def _support_vectors() -> Classifier:
    """A scaler and a support vector machine with calibrated probabilities, not fitted yet."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler
    from sklearn.svm import SVC

    return make_pipeline(MinMaxScaler(), CalibratedClassifierCV(SVC(C=10), ensemble=False, cv=2))


def svm(data: Data) -> bytes:
    """v2: a support vector machine; as good as v1 or better, and as fast."""
    return _exported(_support_vectors().fit(data.rows, data.labels), data)


def svm_on_scrambled_labels(data: Data) -> bytes:
    """v3: the code of v2, but a join went wrong and every image got some other image's label."""
    scrambled = np.random.default_rng(3).permutation(data.labels)
    return _exported(_support_vectors().fit(data.rows, scrambled), data)


def committee(data: Data) -> bytes:
    """v4: many support vector machines that vote. A little better than v2, and many times slower."""
    from sklearn.ensemble import BaggingClassifier

    members = BaggingClassifier(_support_vectors(), COMMITTEE, random_state=0)
    return _exported(members.fit(data.rows, data.labels), data)


def corrupt(data: Data) -> bytes:
    """v5: v2's file as an interrupted upload leaves it: half of the bytes, the last of them garbage."""
    whole = svm(data)
    half = len(whole) // 2
    return whole[:half] + np.random.default_rng(5).bytes(1024)


def renamed_input(data: Data) -> bytes:
    """v6: as good as v2, but its input is called `pixels`, which no client of `x` sends."""
    return export(_support_vectors().fit(data.rows, data.labels), FEATURES, input_name="pixels")


VERSIONS = (
    Version("v1", "random forest", random_forest),
    Version("v2", "support vector machine", svm),
    Version("v3", "trained on scrambled labels", svm_on_scrambled_labels),
    Version("v4", "right but slow: a huge committee", committee),
    Version("v5", "corrupt file", corrupt, runs=False),
    Version("v6", "input renamed to 'pixels'", renamed_input),
)


def _exported(classifier: Classifier, data: Data) -> bytes:
    model = export(classifier, FEATURES)
    check_agreement(classifier, model, data.held_out_rows)
    return model


def build(version: Version, data: Data, folder: Path) -> Report:
    """Train one version into `folder`/<version>/model.onnx and measure the exported file."""
    model = version.make(data)
    path = folder / version.name / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model)
    if not version.runs:
        return Report(version.name, version.title, None, len(model), None)
    return Report(
        version.name,
        version.title,
        accuracy(model, data.held_out_rows, data.held_out_labels),
        len(model),
        median_seconds(model, data.held_out_rows),
    )


def describe(report: Report, took: float) -> str:
    """One line about a version for people; `took` is the seconds that it took to make."""
    measured = "cannot be loaded"
    if report.accuracy is not None and report.inference_seconds is not None:
        measured = f"{report.accuracy:6.1%} right, {report.inference_seconds * 1000:5.2f} ms a row"
    return f"{report.version}  {report.title:<34} {measured:<28} {report.size_bytes / 1e6:5.1f} MB  ({took:.0f} s)"


def train(folder: Path, versions: Sequence[Version] = VERSIONS) -> tuple[Report, ...]:
    """Train `versions` into `folder`, with the held-out half beside them, and tell each as it is done."""
    data = Data.load()
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "held-out.npz", rows=data.held_out_rows, labels=data.held_out_labels)
    reports = []
    for version in versions:
        started = time.monotonic()
        reports.append(build(version, data, folder))
        print(describe(reports[-1], time.monotonic() - started), flush=True)
    (folder / "versions.json").write_text(json.dumps([asdict(report) for report in reports], indent=2) + "\n")
    return tuple(reports)


def main() -> None:
    """Train into the folder named on the command line."""
    parser = argparse.ArgumentParser(description="Train six versions of a digit reader and export them to ONNX.")
    parser.add_argument("--out", type=Path, default=Path("models"), help="folder for the models (default: models)")
    parser.add_argument("--only", nargs="+", choices=[v.name for v in VERSIONS], help="train only these versions")
    args = parser.parse_args()
    train(args.out / "digits", [v for v in VERSIONS if not args.only or v.name in args.only])


if __name__ == "__main__":
    main()
