"""Any radio with a SoapySDR driver through gr-soapy, opened, set and checked."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pmt
from gnuradio import blocks as gr_blocks
from gnuradio import gr, soapy

from blocks.burst_modulator import LENGTH_TAG
from flowgraphs.radio_settings import (
    RadioError,
    SettingsReadBack,
    check_antenna,
    check_choice,
    check_clock_rate,
    check_frequency,
    check_gain,
    check_rate,
    nearest_ranges,
    optional,
    report_bandwidth,
    report_gain,
    setting,
    short,
)
from sdr_config.schema import RadioPath, SoapyRadio

_CHANNEL = 0
_EMPTY_BURST_SAMPLES = 64
_EMPTY_BURST_TIMEOUT_S = 10.0


def soapy_sink(radio: SoapyRadio, path: RadioPath, rate_hz: float) -> gr.basic_block:
    """The device's transmit side; raises RadioError as the front ends' door says."""
    sink = _open(soapy.sink, radio, path)
    _set_up(sink, radio, path, rate_hz)
    sink.set_length_tag_name(LENGTH_TAG)
    send_empty_burst(sink)
    return sink


def send_empty_burst(sink: gr.basic_block) -> None:
    """Bring gr-soapy's burst counter to zero.

    GNU Radio 3.10.5 leaves it uninitialised. Above zero the sink believes to be inside a burst ("tPtG" on
    the screen) and throws away what comes until there is a pause; it may as well throw away silence. Below
    zero it never takes anything again, and says "Soapy sink error" without end.

    Raises:
        RadioError: the silence was not taken.
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
    top.start()
    ended = threading.Thread(target=top.wait, daemon=True)
    ended.start()
    ended.join(_EMPTY_BURST_TIMEOUT_S)
    taken = not ended.is_alive()
    top.stop()
    ended.join()
    top.disconnect_all()
    if not taken:
        raise RadioError(
            f"the device took no samples for {_EMPTY_BURST_TIMEOUT_S:.0f} s: start again (GNU Radio's sink "
            "may have begun with a wrong count), then check power and cable"
        )


def soapy_source(radio: SoapyRadio, path: RadioPath, rate_hz: float) -> gr.basic_block:
    """The device's receive side; raises RadioError as the front ends' door says."""
    source = _open(soapy.source, radio, path)
    _set_up(source, radio, path, rate_hz)
    return source


def _open(make: Callable[..., Any], radio: SoapyRadio, path: RadioPath) -> Any:
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
            f"{short(error)})"
        ) from error


def _set_up(device: Any, radio: SoapyRadio, path: RadioPath, rate_hz: float) -> None:
    _set_clocks(device, radio)
    with setting(f"a rate of {rate_hz:.10g} Hz", lambda: _rates(device, rate_hz)):
        device.set_sample_rate(_CHANNEL, rate_hz)
        check_rate(rate_hz, device.get_sample_rate(_CHANNEL), _rates(device, rate_hz))
    if path.antenna:
        check_antenna(path.antenna, device.list_antennas(_CHANNEL))
        with setting(
            f"antenna {path.antenna!r}", lambda: ", ".join(device.list_antennas(_CHANNEL))
        ):
            device.set_antenna(_CHANNEL, path.antenna)
    if path.bandwidth_hz is not None:
        with setting(f"a bandwidth of {path.bandwidth_hz:.10g} Hz"):
            device.set_bandwidth(_CHANNEL, path.bandwidth_hz)
            report_bandwidth(path.bandwidth_hz, device.get_bandwidth(_CHANNEL))
    wanted_hz = path.frequency_hz
    with setting(f"{wanted_hz:.10g} Hz", lambda: _frequencies(device, wanted_hz)):
        device.set_frequency(_CHANNEL, wanted_hz)
        check_frequency(wanted_hz, device.get_frequency(_CHANNEL), _frequencies(device, wanted_hz))
    with setting(f"a gain of {path.gain_db:g} dB"):
        gains = device.get_gain_range(_CHANNEL)
        check_gain(path.gain_db, gains.minimum(), gains.maximum())
        device.set_gain(_CHANNEL, path.gain_db)
        report_gain(path.gain_db, device.get_gain(_CHANNEL))


def _set_clocks(device: Any, radio: SoapyRadio) -> None:
    if radio.master_clock_rate_hz is not None:
        with setting(f"a master clock of {radio.master_clock_rate_hz:.10g} Hz"):
            device.set_master_clock_rate(radio.master_clock_rate_hz)
            check_clock_rate(radio.master_clock_rate_hz, device.get_master_clock_rate())
    if radio.clock_source is not None:
        check_choice("clock source", radio.clock_source, device.list_clock_sources())
        with setting(f"clock source {radio.clock_source!r}"):
            device.set_clock_source(radio.clock_source)
    if radio.time_source is not None:
        check_choice("time source", radio.time_source, device.list_time_sources())
        with setting(f"time source {radio.time_source!r}"):
            device.set_time_source(radio.time_source)


def read_soapy(device: Any) -> SettingsReadBack:
    """What a source or sink of :func:`soapy_source` or :func:`soapy_sink` says it does."""
    return SettingsReadBack(
        rate_hz=device.get_sample_rate(_CHANNEL),
        frequency_hz=device.get_frequency(_CHANNEL),
        gain_db=device.get_gain(_CHANNEL),
        antenna=device.get_antenna(_CHANNEL),
        bandwidth_hz=optional(lambda: float(device.get_bandwidth(_CHANNEL))),
        clock_source=optional(lambda: str(device.get_clock_source())),
        time_source=optional(lambda: str(device.get_time_source())),
    )


def _rates(device: Any, wanted_hz: float) -> str:
    return nearest_ranges(wanted_hz, _pairs(device.get_sample_rate_range(_CHANNEL)))


def _frequencies(device: Any, wanted_hz: float) -> str:
    return nearest_ranges(wanted_hz, _pairs(device.get_frequency_range(_CHANNEL)))


def _pairs(ranges: Any) -> list[tuple[float, float]]:
    return [(one.minimum(), one.maximum()) for one in ranges]
