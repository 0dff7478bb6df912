"""Radio front ends: from a profile to a gr-uhd or gr-soapy block that is set and checked.

Radios coerce silently: asked for a rate they cannot make they take another one and say nothing. So every
setting is read back. What would break the link (rate, frequency, antenna, a gain out of range) ends in one
:class:`RadioError` that says what was asked, what came and what to check; a gain or filter that was rounded
only costs quality and is logged.

gr-uhd alone: ``import uhd`` beside it fails ("already registered"). No device is ever searched for; the
profile's arguments name it (:mod:`sdr_config.schema` refuses those that would broadcast).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import pmt
from gnuradio import blocks as gr_blocks
from gnuradio import gr, soapy, uhd

from blocks.burst_modulator import LENGTH_TAG
from flowgraphs.radio_file import make_file_source
from sdr_config.schema import FileRadio, Profile, RadioPath, SoapyRadio, UhdPath, UhdRadio

_Path = TypeVar("_Path", bound=RadioPath)

_LOG = logging.getLogger(__name__)

_CHANNEL = 0
# A different rate looks like a sample rate offset; the receiver takes 40 ppm from the clocks alone.
_RATE_TOLERANCE = 2e-6
# Tuning steps are below 1 Hz on USRPs, below 1 kHz elsewhere; a refused frequency is off by far more.
_FREQUENCY_TOLERANCE_HZ = 2e3
_GAIN_TOLERANCE_DB = 1.0
_EMPTY_BURST_SAMPLES = 64


class RadioError(RuntimeError):
    """A radio that is not there, or cannot do what the profile asks; the message is one line."""


def make_sink(profile: Profile) -> gr.basic_block:
    """The transmit side of the profile's radio: complex samples in.

    Bursts carry the length tag of :class:`~blocks.burst_modulator.BurstModulator`.

    Raises:
        RadioError: no such device, no transmit side, or a setting that the device does not take.
    """
    radio = profile.radio
    if isinstance(radio, UhdRadio):
        return _uhd_sink(radio, _path(profile, "tx", radio.tx), profile.waveform.sample_rate_hz)
    if isinstance(radio, SoapyRadio):
        return _soapy_sink(radio, _path(profile, "tx", radio.tx), profile.waveform.sample_rate_hz)
    raise _no_radio(profile)


def make_source(profile: Profile) -> gr.basic_block:
    """The receive side of the profile's radio: complex samples out.

    Raises:
        RadioError: no such device, no receive side, or a setting that the device does not take.
        CaptureError: a recording that is not there or cannot be replayed.
    """
    radio = profile.radio
    if isinstance(radio, UhdRadio):
        return _uhd_source(radio, _path(profile, "rx", radio.rx), profile.waveform.sample_rate_hz)
    if isinstance(radio, SoapyRadio):
        return _soapy_source(radio, _path(profile, "rx", radio.rx), profile.waveform.sample_rate_hz)
    if isinstance(radio, FileRadio):
        return make_file_source(radio, profile.waveform)
    raise _no_radio(profile)


def _no_radio(profile: Profile) -> RadioError:
    return RadioError(
        f"profile {profile.name} has radio.kind {profile.radio.kind}, which is no radio: expected uhd "
        "or soapy (for a simulated channel use uoisc loopback)"
    )


def _path(profile: Profile, side: str, path: _Path | None) -> _Path:
    if path is None:
        raise RadioError(f"profile {profile.name} has no radio.{side}: this radio does not do that")
    return path


# --- UHD -----------------------------------------------------------------------------------------


def _uhd_sink(radio: UhdRadio, path: UhdPath, rate_hz: float) -> gr.basic_block:
    device_args, stream_args = _uhd_arguments(radio)
    # With a length tag name the sink keys and unkeys the transmitter itself, burst by burst.
    sink = _open_uhd(radio, lambda: uhd.usrp_sink(device_args, stream_args, LENGTH_TAG))
    _set_up_uhd(sink, radio, path, rate_hz)
    return sink


def _uhd_source(radio: UhdRadio, path: UhdPath, rate_hz: float) -> gr.basic_block:
    device_args, stream_args = _uhd_arguments(radio)
    source = _open_uhd(radio, lambda: uhd.usrp_source(device_args, stream_args))
    _set_up_uhd(source, radio, path, rate_hz)
    return source


def _uhd_arguments(radio: UhdRadio) -> tuple[str, uhd.stream_args]:
    device_args = radio.device_args
    if radio.master_clock_rate_hz is not None:
        # Several USRPs only take it when they are opened.
        device_args += f",master_clock_rate={radio.master_clock_rate_hz!r}"
    stream_args = uhd.stream_args(cpu_format="fc32", args=radio.stream_args, channels=[_CHANNEL])
    return device_args, stream_args


def _open_uhd(radio: UhdRadio, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except RuntimeError as error:
        raise RadioError(
            f"no USRP for radio.device_args {radio.device_args!r}: check power, cable, network address "
            f"and serial number (UHD says: {_short(error)})"
        ) from error


def _set_up_uhd(device: Any, radio: UhdRadio, path: UhdPath, rate_hz: float) -> None:
    try:
        if radio.clock_source is not None:
            device.set_clock_source(radio.clock_source)
        if radio.time_source is not None:
            device.set_time_source(radio.time_source)
        if path.subdev:
            device.set_subdev_spec(path.subdev)
        device.set_samp_rate(rate_hz)
        _check_rate(rate_hz, device.get_samp_rate())
        if path.antenna:
            _check_antenna(path.antenna, device.get_antennas(_CHANNEL))
            device.set_antenna(path.antenna, _CHANNEL)
        gains = device.get_gain_range(_CHANNEL)
        _check_gain(path.gain_db, gains.start(), gains.stop())
        device.set_gain(path.gain_db, _CHANNEL)
        _report_gain(path.gain_db, device.get_gain(_CHANNEL))
        if path.bandwidth_hz is not None:
            device.set_bandwidth(path.bandwidth_hz, _CHANNEL)
            _report_bandwidth(path.bandwidth_hz, device.get_bandwidth(_CHANNEL))
        device.set_center_freq(uhd.tune_request(path.frequency_hz, path.lo_offset_hz), _CHANNEL)
        _check_frequency(path.frequency_hz, device.get_center_freq(_CHANNEL))
    except RadioError:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        raise RadioError(f"the USRP does not take a setting (UHD says: {_short(error)})") from error


# --- SoapySDR ------------------------------------------------------------------------------------


def _soapy_sink(radio: SoapyRadio, path: RadioPath, rate_hz: float) -> gr.basic_block:
    sink = _open_soapy(soapy.sink, radio, path)
    _set_up_soapy(sink, path, rate_hz)
    sink.set_length_tag_name(LENGTH_TAG)
    _send_empty_burst(sink)
    return sink


def _send_empty_burst(sink: gr.basic_block) -> None:
    """Bring gr-soapy's burst counter to zero.

    GNU Radio 3.10.5 leaves it uninitialised: the sink then believes to be inside a burst ("tPtG" on the
    screen) and throws away what comes until there is a pause. It may as well throw away silence.
    """
    length = gr.tag_utils.python_to_tag(
        {
            "offset": 0,
            "key": pmt.intern(LENGTH_TAG),
            "value": pmt.from_long(_EMPTY_BURST_SAMPLES),
            "srcid": pmt.PMT_F,
        }
    )
    silence = gr_blocks.vector_source_c([0j] * _EMPTY_BURST_SAMPLES, False, 1, [length])
    top = gr.top_block("UO-ISC empty burst")
    top.connect(silence, sink)
    top.run()
    top.disconnect_all()


def _soapy_source(radio: SoapyRadio, path: RadioPath, rate_hz: float) -> gr.basic_block:
    source = _open_soapy(soapy.source, radio, path)
    _set_up_soapy(source, path, rate_hz)
    return source


def _open_soapy(make: Callable[..., Any], radio: SoapyRadio, path: RadioPath) -> Any:
    # The device arguments belong beside the driver: in their own place they do not choose a device,
    # and the first one of the driver's would be opened.
    device = ",".join(filter(None, (f"driver={radio.driver}", radio.device_args)))
    # SoapySDR's own way to move the local oscillator away from the signal.
    tune_args = f"OFFSET={path.lo_offset_hz!r}" if path.lo_offset_hz else ""
    try:
        return make(device, "fc32", 1, "", radio.stream_args, [tune_args], [""])
    except (RuntimeError, ValueError) as error:
        if tune_args and "OFFSET" in str(error):
            raise RadioError(
                f"lo_offset_hz is {path.lo_offset_hz:g}, but driver {radio.driver} cannot move its local "
                "oscillator: expected 0"
            ) from error
        raise RadioError(
            f"no SoapySDR device for {device!r}: check power and cable, radio.driver, "
            f"radio.device_args, and that the driver's module is installed (SoapySDR says: "
            f"{_short(error)})"
        ) from error


def _set_up_soapy(device: Any, path: RadioPath, rate_hz: float) -> None:
    try:
        device.set_sample_rate(_CHANNEL, rate_hz)
        _check_rate(rate_hz, device.get_sample_rate(_CHANNEL))
        if path.antenna:
            _check_antenna(path.antenna, device.list_antennas(_CHANNEL))
            device.set_antenna(_CHANNEL, path.antenna)
        if path.bandwidth_hz is not None:
            device.set_bandwidth(_CHANNEL, path.bandwidth_hz)
            _report_bandwidth(path.bandwidth_hz, device.get_bandwidth(_CHANNEL))
        device.set_frequency(_CHANNEL, path.frequency_hz)
        _check_frequency(path.frequency_hz, device.get_frequency(_CHANNEL))
        gains = device.get_gain_range(_CHANNEL)
        _check_gain(path.gain_db, gains.minimum(), gains.maximum())
        device.set_gain(_CHANNEL, path.gain_db)
        _report_gain(path.gain_db, device.get_gain(_CHANNEL))
    except RadioError:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        raise RadioError(
            f"the device does not take a setting (SoapySDR says: {_short(error)})"
        ) from error


# --- what came of a setting ------------------------------------------------------------------------


def _check_rate(asked_hz: float, came_hz: float) -> None:
    if not abs(came_hz - asked_hz) <= _RATE_TOLERANCE * asked_hz:
        raise RadioError(
            f"the radio makes {came_hz:.1f} samples per second of {asked_hz:.1f}: expected waveform."
            "symbol_rate_hz x waveform.samples_per_symbol to be a rate it can make exactly"
        )


def _check_frequency(asked_hz: float, came_hz: float) -> None:
    if not abs(came_hz - asked_hz) <= _FREQUENCY_TOLERANCE_HZ:
        raise RadioError(
            f"the radio tunes to {came_hz:.1f} Hz instead of {asked_hz:.1f}: expected frequency_hz "
            "within its range, and lo_offset_hz within its sample rate or bandwidth"
        )


def _check_antenna(asked: str, ports: tuple[str, ...] | list[str]) -> None:
    if asked not in ports:
        raise RadioError(
            f"the radio has no antenna port {asked!r}: expected one of {', '.join(ports)}"
        )


def _check_gain(asked_db: float, lowest_db: float, highest_db: float) -> None:
    if not lowest_db <= asked_db <= highest_db:
        raise RadioError(
            f"the radio has no gain of {asked_db:g} dB: expected gain_db from {lowest_db:g} to "
            f"{highest_db:g}"
        )


def _report_gain(asked_db: float, came_db: float) -> None:
    if not abs(came_db - asked_db) <= _GAIN_TOLERANCE_DB:
        _LOG.warning("gain: asked for %.1f dB, the radio took %.1f dB", asked_db, came_db)


def _report_bandwidth(asked_hz: float, came_hz: float) -> None:
    if not abs(came_hz - asked_hz) <= 0.01 * asked_hz:
        _LOG.warning("bandwidth: asked for %.0f Hz, the radio took %.0f Hz", asked_hz, came_hz)


def _short(error: Exception) -> str:
    """A driver's message on one line."""
    return " ".join(str(error).split())[:200]
