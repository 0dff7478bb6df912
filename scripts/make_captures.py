"""Make the small recordings in captures/shipped anew, and what a replay of them is expected to say.

    .venv/bin/python scripts/make_captures.py [--encode] [--virtual-radio] [--output FOLDER]

The same seeds give the same samples, on one machine to the last byte. The index frames that are sent lie
beside the recordings and are sent again; with --encode they are made anew from the demo's photos.

The recording virtual_radio is a live one, from the tests' virtual radio in real time: made again it is never
the same to the byte, because what comes first and where the overflow falls depends on the machine's
scheduling. It stays as it is unless --virtual-radio asks for it (g++ and libsoapysdr-dev build the driver).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from captures.library import SHIPPED_FOLDER
from captures.recording import Recording, metadata_path, open_recording
from captures.sent_frames import SentFrame, gather_sent, known_geometries, load_sent, sent_folder
from captures.writer import RecordingWriter
from cli.output import print_text
from cli.replay import expected_values
from flowgraphs.recorder import record_loopback, recording_header
from sdr_config.load import load_profile

_REPOSITORY = SHIPPED_FOLDER.parent.parent
# The virtual radio and its profile belong to the tests, which are not installed.
sys.path.insert(0, str(_REPOSITORY))
# Nobody's clock: a recording of a simulated channel has no date.
_STARTED = datetime(2026, 1, 1, tzinfo=UTC)
_ANY_PORT = "tcp://127.0.0.1:*"
_COMMON = (
    "waveform.samples_per_symbol=2",
    "waveform.amplitude=0.1",
    *(f"zmq.{key}={_ANY_PORT}" for key in ("frames_in", "pictures_out", "watch_out")),
)


@dataclass(frozen=True)
class ShippedRecording:
    """One of them.

    Args:
        name: file name without ending.
        description: one sentence.
        photos: of the demo, and the number of the question to each.
        bits_per_pixel: of the pictures.
        overrides: of profile loopback.
        loss: samples lost, first and count; a radio chooses the first itself.
    """

    name: str
    description: str
    photos: Sequence[tuple[str, int]]
    bits_per_pixel: float
    overrides: Sequence[str]
    loss: tuple[int, int] | None = None


RECORDINGS = (
    ShippedRecording(
        "clean",
        "two pictures at 15 dB with offsets of carrier and clock",
        (("chelsea", 0), ("astronaut", 1)),
        1.0,
        ("transmitter.mcs=4", "channel.snr_db=15", "channel.cfo_hz=3e3", "channel.sro_ppm=8"),
    ),
    ShippedRecording(
        "fading_gap",
        "four pictures over Rayleigh fading, a stretch of samples lost in the second",
        (("chelsea", 1), ("coffee", 0), ("rocket", 0), ("astronaut", 0)),
        0.5,
        (
            *("transmitter.mcs=2", "transmitter.max_burst_symbols=8000"),
            *("channel.snr_db=9", "channel.fading=rayleigh", "channel.cfo_hz=-5e3"),
            *("channel.sro_ppm=-12", "channel.seed=3"),
        ),
        (52_000, 2000),
    ),
)

# 100 ksps, the least that the driver makes: 1 MB is two and a half seconds.
VIRTUAL_RADIO = ShippedRecording(
    "virtual_radio",
    "three pictures through gr-soapy and the virtual radio, an overflow in the second",
    (("chelsea", 1), ("coffee", 0), ("rocket", 0)),
    0.5,
    (
        *("waveform.symbol_rate_hz=50e3", "waveform.samples_per_symbol=2"),
        "transmitter.mcs=2",
    ),
    (0, 3000),
)
_VIRTUAL_DEVICE = ("noise_dbfs=-22", "cfo_hz=900", "overflow_burst=2", "tx_latency_s=0.4")
_MOST_BYTES = 1_000_000


def main() -> None:
    """Make all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encode", action="store_true", help="make the index frames anew")
    parser.add_argument(
        "--virtual-radio", action="store_true", help="make the live recording anew, and no other"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=SHIPPED_FOLDER,
        help="folder for them, captures/shipped if not given",
    )
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if options.virtual_radio:
        load_driver()
    for recording in (VIRTUAL_RADIO,) if options.virtual_radio else RECORDINGS:
        path = make(recording, options.encode, options.output)
        size = path.with_suffix(".sigmf-data").stat().st_size
        print_text(f"{path.name}: {size} bytes of samples")


