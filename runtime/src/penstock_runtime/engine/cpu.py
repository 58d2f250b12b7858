"""How many CPUs this process may use: the cgroup's quota, not the host's cores."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")


def cpu_quota(root: Path = CGROUP_ROOT, own_cgroup: Path = Path("/proc/self/cgroup"), cpus: int | None = None) -> float:
    """Return the CPUs this process may use: the least of the cgroup quota (v2 or v1) and `cpus`.

    `cpus` defaults to what the process's affinity allows.

    Every level from the process's own cgroup up to `root` counts, since a parent (the pod) may limit too.
    """
    limits = [float(cpus or len(os.sched_getaffinity(0)))]
    try:
        lines = own_cgroup.read_text().splitlines()
    except OSError:
        lines = []
    v2 = next((line.split("::", 1)[1] for line in lines if line.startswith("0::")), "/")
    v1 = next((line.split(":", 2)[2] for line in lines if ":cpu" in line or ",cpu:" in line), "/")
    limits += [limit for folder in _upwards(root, v2) if (limit := _read_v2(folder)) is not None]
    limits += [limit for folder in _upwards(root / "cpu", v1) if (limit := _read_v1(folder)) is not None]
    return min(limits)


def intra_op_threads(asked: int | None, quota: float) -> int:
    """Return the threads one inference may use: `asked`, or the whole CPUs of `quota`, at least 1."""
    return asked if asked is not None else max(1, int(quota))


def concurrent_runs(quota: float, intra_op: int) -> int:
    """Return how many inferences may run at once so that their threads fill the quota, at least 1."""
    return max(1, int(quota) // intra_op)


def _upwards(root: Path, cgroup: str) -> list[Path]:
    folder = root / cgroup.strip("/")
    folders = [folder, *folder.parents]
    return [item for item in folders if item == root or root in item.parents]


def _read_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()[:2]
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _read_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
