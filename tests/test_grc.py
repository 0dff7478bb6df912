"""GNU Radio Companion: its own code loads our blocks, compiles our flowgraphs, and what it makes works."""

from __future__ import annotations

import ast
import importlib
import inspect
import logging
import os
import pkgutil
import py_compile
import re
import subprocess
import sys
import typing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pmt
import pytest
import yaml
import zmq
from gnuradio import gr

import blocks
from blocks.zmq_messages import (
    TOPIC_FRAME,
    AddressError,
    MessageWriter,
    unpack_header,
)
from blocks.zmq_security import KeyFileError, write_key_pair
from cli.grc_path import BLOCK_FOLDER, link_blocks
from cli.grc_reference import explain, reference_markdown
from cli.output import OutputError
from flowgraphs.grc_values import geometries_of, keys_of, local_address
from sdr_config.schema import Transmitter, Waveform, Zmq, ZmqRadio
from semantic.geometries import CHECKPOINT_FOLDER, read_geometries, shipped_geometries
from semantic.index_frame import IndexFrameError
from semantic.link_statistics import LinkStatistics
from tests.compiled_flowgraphs import PATIENCE_S, companion_environment, compile_flowgraphs, running
from tests.conftest import REPOSITORY, RunCommand
from tests.link_parts import random_frame, same_indices
from tests.radio_link import air, device_overrides

BLOCK_FILES = sorted(BLOCK_FOLDER.glob("*.block.yml"))
FLOWGRAPHS = sorted((REPOSITORY / "flowgraphs/grc").glob("*.grc"))
_PLUGIN_PATH = "SOAPY_SDR_PLUGIN_PATH"
# GNU Radio's own descriptions that the tests of single blocks need: the options, the kinds of connection.
_STOCK_FILES = ("options.block.yml", "stream.domain.yml", "message.domain.yml")


# --- the blocks, in Companion's own platform -------------------------------------------------------


class _Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class Companion:
    """GRC's platform with our blocks, what it complained about, and an empty flowgraph."""

    def __init__(self, cache: Path) -> None:
        from gnuradio.grc.core import Constants
        from gnuradio.grc.core.platform import Platform

        Constants.CACHE_FILE = str(cache)  # not the user's, which would be cut down to what we load
        stock = Path(gr.prefix()) / "share/gnuradio/grc/blocks"
        warnings = _Warnings()
        logger = logging.getLogger("gnuradio.grc")
        logger.addHandler(warnings)
        self.platform = Platform(
            name="test",
            prefs=gr.prefs(),
            version=gr.version(),
            version_parts=(gr.major_version(), gr.api_version(), gr.minor_version()),
        )
        self.platform.build_library(
            [str(BLOCK_FOLDER), *(str(stock / one) for one in _STOCK_FILES)]
        )
        logger.removeHandler(warnings)
        self.warnings = warnings.lines

    def block(self, block_id: str, **values: str) -> Any:
        """A block in a flowgraph, with its defaults but for ``values``; what its IDs name is there."""
        graph = self.platform.make_flow_graph()
        block = graph.new_block(block_id)
        for name, value in values.items():
            block.params[name].set_value(value)
        block.params["id"].set_value("block_under_test")
        graph.rewrite()
        graph.validate()
        return block


@pytest.fixture(scope="module")
def companion(tmp_path_factory: pytest.TempPathFactory) -> Companion:
    return Companion(tmp_path_factory.mktemp("grc") / "cache.json")


