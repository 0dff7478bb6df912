"""What a profile may say: one class per section, every value with its unit, range and default.

The descriptions here are the reference: error messages and docs/configuration.md are made from them.
Types are strict (no text where a number belongs), numbers are finite, unknown keys are refused:
a typing mistake in a radio's configuration must not end up as a default on the air.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

# The signal is (1 + roll-off) symbol rates wide, roll-off 0.25 (blocks/modem/waveform.py).
OCCUPIED_SYMBOL_RATES = 1.25
# The receiver works at 2 samples per symbol whatever the rate on the air.
RECEIVER_SAMPLES_PER_SYMBOL = 2
# No shaped burst of unit mean power goes above this, whatever it carries: the largest sum over the
# magnitudes of the pulse's taps (blocks/modem/pulse.py). 5.1 dB.
PEAK_LEVEL = 1.80

_LOCAL_HOSTS = {"127.0.0.1", "localhost", "[::1]"}
_TCP_ADDRESS = re.compile(r"tcp://(?P<host>\[[0-9a-fA-F:.]+\]|[^\[\]:/;@\s]+):(?P<port>\d{1,5}|\*)")

# UHD finds these over USB or PCIe; every other type is looked for by broadcasting on all network
# interfaces, unless an address says where to ask.
_UHD_TYPES_WITHOUT_NETWORK = {"b100", "b200", "usrp1"}
# SoapySDR drivers that search the network unless one of these arguments says where to look.
_SOAPY_NETWORK_DRIVERS = {
    "plutosdr": ("uri", "hostname"),
    "remote": ("remote",),
    "uhd": ("addr", "type"),
}


class Section(BaseModel):
    """Common rules of all sections."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        validate_default=True,
    )


class Waveform(Section):
    """Rates and level on the air; everything else about the waveform is fixed."""

    symbol_rate_hz: Annotated[float, Field(gt=0, le=50e6)] = Field(description="symbols per second")
    samples_per_symbol: Annotated[int, Field(ge=2, le=8)] = Field(
        default=4, description="samples per symbol on the air"
    )
    amplitude: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.25,
        description=f"linear level of a symbol; full scale is 1, peaks reach {PEAK_LEVEL:.2f} times the "
        "level",
    )

    @property
    def sample_rate_hz(self) -> float:
        """Samples per second on the air."""
        return self.symbol_rate_hz * self.samples_per_symbol


class Transmitter(Section):
    """How a picture is cut into bursts."""

    mcs: Annotated[int, Field(ge=0, le=9)] = Field(
        default=4,
        description="code rate: 0 = 1/5, 1/4, 1/3, 2/5, 4 = 1/2, 3/5, 2/3, 3/4, 5/6, 9 = 8/9",
    )
    gap_symbols: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        default=64, description="silence between bursts, in symbols"
    )
    max_burst_symbols: Annotated[int, Field(ge=1000, le=20_000)] = Field(
        default=20_000, description="longest burst in symbols, preamble and pilots included"
    )


class Receiver(Section):
    """The receiver's buffers and limits."""

    dc_block_length: Annotated[int, Field(ge=0, le=65_536)] = Field(
        default=0,
        description="samples a running DC estimate averages over; 0 = none: the receiver takes DC out "
        "of every burst anyway, a running one is for DC that drifts within a burst",
    )
    ring_samples: Annotated[int, Field(ge=4096, le=1 << 28)] = Field(
        default=1 << 20, description="buffer between flowgraph and demodulator, in samples"
    )
    when_full: Literal["block", "drop"] = Field(
        default="drop",
        description="a full buffer stops the flowgraph (simulation, files) or drops samples, "
        "counted (radio)",
    )
    max_iterations: Annotated[int, Field(ge=1, le=200)] = Field(
        default=50, description="LDPC iterations at most"
    )
    frame_timeout_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        default=1.0,
        description="an incomplete picture is handed on after this many seconds of silence",
    )


class Keys(Section):
    """CURVE keys, made by uoisc keys new."""

    own: Annotated[str, Field(min_length=1)] = Field(description="this machine's file *.key_secret")
    server: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="public key, or its file, of the machine that is connected to; null = our own",
    )
    allowed: list[Annotated[str, Field(min_length=1)]] = Field(
        default=[],
        description="public keys, or their files, of the machines that may connect; none = our own alone",
    )


