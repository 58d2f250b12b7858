"""Placeholders of a runtime's pod template: `$(model.name)`, rendered in string leaves only.

A template is never rendered as text that becomes YAML, so that no value can add structure. A bare
upper-case name such as `$(POD_IP)` is Kubernetes' own and stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

_KUBERNETES_OWN = re.compile(r"\$\(([A-Z][A-Z0-9_]*)\)")


class TemplateError(ValueError):
    """A placeholder that cannot be filled; the message names it and where it stands."""


_ENVIRONMENT = ImmutableSandboxedEnvironment(
    variable_start_string="$(",
    variable_end_string=")",
    block_start_string="\x00[",
    block_end_string="\x00]",
    comment_start_string="\x00#",
    comment_end_string="#\x00",
    undefined=jinja2.StrictUndefined,
    autoescape=False,
)


def render(tree: Any, values: Mapping[str, Any], where: str = "template") -> Any:
    """The tree with the placeholders of its string leaves filled; keys and other leaves are untouched.

    Raises TemplateError for an unknown placeholder or a syntax error.
    """
    match tree:
        case str() if "$(" in tree:
            return _render_leaf(tree, values, where)
        case dict():
            return {key: render(value, values, f"{where}.{key}") for key, value in tree.items()}
        case list():
            return [render(value, values, f"{where}[{index}]") for index, value in enumerate(tree)]
        case _:
            return tree


def _render_leaf(text: str, values: Mapping[str, Any], where: str) -> str:
    kept: list[str] = []

    def keep(match: re.Match[str]) -> str:
        kept.append(match.group(0))
        return f"\x00{len(kept) - 1}\x00"

    shielded = _KUBERNETES_OWN.sub(keep, text)
    try:
        rendered = _ENVIRONMENT.from_string(shielded).render(values)
    except jinja2.TemplateError as error:
        raise TemplateError(f"{where}: {text!r} cannot be rendered: {error.message}") from error
    return re.sub(r"\x00(\d+)\x00", lambda m: kept[int(m.group(1))], rendered)
