"""The live picture, drawn with rich from a Frame. Pure: the same frame gives the same picture."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from e2e.demo.frame import Arm, Frame, Gate
from penstock.api.status import Phase, Verdict

PHASE_STYLE = {
    Phase.HEALTHY: "bold green",
    Phase.PROGRESSING: "bold cyan",
    Phase.DEGRADED: "bold yellow",
    Phase.PAUSED: "bold magenta",
    Phase.PENDING: "dim",
}
VERDICT_STYLE = {
    Verdict.PASS: "bold green",
    Verdict.FAIL: "bold red",
    Verdict.CANNOT_MEASURE: "bold magenta",
    Verdict.INSUFFICIENT_DATA: "yellow",
}


def draw(frame: Frame, width: int) -> RenderableType:
    """The picture for a terminal of `width` columns."""
    parts: list[RenderableType] = [_head(frame), _arms(frame, width)]
    if frame.gates:
        parts.append(_gates(frame, max(4, min(16, (width - 72) // 2))))
    if frame.trouble:
        parts.append(Text(f"cannot see the cluster: {frame.trouble}", style="bold magenta"))
    elif frame.message:
        parts.append(Text(frame.message, style="italic"))
    return Panel(Group(*parts), title=frame.title, title_align="left", border_style="blue")


def _head(frame: Frame) -> RenderableType:
    text = Text()
    text.append(f"{frame.phase}", style=PHASE_STYLE.get(Phase(frame.phase), ""))
    if frame.stage:
        text.append(f"  {frame.stage}", style="cyan")
    if frame.step:
        text.append(f"  step {frame.step}")
    text.append(f"   chapter {clock(frame.chapter_elapsed)}, story {clock(frame.elapsed)}", style="dim")
    if frame.sent:
        text.append(f"   {frame.rate:.0f} requests/s, {frame.sent:,} sent, ")
        text.append(f"{frame.failed} failed", style="red" if frame.failed else "green")
    return text


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _arms(frame: Frame, width: int) -> RenderableType:
    table = Table(box=None, padding=(0, 1), show_header=True, header_style="dim")
    for name, right in (("", False), ("model", False), ("pods", True), ("right", True), ("p50", True)):
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    table.add_column("traffic", no_wrap=True)
    _add_arm(table, "stable", frame.stable, 100 - frame.weight, width)
    _add_arm(table, "canary", frame.canary, frame.weight, width)
    return table


def _add_arm(table: Table, name: str, arm: Arm | None, weight: int, width: int) -> None:
    if arm is None:
        table.add_row(name, Text("-", style="dim"), "", "", "", "")
        return
    color = "green" if name == "stable" else "yellow"
    has_room = width >= 100
    share = f" (seen {arm.share:.0%})" if has_room and arm.share is not None else ""
    cells = max(8, min(40, width - (84 if has_room else 72)))
    table.add_row(
        name,
        f"{arm.version} {arm.revision}",
        arm.ready,
        "-" if arm.accuracy is None else f"{arm.accuracy:.1%}",
        "-" if arm.p50_ms is None else f"{arm.p50_ms:.1f} ms",
        Text.assemble((bar(weight / 100, cells), color), f" {weight:3d} %{share}"),
    )


def bar(share: float, cells: int) -> str:
    """A bar of `cells` characters of which a share (0 to 1) is full; any share above 0 shows."""
    share = min(max(share, 0.0), 1.0)
    full = max(round(share * cells), 1 if share else 0)
    return "█" * full + "·" * (cells - full)


def _gates(frame: Frame, cells: int) -> RenderableType:
    table = Table(box=None, padding=(0, 1), show_header=True, header_style="dim")
    for name in ("gate", "verdict", "canary worse", "canary not worse", "counted"):
        table.add_column(name, no_wrap=True)
    for gate in frame.gates:
        table.add_row(
            gate.name,
            Text(gate.verdict, style=VERDICT_STYLE.get(Verdict(gate.verdict), "")),
            evidence(gate.log_fail, gate.needs_fail, cells, "red"),
            evidence(gate.log_pass, gate.needs_pass, cells, "green"),
            counted(gate),
        )
    return table


def evidence(log_e: float, needs: float, cells: int, color: str) -> Text:
    """Evidence against what it needs: a bar that is full when it decides, and both numbers."""
    return Text.assemble((bar(log_e / needs, cells), color), f" {max(log_e, 0.0):.1f}/{needs:.1f}")


def counted(gate: Gate) -> str:
    """How many trials the evidence stands on."""
    return f"{gate.canary_n:,} vs {gate.stable_n:,}"
