"""A USRP through gr-uhd, opened, set and checked.

gr-uhd alone: ``import uhd`` beside it fails ("already registered"). No device is ever searched for; the
profile's arguments name it (:mod:`sdr_config.schema` refuses those that would broadcast).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gnuradio import gr, uhd

from blocks.burst_modulator import LENGTH_TAG
from flowgraphs.radio_settings import (
    RadioError,
    check_antenna,
    check_frequency,
    check_gain,
    check_rate,
    report_bandwidth,
    report_gain,
    short,
)
from sdr_config.schema import UhdPath, UhdRadio

_CHANNEL = 0


def uhd_sink(radio: UhdRadio, path: UhdPath, rate_hz: float) -> gr.basic_block:
    """A USRP's transmit side; raises RadioError as the front ends' door says."""
    device_args, stream_args = _arguments(radio)
    # With a length tag name the sink keys and unkeys the transmitter itself, burst by burst.
    sink = _open(radio, lambda: uhd.usrp_sink(device_args, stream_args, LENGTH_TAG))
    _set_up(sink, radio, path, rate_hz)
    return sink


def uhd_source(radio: UhdRadio, path: UhdPath, rate_hz: float) -> gr.basic_block:
    """A USRP's receive side; raises RadioError as the front ends' door says."""
    device_args, stream_args = _arguments(radio)
    source = _open(radio, lambda: uhd.usrp_source(device_args, stream_args))
    _set_up(source, radio, path, rate_hz)
    return source


def _arguments(radio: UhdRadio) -> tuple[str, uhd.stream_args]:
    device_args = radio.device_args
    if radio.master_clock_rate_hz is not None:
        # Several USRPs only take it when they are opened.
        device_args += f",master_clock_rate={radio.master_clock_rate_hz!r}"
    stream_args = uhd.stream_args(cpu_format="fc32", args=radio.stream_args, channels=[_CHANNEL])
    return device_args, stream_args


def _open(radio: UhdRadio, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except RuntimeError as error:
        raise RadioError(
            f"no USRP for radio.device_args {radio.device_args!r}: check power, cable, network address "
            f"and serial number (UHD says: {short(error)})"
        ) from error


def _set_up(device: Any, radio: UhdRadio, path: UhdPath, rate_hz: float) -> None:
    try:
        if radio.clock_source is not None:
            device.set_clock_source(radio.clock_source)
        if radio.time_source is not None:
            device.set_time_source(radio.time_source)
        if path.subdev:
            device.set_subdev_spec(path.subdev)
        device.set_samp_rate(rate_hz)
        check_rate(rate_hz, device.get_samp_rate())
        if path.antenna:
            check_antenna(path.antenna, device.get_antennas(_CHANNEL))
            device.set_antenna(path.antenna, _CHANNEL)
        gains = device.get_gain_range(_CHANNEL)
        check_gain(path.gain_db, gains.start(), gains.stop())
        device.set_gain(path.gain_db, _CHANNEL)
        report_gain(path.gain_db, device.get_gain(_CHANNEL))
        if path.bandwidth_hz is not None:
            device.set_bandwidth(path.bandwidth_hz, _CHANNEL)
            report_bandwidth(path.bandwidth_hz, device.get_bandwidth(_CHANNEL))
        device.set_center_freq(uhd.tune_request(path.frequency_hz, path.lo_offset_hz), _CHANNEL)
        check_frequency(path.frequency_hz, device.get_center_freq(_CHANNEL))
    except RadioError:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        raise RadioError(f"the USRP does not take a setting (UHD says: {short(error)})") from error
