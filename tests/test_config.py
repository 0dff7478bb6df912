"""Profiles load; every kind of mistake is one line with file, key, value and what was expected."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.modem import waveform
from blocks.modem.burst import build_bursts
from blocks.modem.pulse import shaping_taps
from sdr_config import schema
from sdr_config.load import ConfigError, load_profile, shipped_profiles
from sdr_config.reference import reference_markdown
from sdr_config.schema import Profile, SoapyRadio, UhdRadio

REPOSITORY = Path(__file__).resolve().parent.parent


def error_of(profile: str | Path, *overrides: str) -> str:
    """The message of the ConfigError that loading ends in, checked to be one line."""
    with pytest.raises(ConfigError) as caught:
        load_profile(profile, overrides)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 500
    return message


def test_shipped_profiles_load() -> None:
    radios = {"usrp", "usrp_b210", "usrp_n210", "usrp_x310", "soapy", "pluto"}
    assert {"loopback", "virtual", "replay", *radios} <= set(shipped_profiles())
    for name in shipped_profiles():
        profile = load_profile(name)
        assert profile.name == name
        assert isinstance(profile, Profile)
    assert isinstance(load_profile("usrp").radio, UhdRadio)
    assert isinstance(load_profile("soapy").radio, SoapyRadio)


def test_loopback_has_the_rates_the_figures_are_given_for() -> None:
    profile = load_profile("loopback")
    assert profile.waveform.symbol_rate_hz == 1e6
    assert profile.waveform.sample_rate_hz == 4e6
    assert profile.radio.kind == "channel"
    assert profile.receiver.when_full == "block"


def test_rates_are_what_the_radios_make() -> None:
    """N210 and X310 divide their clocks; a multiple of 4 uses both half-band filters of the FPGA."""
    for name, clock_hz in (("usrp_n210", 100e6), ("usrp_x310", 200e6), ("usrp_b210", 32e6)):
        profile = load_profile(name)
        divisor = clock_hz / profile.waveform.sample_rate_hz
        assert divisor % 4 == 0, name
        assert isinstance(profile.radio, UhdRadio)
        assert profile.radio.master_clock_rate_hz in (None, clock_hz)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        # What the profile's comment says to take at 2.4 GHz.
        ["waveform.symbol_rate_hz=2.5e6", "waveform.samples_per_symbol=2"]
        + [f"radio.{side}.frequency_hz=2.4e9" for side in ("tx", "rx")],
    ],
)
def test_two_plutos_are_within_what_the_receiver_takes(overrides: list[str]) -> None:
    profile = load_profile("pluto", overrides)
    assert isinstance(profile.radio, SoapyRadio)
    assert profile.radio.rx is not None
    apart_hz = 2 * 25e-6 * profile.radio.rx.frequency_hz
    assert apart_hz <= waveform.MAX_CFO_SYMBOL_RATES * profile.waveform.symbol_rate_hz
    assert profile.waveform.sample_rate_hz <= 5e6  # USB 2


def test_a_path_and_a_name_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text((REPOSITORY / "sdr_config/profiles/usrp.yaml").read_text())
    assert load_profile(path) == load_profile(str(path)) == load_profile("usrp")


def test_overrides_win_and_the_last_one_most() -> None:
    profile = load_profile(
        "loopback",
        ["transmitter.mcs=1", "transmitter.mcs=7", "channel.taps=[1, [0.5, -0.25]]", "name=x"],
    )
    assert profile.transmitter.mcs == 7
    assert profile.name == "x"
    assert profile.channel is not None
    assert profile.channel.complex_taps == [1, 0.5 - 0.25j]


def test_override_fills_a_section_that_is_not_there() -> None:
    assert load_profile("loopback", ["codec.device=cpu"]).codec.device == "cpu"
    assert load_profile("usrp", ["radio.rx=null"]).radio.rx is None  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["1e6", "1E6", "1.0e6", "1e+6", "1000000", "1_000_000", "1.e6"])
def test_numbers_may_be_written_the_usual_ways(text: str) -> None:
    assert load_profile("loopback", [f"waveform.symbol_rate_hz={text}"]) == load_profile("loopback")


def test_rician_has_a_stated_default() -> None:
    channel = load_profile("loopback", ["channel.fading=rician"]).channel
    assert channel is not None
    assert channel.rician_k_db == 10
    channel = load_profile("loopback", ["channel.fading=rician", "channel.rician_k_db=3"]).channel
    assert channel is not None
    assert channel.rician_k_db == 3


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("transmitter.mcs=99", "transmitter.mcs: 99 does not fit, expected an integer from 0 to 9"),
        ("transmitter.mcs=-1", "transmitter.mcs: -1 does not fit"),
        ("transmitter.mcs=four", "'four' does not fit, expected an integer"),
        ("transmitter.mcs=4.0", "4.0 does not fit, expected an integer"),
        ("transmitter.mcs=true", "True does not fit, expected an integer"),
        ("transmitter.mcs=", "nothing does not fit, expected an integer"),
        ("transmitter.msc=3", "transmitter.msc: unknown key, did you mean mcs?"),
        ("transmitter.colour=3", "expected mcs, gap_symbols, max_burst_symbols"),
        ("transmiter.mcs=3", "did you mean transmitter?"),
        ("channel.snr_db=nan", "channel.snr_db: 'nan' does not fit, expected a number"),
        ("channel.snr_db=.nan", "channel.snr_db: nan does not fit, expected a number"),
        ("channel.snr_db=.inf", "channel.snr_db: inf does not fit, expected a number"),
        ("channel.fading=ricean", "expected one of none, rayleigh, rician"),
        ("channel.rician_k_db=3", "rician_k_db is 3 but fading is none"),
        ("channel.cfo_hz=2e6", "channel.cfo_hz is 2e+06: expected at most 1.375e+06"),
        ("channel.taps=[]", "channel.taps"),
        ("channel.taps=3", "expected a list of numbers or [real, imaginary] pairs"),
        ("channel.taps=[0, [0, 0]]", "not all zero"),
        ("channel.taps=[[1, 2, 3]]", "expected a list of numbers"),
        ("channel.taps=[.nan]", "expected a list of numbers"),
        ("channel.seed=-1", "channel.seed: -1"),
        ("channel=null", "section channel is missing"),
        ("waveform=3", "expected a section with symbol_rate_hz"),
        ("waveform.samples_per_symbol=1", "expected an integer from 2 to 8"),
        ("waveform.symbol_rate_hz=0", "a number above 0"),
        ("waveform.symbol_rate_hz=null", "nothing does not fit"),
        ("receiver.ring_samples=5000", "receiver.ring_samples is 5000: expected at least 80000"),
        ("receiver.when_full=wait", "expected one of block, drop"),
        ("codec.device=gpu", "expected one of auto, cpu, cuda, mps"),
        ("codec.checkpoint=''", "codec.checkpoint"),
        ("radio.kind=foo", "radio.kind is 'foo', expected one of channel, file, soapy, uhd, zmq"),
        ("radio={}", "radio.kind is missing"),
        ("radio=null", "radio"),
        ("name.x=3", "name: is 'loopback', not a section"),
        ("mcs", "expected section.key=value"),
        ("=3", "expected section.key=value"),
        ("a..b=3", "expected section.key=value"),
        ("name=[1", "not valid YAML"),
        ("name=\0", "not valid YAML"),
        ("name=!!python/object/apply:os.getcwd []", "not valid YAML"),
        ("name=a: 1\na: 2", "stands here and on line"),
    ],
)
def test_mistakes_in_overrides(override: str, expected: str) -> None:
    message = error_of("loopback", override)
    assert expected in message
    assert message.startswith("--set") or message.startswith(str(REPOSITORY))
    assert "--set" in message


@pytest.mark.parametrize(
    "address",
    [
        "tcp://0.0.0.0:5551",
        "tcp://*:5551",
        "tcp://192.168.1.2:5551",
        "tcp://127.0.0.1.example.org:5551",
        "tcp://[::]:5551",
        "tcp://eth0:5551",
    ],
)
def test_addresses_others_can_reach_need_a_word(address: str) -> None:
    assert "zmq.insecure" in error_of("loopback", f"zmq.frames_in={address}")
    profile = load_profile("loopback", [f"zmq.frames_in={address}", "zmq.insecure=true"])
    assert profile.zmq.frames_in == address


def test_keys_open_addresses_to_others() -> None:
    profile = load_profile(
        "loopback", ["zmq.frames_in=tcp://0.0.0.0:5551", "zmq.keys.own=lab.key_secret"]
    )
    assert profile.zmq.keys is not None
    assert (profile.zmq.keys.server, profile.zmq.keys.allowed) == (None, [])
    message = error_of("loopback", "zmq.keys.own=lab.key_secret", "zmq.insecure=true")
    assert "keys and insecure" in message
    assert "zmq.keys.own" in error_of("loopback", "zmq.keys.server=x")


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:5554", "tcp://192.168.1.2:5554"])
def test_the_virtual_air_reaches_others_only_where_meant(address: str) -> None:
    message = error_of("virtual", f"radio.address={address}")
    assert f"radio.address is '{address}'" in message
    assert "zmq.keys" in message
    for word in ("zmq.insecure=true", "zmq.keys.own=lab.key_secret"):
        load_profile("virtual", [f"radio.address={address}", word])


def test_the_virtual_air_needs_an_address_of_its_own() -> None:
    assert "one of section zmq" in error_of("virtual", "radio.address=tcp://127.0.0.1:5551")
    assert "expected tcp://host:port" in error_of("virtual", "radio.address=nonsense")


def test_the_virtual_air_has_a_channel_or_none() -> None:
    assert load_profile("virtual", ["channel=null"]).channel is None
    assert "channel.cfo_hz" in error_of("virtual", "channel.cfo_hz=2e6")


@pytest.mark.parametrize(
    "address",
    ["tcp://localhost:1", "tcp://[::1]:5551", "tcp://127.0.0.1:*", "ipc:///tmp/x", "inproc://x"],
)
def test_addresses_within_the_machine(address: str) -> None:
    assert load_profile("loopback", [f"zmq.frames_in={address}"]).zmq.frames_in == address


@pytest.mark.parametrize(
    "address",
    ["", "5551", "127.0.0.1:5551", "udp://127.0.0.1:5551", "tcp://127.0.0.1", "tcp://127.0.0.1:0"]
    + ["tcp://127.0.0.1:99999", "tcp://10.0.0.1:1;127.0.0.1:5551", "ipc://"],
)
def test_addresses_that_are_none(address: str) -> None:
    assert "zmq.frames_in" in error_of("loopback", f"zmq.frames_in='{address}'")


def test_two_sockets_cannot_share_an_address() -> None:
    message = error_of("usrp", "zmq.frames_in=tcp://127.0.0.1:5552")
    assert "expected three different addresses" in message


@pytest.mark.parametrize(
    "device_args",
    ["addr=192.168.10.2", "type=x300,addr=192.168.40.2", "type=b200", "type=b200, serial=31A1"]
    + ["type=soapy,driver=lime", "type=soapy,driver=remote,remote=tcp://10.0.0.2:55132"]
    + ["type=soapy,driver=uoiscvirtual,air=a"]
    + ["resource=RIO0", "mgmt_addr=10.0.0.2,addr0=10.0.0.2", "name=x,addr=10.0.0.2"],
)
def test_uhd_device_args_that_name_a_device(device_args: str) -> None:
    radio = load_profile("usrp", [f"radio.device_args={device_args}"]).radio
    assert isinstance(radio, UhdRadio)
    assert radio.device_args == device_args


@pytest.mark.parametrize(
    "device_args",
    ["''", "' '", "type=x300", "serial=31A1", "name=mine", "type=n3xx,serial=1", "addr="]
    + ["type=soapy", "type=soapy,driver=remote", "b200", "type=b200;serial=1"],
)
def test_uhd_device_args_that_would_search_the_network(device_args: str) -> None:
    assert "radio.device_args" in error_of("usrp", f"radio.device_args={device_args}")


@pytest.mark.parametrize("profile", ["usrp", "soapy"])
def test_a_device_argument_that_stands_twice(profile: str) -> None:
    message = error_of(profile, "radio.device_args=type=b200,serial=1,serial=2")
    assert "serial stands twice" in message


@pytest.mark.parametrize(
    "overrides",
    [
        ["radio.driver=''"],
        ["radio.driver='lime,remote=x'"],
        ["radio.driver=remote"],
        ["radio.driver=uhd"],
        ["radio.device_args=driver=lime"],
        ["radio.tx=null", "radio.rx=null"],
    ],
)
def test_soapy_mistakes(overrides: list[str]) -> None:
    assert "radio" in error_of("soapy", *overrides)


def test_master_clock_must_fit_the_sample_rate() -> None:
    assert "whole multiple" in error_of("usrp", "radio.master_clock_rate_hz=30e6")
    assert "whole multiple" in error_of("usrp", "radio.master_clock_rate_hz=2e6")
    load_profile("usrp", ["radio.master_clock_rate_hz=32e6"])


def test_simulated_channel_before_a_real_radio() -> None:
    message = error_of("usrp", "channel.snr_db=3")
    assert "section channel with radio.kind uhd" in message


GOOD = """\
name: bench
waveform:
  symbol_rate_hz: 1e6
