"""The blocks of the link as a profile wants them: shared by transmitter, receiver and loopback."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from blocks.burst_modulator import BurstModulator
from blocks.burst_receiver import BurstReceiver
from blocks.index_sink import IndexSink
from blocks.index_source import IndexSource
from flowgraphs.addresses import named_addresses
from flowgraphs.keys import profile_keys
from sdr_config.schema import RECEIVER_SAMPLES_PER_SYMBOL, HardwareRadio, Profile
from semantic.index_frame import FrameGeometry
from semantic.link_statistics import LinkStatistics


def make_index_source(profile: Profile) -> IndexSource:
    """Socket that frames to send arrive at; raises AddressError where it is in use."""
    sockets = profile.zmq
    with named_addresses({"zmq.frames_in": sockets.frames_in}):
        return IndexSource(sockets.frames_in, sockets.high_water_mark, keys=profile_keys(profile))


def make_modulator(profile: Profile) -> BurstModulator:
    """Frames to bursts at the profile's rate, level and burst length."""
    return BurstModulator(
        mcs=profile.transmitter.mcs,
        samples_per_symbol=profile.waveform.samples_per_symbol,
        amplitude=profile.waveform.amplitude,
        gap_symbols=profile.transmitter.gap_symbols,
        max_burst_symbols=profile.transmitter.max_burst_symbols,
    )


def make_burst_receiver(
    profile: Profile, when_full: Literal["block", "drop"], settle_s: float | None = None
) -> BurstReceiver:
    """Samples to code blocks.

    Args:
        profile: waveform and receiver; its radio says for how long it settles.
        when_full: whether the flowgraph can wait.
        settle_s: seconds at the start that are passed over, instead of the radio's.
    """
    return BurstReceiver(
        symbol_rate_hz=profile.waveform.symbol_rate_hz,
        ring_samples=profile.receiver.ring_samples,
        when_full=when_full,
        max_iterations=profile.receiver.max_iterations,
        settle_samples=_settle_samples(profile, settle_s),
    )


def _settle_samples(profile: Profile, settle_s: float | None) -> int:
    if settle_s is None:
        settle_s = settle_time_s(profile)
    return round(settle_s * profile.waveform.symbol_rate_hz * RECEIVER_SAMPLES_PER_SYMBOL)


def settle_time_s(profile: Profile) -> float:
    """Seconds at the start of a stream that a receiver passes over."""
    return profile.radio.settle_s if isinstance(profile.radio, HardwareRadio) else 0.0


def make_index_sink(
    profile: Profile,
    geometries: Iterable[FrameGeometry],
    statistics: LinkStatistics,
    frame_timeout_s: float | None,
    *,
    untaken_is_lost: bool = True,
) -> IndexSink:
    """Code blocks to frames on the profile's sockets; raises AddressError where one is in use."""
    sockets = profile.zmq
    addresses = {"zmq.pictures_out": sockets.pictures_out, "zmq.watch_out": sockets.watch_out}
    with named_addresses(addresses):
        return IndexSink(
            sockets.pictures_out,
            sockets.watch_out,
            geometries,
            statistics,
            frame_timeout_s=frame_timeout_s,
            high_water_mark=sockets.high_water_mark,
            send_timeout_ms=sockets.send_timeout_ms,
            keys=profile_keys(profile),
            untaken_is_lost=untaken_is_lost,
        )
