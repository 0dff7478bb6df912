"""A USRP through gr-uhd, opened, set and checked.

gr-uhd alone: ``import uhd`` beside it fails ("already registered"). No device is ever searched for; the
profile's arguments name it (:mod:`sdr_config.schema` refuses those that would broadcast).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from gnuradio import gr, uhd

from blocks.burst_modulator import LENGTH_TAG
from flowgraphs.radio_settings import (
    RadioError,
    SettingsReadBack,
    check_antenna,
    check_choice,
    check_clock_rate,
    check_frequency,
    check_gain,
    check_lock,
    check_rate,
    optional,
    report_bandwidth,
    report_gain,
    setting,
    short,
)
from sdr_config.schema import UhdPath, UhdRadio

_CHANNEL = 0
_BOARD = 0
_LOCK_WAIT_S = 2.0
_LOCK_POLL_S = 0.1


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
    # The daughterboard first: everything else is about what it can do.
    if path.subdev:
        with setting(f"subdev {path.subdev!r}"):
            device.set_subdev_spec(path.subdev)
    _set_clocks(device, radio)
    with setting(f"a rate of {rate_hz:.10g} Hz", lambda: _rates(device, rate_hz)):
        device.set_samp_rate(rate_hz)
        check_rate(rate_hz, device.get_samp_rate(), _rates(device, rate_hz))
    if path.antenna:
        check_antenna(path.antenna, device.get_antennas(_CHANNEL))
        with setting(f"antenna {path.antenna!r}", lambda: ", ".join(device.get_antennas(_CHANNEL))):
            device.set_antenna(path.antenna, _CHANNEL)
    with setting(f"a gain of {path.gain_db:g} dB"):
        gains = device.get_gain_range(_CHANNEL)
        check_gain(path.gain_db, gains.start(), gains.stop())
        device.set_gain(path.gain_db, _CHANNEL)
        report_gain(path.gain_db, device.get_gain(_CHANNEL))
    if path.bandwidth_hz is not None:
        with setting(f"a bandwidth of {path.bandwidth_hz:.10g} Hz"):
            device.set_bandwidth(path.bandwidth_hz, _CHANNEL)
            report_bandwidth(path.bandwidth_hz, device.get_bandwidth(_CHANNEL))
    wanted_hz = path.frequency_hz
    with setting(f"{wanted_hz:.10g} Hz", lambda: _frequencies(device)):
        device.set_center_freq(uhd.tune_request(wanted_hz, path.lo_offset_hz), _CHANNEL)
        check_frequency(wanted_hz, device.get_center_freq(_CHANNEL), _frequencies(device))


def _set_clocks(device: Any, radio: UhdRadio) -> None:
    if radio.clock_source is not None:
        check_choice("clock source", radio.clock_source, device.get_clock_sources(_BOARD))
        with setting(f"clock source {radio.clock_source!r}"):
            device.set_clock_source(radio.clock_source, _BOARD)
            _wait_for_lock(device, radio.clock_source)
    if radio.time_source is not None:
        check_choice("time source", radio.time_source, device.get_time_sources(_BOARD))
        with setting(f"time source {radio.time_source!r}"):
            device.set_time_source(radio.time_source, _BOARD)
    if radio.master_clock_rate_hz is not None:
        with setting(f"a master clock of {radio.master_clock_rate_hz:.10g} Hz"):
            if device.get_clock_rate(_BOARD) != radio.master_clock_rate_hz:
                device.set_clock_rate(radio.master_clock_rate_hz, _BOARD)
            check_clock_rate(radio.master_clock_rate_hz, device.get_clock_rate(_BOARD))


def _wait_for_lock(device: Any, source: str) -> None:
    """A reference takes a moment to be found; a radio without the sensor is taken at its word."""
    if source == "internal":
        return
    sensor = "mimo_locked" if source == "mimo" else "ref_locked"
    if sensor not in device.get_mboard_sensor_names(_BOARD):
        return
    deadline_s = time.monotonic() + _LOCK_WAIT_S
    while not (locked := device.get_mboard_sensor(sensor, _BOARD).to_bool()):
        if time.monotonic() > deadline_s:
            break
        time.sleep(_LOCK_POLL_S)
    check_lock(source, locked)


def read_uhd(device: Any) -> SettingsReadBack:
    """What a source or sink of :func:`uhd_source` or :func:`uhd_sink` says it does."""
    return SettingsReadBack(
        rate_hz=device.get_samp_rate(),
        frequency_hz=device.get_center_freq(_CHANNEL),
        gain_db=device.get_gain(_CHANNEL),
        antenna=device.get_antenna(_CHANNEL),
        bandwidth_hz=optional(lambda: float(device.get_bandwidth(_CHANNEL))),
        clock_source=optional(lambda: str(device.get_clock_source(_BOARD))),
        time_source=optional(lambda: str(device.get_time_source(_BOARD))),
    )


def _rates(device: Any, wanted_hz: float) -> str:
    rates = device.get_samp_rates()
    # gr-uhd shows the ends of what may be a long list, and finds what is next to a value in it.
    nearest_hz = rates.clip(wanted_hz, True)
    return f"{nearest_hz:.10g} Hz, of {rates.start():.10g} to {rates.stop():.10g} Hz"


def _frequencies(device: Any) -> str:
    frequencies = device.get_freq_range(_CHANNEL)
    return f"{frequencies.start():.10g} to {frequencies.stop():.10g} Hz"
