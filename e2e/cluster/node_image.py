"""The image a cluster's nodes run: kind's own where it can be pulled, else one made here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from e2e.cluster.archive import Image, architecture, write_archive
from e2e.cluster.console import Problem, locked, output, progress, say, succeeds
from e2e.cluster.engine import build, docker, has_image, pull
from e2e.cluster.places import CACHE, HERE, fingerprint, need_space
from e2e.cluster.rootfs import debian_image
from e2e.cluster.tools import KUBERNETES_VERSION, module_folder, tool

PULL_S = 900  # kind's own image is several hundred MB
NODE_PACKAGES = (
    "bash",
    "ca-certificates",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "curl",
    "ebtables",
    "ethtool",
    "gawk",
    "iproute2",
    "iptables",
    "iputils-ping",
    "jq",
    "kmod",
    "mount",
    "nftables",
    "procps",
    "runc",
    "socat",
    "tar",
    "util-linux",
)
_IN_NODE = ("kubeadm", "kubelet", "kubectl")
_FILES = HERE / "node"


def node_image() -> str:
    """The reference of an image kind can make nodes of, present in the local Docker."""
    stock = _stock()
    if has_image(stock):
        return stock
    modules = [HERE / "tools" / name for name in ("kubernetes", "etcd", "coredns", "pause")]
    key = fingerprint(_FILES, *modules, *NODE_PACKAGES, KUBERNETES_VERSION, architecture())
    own = f"penstock.local/node:{key}"
    if has_image(own):
        return own
    if _reachable(stock) and pull(stock, PULL_S):
        return stock
    with locked(CACHE / "lock" / "node-image", "node image"):
        if not has_image(own):
            _make(own)
    return own


def _stock() -> str:
    """kind's default image, as the pinned version of kind names it."""
    source = module_folder("kind", "sigs.k8s.io/kind") / "pkg/apis/config/defaults/image.go"
    return source.read_text().split('const Image = "')[1].split('"')[0]


def _reachable(reference: str) -> bool:
    """Whether the registry answers at all, which shows in seconds."""
    with progress("asking for kind's own node image"):
        return succeeds(["docker", "manifest", "inspect", reference], timeout=20)


def _make(tag: str) -> None:
    say("kind's own node image cannot be pulled here: making one (once)")
    need_space(6, "the node image")
    wanted = output([tool("kubeadm"), "config", "images", "list", "--kubernetes-version", KUBERNETES_VERSION])
    rootfs = debian_image("node", NODE_PACKAGES)
    context = CACHE / "node-context"
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir(parents=True)
    try:
        for name in ("Dockerfile", "entrypoint", "systemctl", "preload"):
            shutil.copy2(_FILES / name, context / name)
        for name in _IN_NODE:
            _place(tool(name, "linux"), context / name)
        pause = next(reference for reference in wanted.split() if "/pause:" in reference)
        settings = (_FILES / "containerd.toml").read_text().replace("@PAUSE@", pause)
        (context / "containerd.toml").write_text(settings)
        (context / "version").write_text(KUBERNETES_VERSION + "\n")
        layer = context / "iptables.tar"
        _iptables_layer(rootfs, layer)
        write_archive(context / "images.tar", [_image(reference, layer) for reference in wanted.split()])
        layer.unlink()
        build(tag, context, arguments=[f"ROOTFS={rootfs}"])
        docker("image", "prune", "--force", "--filter", "label=penstock.stage=preload")
    finally:
        shutil.rmtree(context, ignore_errors=True)


def _image(reference: str, iptables: Path) -> Image:
    """What one of kubeadm's images is made of; its name says which program it runs."""
    name = reference.rsplit("/", 1)[1].partition(":")[0]
    return Image(reference, tool(name, "linux"), name, (iptables,) if name == "kube-proxy" else ())


def _iptables_layer(rootfs: str, layer: Path) -> None:
    script = (_FILES / "iptables-layer").read_bytes()
    with layer.open("wb") as file:
        done = subprocess.run(
            ["docker", "run", "--rm", "--interactive", rootfs, "bash", "-s"],
            input=script,
            stdout=file,
            stderr=subprocess.PIPE,
            check=False,
        )
    if done.returncode != 0:
        errors = done.stderr.decode(errors="replace").strip().splitlines()
        raise Problem(f"collecting iptables for kube-proxy failed: {errors[-1] if errors else 'no output'}")


def _place(source: Path, target: Path) -> None:
    """A hard link where possible: the programs are large."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)


def remove_unused(keep: str) -> None:
    """Drop node images of earlier versions; those in use stay (Docker refuses)."""
    for tag in docker("images", "--format", "{{.Repository}}:{{.Tag}}", "penstock.local/node").split():
        if tag != keep:
            subprocess.run(["docker", "rmi", tag], capture_output=True, check=False)
