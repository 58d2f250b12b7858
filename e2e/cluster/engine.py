"""A Docker that answers: the one that is there, else Debian's own started by hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from e2e.cluster.console import Problem, locked, logged, output, progress, say, succeeds
from e2e.cluster.places import CACHE, HERE, LOGS, need_space

START_S = 60.0  # seconds dockerd may take to answer
INOTIFY_INSTANCES = 1024  # two kubelets and containerds need more than the usual 128
_CAP_SYS_RESOURCE = 24
_FOLDER = CACHE / "docker"


def ensure_engine() -> None:
    """Make `docker` answer; Problem where that takes rights this user lacks."""
    if not answers():
        with locked(CACHE / "lock" / "engine", "start of Docker"):
            if not answers():
                _install_and_start()
    _raise_inotify_limit()


def answers() -> bool:
    """Whether a Docker daemon answers this user; a busy machine's may take a minute."""
    return shutil.which("docker") is not None and succeeds(["docker", "ps", "--quiet", "--latest"], timeout=60)


def stop_engine() -> None:
    """End the dockerd this module started, if any; a Docker found running is left alone."""
    pid = _own_pid()
    if pid:
        os.kill(pid, 15)
        with progress("stopping Docker") as step:
            while _is_dockerd(pid):
                step.tick()
                time.sleep(0.2)


def apt_install(*packages: str) -> None:
    """Install Debian packages; Problem where this is no Debian or not root."""
    if shutil.which("apt-get") is None:
        raise Problem(f"{packages[0]} is missing, and there is no apt-get here", f"install {' '.join(packages)}")
    if os.geteuid() != 0:
        raise Problem(f"{packages[0]} is missing, and this is not root", f"apt-get install {' '.join(packages)}")
    install = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    log = LOGS / f"apt-{packages[0]}.log"
    title = f"installing {' '.join(packages)} from Debian"
    try:
        logged(title, install, log, env=quiet)
    except Problem:
        # the usual cause is a package list that is absent or too old
        logged("updating Debian's package lists", ["apt-get", "update"], LOGS / "apt-update.log", env=quiet)
        logged(title, install, log, env=quiet, fix="is the Debian mirror reachable?")


def _install_and_start() -> None:
    if os.environ.get("DOCKER_HOST"):
        raise Problem(
            f"no Docker answers at DOCKER_HOST={os.environ['DOCKER_HOST']}", "start it there, or unset DOCKER_HOST"
        )
    if not sys.platform.startswith("linux"):
        raise Problem("Docker does not answer", "start Docker Desktop (or colima) and run this again")
    if os.geteuid() != 0:
        raise Problem(
            "Docker does not answer and this is not root, so it cannot be started",
            "start Docker, join the group docker, or run this as root",
        )
    if shutil.which("dockerd") is None or shutil.which("docker") is None:
        say("no Docker here: installing Debian's")
        apt_install("docker.io", "iptables")
    # a machine with systemd starts it by itself
    if not _await(answers, 5 if Path("/run/systemd/system").exists() else 0):
        _start()


def _start() -> None:
    need_space(8, "Docker")
    if pid := _own_pid():
        raise Problem(f"Docker runs (process {pid}) but does not answer", f"look at {LOGS / 'dockerd.log'}, or end it")
    _FOLDER.mkdir(parents=True, exist_ok=True)
    (_FOLDER / "dockerd.pid").unlink(missing_ok=True)
    config = _FOLDER / "daemon.json"
    config.write_text(json.dumps(_configuration(), indent=2))
    log_path = LOGS / "dockerd.log"
    LOGS.mkdir(parents=True, exist_ok=True)
    with progress("starting Docker"), log_path.open("ab") as log:
        daemon = subprocess.Popen(
            ["dockerd", "--config-file", str(config)],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        if _await(lambda: answers() or daemon.poll() is not None, START_S) and daemon.poll() is None:
            return
    failed = [x for x in log_path.read_text(errors="replace").splitlines() if "level=fatal" in x or "failed" in x]
    raise Problem(f"Docker did not start: {failed[-1] if failed else 'no answer'}", f"its output is in {log_path}")


def _configuration() -> dict[str, object]:
    config: dict[str, object] = {
        "data-root": str(_FOLDER / "data"),
        "pidfile": str(_FOLDER / "dockerd.pid"),
        "log-level": "warn",
        "log-opts": {"max-size": "20m", "max-file": "2"},
    }
    if not has_capability(_CAP_SYS_RESOURCE):
        # copied, so that the daemon outlives this checkout
        wrapper = _FOLDER / "runc-caps"
        shutil.copy2(HERE / "runc_caps.py", wrapper)
        wrapper.chmod(0o755)
        config["runtimes"] = {"runc-caps": {"path": str(wrapper)}}
        config["default-runtime"] = "runc-caps"
    return config


def has_capability(number: int) -> bool:
    """Whether this machine's root may ever have the capability with that number (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return True


def _raise_inotify_limit() -> None:
    limit = Path("/proc/sys/fs/inotify/max_user_instances")
    if not limit.exists() or int(limit.read_text()) >= INOTIFY_INSTANCES:
        return
    try:
        limit.write_text(str(INOTIFY_INSTANCES))
    except OSError:
        say(
            f"warning: fs.inotify.max_user_instances is below {INOTIFY_INSTANCES}; if nodes do not become ready,"
            f" as root: sysctl fs.inotify.max_user_instances={INOTIFY_INSTANCES}"
        )


def _own_pid() -> int:
    """The process id of the dockerd started here, 0 where none runs."""
    file = _FOLDER / "dockerd.pid"
    pid = int(file.read_text()) if file.exists() else 0
    return pid if pid and _is_dockerd(pid) else 0


def _is_dockerd(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "dockerd"
    except OSError:
        return False


def _await(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def docker(*words: str | Path, stdin: str = "", timeout: float = 120) -> str:
    """The output of one docker command; Problem where it fails."""
    return output(["docker", *words], stdin=stdin, timeout=timeout)


def has_image(reference: str) -> bool:
    """Whether the local Docker holds an image."""
    return succeeds(["docker", "image", "inspect", reference])


def pull(reference: str, seconds: int) -> bool:
    """Whether an image could be pulled within some seconds."""
    with progress(f"trying to pull {reference}"):
        return succeeds(["docker", "pull", "--quiet", reference], timeout=seconds)


def build(tag: str, context: Path, *, file: Path | None = None, arguments: Sequence[str] = ()) -> None:
    """Build an image; `arguments` are NAME=VALUE build arguments. Progress and log like any long step."""
    words: list[str | Path] = ["docker", "build", "--tag", tag]
    for argument in arguments:
        words += ["--build-arg", argument]
    if file is not None:
        words += ["--file", file]
    log = LOGS / f"image-{tag.replace('/', '-').replace(':', '-')}.log"
    logged(f"building image {tag}", [*words, context], log)
