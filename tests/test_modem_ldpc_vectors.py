"""Vector files: right ones pass, wrong bits are found, broken files give one clear line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from blocks.modem.ldpc_vectors import VectorFileError, check_vector_file

HERE = Path(__file__).parent
FEW_VECTORS = HERE / "data" / "nr_ldpc_cases.npz"
ALL_VECTORS = HERE.parent.parent / "shared" / "phy" / "nr_ldpc_vectors.npz"

Arrays = dict[str, np.ndarray]


@pytest.fixture
def arrays() -> Arrays:
    with np.load(FEW_VECTORS, allow_pickle=False) as vectors:
        return {key: vectors[key] for key in vectors.files}


def test_stored_vectors() -> None:
    report = check_vector_file(FEW_VECTORS)
    data = json.loads(json.dumps(report.to_json()))
    assert data["all_ok"] is True
    assert data["cases"][0] == {
        "name": "k1056_n2112_q3", "base_graph": 2, "lifting_size": 112, "encode_ok": True,
        "decode_ok": True,
    }  # fmt: skip
    assert len(data["cases"]) == 4


@pytest.mark.skipif(not ALL_VECTORS.exists(), reason="needs the shared vectors beside the project")
def test_all_vectors() -> None:
    report = check_vector_file(ALL_VECTORS)
    assert report.all_ok
    assert len(report.cases) == 10


def test_one_wrong_coded_bit_is_an_encoder_mismatch(tmp_path: Path, arrays: Arrays) -> None:
    arrays["k120_n480_q0_coded"][1, 40] ^= 0x10
    np.savez(tmp_path / "bad.npz", **arrays)
    report = check_vector_file(tmp_path / "bad.npz")
    wrong = {case.name: (case.encode_ok, case.decode_ok) for case in report.cases}
    assert not report.all_ok
    assert wrong.pop("k120_n480_q0")[0] is False
    assert all(value == (True, True) for value in wrong.values())


def test_wrong_information_fails_both_ways(tmp_path: Path, arrays: Arrays) -> None:
    arrays["k1056_n2112_q3_info"][0, 0] ^= 0x80
    np.savez(tmp_path / "bad.npz", **arrays)
    case = check_vector_file(tmp_path / "bad.npz").cases[0]
    assert (case.encode_ok, case.decode_ok) == (False, False)


def rename(old: str, new: str) -> Callable[[Arrays], None]:
    def apply(arrays: Arrays) -> None:
        for part in ("_info", "_coded"):
            arrays[new + part] = arrays.pop(old + part)

    return apply


def replace(key: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Arrays], None]:
    def apply(arrays: Arrays) -> None:
        arrays[key] = change(arrays[key])

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (dict.clear, "at least one case"),
        (lambda a: a.pop("k120_n480_q0_info"), "partner k120_n480_q0_info"),
        (lambda a: a.update(other=np.zeros(3)), "expected names like"),
        (replace("k120_n480_q0_info", lambda x: x[:, :-1]), "expected 15 bytes a row"),
        (replace("k120_n480_q0_coded", lambda x: x[:1]), "as many info as coded rows"),
        (replace("k120_n480_q0_info", lambda x: x.astype(np.int32)), "expected uint8 rows"),
        (replace("k120_n480_q0_info", lambda x: x[0]), "expected uint8 rows"),
        (replace("k120_n480_q0_info", lambda x: x[:0]), "expected uint8 rows"),
        (replace("k640_n2559_q3_coded", lambda x: x | 1), "expected zeros after bit 2559"),
        (rename("k120_n480_q0", "k120_n480_q7"), "multiples of bits_per_symbol"),
    ],
)
def test_broken_contents(
    tmp_path: Path, arrays: Arrays, damage: Callable[[Arrays], None], message: str
) -> None:
    damage(arrays)
    np.savez(tmp_path / "broken.npz", **arrays)
    with pytest.raises(VectorFileError, match=message) as caught:
        check_vector_file(tmp_path / "broken.npz")
    assert "broken.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["k0_n8_q0", "k8449_n9000_q0", "k8448_n42240_q0", "k8_n0_q0"])
def test_sizes_out_of_range(tmp_path: Path, name: str) -> None:
    info_bits, coded_bits = (int(part[1:]) for part in name.split("_")[:2])
    zeros = {
        f"{name}_info": np.zeros((1, -(-info_bits // 8)), np.uint8),
        f"{name}_coded": np.zeros((1, -(-coded_bits // 8)), np.uint8),
    }
    np.savez(tmp_path / "sizes.npz", **zeros)
    with pytest.raises(VectorFileError, match=f"{name}: "):
        check_vector_file(tmp_path / "sizes.npz")


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("not an archive")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "cut.npz").write_bytes(FEW_VECTORS.read_bytes()[:3000])
    np.save(tmp_path / "single.npy", np.zeros(3))
    np.savez(tmp_path / "objects.npz", k8_n16_q0_info=np.array([{}], object))
    for name in ("text.npz", "empty.npz", "cut.npz", "single.npy", "objects.npz", "missing.npz"):
        with pytest.raises(VectorFileError, match=name) as caught:
            check_vector_file(tmp_path / name)
        assert "\n" not in str(caught.value)