transmitter:
  mcs: 4
channel:
  snr_db: 20
  taps: [1.0]
radio:
  kind: channel
"""


def test_the_example_that_the_mistakes_are_made_in_is_good(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(GOOD)
    assert load_profile(tmp_path / "p.yaml").transmitter.mcs == 4


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (GOOD.replace("mcs: 4", "msc: 4"), r"p\.yaml:5: transmitter\.msc: .* did you mean mcs\?"),
        (GOOD.replace("mcs: 4", "mcs: 44"), r"p\.yaml:5: transmitter\.mcs: 44 .*from 0 to 9"),
        (
            GOOD.replace("symbol_rate_hz: 1e6", "amplitude: 0.5"),
            r"p\.yaml:2: waveform\.symbol_rate_hz: is missing",
        ),
        (GOOD + "\nname: twice\n", r"p\.yaml:12: name: stands here and on line 1"),
        (GOOD.replace("mcs: 4", "mcs: 4\n  mcs: 5"), r":6: transmitter\.mcs: stands .* line 5"),
        (GOOD.replace("mcs: 4", "mcs: [4"), r"p\.yaml:\d+: not valid YAML"),
        (GOOD + "\n\t- x", r"p\.yaml:\d+: not valid YAML"),
        (GOOD + "\n---\nname: x\n", r"p\.yaml:\d+: not valid YAML"),
        (GOOD.replace("taps: [1.0]", "taps: &a [*a]"), r":8: .*references .* not used"),
        ("1: 2\n", r"p\.yaml:1: expected a name as key"),
        ("[a]: 2\n", r"p\.yaml:1: expected a name as key"),
        ("", r"expected sections with keys, found nothing"),
        ("just text\n", r"expected sections with keys, found 'just text'"),
        ("- a\n- b\n", r"expected sections with keys, found \['a', 'b'\]"),
        ("[" * 5000, r"not valid YAML"),
        ("a" * 300_000, r"expected a profile of at most"),
    ],
)
def test_mistakes_in_files(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(content)
    message = error_of(path)
    assert message.startswith(str(path))
    assert re.search(expected, message), message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in error_of(tmp_path / "none.yaml")
    assert "cannot be read" in error_of(tmp_path)
    (tmp_path / "picture.yaml").write_bytes(b"\x89PNG\r\n\xff\xfe")
    assert "UTF-8" in error_of(tmp_path / "picture.yaml")
    assert "cannot be read" in error_of("a\0b/.yaml")


def test_unknown_profile_lists_the_known_ones() -> None:
    message = error_of("lopback")
    assert "'lopback'" in message
    assert ", ".join(shipped_profiles()) in message


@given(text=st.text(max_size=60))
def test_no_override_text_does_anything_but_load_or_explain(text: str) -> None:
    for override in (text, f"channel.snr_db={text}", f"{text}=1", f"zmq.frames_in={text}"):
        message = ""
        try:
            load_profile("loopback", [override])
        except ConfigError as error:
            message = str(error)
        assert message.isprintable()


def test_profiles_cannot_be_changed_after_the_checks() -> None:
    profile = load_profile("loopback")
    with pytest.raises(ValueError, match="frozen"):
        profile.transmitter.mcs = 99


def test_occupied_bandwidth_is_that_of_the_waveform() -> None:
    assert pytest.approx(1 + waveform.ROLL_OFF) == schema.OCCUPIED_SYMBOL_RATES


def test_peak_level_is_that_of_the_pulse() -> None:
    """What all taps of a phase add up to, at any rate on the air: no burst goes higher."""
    highest = max(float(np.abs(shaping_taps(sps)).sum(axis=1).max()) for sps in range(2, 9))
    assert highest <= schema.PEAK_LEVEL < highest + 0.01
    bits = np.random.default_rng(0).integers(0, 2, 20_000).astype(np.uint8)
    (burst,) = build_bursts(bits, frame_id=0, codec_tag=0, mcs=4)
    assert 1.6 < np.abs(burst.samples(4)).max() < schema.PEAK_LEVEL


@pytest.mark.parametrize("profile", ["usrp", "soapy"])
def test_bursts_stay_below_full_scale(profile: str) -> None:
    message = error_of(profile, "waveform.amplitude=0.6")
    assert "expected at most 0.555 with a radio" in message
    load_profile(profile, ["waveform.amplitude=0.555"])
    # No converter, no full scale.
    load_profile("loopback", ["waveform.amplitude=1"])


def test_documented_reference_is_current() -> None:
    text = (REPOSITORY / "docs/configuration.md").read_text()
    found = re.search(r"<!-- reference: begin -->\n(.*)<!-- reference: end -->", text, re.DOTALL)
    assert found
    assert found[1].strip() == reference_markdown().strip(), "run: uoisc config reference"


@pytest.mark.parametrize(
    "text", ['!!int ""', '!!float ""', "!!timestamp x", "!!bool x", "!!binary x", "1:" * 1000 + "1"]
)
def test_values_with_the_wrong_tag_are_one_named_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(f"name: {text}\n")
    with pytest.raises(ConfigError, match="not valid YAML") as caught:
        load_profile(file)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(file))
