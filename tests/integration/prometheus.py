"""A real Prometheus on loopback: Debian's program, unpacked into the cache, or the one in PATH."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

START_S = 60.0


def program() -> Path:
    """Prometheus' program. Skips the test where there is none and no Debian to get one from."""
    found = shutil.which("prometheus")
    if found:
        return Path(found)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock" / "debian-prometheus"
    target = cache / "usr" / "bin" / "prometheus"
    if target.exists():
        return target
    if not shutil.which("apt-get"):
        pytest.skip("no prometheus in PATH, and no apt-get to download Debian's")
    unpacked = cache.with_name(f"{cache.name}-{os.getpid()}")
    unpacked.mkdir(parents=True)
    try:
        # Unpacked only: installing the package would start a service on this machine.
        download = ["apt-get", "download", "-o", "APT::Sandbox::User=root", "prometheus"]
        if subprocess.run(download, cwd=unpacked, capture_output=True, check=False).returncode:
            subprocess.run(["apt-get", "update"], capture_output=True, check=True)
            subprocess.run(download, cwd=unpacked, capture_output=True, check=True)
        (package,) = unpacked.glob("prometheus_*.deb")
        subprocess.run(["dpkg-deb", "--extract", package, unpacked], capture_output=True, check=True)
        package.unlink()
        shutil.rmtree(cache, ignore_errors=True)
        unpacked.rename(cache)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    return target


def config(targets: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Scrape each address (host:port) every second, with these target labels."""
    groups = [{"targets": [address], "labels": labels} for address, labels in targets.items()]
    job = {"job_name": "models", "scrape_interval": "1s", "scrape_timeout": "1s", "static_configs": groups}
    return {"scrape_configs": [job]}


@asynccontextmanager
async def prometheus(folder: Path, settings: dict[str, Any]) -> AsyncIterator[str]:
    """A Prometheus with this configuration; its URL. It ends with the block."""
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            program(),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        await _ready(url, log.read_text)
        yield url
    finally:
        process.terminate()
        await process.wait()


async def _ready(url: str, log: Callable[[], str]) -> None:
    try:
        async with asyncio.timeout(START_S), aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(f"{url}/-/ready") as response:
                        if response.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"Prometheus was not ready within {START_S:.0f} s: {log()[-2000:]}")
