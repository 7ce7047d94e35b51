"""The shape of the package, read from its imports."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "qmmlmm"

GROUND_ORDER = [
    "errors",
    "units",
    "durable_files",
    "elements",
    "html_tables",
    "progress_display",
    "setting_checks",
    "geometry",
    "time_series",
]
GROUND = set(GROUND_ORDER)
# A room imports from itself, from these and from the ground. mm puts terms into a System and never imports qm,
# whose potentials it is handed.
BELOW = {
    "coupling": set(),
    "embedding": {"coupling"},
    "qm": {"coupling", "embedding"},
    "xtb": {"coupling", "embedding"},
    # Learned potentials hand out evaluators of torch modules and share the Coulomb kernels.
    "ml": {"coupling", "embedding"},
    "mm": {"coupling", "embedding", "ml"},
    # From a structure file to a System, and from a System to a region.
    "preparation": {"coupling", "mm"},
    "sampling": {"coupling", "embedding", "mm"},
    "runs": {"coupling", "mm"},
    "nonadiabatic": {"coupling", "mm", "sampling", "runs"},
    "spectra": {"coupling", "embedding", "mm", "runs"},
    # Umbrella sampling draws its profile, and reads stored frames as snapshots.
    "free_energy": {"coupling", "mm", "sampling", "runs", "analysis", "spectra"},
    # The figure of surface hopping reads records whose format is nonadiabatic's.
    "analysis": {"coupling", "embedding", "mm", "runs", "nonadiabatic"},
    # A loop writes its report and figures while it runs.
    # The table of residues that make a barrier is a table of interactions.
    "reactions": {"coupling", "embedding", "mm", "sampling", "runs", "analysis"},
    "learning": {"coupling", "embedding", "ml", "mm", "sampling", "runs", "analysis"},
}
BELOW["commands"] = set(BELOW)
# Rooms that may import an engine; the name of a module at the top of the package stands for itself.
USERS = {
    "pyscf": {"qm"},
    "tblite": {"xtb"},
    # Foreign functions: the container of tblite, and the compiled mesh.
    "ctypes": {"xtb", "embedding"},
    "cffi": set(),
    "torch": {"embedding", "ml", "mm", "qm", "xtb", "learning", "commands"},
    "openmmtorch": {"mm"},
    "openmmml": {"mm"},
    "openmm": {
        "mm",
        "preparation",
        "sampling",
        "runs",
        "nonadiabatic",
        "reactions",
        "free_energy",
        "learning",
        "commands",
        "geometry",
    },
    "geometric": {"reactions"},
    "mdtraj": {"mm", "spectra"},
    "matplotlib": {"analysis", "spectra", "preparation", "free_energy"},
    "rdkit": {"preparation"},
    "openff": {"preparation"},
    "pdbfixer": {"preparation"},
    "propka": {"preparation"},
    "py3Dmol": {"analysis"},
}
# Packages that one module imports, when it needs them.
ONE_MODULE = {
    "rdkit": "preparation/ligand.py",
    "openff": "preparation/open_force_field.py",
    "pdbfixer": "preparation/repair.py",
    "propka": "preparation/protonation.py",
    "py3Dmol": "analysis/region_view.py",
    "geometric": "reactions/internal_coordinates.py",
}
# openmm.unit is for quantities at the surface; it simulates nothing.
UNIT_USERS = USERS["openmm"] | {"units", "setting_checks", "xtb", "analysis"}
SYSTEM_BUILDERS = {"mm"}
FORCE_BUILDERS = {"mm", "preparation", "sampling"}
LONGEST_CLASS = 250
# Classes that are longer, each with its reason.
LONG_CLASSES = {
    "EwaldMesh": "TorchScript: methods that share buffers are on one module",
    "SurroundingsField": "TorchScript: methods that share buffers are on one module",
    "ResponseNetwork": "TorchScript: methods that share weights are on one module",
    "MLPotential": "a docstring with the contract of modules; networks, own modules and files have their own modules",
    "_Search": "a parser: one method for each rule of the language of selections",
    "MultipleTimeStepIntegrator": "a docstring with equations; slow terms and isokinetic particles are elsewhere",
    "MixedSystem": "docstrings of what a user asks it; terms, energies and times have their own modules",
    "RunDirectory": "docstrings of one context manager; files, lock and record have their own modules",
    "UmbrellaSampling": "docstrings of its settings; windows and the profile have their own modules",
    "LearningLoop": "docstrings and options of the constructor; the phases have their own modules",
    "LoopStore": "one query a method on the same tables; opening and repair are in database.py",
    "EnergySurface": "a docstring with the method; surroundings, log and restraints have their own modules",
    "SurfaceHopping": "both kinds of hops share states, velocities and one stream of random numbers",
}
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "core", "base", "misc", "tools"}
TEXT_ENDINGS = {".py", ".toml", ".md", ".yml", ".yaml", ".cfg", ".ini", ".txt", ".json", ".sh", ""}
# Put together here, so that this file does not hold what it looks for.
MACHINE_PATH = re.compile("(?<![\\w.:/])/(?:" + "|".join(["home", "root", "Users", "work", "mnt"]) + ")/\\w")
PACKAGE_INDEX = re.compile("|".join(["index" + "-url", "find" + "-links", "trusted" + "-host"]))


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    """Return the folder of a module inside the package, or the name of a module at its top."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


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
        if name.split(".")[0] == engine and room(path) not in USERS[engine]
    ]
    assert not wrong


