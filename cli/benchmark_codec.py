"""``uoisc benchmark codec``: what the codec makes of a folder of photos, without a channel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import options
from cli.benchmark_common import make_table, print_table
from cli.output import make_console, print_json

if TYPE_CHECKING:
    from benchmarks.codec import CodecReport


def codec(
    data: Annotated[Path, typer.Option(help="A folder of photos, or one with a folder images.")],
    questions: Annotated[
        Path | None, typer.Option(help="JSON lines with image and question; else --query is asked.")
    ] = None,
    query: Annotated[
        str | None,
        typer.Option("--query", "-q", help="Asked about every photo; default: what is in it."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="So many rows at most, evenly spread.")
    ] = None,
    judge: Annotated[
        str, typer.Option(help="recognition, or the folder of a Llava checkpoint.")
    ] = "recognition",
    bits_per_pixel: options.BitsPerPixel = None,
    focus: options.Focus = None,
    search_steps: options.SearchSteps = 0,
    search_likeness: options.SearchLikeness = None,
    rates: Annotated[
        str | None,
        typer.Option(
            help="Bits per pixel to measure as well, by comma; none for none; by default the usual ones."
        ),
    ] = None,
    side: Annotated[
        int, typer.Option(min=88, max=1024, help="Photos are cropped to squares of so many pixels.")
    ] = 160,
    rivals: Annotated[
        str, typer.Option(help="Coders at the same bytes beside it, by comma; none for none.")
    ] = "jpeg2000",
    containers: Annotated[
        bool, typer.Option(help="Rivals also with their whole files counted.")
    ] = False,
    perceptual: Annotated[
        bool, typer.Option(help="Also SSIMULACRA 2 and FLIP (extra perceptual).")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    decode_for: options.DecodeFor = "fidelity",
    checkpoint: options.Checkpoint = None,
    device: options.Device = "auto",
    bf16: Annotated[bool, typer.Option(help="Decode in bfloat16; for GPUs.")] = False,
    compiled: Annotated[bool, typer.Option(help="Decode with torch.compile.")] = False,
    as_json: options.Json = False,
) -> None:
    """Rate, fidelity, codebook usage, a judge's agreement and speed over photos."""
    from semantic.asked_photos import DEFAULT_QUERY, read_photos
    from semantic.index_frame import check_query
    from semantic.systems.picture_coders import PICTURE_CODERS

    names = [] if rivals == "none" else rivals.split(",")
    for name in names:
        if name not in PICTURE_CODERS:
            raise typer.BadParameter(
                f"{name!r} is none of {', '.join(PICTURE_CODERS)}, none", param_hint="--rivals"
            )
    if query is not None and questions is not None:
        raise typer.BadParameter("give it or --questions, not both", param_hint="--query")
    asked = DEFAULT_QUERY if query is None else check_query(query)
    rows = read_photos(data, questions, asked, limit)

    from benchmarks.codec import benchmark_codec
    from semantic.codec.loader import EncoderSettings, load_codec, taught_by
    from semantic.judge import load_judge, refuse_same_judge

    console = make_console()
    with console.status("loading the codec and the judge") as status:
        loaded = load_codec(checkpoint, device, amp=bf16, compiled=compiled, decode_for=decode_for)
        judging = load_judge(judge, str(loaded.device))
        settings = EncoderSettings(
            bits_per_pixel=bits_per_pixel,
            focus=focus,
            search_steps=search_steps,
            search_likeness=search_likeness,
        )
        refuse_same_judge(judging, [taught_by(checkpoint), loaded.looking_at_itself(settings)])
        report = benchmark_codec(
            loaded,
            judging,
            rows,
            settings=settings,
            rates=loaded.usual_rates if rates is None else _numbers(rates),
            side=side,
            rivals=names,
            with_containers=containers,
            perceptual=perceptual,
            seed=seed,
            progress=lambda what, done, total: status.update(f"{what}: {done} of {total}"),
        )
    if as_json:
        print_json(report.to_json())
    else:
        print_report(report)


def _numbers(text: str) -> list[float]:
    if text == "none":
        return []
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"{text!r}: expected numbers by comma, or none", param_hint="--rates"
        ) from None


_COLUMNS = (
    ("bit/pixel", "bits_per_pixel", ".3f"),
    ("PSNR dB", "psnr_db", ".2f"),
    ("MS-SSIM", "ms_ssim", ".4f"),
    ("agrees", "judge_agreement", ".1%"),
    ("kappa", "judge_kappa", ".3f"),
    ("kappa, 95 %", "judge_kappa_ci95", ".2f"),
    ("nothing asked", "judge_agreement_without_query", ".1%"),
)


_PERCEPTUAL = (("SSIMULACRA 2", "ssimulacra2", ".1f"), ("FLIP", "flip", ".3f"))


def print_report(report: CodecReport) -> None:
    """A row for every rate and coder, and a line about how they came about."""
    from semantic.index_search import describe_search

    values = report.to_json()
    columns = [*_COLUMNS, *(one for one in _PERCEPTUAL if one[1] in values)]
    table = make_table(
        f"Codec {report.codec_id}, judge {report.judge}",
        "",
        *(label for label, *_ in columns),
        "codec ahead, dB",
        "codec ahead, kappa",
    )
    for rung in values["ladder"]:
        coders = {"codec": rung, **rung["rivals"]}
        coders |= {f"{name}, file": one for name, one in rung["rivals_in_containers"].items()}
        for name, one in coders.items():
            cells = ("n/a" if one is None else _text(one[key], form) for _, key, form in columns)
            table.add_row(name, *cells, *_ahead(one))
        table.add_section()
    print_table(table)
    usage, batch = values["codebook_usage"], report.batch_speed
    several = (
        ""
        if batch is None
        else f"; {batch.size} at a time {batch.encoded_per_s:.0f} encoded and {batch.decoded_per_s:.0f} "
        "decoded a second"
    )
    make_console(stderr=False).print(
        f"{report.photos} photos, {report.questions} questions, "
        f"{describe_search(report.search_steps, report.search_likeness)}; judge by chance "
        f"{values['judge_chance']:.1%} (grey picture {values['judge_chance_blank']:.1%}, another photo "
        f"{_text(values['judge_chance_unrelated'], '.1%')}); codebook usage {_text(usage, '.1%')}; p95 of "
        f"encoding {values['encode_p95_ms']:.0f} ms, of decoding {values['decode_p95_ms']:.0f} ms{several}; "
        f"{values['machine']['torch_threads']} threads",
        markup=False,
    )


def _ahead(one: dict[str, Any] | None) -> list[str]:
    """How far the codec is ahead of a rival, with 95 % intervals; empty for the codec itself."""
    cells = []
    for key in ("ahead_db", "ahead_kappa"):
        found = None if one is None else one.get(key)
        interval = "" if found is None else _text(found["ci95"], "+.2f")
        cells.append("" if found is None else f"{found['mean']:+.2f} ({interval})")
    return cells


def _text(value: Any, form: str) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, tuple):
        return " to ".join(format(part, form) for part in value)
    return format(value, form)