class Zmq(Section):
    """Sockets between codec and radio: the flowgraphs bind, encoders and decoders connect."""

    frames_in: str = Field(
        default="tcp://127.0.0.1:5551", description="ROUTER, index frames to send"
    )
    pictures_out: str = Field(
        default="tcp://127.0.0.1:5552", description="ROUTER, received index frames"
    )
    watch_out: str = Field(
        default="tcp://127.0.0.1:5553", description="PUB, the same and statistics"
    )
    high_water_mark: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=16, description="messages a socket queues, and pictures that wait for a decoder"
    )
    send_timeout_ms: Annotated[int, Field(ge=0, le=60_000)] = Field(
        default=1000, description="a blocked send gives up after this many milliseconds, counted"
    )
    keys: Keys | None = Field(
        default=None, description="encrypts and authenticates every socket; null = none does"
    )
    insecure: bool = Field(
        default=False,
        description="true allows addresses that other machines reach, without keys",
    )

    @field_validator("frames_in", "pictures_out", "watch_out")
    @classmethod
    def _check_address(cls, address: str) -> str:
        return _check_zmq_address(address)

    @model_validator(mode="after")
    def _check_reach(self) -> Self:
        addresses = [self.frames_in, self.pictures_out, self.watch_out]
        for name, address in zip(
            ("frames_in", "pictures_out", "watch_out"), addresses, strict=True
        ):
            self.check_reach(name, address)
        if self.keys is not None and self.insecure:
            raise ValueError("keys and insecure: true, expected one of them")
        fixed = [address for address in addresses if not address.endswith(":*")]
        if len(set(fixed)) < len(fixed):
            raise ValueError("expected three different addresses")
        return self

    def check_reach(self, name: str, address: str) -> None:
        """Refuse an address that strangers may reach, unless there are keys or a word that it is meant.

        Raises:
            ValueError: naming the key and what would be accepted.
        """
        match = _TCP_ADDRESS.fullmatch(address)
        outside = match is not None and match["host"] not in _LOCAL_HOSTS
        if outside and self.keys is None and not self.insecure:
            raise ValueError(
                f"{name} is {address!r}, which other machines may reach: expected zmq.keys (uoisc keys "
                "new), 127.0.0.1, localhost, [::1], ipc:// or inproc://, or zmq.insecure set to true"
            )


def _check_zmq_address(address: str) -> str:
    if re.fullmatch(r"(ipc|inproc)://\S+", address):
        return address
    match = _TCP_ADDRESS.fullmatch(address)
    if match is None or (match["port"] != "*" and not 1 <= int(match["port"]) <= 65_535):
        raise ValueError("expected tcp://host:port, ipc://path or inproc://name")
    return address


class Codec(Section):
    """The codec that turns photos into indices and back."""

    checkpoint: Annotated[str, Field(min_length=1)] = Field(
        default="two_layer",
        description="trained weights: two_layer, embedded (the paper's quantised features alone), or the "
        "path of a checkpoint",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="where torch computes; auto takes the GPU if there is one"
    )
    bits_per_pixel: Annotated[float, Field(gt=0, le=64)] | None = Field(
        default=None,
        description="of a picture sent; none of the three budgets means one bit per pixel",
    )
    symbols: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="the same as a budget of symbols on the air, everything around the bits included",
    )
    air_time_ms: Annotated[float, Field(gt=0, le=3_600_000)] | None = Field(
        default=None,
        description="the same as time on the air in milliseconds, gaps between bursts included",
    )
    focus: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None,
        description="how far bits follow the question; none means as measured best",
    )
    base_copies: bool = Field(
        default=True,
        description="every code block repeats the coarse picture of the next one's part: a lost block leaves "
        "a blurred part and not an empty one; costs 2 to 5 % of the bits",
    )
    max_side: Annotated[int, Field(ge=16, le=1024)] | None = Field(
        default=None,
        description="longest side in pixels to which a larger photo is scaled down; none means 1024",
    )
    search_steps: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=0,
        description="of a picture sent: steps of a search for better indices, each of which takes time and "
        "no bits",
    )
    search_likeness: Annotated[float, Field(ge=0, le=1000)] | None = Field(
        default=None,
        description="how much that search minds how a picture looks to the image tower, beside its squared "
        "error; none means as measured best",
    )
    decode_for: Literal["fidelity", "recognition"] = Field(
        default="fidelity",
        description="what received pictures are for: near the photo in every pixel, or showing what is "
        "there, which at few bits is something else",
    )
    bf16: bool = Field(
        default=False,
        description="the receiver decodes in bfloat16: for GPUs; pictures stay the same to about a level",
    )
    compiled: bool = Field(
        default=False,
        description="the receiver compiles its decoder with the first picture, which takes a while and a "
        "C++ compiler",
    )

    @model_validator(mode="after")
    def _check_budget(self) -> Self:
        budgets = {
            name: getattr(self, name) for name in ("bits_per_pixel", "symbols", "air_time_ms")
        }
        given = [name for name, value in budgets.items() if value is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)}: expected one budget")
        return self


