"""The command line: `penstock-runtime serve`, `agent`, `inspect`, `bench` and `fetch`."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from collections.abc import Sequence

from penstock_runtime import __version__, log
from penstock_runtime.terminal import for_people


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` (default: the process's) and return its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    command = arguments[0] if arguments else ""
    parser = ArgumentParser(prog="penstock-runtime", description="Penstock's model server")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve a model")
    agent = commands.add_parser("agent", help="stand in front of another server, and measure its model")
    inspect = commands.add_parser("inspect", help="tell what a model file is, without loading it")
    bench = commands.add_parser("bench", help="measure how fast a server of the Open Inference Protocol answers")
    fetch = commands.add_parser("fetch", help="bring a model's files into a folder, verified")
    log.configure()
    # Each command imports its own: serving must not pay for the fetcher's libraries, nor the reverse.
    if command == "serve":
        from penstock_runtime.server import settings
        from penstock_runtime.server.ending import fail
        from penstock_runtime.server.lifecycle import serve as run_server

        settings.add_arguments(serve)
        if for_people():
            # No balancer has to see first that a server goes which a person ends.
            serve.set_defaults(drain_seconds=0.0)
        args = parser.parse_args(arguments)
        try:
            configured = settings.read_settings(args, os.environ)
        except settings.SettingsError as error:
            fail(args.termination_log, error)
            return 1
        return run_server(configured, arguments)
    if command == "agent":
        from penstock_runtime.server.agent import command as agent_command

        agent_command.add_arguments(agent)
        return agent_command.run(parser.parse_args(arguments), arguments)
    if command == "inspect":
        from penstock_runtime.inspection import command as inspect_command

        inspect_command.add_arguments(inspect)
        return inspect_command.run(parser.parse_args(arguments))
    if command == "bench":
        from penstock_runtime.bench import command as bench_command

        bench_command.add_arguments(bench)
        return bench_command.run(parser.parse_args(arguments))
    if command == "fetch":
        from penstock_runtime.fetch import command as fetch_command

        fetch_command.add_arguments(fetch)
        return fetch_command.run(parser.parse_args(arguments))
    parser.parse_args(arguments)
    return 2


if __name__ == "__main__":
    sys.exit(main())
