"""The shape of the package, read from its imports."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "qmmlmm"

# A folder imports from itself, from those below it, and from units and errors. mm puts the terms into a
# System and stands above ml, whose TorchForce it adds; it never imports qm, whose potentials it is handed.
BELOW = {
    "coupling": set(),
    "embedding": {"coupling"},
    "qm": {"coupling", "embedding"},
    "ml": {"coupling", "embedding"},
    "mm": {"coupling", "embedding", "ml"},
    "sampling": {"coupling", "embedding", "ml", "mm", "qm"},
    "dynamics": {"coupling", "embedding", "ml", "mm", "qm", "sampling"},
    "analysis": {"coupling", "embedding", "ml", "mm", "qm", "sampling", "dynamics"},
    # The input file of a learning loop names the method of its labels.
    "learning": {"coupling", "embedding", "ml", "mm", "qm", "sampling", "analysis"},
    "commands": {"coupling", "embedding", "ml", "mm", "qm", "sampling", "dynamics", "analysis", "learning"},
}
GROUND = {"units", "errors"}
# Folders that may import an engine; the name of a file at the top of the package stands for itself.
USERS = {
    "pyscf": {"qm"},
    "torch": {"ml", "embedding", "learning"},
    "openmmtorch": {"ml"},
    "openmmml": {"mm", "ml"},
    "openmm": {"mm", "ml", "sampling", "dynamics", "learning"},
    "mdtraj": {"mm", "analysis"},
    "matplotlib": {"analysis"},
}
# openmm.unit is for quantities at the surface; it simulates nothing.
UNIT_USERS = USERS["openmm"] | {"units", "analysis"}
# ml builds one System of one particle, to see whether the openmm-torch plug-in works.
SYSTEM_BUILDERS = {"mm", "ml"}
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "core", "base", "misc", "tools"}
TEXT_ENDINGS = {".py", ".toml", ".md", ".yml", ".yaml", ".cfg", ".ini", ".txt", ".json", ".sh", ""}
# Put together here, so that this file does not hold what it looks for.
MACHINE_PATH = re.compile("(?<![\\w.:/])/(?:" + "|".join(["home", "root", "Users", "work", "mnt"]) + ")/\\w")
PACKAGE_INDEX = re.compile("|".join(["index" + "-url", "find" + "-links", "trusted" + "-host"]))


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def place(path: Path) -> str:
    """Return the folder of a module inside the package, or the name of a module at its top."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the dotted names that a module imports, anywhere in it, with their lines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; write the full name"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno


def all_imports() -> list[tuple[Path, str, int]]:
    return [(path, name, line) for path in modules() for name, line in imports(path)]


def shown(path: Path, line: int, name: str) -> str:
    return f"{path.relative_to(ROOT)}:{line} imports {name}"


@pytest.mark.parametrize("engine", sorted(set(USERS) - {"openmm"}))
def test_an_engine_is_imported_in_its_folders_only(engine):
    wrong = [
        shown(path, line, name)
        for path, name, line in all_imports()
        if name.split(".")[0] == engine and place(path) not in USERS[engine]
    ]
    assert not wrong


def test_openmm_is_imported_where_systems_are_made_and_run():
    wrong = []
    for path, name, line in all_imports():
        if name.split(".")[0] in ("openmm", "simtk"):
            allowed = UNIT_USERS if name.split(".")[:2] == ["openmm", "unit"] else USERS["openmm"]
            if place(path) not in allowed:
                wrong.append(shown(path, line, name))
    assert not wrong


def test_nothing_imports_what_stands_above_it():
    wrong = []
    for path, name, line in all_imports():
        parts = name.split(".")
        here = place(path)
        if parts[0] != "qmmlmm" or here == "__init__":
            continue
        target = parts[1]
        if target in GROUND or target == here:
            continue
        if here in GROUND or target not in BELOW.get(here, set()):
            wrong.append(shown(path, line, name))
    assert not wrong


def test_every_folder_has_its_place():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders <= set(BELOW), "say in BELOW what the new folder may import"


def test_the_coupling_knows_numpy_and_nothing_else():
    wrong = [
        shown(path, line, name)
        for path, name, line in all_imports()
        if place(path) == "coupling" and name.split(".")[0] not in {"numpy", "qmmlmm"} | set(sys.stdlib_module_names)
    ]
    assert not wrong


def test_systems_are_built_in_mm():
    wrong = []
    for path in modules():
        if place(path) in SYSTEM_BUILDERS:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                function = node.func
                name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
                if name == "System":
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not wrong


def test_modules_are_nouns():
    assert not [path for path in PACKAGE.rglob("*") if path.stem.lower().strip("_") in VAGUE_NAMES]


def tree() -> Iterator[Path]:
    """Yield the text files of the repository, without what tools leave in it."""
    for top in sorted(ROOT.iterdir()):
        if top.name.startswith(".") and top.name not in {".ci", ".gitignore"}:
            continue
        if top.name in {"build", "dist"} or top.name.endswith((".egg-info", "_run")):
            continue
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            inside = path.relative_to(ROOT).parts[1:]
            if any(part == "__pycache__" or part.startswith(".") or part.endswith("_run") for part in inside):
                continue
            if path.is_file() and path.suffix in TEXT_ENDINGS:
                yield path


@pytest.mark.parametrize("pattern", [MACHINE_PATH, PACKAGE_INDEX], ids=["path", "index"])
def test_nothing_in_the_tree_belongs_to_one_machine(pattern):
    wrong = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tree()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert not wrong


@pytest.mark.parametrize("text", ["'/{}/me/model.pt'", "open('/{}/x')", "path=/{}/main"])
def test_a_machine_path_would_be_found(text):
    assert MACHINE_PATH.search(text.format("home"))
    assert not MACHINE_PATH.search(text.format("dev").replace("/dev/", "/dev-"))


def run(code: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr


def test_the_package_imports_without_pyscf():
    run(
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'pyscf':\n"
        "            raise ModuleNotFoundError(f'{name} is blocked', name=name)\n"
        "sys.meta_path.insert(0, Blocker())\n"
        "import qmmlmm\n"
        "assert 'pyscf' not in sys.modules\n"
    )


def test_the_package_does_not_import_pyscf_or_matplotlib_by_itself():
    run("import sys, qmmlmm\nassert not {'pyscf', 'matplotlib'} & set(sys.modules)\n")


def test_importing_the_package_changes_nothing_in_the_process():
    run(
        "import logging, os, random, signal, warnings\n"
        "import numpy, torch\n"
        "def look():\n"
        "    return (torch.get_default_dtype(), torch.get_num_threads(), torch.get_num_interop_threads(),\n"
        "            torch.is_grad_enabled(), torch.initial_seed(), torch.get_rng_state().tolist(),\n"
        "            random.getstate(), numpy.random.get_state()[1].tolist(), numpy.geterr(),\n"
        "            list(logging.getLogger().handlers), logging.getLogger().level,\n"
        "            os.getcwd(), sorted(os.listdir()), dict(os.environ), signal.getsignal(signal.SIGINT))\n"
        "import mdtraj, openmm.app  # what these do is theirs\n"
        "before = look()\n"
        "import qmmlmm, qmmlmm.sampling.run_directory, qmmlmm.analysis.plots\n"
        "after = look()\n"
        "assert before == after, [(a, b) for a, b in zip(before, after) if a != b]\n"
    )


@pytest.mark.parametrize("first", ["openmm", "torch"])
def test_openmm_and_torch_are_imported_in_either_order(first):
    run(f"import {first}\nimport qmmlmm\n")