class Channel(Section):
    """The simulated channel of the loopback, and of each receiver of a virtual air."""

    snr_db: Annotated[float, Field(ge=-40, le=100)] = Field(description="Es/N0 in dB")
    cfo_hz: float = Field(
        default=0.0,
        description="carrier frequency offset in Hz; the receiver takes 5 % of the symbol rate",
    )
    sro_ppm: Annotated[float, Field(ge=-1000, le=1000)] = Field(
        default=0.0, description="sample rate offset in parts per million"
    )
    fading: Literal["none", "rayleigh", "rician"] = Field(
        default="none", description="complex gain drawn for each burst, mean power 1"
    )
    rician_k_db: Annotated[float, Field(ge=-40, le=60)] | None = Field(
        default=None,
        description="Rician K factor in dB, with fading: rician alone (10 if not given)",
    )
    taps: Annotated[list[float | list[float]], Field(min_length=1, max_length=256)] = Field(
        default=[1.0],
        description="multipath: a number or [real, imaginary] for every air sample of delay",
    )
    seed: Annotated[int, Field(ge=0, lt=1 << 31)] = Field(
        default=0, description="seed of noise and fading; the same seed gives the same samples"
    )

    @model_validator(mode="before")
    @classmethod
    def _default_k(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("fading") == "rician":
            return {"rician_k_db": 10.0, **data}
        return data

    @field_validator("taps", mode="before")
    @classmethod
    def _check_taps(cls, taps: Any) -> Any:
        message = "expected a list of numbers or [real, imaginary] pairs, not all zero"
        if not isinstance(taps, list):
            raise ValueError(message)
        for tap in taps:
            parts = tap if isinstance(tap, list) and len(tap) == 2 else [tap]
            if not all(type(part) in (int, float) and abs(part) < 1e6 for part in parts):
                raise ValueError(message)
        if taps and not any(tap != 0 and tap != [0, 0] for tap in taps):
            raise ValueError(message)
        return taps

    @model_validator(mode="after")
    def _check_fading(self) -> Self:
        if self.rician_k_db is not None and self.fading != "rician":
            raise ValueError(
                f"rician_k_db is {self.rician_k_db:g} but fading is {self.fading}: "
                "expected fading: rician, or no rician_k_db"
            )
        return self

    @property
    def complex_taps(self) -> list[complex]:
        """The taps as complex numbers."""
        return [complex(*tap) if isinstance(tap, list) else complex(tap) for tap in self.taps]


class ChannelRadio(Section):
    """No radio: the simulated channel of section ``channel``."""

    kind: Literal["channel"]


class RadioPath(Section):
    """One direction of a radio."""

    frequency_hz: Annotated[float, Field(gt=0, le=1e12)] = Field(description="carrier, in Hz")
    gain_db: Annotated[float, Field(ge=-100, le=200)] = Field(description="overall gain, in dB")
    antenna: str = Field(
        default="", description="antenna port, for instance TX/RX; empty = the first one"
    )
    bandwidth_hz: Annotated[float, Field(gt=0, le=1e9)] | None = Field(
        default=None, description="analogue filter, in Hz; null = the device decides"
    )
    lo_offset_hz: Annotated[float, Field(ge=-100e6, le=100e6)] = Field(
        default=0.0,
        description="moves the local oscillator (and its leak) away from the signal, in Hz",
    )


class UhdPath(RadioPath):
    """One direction of a USRP."""

    subdev: str = Field(
        default="", description="daughterboard and channel, for instance A:A; empty = first"
    )


class HardwareRadio(Section):
    """What all radios have that are hardware: a start-up, a full scale, and ways to fall silent."""

    kind: Literal["uhd", "soapy"]
    settle_s: Annotated[float, Field(ge=0, le=10)] = Field(
        default=0.1,
        description="samples passed over at the start, while the radio settles, in seconds",
    )
    silence_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        default=3.0, description="no samples for so many seconds: the receiver stops with an error"
    )


