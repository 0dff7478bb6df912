"""From a profile to what the encoder is told: budgets in symbols and time become bits, exactly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blocks.modem import waveform as wf
from blocks.modem.budget import air_symbols
from cli import errors
from cli.encoder_settings import settings_of
from cli.main import run
from sdr_config.load import ConfigError, load_profile
from semantic.codec.settings import Box
from semantic.demo_photos import photo_path
from semantic.index_frame import IndexFrameError

PHOTO = str(photo_path("chelsea"))


@pytest.mark.parametrize(("mcs", "symbols"), [(0, 5000), (4, 9000), (9, 20_000), (4, 61_234)])
def test_symbols_become_the_most_bits_that_fit(mcs: int, symbols: int) -> None:
    profile = load_profile("loopback", [f"transmitter.mcs={mcs}", f"codec.symbols={symbols}"])
    settings = settings_of(profile)
    assert settings.bits is not None
    assert air_symbols(settings.bits, mcs) <= symbols
    # One more byte per block would not.
    blocks = wf.plan_blocks(settings.bits, mcs).blocks
    assert air_symbols(settings.bits + 8 * blocks, mcs) > symbols - 200 * blocks
    assert settings.slice_bits == wf.max_info_bits(mcs) - wf.CODE_BLOCK_CRC_BITS


def test_time_counts_the_gaps() -> None:
    """A second at 1 Msym/s is a million symbols less the silence between bursts."""
    long = ["codec.air_time_ms=100", "transmitter.gap_symbols=4000", "transmitter.mcs=4"]
    found = settings_of(load_profile("loopback", long)).bits
    short = settings_of(load_profile("loopback", ["codec.symbols=100000"])).bits
    assert found is not None
    assert short is not None
    assert air_symbols(found, 4, gap_symbols=4000) <= 100_000 < air_symbols(short, 4) + 4 * 4000
    assert found < short


def test_keys_reach_the_encoder() -> None:
    overrides = ["codec.focus=0.3", "codec.max_side=200", "codec.base_copies=false"]
    settings = settings_of(load_profile("loopback", overrides))
    assert (settings.focus, settings.max_side, settings.base_copies) == (0.3, 200, False)
    settings = settings_of(load_profile("loopback"), ["1,2,3,4", "5,6,7,8"])
    assert settings.boxes == (Box(1, 2, 3, 4), Box(5, 6, 7, 8))
    assert settings.bits is None
    with pytest.raises(IndexFrameError, match="box"):
        settings_of(load_profile("loopback"), ["1,2,3"])


def test_one_budget_at_a_time() -> None:
    with pytest.raises(ConfigError, match="bits_per_pixel and symbols: expected one budget"):
        load_profile("loopback", ["codec.symbols=5000", "codec.bits_per_pixel=0.5"])


def test_the_air_takes_what_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        PHOTO,
        "--query",
        "Is this a cat?",
        "--snr-db",
        "15",
        "--max-side",
        "128",
        "--json",
    ]
    assert run(["loopback", *arguments, "--symbols", "4000"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert 3900 < values["symbols"] <= 4000
    assert values["status"] == "ok"
    assert values["psnr_db"] > 25
    assert 0 <= values["relevance_confidence"] <= 1
    assert values["language_known"] is True


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--symbols", "100"], "100 symbols on the air"),
        (["--bits-per-pixel", "0.001"], "the base layer alone takes"),
        (["--symbols", "5000", "--bits-per-pixel", "1"], "expected one budget"),
        (["--bits", "4000", "--symbols", "5000"], "expected one budget"),
        (["--box", "1,2,3"], "box"),
        (["--box", "0,0,9,9", "--focus", "1"], "expected one of them"),
        (["--bits", "7"], "bits: expected 8"),
        (["--bits-per-pixel", "0.00001"], "is not one byte"),
        (["--box", "5000,0,10,10"], "outside the picture"),
        (["--max-side", "8"], "max_side"),
        (["--search-steps", "3"], "has no search"),
    ],
)
def test_mistakes(
    options: list[str],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "frame.uoisc"
    code = run(["encode", PHOTO, "--query", "x", "-o", str(output), *options])
    assert code in (errors.EXIT_ERROR, errors.EXIT_USAGE)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert expected in line
    assert not output.exists()
