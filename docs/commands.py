"""Hook of MkDocs: the options of every command, from the command line itself."""

from __future__ import annotations

from textwrap import dedent
from typing import Any

import typer

from deqfolio import app

PLACE = "<!-- the commands -->"


def on_page_markdown(text: str, **rest: Any) -> str:
    if PLACE not in text:
        return text
    group = typer.main.get_command(app)
    return text.replace(PLACE, "\n".join(_described(group, "deqfolio")))


def _described(command: Any, name: str) -> list[str]:
    if hasattr(command, "commands"):  # a group; typer brings a click of its own
        return [
            line
            for each, inner in command.commands.items()
            for line in _described(inner, f"{name} {each}")
        ]
    lines = [f"### {name}", "", *_paragraphs(command.help or ""), ""]
    given = [each for each in command.params if each.name not in ("help", None)]
    if given:
        lines += ["| argument or option | default | meaning |", "|---|---|---|"]
        lines += [f"| {_name(each)} | {_default(each)} | {_help(each)} |" for each in given]
    return [*lines, ""]


def _paragraphs(text: str) -> list[str]:
    """Its paragraphs; one that is TOML is shown as code."""
    found = []
    for paragraph in text.strip().split("\n\n"):
        code = paragraph.startswith("    ")
        found += ["", *(["```toml", dedent(paragraph), "```"] if code else [paragraph])]
    return found


def _name(each: Any) -> str:
    if each.param_type_name == "argument":
        return f"`{each.metavar or each.name.upper()}`"
    return f"`{each.opts[0]}`"


def _default(each: Any) -> str:
    empty = each.default is None or each.default == "" or each.default is False
    return "required" if each.required else "" if empty else f"`{each.default}`"


def _help(each: Any) -> str:
    return (getattr(each, "help", None) or "").replace("|", "\\|")