class UhdRadio(HardwareRadio):
    """A USRP, through gr-uhd."""

    kind: Literal["uhd"]
    device_args: str = Field(
        description="which device: addr=192.168.10.2, or type=b200,serial=..., as UHD writes it"
    )
    tx: UhdPath | None = Field(default=None, description="the transmit side, null if there is none")
    rx: UhdPath | None = Field(default=None, description="the receive side, null if there is none")
    clock_source: Literal["internal", "external", "gpsdo", "mimo"] | None = Field(
        default=None, description="10 MHz reference; null = the device decides"
    )
    time_source: Literal["none", "internal", "external", "gpsdo", "mimo"] | None = Field(
        default=None, description="pulse per second; null = the device decides"
    )
    master_clock_rate_hz: Annotated[float, Field(gt=0, le=1e9)] | None = Field(
        default=None, description="in Hz; null = the device decides"
    )
    stream_args: str = Field(
        default="", description="passed on to UHD's streamer, for instance spp=200"
    )
    lead_time_s: Annotated[float, Field(ge=0, le=10)] = Field(
        default=0.05, description="a burst is sent this long after it was handed over, in seconds"
    )

    @field_validator("device_args")
    @classmethod
    def _check_device_args(cls, text: str) -> str:
        arguments = parse_device_args(text)
        if any(re.fullmatch(r"(mgmt_|second_)?addr\d*|resource\d*", key) for key in arguments):
            return text
        if arguments.get("type") in _UHD_TYPES_WITHOUT_NETWORK:
            return text
        # SoapySDR looks with every driver it has unless one is named, and some search the network.
        if arguments.get("type") == "soapy" and "driver" in arguments:
            _check_soapy_reach(arguments["driver"], arguments)
            return text
        raise ValueError(
            "expected addr=..., or type=b200 (b100, usrp1; with serial=... if there are several), or "
            "type=soapy,driver=...: anything less would search by broadcasting on every network "
            "interface"
        )

    @model_validator(mode="after")
    def _check_paths(self) -> Self:
        _require_path(self)
        return self


class SoapyRadio(HardwareRadio):
    """Any radio with a SoapySDR driver, through gr-soapy."""

    kind: Literal["soapy"]
    driver: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] = Field(
        description="name of the SoapySDR driver, for instance lime or hackrf"
    )
    device_args: str = Field(
        default="", description="more about the device, for instance serial=..."
    )
    tx: RadioPath | None = Field(
        default=None, description="the transmit side, null if there is none"
    )
    rx: RadioPath | None = Field(
        default=None, description="the receive side, null if there is none"
    )
    clock_source: str | None = Field(
        default=None, description="the driver's name of a reference; null = the device decides"
    )
    time_source: str | None = Field(
        default=None, description="the driver's name of a time source; null = the device decides"
    )
    master_clock_rate_hz: Annotated[float, Field(gt=0, le=1e9)] | None = Field(
        default=None, description="in Hz; null = the device decides"
    )
    stream_args: str = Field(default="", description="passed on to the driver's stream")

    @model_validator(mode="after")
    def _check_device(self) -> Self:
        arguments = parse_device_args(self.device_args)
        if "driver" in arguments:
            raise ValueError("device_args holds driver=..., expected it in radio.driver alone")
        _check_soapy_reach(self.driver, arguments)
        _require_path(self)
        return self


class ZmqRadio(Section):
    """No radio: samples over a ZMQ socket, from one transmitter to one or several receivers."""

    kind: Literal["zmq"]
    address: str = Field(
        default="tcp://127.0.0.1:5554", description="the transmitter binds, receivers connect"
    )
    receiver_timeout_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        default=5.0,
        description="the transmitter waits for its slowest receiver; one that takes nothing for so many "
        "seconds is left behind, counted",
    )
    without_receiver: Literal["wait", "send"] = Field(
        default="wait",
        description="what the transmitter does while nobody listens: wait for a receiver, or send into "
        "the void as a radio does",
    )

    @field_validator("address")
    @classmethod
    def _check_address(cls, address: str) -> str:
        return _check_zmq_address(address)


class FileRadio(Section):
    """A SigMF recording in place of a radio: something to receive."""

    kind: Literal["file"]
    path: Annotated[str, Field(min_length=1)] = Field(
        description="recording to replay: its .sigmf-meta file, or the name of one that comes with the "
        "project"
    )
    realtime: bool = Field(
        default=True,
        description="as fast as a radio would give the samples; false = as fast as the receiver takes them",
    )


Radio = Annotated[
    ChannelRadio | UhdRadio | SoapyRadio | ZmqRadio | FileRadio, Field(discriminator="kind")
]


