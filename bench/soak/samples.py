"""What a server's process holds at one moment, and whether that grew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

# The first exchanges fill what stays: memory arenas, code, the counters' tables.
WARM_SHARE = 0.1
# Memory may be so much larger at the end, descriptors so many more.
MOST_GROWTH = 0.05
MOST_DESCRIPTORS = 0
LEAST_SAMPLES = 20


@dataclass(frozen=True, slots=True)
class Sample:
    """Requests answered so far, resident memory in MB of 10^6 bytes, open descriptors, threads."""

    requests: int
    memory_mb: float
    descriptors: int
    threads: int


def look(pid: int, requests: int) -> Sample:
    """Return what the process `pid` holds now."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    memory = int(status["VmRSS"].split()[0]) * 1024 / 1e6
    return Sample(requests, memory, len(list(Path(f"/proc/{pid}/fd").iterdir())), int(status["Threads"]))


@dataclass(frozen=True, slots=True)
class Verdict:
    """Growth from the first tenth after warming to the last tenth: of memory as a share, of descriptors in all."""

    memory_growth: float
    descriptor_growth: float

    @property
    def flat(self) -> bool:
        """Whether neither grew beyond its bound."""
        return self.memory_growth <= MOST_GROWTH and self.descriptor_growth <= MOST_DESCRIPTORS


def judge(samples: Sequence[Sample]) -> Verdict:
    """Compare the end with the beginning; raises ValueError if there are fewer than LEAST_SAMPLES."""
    if len(samples) < LEAST_SAMPLES:
        raise ValueError(f"{len(samples)} samples tell nothing; {LEAST_SAMPLES} are needed")
    warm = samples[int(len(samples) * WARM_SHARE) :]
    tenth = max(1, len(warm) // 10)
    first, last = warm[:tenth], warm[-tenth:]
    before, after = (fmean(each.memory_mb for each in part) for part in (first, last))
    descriptors = max(each.descriptors for each in last) - max(each.descriptors for each in first)
    return Verdict(after / before - 1, descriptors)


def as_rows(samples: Sequence[Sample]) -> list[dict[str, float]]:
    """Return the samples for a JSON file."""
    return [asdict(each) for each in samples]