def description(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(file.read_text())
    return loaded


def imported(file: Path) -> dict[str, Any]:
    """What the generated code's import lines bring in, by name."""
    names = {}
    for line in description(file)["templates"]["imports"].splitlines():
        module, _, rest = line.removeprefix("from ").partition(" import ")
        for name in rest.split(", "):
            names[name] = getattr(importlib.import_module(module), name)
    return names


def block_class(file: Path) -> type:
    found = imported(file)[description(file)["templates"]["make"].partition("(")[0]]
    assert isinstance(found, type)
    return found


def rendered(companion: Companion, file: Path, **values: str) -> dict[str, ast.expr]:
    """The arguments that the generated code calls the block's class with."""
    code = companion.block(description(file)["id"], **values).templates.render("make")
    call = ast.parse(code, mode="eval").body
    assert isinstance(call, ast.Call)
    assert isinstance(call.func, ast.Name)
    assert call.func.id == block_class(file).__name__
    assert not call.args
    return {str(keyword.arg): keyword.value for keyword in call.keywords}


def evaluated(file: Path, code: ast.expr) -> Any:
    """An argument as the generated program comes by it, beside the blocks that the defaults name."""
    receiver = SimpleNamespace(statistics=LinkStatistics())
    flowgraph = SimpleNamespace(uoisc_burst_receiver_0=receiver)
    names = {**imported(file), "self": flowgraph, "samp_rate": 1e6}
    return eval(ast.unparse(code), names)  # noqa: S307 - made of our own files


# Blocks that make no sense in Companion, and why.
NOT_IN_COMPANION = {
    "SampleGuard": "part of FrontEnd",
    "PieceSource": "takes arrays from Python code; a File Source or SigMF Source is Companion's way",
}

by_file = pytest.mark.parametrize("file", BLOCK_FILES, ids=lambda file: file.name.split(".")[0])


def test_companion_loads_every_block_without_a_word(companion: Companion) -> None:
    assert companion.warnings == []
    loaded = {name for name in companion.platform.blocks if name.startswith("uoisc_")}
    assert loaded == {description(file)["id"] for file in BLOCK_FILES}
    for name in loaded:
        assert companion.platform.blocks[name].category == ["UO-ISC"]


def test_every_block_of_ours_is_there() -> None:
    ours = set()
    for module in pkgutil.iter_modules(blocks.__path__, "blocks."):
        for _, value in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if value.__module__ == module.name and issubclass(
                value, (gr.sync_block, gr.basic_block)
            ):
                ours.add(value.__name__)
    assert set(NOT_IN_COMPANION) < ours
    described = {block_class(file).__name__ for file in BLOCK_FILES}
    assert described == (ours | {"FrontEnd"}) - set(NOT_IN_COMPANION)


@by_file
def test_imports_leave_the_name_blocks_alone(file: Path) -> None:
    """Generated code says ``from gnuradio import blocks`` and means it."""
    for line in description(file)["templates"]["imports"].splitlines():
        assert re.fullmatch(r"from [a-z_.]+ import \w+(, \w+)*", line)
    assert "blocks" not in imported(file)


@by_file
def test_parameters_are_the_constructors(companion: Companion, file: Path) -> None:
    signature = inspect.signature(block_class(file)).parameters
    arguments = rendered(companion, file)
    assert set(arguments) == set(signature)
    for name, parameter in signature.items():
        if parameter.default is not inspect.Parameter.empty:
            assert evaluated(file, arguments[name]) == parameter.default, name


@by_file
def test_choices_are_the_constructors(companion: Companion, file: Path) -> None:
    hints = typing.get_type_hints(block_class(file).__init__)
    options = {one["id"]: one.get("options") for one in description(file).get("parameters", [])}
    for name, hint in hints.items():
        if typing.get_origin(hint) is typing.Literal:
            choices = {ast.literal_eval(option) for option in options[name]}
            assert choices == set(typing.get_args(hint))
            for choice in choices:
                arguments = rendered(companion, file, **{name: repr(choice).replace("'", '"')})
                assert ast.literal_eval(arguments[name]) == choice


def test_defaults_are_those_of_a_profile(companion: Companion) -> None:
    """Where the constructor has none, and where it counts: transmitter and receiver must fit each other."""
    blocks_by_id = {description(file)["id"]: file for file in BLOCK_FILES}

    def default(block_id: str, name: str) -> Any:
        return companion.block(block_id).params[name].get_evaluated()

    sockets = Zmq()
    assert default("uoisc_index_source", "address") == sockets.frames_in
    assert default("uoisc_index_sink", "pictures_address") == sockets.pictures_out
    assert default("uoisc_index_sink", "watch_address") == sockets.watch_out
    for block_id in ("uoisc_air_sink", "uoisc_air_source"):
        assert default(block_id, "address") == ZmqRadio(kind="zmq").address
    assert default("uoisc_burst_modulator", "mcs") == Transmitter().mcs
    waveform = Waveform(symbol_rate_hz=1e6)
    for block_id in ("uoisc_burst_modulator", "uoisc_front_end"):
        assert default(block_id, "samples_per_symbol") == waveform.samples_per_symbol
    assert default("uoisc_burst_modulator", "amplitude") == waveform.amplitude
    modulator = description(blocks_by_id["uoisc_burst_modulator"])
    assert modulator["parameters"][0]["option_labels"] == _code_rates()


def _code_rates() -> list[str]:
    from blocks.modem.waveform import MCS_CODE_RATES

    return [f"{number}: {rate}" for number, rate in enumerate(MCS_CODE_RATES)]


@by_file
def test_ports_are_those_of_the_block(
    companion: Companion, file: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("air")
    addresses = {
        one["id"]: f"ipc://{folder}/{one['id']}"
        for one in description(file).get("parameters", [])
        if one["id"].endswith("address")
    }
    arguments = rendered(companion, file, **addresses)
    values = {name: evaluated(file, code) for name, code in arguments.items()}
    block = block_class(file)(**values)
    try:
        described = description(file)
        for side, messages, signature in (
            ("inputs", block.message_ports_in(), block.input_signature()),
            ("outputs", block.message_ports_out(), block.output_signature()),
        ):
            ports = described.get(side, [])
            names = {one["id"] for one in ports if one["domain"] == "message"}
            assert names == set(pmt.to_python(messages)) - {"system"}
            streams = [one for one in ports if one["domain"] == "stream"]
            assert [one["dtype"] for one in streams] == ["complex"] * signature.max_streams()
            assert set(signature.sizeof_stream_items()) <= {0, gr.sizeof_gr_complex}
    finally:
        if hasattr(block, "close"):
            block.close()


@by_file
def test_callbacks_are_methods(file: Path) -> None:
    for callback in description(file)["templates"].get("callbacks", []):
        assert callable(getattr(block_class(file), callback.partition("(")[0]))


@pytest.mark.parametrize(
    ("block_id", "name", "value"),
    [
        ("uoisc_burst_modulator", "mcs", "10"),
        ("uoisc_burst_modulator", "samples_per_symbol", "9"),
        ("uoisc_burst_modulator", "amplitude", "1.5"),
        ("uoisc_burst_modulator", "gap_symbols", "-1"),
        ("uoisc_burst_modulator", "max_burst_symbols", "20001"),
        ("uoisc_burst_receiver", "symbol_rate_hz", "0"),
        ("uoisc_burst_receiver", "max_iterations", "0"),
        ("uoisc_burst_receiver", "settle_samples", "-1"),
        ("uoisc_air_sink", "receiver_timeout_s", "0"),
        ("uoisc_air_source", "tail_samples", "0"),
        ("uoisc_sample_loss", "count", "-1"),
        ("uoisc_front_end", "samples_per_symbol", "1"),
        ("uoisc_index_source", "address", "localhost"),
        ("uoisc_index_source", "window", "0"),
        ("uoisc_index_sink", "frame_timeout_s", "0"),
        ("uoisc_burst_timer", "lead_time_s", "-1"),
        ("uoisc_block_fading", "seed", "-1"),
    ],
)
def test_what_cannot_work_is_marked_red(
    companion: Companion, block_id: str, name: str, value: str
) -> None:
    def complaints(**values: str) -> list[str]:
        return list(companion.block(block_id, **values).get_error_messages())

    has_rate = block_id in ("uoisc_burst_timer", "uoisc_air_sink", "uoisc_air_source")
    good = {"sample_rate_hz": "1e6"} if has_rate else {}
    if block_id == "uoisc_sample_loss":
        good = {"rate_hz": "1e6"}
    assert not [text for text in complaints(**good) if "Assertion" in text]
    assert [text for text in complaints(**good, **{name: value}) if "Assertion" in text]


@pytest.mark.parametrize(
    ("block_id", "name"), [("uoisc_index_sink", "receiver"), ("uoisc_burst_timer", "usrp")]
)
def test_a_block_that_is_named_must_exist(companion: Companion, block_id: str, name: str) -> None:
    parameter = companion.block(block_id).params[name]
    assert any("does not exist" in text for text in parameter.get_error_messages())


# --- what parameters are turned into -----------------------------------------------------------------


def test_only_local_addresses() -> None:
    for good in (
        "tcp://127.0.0.1:5551",
        "tcp://127.0.0.1:*",
        "tcp://localhost:1",
        "tcp://[::1]:5551",
        "ipc:///tmp/frames",
        "inproc://frames",
    ):
        assert local_address(good) == good
    for bad in (
        "tcp://*:5551",
        "tcp://0.0.0.0:5551",
        "tcp://192.168.10.2:5551",
        "tcp://127.0.0.1.example.org:5551",
        "tcp://127.0.0.1:",
        "udp://127.0.0.1:5551",
        "ipc://",
        "",
    ):
        with pytest.raises(AddressError, match=r"expected tcp://127\.0\.0\.1"):
            local_address(bad)


@pytest.mark.parametrize(
    "file",
    [file for file in BLOCK_FILES if "keys_of" in file.read_text()],
    ids=lambda file: file.name.split(".")[0],
)
def test_keys_open_a_block_to_other_machines(
    companion: Companion, file: Path, tmp_path: Path
) -> None:
    _, secret_file, public = write_key_pair(tmp_path, "lab")
    outside = "tcp://192.168.10.2:5551"
    addresses = {
        name: outside
        for name in companion.block(description(file)["id"]).params
        if "address" in name
    }
    assert addresses
    arguments = rendered(companion, file, **addresses, keys=str(secret_file))
    for name in addresses:
        assert evaluated(file, arguments[name]) == outside
    assert evaluated(file, arguments["keys"]).public == public.encode()
    for name, code in rendered(companion, file, **addresses).items():
        if name in addresses:
            with pytest.raises(AddressError, match="need keys"):
                evaluated(file, code)


def test_keys() -> None:
    assert keys_of("") is None
    with pytest.raises(KeyFileError, match="no-such-file"):
        keys_of("no-such-file.key_secret")


def test_geometries() -> None:
    assert geometries_of("") == shipped_geometries()
    file = sorted(CHECKPOINT_FOLDER.glob("*.json"))[0]
    assert geometries_of(str(file)) == read_geometries(file)
    with pytest.raises(IndexFrameError, match="no-such-file"):
        geometries_of("no-such-file.json")


# --- the flowgraphs --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return companion_environment(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """The folder with what grcc made of every flowgraph."""
    return compile_flowgraphs(tmp_path_factory.mktemp("compiled"), environment, FLOWGRAPHS)


@pytest.mark.parametrize("name", ["loopback", "usrp_tx", "usrp_rx"])
def test_flowgraph_compiles(compiled: Path, name: str) -> None:
    assert {file.stem for file in FLOWGRAPHS} == {"loopback", "usrp_tx", "usrp_rx"}
    py_compile.compile(str(compiled / f"uoisc_{name}.py"), doraise=True)
    text = (REPOSITORY / f"flowgraphs/grc/{name}.grc").read_text()
    # Started by the Python that comes first on the PATH, which is the environment's once it is active.
    assert yaml.safe_load(text)["options"]["parameters"]["run_command"] == "python3 -u {filename}"
    for local in ("/home/", "/work/", "/root/", "/tmp/"):
        assert local not in text


def test_compiled_flowgraphs_import_both_packages_called_blocks(
    compiled: Path, environment: dict[str, str]
) -> None:
    """In a plain process: ``blocks`` is GNU Radio's in their own namespace, and our classes are ours."""
    program = """
import uoisc_loopback, uoisc_usrp_rx, uoisc_usrp_tx
import gnuradio.blocks
assert uoisc_loopback.blocks is gnuradio.blocks
assert uoisc_usrp_tx.BurstTimer.__module__ == "blocks.burst_timer"
assert uoisc_usrp_rx.BurstReceiver is uoisc_loopback.BurstReceiver
assert callable(uoisc_usrp_rx.uhd.usrp_source)
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=compiled,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def _generated_calls(file: Path) -> dict[str, str]:
    """``self.<name> = <code>`` in a generated constructor, by name."""
    found = {}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            found[node.targets[0].attr] = ast.unparse(node.value)
    return found


def test_usrp_flowgraphs_say_what_a_usrp_needs(compiled: Path) -> None:
    """A named device, never a search; whole bursts, timed and keyed by their length tag."""
    transmitter = compiled / "uoisc_usrp_tx.py"
    calls = _generated_calls(transmitter)
    assert "'packet_len'" in calls["usrp_sink"]
    assert "self.usrp_sink.get_time_now()" in calls["burst_timer"]
    assert "idle_silence=False" in calls["burst_modulator"]
    text = transmitter.read_text()
    assert "self.burst_modulator.set_min_output_buffer(burst_samples)" in text
    assert "self.burst_timer.set_min_output_buffer(burst_samples)" in text
    receiver = _generated_calls(compiled / "uoisc_usrp_rx.py")
    assert "when_full='drop'" in receiver["burst_receiver"]
    assert "settle_samples=int(0.1 * 2 * symbol_rate)" in receiver["burst_receiver"]
    assert "statistics=self.burst_receiver.statistics" in receiver["index_sink"]
    for name in ("usrp_tx", "usrp_rx"):
        assert "device_args='addr=192.168.10.2'" in (compiled / f"uoisc_{name}.py").read_text()


def test_compiled_loopback_passes_pictures(
    compiled: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    geometry = read_geometries(CHECKPOINT_FOLDER / "embedded.json")[-1]
    writer = MessageWriter()
    totals: dict[str, Any] = {}
    # On a machine that stands still for seconds, a burst that is late is not lost.
    loopback = [str(compiled / "uoisc_loopback.py"), "--frame-timeout", str(PATIENCE_S)]
    with running(tmp_path_factory.mktemp("air"), environment, loopback) as link:
        # A subscription takes a moment to arrive, hence perhaps a few more pictures.
        frame_ids = iter(range(100))
        while not totals or totals["bursts_detected"] < 5:
            frame = random_frame(next(frame_ids), geometry=geometry)
            link.wait_for(link.push, zmq.POLLOUT)
            link.push.send_multipart(writer.pack_frame(TOPIC_FRAME, frame))
            link.wait_for(link.pull, zmq.POLLIN)
            back = link.pull.frame()
            assert (back.frame_id, back.complete) == (frame.frame_id, True)
            assert same_indices(back, frame)
            while link.watch.poll(100):
                totals = unpack_header(link.watch.recv_multipart())
        # The simulated channel does what its sliders say: Es/N0 12 dB, 2 kHz.
        assert totals["snr_db_estimated"] == pytest.approx(12, abs=0.5)
        assert totals["cfo_hz_estimated"] == pytest.approx(2000, abs=20)
        assert totals["bursts_detected"] == totals["fates"]["decoded"]
        link.terminate()


@pytest.mark.usefixtures("virtual_radio")
def test_compiled_usrp_flowgraphs_pass_a_picture_over_a_virtual_radio(
    compiled: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Through gr-uhd, at 4 Msps, with the gains, antennas and oscillator offsets that the files say."""
    geometry = read_geometries(CHECKPOINT_FOLDER / "embedded.json")[-1]
    writer = MessageWriter()
    environment = {**environment, _PLUGIN_PATH: os.environ[_PLUGIN_PATH]}
    received = None
    with air() as name:
        _, _, device_args = device_overrides("uhd", name)[0].partition("=")
        device = ["--device-args", device_args]
        commands = [
            [str(compiled / "uoisc_usrp_rx.py"), *device],
            # A busy machine hands a burst over late, and a receiver that runs dry loses some.
            [str(compiled / "uoisc_usrp_tx.py"), *device, "--lead-time", "1"],
        ]
        with running(tmp_path_factory.mktemp("air"), environment, *commands) as link:
            # What is sent before the receiver listens is lost, as on any air.
            for frame_id in range(PATIENCE_S // 5):
                frame = random_frame(frame_id, geometry=geometry)
                link.wait_for(link.push, zmq.POLLOUT)
                link.push.send_multipart(writer.pack_frame(TOPIC_FRAME, frame))
                link.check()
                if link.pull.poll(5000):
                    received = link.pull.frame()
                    if received.complete:
                        break
            assert received is not None, link.log.read_text()
            assert received.complete, link.log.read_text()
            sent = random_frame(received.frame_id, geometry=geometry)
            assert same_indices(received, sent)
            link.terminate()


# --- uoisc grc-path, and the document --------------------------------------------------------------


def test_grc_path_prints_the_folder(uoisc: RunCommand) -> None:
    result = uoisc("grc-path")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{BLOCK_FOLDER}\n"


def test_grc_path_installs_links(
    uoisc: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRC_HIER_PATH", str(tmp_path / "companion"))
    for _ in range(2):
        result = uoisc("grc-path", "--install")
        assert result.returncode == 0, result.stderr
        assert result.stdout == f"{BLOCK_FOLDER}\n"
        links = sorted((tmp_path / "companion/uoisc").iterdir())
        assert [link.resolve() for link in links] == BLOCK_FILES


def test_links_are_renewed_and_files_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "old.block.yml").symlink_to(tmp_path / "gone.block.yml")
    (tmp_path / "index_sink.block.yml").symlink_to(tmp_path / "gone.block.yml")
    link_blocks(tmp_path)
    assert [link.resolve() for link in sorted(tmp_path.iterdir())] == BLOCK_FILES
    mine = tmp_path / "mine.block.yml"
    mine.write_text("id: mine\n")
    with pytest.raises(OutputError, match=r"mine\.block\.yml"):
        link_blocks(tmp_path)
    assert mine.read_text() == "id: mine\n"


def test_document_is_current() -> None:
    text = (REPOSITORY / "docs/grc.md").read_text()
    found = re.search(r"<!-- reference: begin -->\n(.*)<!-- reference: end -->", text, re.DOTALL)
    assert found
    assert found[1].strip() == reference_markdown(BLOCK_FOLDER).strip(), (
        "run: uoisc grc-path --reference"
    )


def test_a_parameter_without_explanation_is_refused() -> None:
    block = {
        "id": "x",
        "parameters": [{"id": "a", "label": "First (Hz)"}, {"id": "b", "label": "Second"}],
        "documentation": "What it is\nfor.\n\nMore.\n\nFirst: a rate\nin Hz.\nSecond: b.\n",
    }
    assert explain(block) == (["What it is for.", "More."], {"a": "a rate in Hz.", "b": "b."})
    block["documentation"] = "What it is for.\n\nFirst: a rate.\n"
    with pytest.raises(ValueError, match=r"block x.*\['b'\]"):
        explain(block)
