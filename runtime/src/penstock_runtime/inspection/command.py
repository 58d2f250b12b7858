"""`penstock-runtime inspect`: what a model file is, without loading it."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path

import orjson

from penstock_runtime.engine.errors import ModelLoadError
from penstock_runtime.inspection.report import inspect_model
from penstock_runtime.inspection.text import lines
from penstock_runtime.server.settings import add_domains_argument, read_domains
from penstock_runtime.terminal import printable


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", type=Path, help="an .onnx file, a folder with one, or with numbered folders")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_domains_argument(parser)


def run(args: Namespace, env: Mapping[str, str] = os.environ) -> int:
    """Print the report and return 0; 1 if there is no model to be read, or it would be refused."""
    try:
        report = inspect_model(args.model, read_domains(args, env))
    except (ModelLoadError, OSError) as error:
        if args.json:
            sys.stdout.write(orjson.dumps({"error": str(error)}).decode() + "\n")
        else:
            sys.stderr.write(f"penstock-runtime inspect: {printable(str(error))}\n")
        return 1
    if args.json:
        sys.stdout.write(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in lines(report)))
    return 1 if report["problems"] else 0
