"""Who may import whom (the contracts stand in pyproject.toml), and what an import may cost."""

from __future__ import annotations

import importlib.metadata
import itertools
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
PACKAGES = sorted(PYPROJECT["tool"]["importlinter"]["root_packages"])

# Modules that cross the border between codec and radio: NumPy, the standard library, each other.
BORDER_MODULES = [
    "semantic.frame.slices",
    "semantic.frame_geometry",
    "semantic.geometries",
    "semantic.index_frame",
    "semantic.link_statistics",
]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def broken_contracts(output: str) -> int:
    found = re.search(r"(\d+) kept, (\d+) broken", " ".join(output.split()))
    assert found, output
    return int(found[2])


def test_contracts_are_kept() -> None:
    result = lint_imports(REPOSITORY)
    assert result.returncode == 0, result.stdout + result.stderr
    assert broken_contracts(result.stdout) == 0


def test_every_package_is_under_contract() -> None:
    on_disk = {path.parent.name for path in REPOSITORY.glob("[a-z]*/__init__.py")} - {"tests"}
    assert on_disk == set(PACKAGES)


@pytest.mark.parametrize(
    ("module", "forbidden_import"),
    [
        ("blocks/modem/x.py", "from gnuradio import gr"),
        ("blocks/modem/x.py", "import torch"),
        ("blocks/modem/x.py", "from semantic import index_frame"),
        ("blocks/modem/x.py", "from blocks import burst_modulator"),
        ("blocks/x.py", "import semantic.codec.vq_codec"),
        ("blocks/x.py", "import sdr_config"),
        ("flowgraphs/x.py", "import cli"),
        ("flowgraphs/x.py", "import torch"),
        ("sdr_config/x.py", "import blocks.modem"),
        ("semantic/x.py", "from gnuradio import gr"),
        ("semantic/x.py", "import blocks.modem"),
        ("semantic/systems/x.py", "import blocks.x"),
    ],
)
def test_contracts_notice(tmp_path: Path, module: str, forbidden_import: str) -> None:
    """Each contract is broken by the import it exists for (on a bare copy of the packages)."""
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    bare = [f"{package}/__init__.py" for package in PACKAGES]
    bare += ["blocks/modem/__init__.py", "semantic/systems/__init__.py", "blocks/x.py"]
    bare += ["blocks/burst_modulator.py", "semantic/codec/vq_codec.py", "semantic/index_frame.py"]
    for path in [*bare, module]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert lint_imports(tmp_path).returncode == 0

    (tmp_path / module).write_text(f"{forbidden_import}\n")
    result = lint_imports(tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    assert broken_contracts(result.stdout) >= 1


@pytest.mark.parametrize("module", BORDER_MODULES)
def test_border_modules_need_numpy_alone(module: str) -> None:
    graph = grimp.build_graph("semantic", include_external_packages=True, cache_dir=None)
    imported = graph.find_modules_directly_imported_by(module)
    foreign = {
        name
        for name in imported
        if name.partition(".")[0] not in sys.stdlib_module_names
        and name.partition(".")[0] != "numpy"
        and name not in BORDER_MODULES
    }
    assert not foreign


def test_what_is_imported_is_declared() -> None:
    """No import leans on a package that some other package happens to bring along."""
    graph = grimp.build_graph(*PACKAGES, include_external_packages=True, cache_dir=None)
    imported = {
        module
        for module in graph.modules
        if graph.is_module_squashed(module) and module not in sys.stdlib_module_names
    }
    imported -= {"gnuradio", "pmt"}  # from the system, see scripts/setup.sh
    project = PYPROJECT["project"]
    extras = [value for key, value in project["optional-dependencies"].items() if key != "dev"]
    declared = {
        re.match(r"[\w-]+", requirement)[0].lower().replace("_", "-")  # type: ignore[index]
        for requirement in itertools.chain(project["dependencies"], *extras)
    }
    # A system's own packages (apt) may come without the list of their files: these may be such.
    system = {"numpy": ["numpy"], "yaml": ["pyyaml"], "zmq": ["pyzmq"], "PIL": ["pillow"]}
    distributions = {**system, **importlib.metadata.packages_distributions()}
    missing = {
        module
        for module in imported
        if not {name.lower().replace("_", "-") for name in distributions.get(module, [module])}
        & declared
    }
    assert not missing


def test_importing_the_packages_loads_nothing_heavy() -> None:
    modules = [*PACKAGES, *BORDER_MODULES]
    probe = (
        f"import sys, {', '.join(modules)}\n"
        "heavy = {'torch', 'gnuradio', 'numba', 'matplotlib', 'transformers'}\n"
        "print(' '.join(sorted(heavy & set(sys.modules))))"
    )
    result = subprocess.run(
        [sys.executable, "-c", probe],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert result.stdout.strip() == ""