@pytest.mark.parametrize("engine", sorted(ONE_MODULE))
def test_packages_of_the_preparation_are_imported_by_one_module_each_and_not_at_its_top(engine):
    found = {path.relative_to(PACKAGE).as_posix() for path, name, _ in all_imports() if name.split(".")[0] == engine}
    assert found == {ONE_MODULE[engine]}
    assert engine not in loaded_by("qmmlmm.preparation, qmmlmm.commands.main")


def test_openmm_is_imported_where_systems_are_made_and_run():
    wrong = []
    for path, name, line in all_imports():
        if name.split(".")[0] in ("openmm", "simtk"):
            allowed = UNIT_USERS if name.split(".")[:2] == ["openmm", "unit"] else USERS["openmm"]
            if room(path) not in allowed:
                wrong.append(shown(path, line, name))
    assert not wrong


def test_nothing_imports_what_stands_above_it():
    wrong = []
    for path, name, line in all_imports():
        parts = name.split(".")
        own = room(path)
        if parts[0] != "qmmlmm" or own == "__init__":
            continue
        target = parts[1]
        if target == own or (target in GROUND and own not in GROUND):
            continue
        if own in GROUND and target in GROUND_ORDER[: GROUND_ORDER.index(own)]:
            continue
        if own in GROUND or target not in BELOW[own]:
            wrong.append(shown(path, line, name))
    assert not wrong


def test_the_rooms_are_in_an_order():
    order: list[str] = []
    while len(order) < len(BELOW):
        ready = sorted(name for name in BELOW if name not in order and BELOW[name] <= set(order))
        assert ready, f"these rooms import one another: {sorted(set(BELOW) - set(order))}"
        order += ready


