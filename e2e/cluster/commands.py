"""The commands of this folder: their arguments, and how a failure is told."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from e2e.cluster import addons, images, lifecycle, load, ports
from e2e.cluster.console import Problem, say
from e2e.cluster.places import cluster_name, kubeconfig
from e2e.cluster.tools import tool


def _tool(words: Sequence[str]) -> None:
    for name in words or _usage("tool NAME...: prints each program's path, building it where missing"):
        print(tool(name))


def _up(words: Sequence[str]) -> None:
    if words:
        _usage("up: makes the cluster, or finds it; takes no arguments")
    lifecycle.up()
    say(f"cluster {cluster_name()} is ready; kubeconfig: {kubeconfig()}")


def _down(words: Sequence[str]) -> None:
    if list(words) not in ([], ["--engine"]):
        _usage("down [--engine]: removes the cluster; with --engine also ends the Docker that up started")
    lifecycle.down(engine=bool(words))


def _load(words: Sequence[str]) -> None:
    load.load(words or _usage("load IMAGE...: brings images from the local Docker into every node"))


def _addon(words: Sequence[str]) -> None:
    for name in words or _usage(f"addon NAME...: installs {', '.join(sorted(addons.ADDONS))} and waits for them"):
        addons.install(name)
        say(f"add-on {name} works")


def _put(words: Sequence[str]) -> None:
    if len(words) != 3:
        _usage("put files|s3 FILE NAME: copies a file (or folder) into the add-on, e.g. put s3 m.onnx models/m.onnx")
    addons.put(words[0], Path(words[1]), words[2])


def _images(words: Sequence[str]) -> None:
    for name in words or images.PRODUCTS:
        print(images.build_product(name))


def _kubeconfig(words: Sequence[str]) -> None:
    if words:
        _usage("kubeconfig: prints the path of the cluster's kubeconfig")
    if not kubeconfig().exists():
        raise Problem(f"there is no cluster {cluster_name()}", "run e2e/cluster/up")
    print(kubeconfig())


def _port(words: Sequence[str]) -> None:
    if len(words) != 1 or words[0] not in ports.NAMES:
        _usage(f"port {'|'.join(ports.NAMES)}: prints the port on 127.0.0.1")
    print(ports.ports()[words[0]])


def _usage(text: str) -> Sequence[str]:
    raise Problem(f"usage: e2e/cluster/{text}")


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "addon": _addon,
    "down": _down,
    "images": _images,
    "kubeconfig": _kubeconfig,
    "load": _load,
    "port": _port,
    "put": _put,
    "tool": _tool,
    "up": _up,
}


def main(name: str, words: Sequence[str]) -> int:
    """Run the command `name` with its arguments; the exit status, after telling any Problem."""
    if name not in COMMANDS:
        say(f"error: no command is called {name}\n  do this: use one of {', '.join(sorted(COMMANDS))}")
        return 2
    try:
        COMMANDS[name](words)
    except Problem as problem:
        say(f"error: {problem.what}" + (f"\n  do this: {problem.fix}" if problem.fix else ""))
        return 1
    except KeyboardInterrupt:
        say("stopped")
        return 130
    except subprocess.SubprocessError as error:
        say(f"error: {error}")
        return 1
    return 0