def load_driver() -> None:
    """Build the tests' virtual radio and make SoapySDR know it.

    Raises:
        SystemExit: what it takes is not there.
    """
    from tests.virtual_radio import build

    if (missing := build.why_not()) is not None:
        raise SystemExit(f"{missing}: the virtual radio cannot be built")
    build.load(build.build(_REPOSITORY / ".cache/virtual_radio"))


def make(shipped: ShippedRecording, encode: bool, output: Path = SHIPPED_FOLDER) -> Path:
    """One recording with its frames and expectations; the old one goes when the new one is whole."""
    final = metadata_path(output / shipped.name)
    old_frames = sent_folder(metadata_path(SHIPPED_FOLDER / shipped.name))
    frames = (
        encode_photos(shipped) if encode or not old_frames.is_dir() else gather_sent([old_frames])
    )
    with tempfile.TemporaryDirectory(dir=output.resolve().parent) as folder:
        make_one = record_virtual_radio if shipped is VIRTUAL_RADIO else record
        recording = make_one(shipped, frames, Path(folder))
        write_expectations(recording)
        for path in (final, final.with_suffix(".sigmf-data"), expectations_path(final)):
            path.unlink(missing_ok=True)
        shutil.rmtree(sent_folder(final), ignore_errors=True)
        for path in Path(folder).iterdir():
            path.replace(output / path.name)
    return final


def encode_photos(shipped: ShippedRecording) -> list[SentFrame]:
    """The photos as index frames of the embedded codec."""
    from semantic.codec.settings import EncoderSettings
    from semantic.codec.vq_codec import load_vq_codec
    from semantic.demo_photos import describe_photo, load_photo

    codec = load_vq_codec()
    frames = []
    for number, (name, question) in enumerate(shipped.photos, start=1):
        picture = load_photo(name, codec.image_size)
        query = describe_photo(name).questions[question]
        settings = EncoderSettings(bits_per_pixel=shipped.bits_per_pixel)
        frames.append(SentFrame(codec.encode(picture, query, settings, number)))
    return frames


def record(shipped: ShippedRecording, frames: Sequence[SentFrame], folder: Path) -> Recording:
    """Send the frames and record what arrives."""
    profile = load_profile("loopback", [*_COMMON, *shipped.overrides])
    header = recording_header(profile, "ci16_le", started=_STARTED, description=shipped.description)
    writer = RecordingWriter(folder / shipped.name, header, frames)
    record_loopback(profile, known_geometries(frames), frames, writer, shipped.loss)
    return open_recording(writer.path)


def record_virtual_radio(
    shipped: ShippedRecording, frames: Sequence[SentFrame], folder: Path
) -> Recording:
    """Send the frames over the virtual radio and record what arrives.

    Raises:
        SystemExit: the machine was too busy for a recording of this size, or one with a single gap.
    """
    from tests.radio_link import air, virtual_profile
    from tests.radio_recording import record_over_the_air

    assert shipped.loss is not None
    with air("captures") as name:
        device = (*_VIRTUAL_DEVICE, f"overflow_samples={shipped.loss[1]}")
        profile = virtual_profile("soapy", name, device, shipped.overrides)
        live = record_over_the_air(profile, folder / shipped.name, frames, shipped.description)
    recording = live.recording
    size = recording.data_path.stat().st_size
    lost = [gap.lost for gap in recording.gaps]
    if size > _MOST_BYTES or lost != [shipped.loss[1]]:
        raise SystemExit(f"{size} bytes, samples lost {lost}: try again when the machine is idle")
    return recording


def expectations_path(path: Path) -> Path:
    """The expectations beside a recording."""
    return path.with_name(path.name.removesuffix(".sigmf-meta") + ".expected.json")


def write_expectations(recording: Recording) -> None:
    """What a replay says, without what depends on time and place."""
    values = expected_values(recording, load_sent(recording))
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    expectations_path(recording.path).write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
