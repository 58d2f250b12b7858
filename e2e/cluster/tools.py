"""Builds the tools the cluster needs from their Go modules, once per pinned version."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.console import Problem, locked, logged, output, say
from e2e.cluster.places import CACHE, HERE, LOGS, fingerprint, need_space

KUBERNETES_VERSION = "v1.35.4"
_VERSION = "k8s.io/component-base/version"
_STAMP = f"-X {_VERSION}.gitVersion={KUBERNETES_VERSION} -X {_VERSION}.gitMajor=1 -X {_VERSION}.gitMinor=35"


@dataclass(frozen=True)
class Tool:
    """One program: the Go module under tools/ that pins it, its package, extra linker flags, build tags."""

    module: str
    package: str
    stamp: str = ""
    tags: str = ""


TOOLS = {
    "etcd": Tool("etcd", "go.etcd.io/etcd/server/v3"),
    "kind": Tool("kind", "sigs.k8s.io/kind"),
    "helm": Tool("helm", "helm.sh/helm/v3/cmd/helm"),
    "coredns": Tool("coredns", "github.com/coredns/coredns"),
    "traefik": Tool("traefik", "github.com/traefik/traefik/v3/cmd/traefik"),
    "rclone": Tool("rclone", "github.com/rclone/rclone"),
    "pause": Tool("pause", "."),
    # of the service discoveries only Kubernetes': the others are most of the build
    "prometheus": Tool(
        "prometheus", "github.com/prometheus/prometheus/cmd/prometheus", tags="remove_all_sd,enable_kubernetes_sd"
    ),
    **{
        name: Tool("kubernetes", f"k8s.io/kubernetes/cmd/{name}", _STAMP)
        for name in (
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kube-proxy",
            "kubelet",
            "kubeadm",
            "kubectl",
        )
    },
}


def tool(name: str, system: str = "") -> Path:
    """The path of a program, built first where this version is missing.

    `system` is a GOOS for programs that go into images; the default is this machine's.
    Raises Problem for an unknown name, no Go, a full disk, or a build error.
    """
    if name not in TOOLS:
        raise Problem(f"no tool is called {name!r}", f"use one of: {', '.join(sorted(TOOLS))}")
    spec = TOOLS[name]
    module = HERE / "tools" / spec.module
    system = system or platform.system().lower()
    key = fingerprint(module, spec.package, spec.stamp + spec.tags, system, platform.machine())
    path = CACHE / "bin" / f"{name}-{key}"
    if not path.exists():
        with locked(CACHE / "lock" / f"go-{spec.module}", f"build of {spec.module}"):
            if not path.exists():
                _build(name, spec, module, path, system)
    _link(CACHE / "bin" / name, path)
    return path


def module_folder(module: str, dependency: str) -> Path:
    """The source folder of one Go dependency of tools/<module> (for manifests that ship inside it)."""
    _go()
    folder = HERE / "tools" / module
    log = LOGS / f"download-{module}.log"
    logged(f"downloading {dependency}", ["go", "mod", "download", dependency], log, cwd=folder)
    return Path(output(["go", "list", "-C", folder, "-m", "-f", "{{.Dir}}", dependency]))


def _go() -> None:
    if shutil.which("go") is None:
        raise Problem("Go is not installed", "install Go 1.26 or newer and put it in PATH")


def _build(name: str, spec: Tool, module: Path, path: Path, system: str) -> None:
    _go()
    need_space(6, f"building {name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    say(f"building {name} (once; kept in {path.parent})")
    nice = ["nice", "-n", "10"] if shutil.which("nice") else []
    flags = f"-s -w {spec.stamp}".strip()
    command: list[str | Path] = [*nice, "go", "build", "-trimpath", "-ldflags", flags]
    if spec.tags:
        command += ["-tags", spec.tags]
    try:
        logged(
            f"building {name}",
            [*command, "-o", part, spec.package],
            LOGS / f"build-{name}.log",
            cwd=module,
            # static programs fit images made FROM scratch
            env={"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -mod=readonly", "GOOS": system},
            fix="is the module proxy reachable, and is Go 1.26 or newer?",
        )
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() and link.readlink() == Path(target.name):
        return
    fresh = link.with_name(f".{link.name}.{os.getpid()}.link")
    fresh.symlink_to(target.name)
    fresh.replace(link)
