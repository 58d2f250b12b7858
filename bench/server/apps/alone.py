"""ONNX Runtime alone: the model run in a loop, without any server. `python -m bench.server.apps.alone MODEL INPUT`

Reads a number of seconds a line from stdin, and prints how many runs there were a second.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from bench.server.apps.model import Model


def main() -> None:
    """Run the model named on the command line on the .npy file named there."""
    model, file = Model(sys.argv[1]), np.load(sys.argv[2])
    print("ready", flush=True)
    for line in sys.stdin:
        seconds = float(line)
        runs = 0
        start = now = time.perf_counter()
        while now - start < seconds:
            model(file)
            runs += 1
            now = time.perf_counter()
        print(runs / (now - start), flush=True)


if __name__ == "__main__":
    main()
