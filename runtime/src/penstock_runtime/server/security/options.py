"""The command line's part about TLS and tokens."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path

PORTS = ("http", "admin", "metrics")


@dataclass(frozen=True, slots=True)
class SecurityOptions:
    """Files that secure the ports; None: not secured that way.

    `tls_files`: certificate chain and private key in PEM. `tls_ports`: the ports that speak TLS with them.
    """

    tls_files: tuple[Path, Path] | None = None
    tls_ports: frozenset[str] = frozenset()
    token_file: Path | None = None
    admin_token_file: Path | None = None


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("security", "files are read again when they change")
    group.add_argument("--tls-cert-file", type=Path, metavar="FILE", help="certificate and its chain, PEM")
    group.add_argument("--tls-key-file", type=Path, metavar="FILE", help="the certificate's private key, PEM")
    group.add_argument("--tls-ports", default="http", metavar="PORTS",
                       help="ports with TLS: http (default; gRPC too), admin, metrics, commas between")  # fmt: skip
    group.add_argument("--token-file", type=Path, metavar="FILE",
                       help="bearer tokens, one a line, of which the data port wants one")  # fmt: skip
    group.add_argument("--admin-token-file", type=Path, metavar="FILE", help="the same for the admin port")


def read_options(args: Namespace) -> SecurityOptions:
    """Return what `args` say; raises ValueError."""
    cert, key = args.tls_cert_file, args.tls_key_file
    if (cert is None) != (key is None):
        raise ValueError("--tls-cert-file and --tls-key-file go together; give both or none")
    ports = frozenset(port.strip() for port in args.tls_ports.split(","))
    if not ports <= set(PORTS):
        raise ValueError(f"--tls-ports: '{args.tls_ports}' is not made of {', '.join(PORTS)} with commas between")
    return SecurityOptions(
        tls_files=None if cert is None else (cert, key),
        tls_ports=frozenset() if cert is None else ports,
        token_file=args.token_file,
        admin_token_file=args.admin_token_file,
    )
