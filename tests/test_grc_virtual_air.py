"""Companion's blocks for sockets and the virtual air, with keys and without, compiled by grcc."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml
import zmq

from blocks.zmq_messages import (
    TOPIC_FRAME,
    MessageWriter,
    SocketLimits,
    open_socket,
)
from blocks.zmq_security import load_keys, write_key_pair
from semantic.geometries import CHECKPOINT_FOLDER, read_geometries
from tests.compiled_flowgraphs import Running, companion_environment, compile_flowgraphs, running
from tests.link_parts import free_ports, random_frame, same_indices

_STATES = {
    **{"bus_sink": False, "bus_source": False, "bus_structure": None},
    **{"coordinate": [0, 0], "rotation": 0, "state": "enabled"},
}


def flowgraph(
    name: str,
    addresses: Sequence[str],
    blocks: Mapping[str, Mapping[str, str]],
    connections: Sequence[Sequence[str]],
) -> str:
    """A flowgraph as Companion saves it, for a machine without a screen.

    Args:
        name: of the program.
        addresses: parameters of the command line; ``keys`` is one in any case.
        blocks: parameters by the block's ID; its kind is that without the number.
        connections: source, port, sink, port.
    """

    def block(one: str, kind: str, parameters: Mapping[str, str]) -> dict[str, object]:
        return {"name": one, "id": kind, "parameters": dict(parameters), "states": _STATES}

    options = {
        **{"id": name, "output_language": "python", "generate_options": "no_gui"},
        **{"run": "True", "run_options": "prompt", "title": name},
    }
    # Addresses are checked when the flowgraph is compiled; each run tells its own.
    defaults = {**dict.fromkeys(addresses, "ipc://untold"), "keys": ""}
    told = [block(one, "parameter", {"type": "str", "value": v}) for one, v in defaults.items()]
    rate = block("samp_rate", "variable", {"value": "4e6"})
    ours = [block(one, one.rpartition("_")[0], values) for one, values in blocks.items()]
    return yaml.safe_dump(
        {
            "options": {"parameters": options, "states": _STATES},
            "blocks": [*told, rate, *ours],
            "connections": [list(one) for one in connections],
            "metadata": {"file_format": 1},
        },
        sort_keys=False,
    )


TRANSMITTER = flowgraph(
    "air_tx",
    ["frames_in", "air"],
    {
        "uoisc_index_source_0": {"address": "frames_in", "keys": "keys"},
        "uoisc_burst_modulator_0": {"mcs": "2"},
        "uoisc_air_sink_0": {"address": "air", "keys": "keys"},
    },
    [
        ("uoisc_index_source_0", "frames", "uoisc_burst_modulator_0", "frames"),
        ("uoisc_burst_modulator_0", "sent", "uoisc_index_source_0", "sent"),
        ("uoisc_burst_modulator_0", "0", "uoisc_air_sink_0", "0"),
    ],
)
RECEIVER = flowgraph(
    "air_rx",
    ["air", "pictures_out", "watch_out"],
    {
        "uoisc_air_source_0": {"address": "air", "keys": "keys"},
        "uoisc_front_end_0": {},
        "uoisc_burst_receiver_0": {"when_full": '"block"'},
        "uoisc_index_sink_0": {
            **{"pictures_address": "pictures_out", "watch_address": "watch_out"},
            **{"keys": "keys"},
        },
    },
    [
        ("uoisc_air_source_0", "0", "uoisc_front_end_0", "0"),
        ("uoisc_front_end_0", "0", "uoisc_burst_receiver_0", "0"),
        ("uoisc_burst_receiver_0", "bursts", "uoisc_index_sink_0", "bursts"),
    ],
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return companion_environment(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    files = {"air_tx.grc": TRANSMITTER, "air_rx.grc": RECEIVER}
    for name, text in files.items():
        (folder / name).write_text(text)
    return compile_flowgraphs(folder, environment, [folder / name for name in files])


def pass_picture(link: Running) -> None:
    """The air waits for its receiver, so that nothing is lost."""
    geometry = read_geometries(CHECKPOINT_FOLDER / "embedded.json")[-1]
    frame = random_frame(1, geometry=geometry)
    link.wait_for(link.push, zmq.POLLOUT)
    link.push.send_multipart(MessageWriter().pack_frame(TOPIC_FRAME, frame))
    link.wait_for(link.pull, zmq.POLLIN)
    back = link.pull.frame()
    assert (back.frame_id, back.complete) == (1, True)
    assert same_indices(back, frame)


def test_a_picture_crosses_the_virtual_air(
    compiled: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("air")
    commands = [
        [str(compiled / f"air_{side}.py"), "--air", f"ipc://{folder}/air"] for side in ("tx", "rx")
    ]
    with running(folder, environment, *commands) as link:
        pass_picture(link)
        link.terminate()


def test_keys_let_other_machines_in_and_nobody_else(
    compiled: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every socket on an address that is refused without keys; who has none gets nothing."""
    folder = tmp_path_factory.mktemp("air")
    _, secret_file, _ = write_key_pair(folder, "lab")
    keys = load_keys(str(secret_file))
    air, *ports = free_ports(4)
    commands = [
        [
            str(compiled / f"air_{side}.py"),
            "--keys",
            str(secret_file),
            "--air",
            f"tcp://{host}:{air}",
        ]
        for side, host in (("tx", "0.0.0.0"), ("rx", "127.0.0.1"))
    ]
    with running(folder, environment, *commands, keys=keys, ports=ports) as link:
        limits = SocketLimits(10, 100)
        strangers = [
            open_socket(
                link.context, zmq.DEALER, connect=link.addresses["frames-in"], limits=limits
            ),
            open_socket(
                link.context, zmq.DEALER, connect=link.addresses["pictures-out"], limits=limits
            ),
        ]
        pass_picture(link)
        assert not strangers[0].poll(1000, zmq.POLLOUT)
        assert not strangers[1].poll(0, zmq.POLLIN | zmq.POLLOUT)
        link.terminate()


def test_without_keys_such_an_address_is_refused(
    compiled: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("air")
    (air,) = free_ports(1)
    command = [str(compiled / "air_tx.py"), "--air", f"tcp://0.0.0.0:{air}"]
    with running(folder, environment, command) as link:
        assert link.processes[0].wait(timeout=600) == 1
        assert "need keys (uoisc keys new)" in link.log.read_text()
