"""Draws architecture.svg: what Penstock makes for one model, and what flows where.

`python docs/images/draw.py` writes it, `--check` fails where it is out of date.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

PICTURE = Path(__file__).with_name("architecture.svg")
WIDTH, HEIGHT = 1000, 560
SPOKEN = (
    "Penstock: an operator reads a ModelDeployment, makes one set of objects per revision, splits the traffic between "
    "them, reads raw counters and moves the split by what the gates say"
)
INK, FAINT, PAPER = "#1f2933", "#52606d", "#ffffff"
USER, CONTROL, STABLE, CANARY, PLAIN = "#f0f4f8", "#e6f0ff", "#e3f9e5", "#fff3c4", "#ffffff"


@dataclass(frozen=True)
class Box:
    """A box with a title and lines below it; coordinates in pixels."""

    x: int
    y: int
    w: int
    h: int
    fill: str
    title: str
    lines: tuple[str, ...] = ()

    def svg(self) -> str:
        """The box as SVG."""
        middle = self.x + self.w / 2
        frame = f'x="{self.x}" y="{self.y}" width="{self.w}" height="{self.h}" rx="8"'
        parts = [
            f'<rect {frame} fill="{self.fill}" stroke="{INK}" stroke-width="1.2"/>',
            f'<text x="{middle:g}" y="{self.y + 22}" class="title">{escape(self.title)}</text>',
        ]
        for number, line in enumerate(self.lines):
            parts.append(f'<text x="{middle:g}" y="{self.y + 42 + 17 * number}" class="line">{escape(line)}</text>')
        return "\n".join(parts)


@dataclass(frozen=True)
class Note:
    """A text beside something."""

    text: str
    at: tuple[int, int]

    def svg(self) -> str:
        """The text as SVG."""
        return f'<text x="{self.at[0]}" y="{self.at[1]}" class="note">{escape(self.text)}</text>'


@dataclass(frozen=True)
class Arrow:
    """A line through points, with a label; dashed for what is read or told rather than sent."""

    points: tuple[tuple[int, int], ...]
    label: str = ""
    at: tuple[int, int] = (0, 0)
    dashed: bool = False

    def svg(self) -> str:
        """The arrow as SVG."""
        path = " L ".join(f"{x} {y}" for x, y in self.points)
        dash = ' stroke-dasharray="5 4"' if self.dashed else ""
        text = "\n" + Note(self.label, self.at).svg() if self.label else ""
        return f'<path d="M {path}" class="arrow" marker-end="url(#head)"{dash}/>{text}'


SHAPES: tuple[Box | Arrow | Note, ...] = (
    # who says what is wanted
    Box(20, 30, 150, 76, USER, "You", ("kubectl, Argo CD,", "Flux, Helm")),
    Arrow(((170, 68), (248, 68)), "apply", (209, 60)),
    Box(250, 30, 210, 76, USER, "ModelDeployment", ("spec: what you want", "status: what is")),
    Arrow(((460, 58), (538, 58)), "spec", (499, 50), dashed=True),
    Arrow(((540, 82), (462, 82)), "status", (501, 98)),
    Box(
        540,
        20,
        240,
        112,
        CONTROL,
        "Penstock operator",
        (
            "gather: live state, counters",
            "decide: one table of rules",
            "write: evidence, then status",
            "act: fenced, idempotent",
        ),
    ),
    Arrow(((780, 68), (828, 68))),
    Box(830, 30, 150, 76, CONTROL, "RolloutAnalysis", ("counters' cursors,", "state of the tests")),
    # how requests flow
    Box(20, 265, 150, 76, USER, "Callers", ("Open Inference", "Protocol, REST")),
    Arrow(((170, 303), (248, 303))),
    Box(250, 255, 210, 96, PLAIN, "Route", ("HTTPRoute m: exact weights,", "or Service m:", "the share of the pods")),
    Arrow(((460, 280), (538, 240)), "95 %", (485, 248)),
    Arrow(((460, 326), (538, 378)), "5 %", (487, 372)),
    Box(
        540,
        190,
        240,
        100,
        STABLE,
        "Stable: b8d4f7c2xk",
        ("Service, Deployment, ConfigMap", "ControllerRevision (frozen)", "pods: fetch + server, 4 of 4"),
    ),
    Box(
        540,
        330,
        240,
        100,
        CANARY,
        "Canary: d9kq52vwzm",
        ("Service, Deployment, ConfigMap", "ControllerRevision (frozen)", "pods: fetch + server, 1 of 1"),
    ),
    Arrow(((600, 132), (600, 188)), "makes", (624, 164)),
    Arrow(((560, 132), (430, 253)), "sets the weight", (432, 190)),
    # where evidence comes from
    Box(
        830,
        250,
        150,
        116,
        USER,
        "Counters",
        ("requests, latency,", "labels, per pod;", "scraped, or read", "from Prometheus"),
    ),
    Arrow(((780, 250), (828, 280)), "", dashed=True),
    Arrow(((780, 380), (828, 340)), "", dashed=True),
    Arrow(((905, 250), (905, 180), (740, 180), (740, 134)), "what the gates judge on", (824, 172), dashed=True),
    Box(540, 470, 240, 70, USER, "Models", ("http(s), s3, ConfigMap, PVC",)),
    Arrow(((660, 470), (660, 432)), "fetched, sha256 locked", (742, 456)),
    Box(20, 430, 150, 76, USER, "The truth, later", ("labels with", "prediction ids")),
    Arrow(
        ((170, 468), (500, 468), (500, 410), (538, 410)), "feedback to any pod: counts for the", (325, 460), dashed=True
    ),
    Note("revision that predicted", (325, 484)),
)


def picture() -> str:
    """The whole picture as SVG text."""
    shapes = "\n".join(shape.svg() for shape in SHAPES)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"
 width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{SPOKEN}">
<style>
text {{ font-family: system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: {INK}; text-anchor: middle; }}
.title {{ font-size: 15px; font-weight: 600; }}
.line {{ font-size: 12.5px; fill: {FAINT}; }}
.note {{ font-size: 12px; fill: {FAINT}; font-style: italic; }}
.arrow {{ fill: none; stroke: {INK}; stroke-width: 1.4; }}
</style>
<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7"
 orient="auto-start-reverse"><path d="M 0 0 L 10 5 L 0 10 z" fill="{INK}"/></marker></defs>
<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>
{shapes}
</svg>
"""


def main(arguments: list[str]) -> int:
    """Write, or check."""
    if arguments == ["--check"]:
        if not PICTURE.exists() or PICTURE.read_text() != picture():
            sys.stderr.write("docs/images/architecture.svg is out of date: run python docs/images/draw.py\n")
            return 1
        return 0
    PICTURE.write_text(picture())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
