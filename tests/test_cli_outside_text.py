"""Text from outside reaches the terminal as text: no markup, no control characters."""

from __future__ import annotations

import io
import sys

import pytest
from rich.table import Table

from cli.output import make_console, printable

HOSTILE = "is it [/b] [red]\x1b[2J\x1b]0;title\x07 \u202egnp.exe\u2028 :smile: \x9b31m"


def shown(monkeypatch: pytest.MonkeyPatch, thing: object) -> str:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    make_console(stderr=False).print(thing)
    return stream.getvalue()


def test_lines_and_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    for thing in (HOSTILE, table):
        text = shown(monkeypatch, thing)
        for bad in ("\x1b", "\x07", "\x9b", "\u202e", "\u2028"):
            assert bad not in text
        for kept in ("[/b]", "[red]", ":smile:", r"\x1b[2J", r"\u202e"):
            assert kept in text.replace("\n", "")


def test_other_scripts_stay() -> None:
    for text in ("Ist da ein Hund?", "犬はいますか", "هل هناك كلب؟", "👩‍🚀 ok", "a\tb\nc"):
        assert printable(text) == text