class Profile(Section):
    """One radio, one lab set-up: everything the flowgraphs and the codec need to know."""

    name: Annotated[str, Field(min_length=1)] = Field(description="what reports call this set-up")
    description: str = Field(default="", description="one sentence for people")
    waveform: Waveform
    transmitter: Transmitter = Field(default_factory=Transmitter)
    receiver: Receiver = Field(default_factory=Receiver)
    zmq: Zmq = Field(default_factory=Zmq)
    codec: Codec = Field(default_factory=Codec)
    channel: Channel | None = Field(
        default=None, description="the simulated channel, kind: channel and zmq alone"
    )
    radio: Radio

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        self._check_channel()
        self._check_ring()
        if isinstance(self.radio, HardwareRadio):
            self._check_full_scale()
        if isinstance(self.radio, UhdRadio):
            self._check_master_clock(self.radio)
        if isinstance(self.radio, ZmqRadio):
            self._check_air(self.radio)
        return self

    def _check_full_scale(self) -> None:
        if self.waveform.amplitude * PEAK_LEVEL > 1:
            raise ValueError(
                f"waveform.amplitude is {self.waveform.amplitude:g}: expected at most "
                f"{int(1000 / PEAK_LEVEL) / 1000:g} with a radio, or the peaks of a burst, {PEAK_LEVEL:.2f} "
                "times the level, are clipped at full scale"
            )

    def _check_air(self, radio: ZmqRadio) -> None:
        self.zmq.check_reach("radio.address", radio.address)
        sockets = (self.zmq.frames_in, self.zmq.pictures_out, self.zmq.watch_out)
        if radio.address in sockets and not radio.address.endswith(":*"):
            raise ValueError(
                f"radio.address is {radio.address}, one of section zmq: expected another"
            )

    def _check_channel(self) -> None:
        if self.radio.kind not in ("channel", "zmq"):
            if self.channel is not None:
                raise ValueError(
                    f"section channel with radio.kind {self.radio.kind}: expected no simulated "
                    "channel in front of a real radio, or radio.kind channel or zmq"
                )
            return
        if self.channel is None:
            if self.radio.kind == "zmq":
                return
            raise ValueError("section channel is missing, expected with radio.kind channel")
        rate = self.waveform.symbol_rate_hz
        room = (self.waveform.samples_per_symbol - OCCUPIED_SYMBOL_RATES) / 2 * rate
        if abs(self.channel.cfo_hz) > room:
            raise ValueError(
                f"channel.cfo_hz is {self.channel.cfo_hz:g}: expected at most {room:g} either way, "
                "beyond that the signal folds over at half the sample rate"
            )

    def _check_ring(self) -> None:
        burst = self.transmitter.max_burst_symbols * RECEIVER_SAMPLES_PER_SYMBOL
        if self.receiver.ring_samples < 2 * burst:
            raise ValueError(
                f"receiver.ring_samples is {self.receiver.ring_samples}: expected at least "
                f"{2 * burst}, two bursts of transmitter.max_burst_symbols"
            )

    def _check_master_clock(self, radio: UhdRadio) -> None:
        if radio.master_clock_rate_hz is None:
            return
        ratio = radio.master_clock_rate_hz / self.waveform.sample_rate_hz
        if ratio < 1 or abs(ratio - round(ratio)) > 1e-6:
            raise ValueError(
                f"radio.master_clock_rate_hz is {radio.master_clock_rate_hz:g}: expected a whole "
                f"multiple of the sample rate {self.waveform.sample_rate_hz:g} "
                "(waveform.symbol_rate_hz x waveform.samples_per_symbol)"
            )


def parse_device_args(text: str) -> dict[str, str]:
    """Split ``key=value,key=value`` as UHD and SoapySDR write it.

    Raises:
        ValueError: not of that form, or a key that stands twice, of which either may be meant.
    """
    arguments: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (key and equals and value):
            raise ValueError("expected key=value,key=value")
        if key in arguments:
            raise ValueError(f"{key} stands twice, expected it once")
        arguments[key] = value
    return arguments


def _check_soapy_reach(driver: str, arguments: dict[str, str]) -> None:
    wanted = _SOAPY_NETWORK_DRIVERS.get(driver)
    if wanted and not any(key in arguments for key in wanted):
        raise ValueError(
            f"driver {driver} searches the network: expected {' or '.join(f'{k}=...' for k in wanted)} "
            "in device_args"
        )


def _require_path(radio: UhdRadio | SoapyRadio) -> None:
    if radio.tx is None and radio.rx is None:
        raise ValueError("expected tx, rx or both")
