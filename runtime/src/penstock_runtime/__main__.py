"""The command line: `penstock-runtime serve` and `penstock-runtime fetch`."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from collections.abc import Sequence

from penstock_runtime import __version__, log


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` (default: the process's) and return its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    command = arguments[0] if arguments else ""
    parser = ArgumentParser(prog="penstock-runtime", description="Penstock's model server")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve a model")
    fetch = commands.add_parser("fetch", help="bring a model's files into a folder, verified")
    log.configure()
    # Each command imports its own: serving must not pay for the fetcher's libraries, nor the reverse.
    if command == "serve":
        from penstock_runtime.server import settings
        from penstock_runtime.server.lifecycle import fail
        from penstock_runtime.server.lifecycle import serve as run_server

        settings.add_arguments(serve)
        args = parser.parse_args(arguments)
        try:
            configured = settings.read_settings(args, os.environ)
        except settings.SettingsError as error:
            fail(args.termination_log, "InvalidConfiguration", str(error))
            return 1
        return run_server(configured, arguments)
    if command == "fetch":
        from penstock_runtime.fetch import command as fetch_command

        fetch_command.add_arguments(fetch)
        return fetch_command.run(parser.parse_args(arguments))
    parser.parse_args(arguments)
    return 2


if __name__ == "__main__":
    sys.exit(main())
