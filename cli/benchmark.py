"""``uoisc benchmark``: what the link can do, against theory and against its peers."""

from __future__ import annotations

import typer

from cli.benchmark_acquisition import acquisition
from cli.benchmark_codec import codec
from cli.benchmark_fading import fading
from cli.benchmark_intent import intent
from cli.benchmark_ldpc import ldpc
from cli.benchmark_losses import losses
from cli.benchmark_modem import modem
from cli.benchmark_per import per
from cli.benchmark_radio import radio
from cli.benchmark_relevance import relevance
from cli.benchmark_reliability import reliability
from cli.benchmark_sensitivity import sensitivity


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="Measure the link, against theory and against its peers.")
    group.command("acquisition")(acquisition)
    group.command("codec")(codec)
    group.command("fading")(fading)
    group.command("intent")(intent)
    group.command("ldpc")(ldpc)
    group.command("losses")(losses)
    group.command("modem")(modem)
    group.command("per")(per)
    group.command("radio")(radio)
    group.command("relevance")(relevance)
    group.command("reliability")(reliability)
    group.command("sensitivity")(sensitivity)
    app.add_typer(group, name="benchmark")