def test_every_room_is_listed():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert rooms == set(BELOW), "state in BELOW what each room may import"
    assert {path.stem for path in PACKAGE.glob("*.py")} == GROUND | {"__init__"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_graph(paths: list[Path]) -> dict[str, set[str]]:
    """Return which module imports which; ``from a import b`` is module a.b where that is one."""
    names = {module_name(path) for path in paths}
    graph: dict[str, set[str]] = {}
    for path in paths:
        targets = (name if name in names else name.rpartition(".")[0] for name, _ in imports(path))
        graph[module_name(path)] = {name for name in targets if name in names} - {module_name(path)}
    return graph


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return modules that import one another in a circle; none if what imports nothing else can be taken off."""
    left = dict(graph)
    while ready := [name for name, targets in left.items() if not targets & set(left)]:
        for name in ready:
            del left[name]
    return sorted(left)


def test_no_modules_import_one_another_in_a_circle():
    assert not circle(import_graph(modules()))


def test_a_circle_of_imports_would_be_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c", "d"]
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_the_coupling_knows_numpy_and_nothing_else():
    wrong = [
        shown(path, line, name)
        for path, name, line in all_imports()
        if room(path) == "coupling" and name.split(".")[0] not in {"numpy", "qmmlmm"} | set(sys.stdlib_module_names)
    ]
    assert not wrong


def built_classes(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the classes of OpenMM that a module makes objects of, with their lines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        function = node.func if isinstance(node, ast.Call) else None
        if isinstance(function, ast.Attribute) and ast.unparse(function.value) == "openmm":
            yield function.attr, node.lineno


def test_systems_and_forces_are_built_in_their_rooms():
    wrong = [
        f"{path.relative_to(ROOT)}:{line} builds a {name}"
        for path in modules()
        for name, line in built_classes(path)
        if (name == "System" and room(path) not in SYSTEM_BUILDERS)
        or (name.endswith("Force") and room(path) not in FORCE_BUILDERS)
    ]
    assert not wrong


def test_attributes_are_asked_by_name_of_other_packages_objects_only():
    # What an own object can do is declared by its class. Objects of other packages differ by version and class:
    # a comment directly above says how.
    wrong = []
    for path in modules():
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            if not re.search(r"\b(getattr|hasattr)\(", line):
                continue
            above = [text.strip() for text in lines[max(0, number - 2) : number]]
            if not any(text.startswith("#") for text in above):
                wrong.append(f"{path.relative_to(ROOT)}:{number + 1}: {line.strip()}")
    assert not wrong


def test_long_classes_have_a_reason():
    found = {}
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and (node.end_lineno or 0) - node.lineno + 1 > LONGEST_CLASS:
                found[node.name] = f"{path.relative_to(ROOT)}:{node.lineno}"
    assert set(found) == set(LONG_CLASSES), found


def exposed_any(path: Path) -> Iterator[str]:
    """Yield the public functions of a module that have Any in their signature."""

    def functions(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
                yield node
            elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield from functions(node.body)

    for node in functions(ast.parse(path.read_text(encoding="utf-8")).body):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        annotations = [argument.annotation for argument in arguments] + [node.returns]
        if any(a is not None and re.search(r"\bAny\b", ast.unparse(a)) for a in annotations):
            yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"


def test_public_signatures_say_what_they_take():
    # PySCF's objects have no types that could be written.
    wrong = [text for path in modules() if room(path) != "qm" for text in exposed_any(path)]
    assert not wrong


def test_public_functions_take_no_free_keywords():
    # PySCF calls methods in qm with keywords of its own.
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in modules()
        if room(path) != "qm"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.args.kwarg is not None
    ]
    assert not wrong


def test_modules_are_nouns():
    assert not [path for path in PACKAGE.rglob("*") if path.stem.lower().strip("_") in VAGUE_NAMES]


def tree() -> Iterator[Path]:
    """Yield the text files of the repository, without what tools leave in it."""
    for top in sorted(ROOT.iterdir()):
        if top.name.startswith(".") and top.name not in {".ci", ".gitignore", ".pre-commit-config.yaml"}:
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


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@functools.cache
def loaded_by(modules: str) -> frozenset[str]:
    """Return the packages and modules that a fresh process has after an import."""
    return frozenset(run(f"import sys, {modules}\nprint(*sys.modules)").split())


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


def test_the_package_imports_no_engine_by_itself():
    assert not {"torch", "pyscf", "tblite", "matplotlib"} & loaded_by("qmmlmm")


def test_public_names_are_found_when_asked_for():
    run(
        "import qmmlmm\n"
        "for name in qmmlmm.__all__:\n"
        "    assert vars(qmmlmm).get(name) is not None or getattr(qmmlmm, name) is not None, name\n"
        "assert set(qmmlmm.__all__) <= set(dir(qmmlmm))\n"
        "try:\n"
        "    qmmlmm.no_such_name\n"
        "except AttributeError as error:\n"
        "    assert 'no_such_name' in str(error)\n"
        "else:\n"
        "    raise SystemExit('a name that does not exist was found')\n"
    )


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
        "import qmmlmm, qmmlmm.runs.run_directory, qmmlmm.analysis.plots\n"
        "after = look()\n"
        "assert before == after, [(a, b) for a, b in zip(before, after) if a != b]\n"
    )


@pytest.mark.parametrize("first", ["openmm", "torch"])
def test_openmm_and_torch_are_imported_in_either_order(first):
    run(f"import {first}\nimport qmmlmm\n")
