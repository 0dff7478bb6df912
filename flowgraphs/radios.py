"""Radio front ends: from a profile to the source or sink of its kind, one door for all of them."""

from __future__ import annotations

from typing import TypeVar

from gnuradio import gr

from flowgraphs.radio_file import make_file_source
from flowgraphs.radio_settings import RadioError, SettingsReadBack
from flowgraphs.radio_soapy import read_soapy, soapy_sink, soapy_source
from flowgraphs.radio_uhd import read_uhd, uhd_sink, uhd_source
from flowgraphs.radio_zmq import make_zmq_sink, make_zmq_source
from sdr_config.schema import FileRadio, Profile, RadioPath, SoapyRadio, UhdRadio, ZmqRadio

__all__ = ["RadioError", "make_sink", "make_source", "read_settings"]

_Path = TypeVar("_Path", bound=RadioPath)


def make_sink(profile: Profile) -> gr.basic_block:
    """The transmit side of the profile's radio: complex samples in.

    Bursts carry the length tag of :class:`~blocks.burst_modulator.BurstModulator`.

    Raises:
        RadioError: no such device, no transmit side, or a setting that the device does not take.
    """
    radio = profile.radio
    if isinstance(radio, UhdRadio):
        return uhd_sink(radio, _path(profile, "tx", radio.tx), profile.waveform.sample_rate_hz)
    if isinstance(radio, SoapyRadio):
        return soapy_sink(radio, _path(profile, "tx", radio.tx), profile.waveform.sample_rate_hz)
    if isinstance(radio, ZmqRadio):
        return make_zmq_sink(profile, radio)
    raise _no_radio(profile)


def make_source(profile: Profile) -> gr.basic_block:
    """The receive side of the profile's radio: complex samples out.

    Raises:
        RadioError: no such device, no receive side, or a setting that the device does not take.
        CaptureError: a recording that is not there or cannot be replayed.
    """
    radio = profile.radio
    if isinstance(radio, UhdRadio):
        return uhd_source(radio, _path(profile, "rx", radio.rx), profile.waveform.sample_rate_hz)
    if isinstance(radio, SoapyRadio):
        return soapy_source(radio, _path(profile, "rx", radio.rx), profile.waveform.sample_rate_hz)
    if isinstance(radio, ZmqRadio):
        return make_zmq_source(profile, radio)
    if isinstance(radio, FileRadio):
        return make_file_source(radio, profile.waveform)
    raise _no_radio(profile)


def read_settings(profile: Profile, radio: gr.basic_block) -> SettingsReadBack | None:
    """What a radio of :func:`make_sink` or :func:`make_source` says it does; None where it says nothing."""
    if isinstance(profile.radio, UhdRadio):
        return read_uhd(radio)
    if isinstance(profile.radio, SoapyRadio):
        return read_soapy(radio)
    return None


def _no_radio(profile: Profile) -> RadioError:
    return RadioError(
        f"profile {profile.name} has radio.kind {profile.radio.kind}, which is no radio: expected uhd, "
        "soapy or zmq (for a simulated channel use uoisc loopback)"
    )


def _path(profile: Profile, side: str, path: _Path | None) -> _Path:
    if path is None:
        raise RadioError(f"profile {profile.name} has no radio.{side}: this radio does not do that")
    return path
