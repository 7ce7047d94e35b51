"""Every public callable refuses bad arguments with an error of the package that names the argument."""

from __future__ import annotations

import importlib
import inspect
import warnings
from pathlib import Path

import numpy as np
import pytest

from qmmlmm.errors import QmmlmmError
from tests.bad_inputs.bad_values import bad_values
from tests.bad_inputs.valid_arguments import ENTRIES, Objects

ROOMS = ["", ".analysis", ".coupling", ".qm", ".sampling", ".nonadiabatic", ".spectra", ".free_energy", ".reactions"]
FEWEST_CASES = 300

COVERED_ELSEWHERE = {
    "ase_atoms": "tests/reactions/test_optimisation.py",
    "geometric_engine": "tests/reactions/test_optimisation.py",
    "intrinsic_path": "tests/reactions/test_saddle_point.py",
    "reaction_path": "tests/reactions/test_elastic_band.py",
    "barrier_residues": "tests/reactions/test_elastic_band.py",
    "MLPotential": "tests/ml/test_ml_potential.py",
    "OpenMMMLPotential": "tests/mm/test_mace.py",
}
# Names that have no entry, each with its reason.
WITHOUT_ENTRY = {
    "ForceFieldPotential": "no parameters",
    "LandauZener": "no parameters",
    "MixedSystem": "made by create_mixed_system alone; its methods have entries",
    "EvaluatedPotential": "abstract",
    "Evaluator": "abstract",
    "RegionPotential": "abstract",
    "Variable": "abstract; its methods have entries as those of its subclasses",
    "Surfaces": "a protocol",
    "Evaluation": "a result of every evaluation; check_potential checks those of a potential",
    "ExternalField": "made by the package at every evaluation",
    "StateResults": "a result of every evaluation; check_potential checks those of a potential",
    "SurfacePoint": "a result of every step",
    "Hop": "a result",
    "BandPath": "a result",
    "Frequencies": "a result",
    "GridScan": "a result",
    "IntrinsicPath": "a result",
    "Optimum": "a result",
    "ReactionPath": "a result",
    "SaddlePoint": "a result",
    "Scan": "a result",
    "ScanPoint": "a result",
    "Structure": "a result",
    "Thermochemistry": "a result",
    "TwoLevels": "a result",
    "CrossingPoint": "a result",
    "NormalModes": "a result; its method has an entry",
    "Populations": "a result; its method has an entry",
    "Reweighting": "a result; its methods have entries",
    "Correction": "a result; its methods have entries",
    "LegResult": "a result",
    "StageResult": "a result",
    "WorkEstimate": "a result",
    "LadderLeg": "a result",
    "LadderResult": "a result; its methods are those of Correction",
    "TrajectoryRecord": "a result; its method has an entry",
    "Barrier": "a result",
    "UmbrellaProfile": "a result; its methods have entries",
}


def parameters(name: str) -> list[inspect.Parameter]:
    """Return the parameters of a callable, without the object whose method it is."""
    entry = ENTRIES[name]
    found = list(inspect.signature(entry.target).parameters.values())
    return found if entry.owner is None else found[1:]


CASES = [
    pytest.param(name, parameter.name, bad, id=f"{name}-{parameter.name}-{bad.label}")
    for name, entry in ENTRIES.items()
    for parameter in parameters(name)
    for bad in bad_values(str(parameter.annotation), entry.accepts.get(parameter.name, ()))
]


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    return Objects(tmp_path_factory.mktemp("objects"))


def call(objects: Objects, name: str, arguments: dict[str, object]) -> object:
    entry = ENTRIES[name]
    if entry.owner is None:
        return entry.target(**arguments)
    return entry.target(entry.owner(objects), **arguments)


def plain(text: str) -> str:
    return text.replace("_", " ").lower()


@pytest.mark.parametrize(("name", "parameter", "bad"), CASES)
def test_a_bad_argument_is_refused_and_named(objects, name, parameter, bad):
    entry = ENTRIES[name]
    arguments = entry.valid(objects)
    arguments[parameter] = bad.instead_of(arguments[parameter])
    with pytest.raises(QmmlmmError) as caught:
        call(objects, name, arguments)
    names = {parameter, entry.says.get(parameter, parameter)}
    assert any(plain(name) in plain(str(caught.value)) for name in names)


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry.runs])
def test_the_arguments_from_which_cases_start_are_right(objects, name):
    entry = ENTRIES[name]
    arguments = entry.valid(objects)
    assert set(arguments) == {parameter.name for parameter in parameters(name)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call(objects, name, arguments)


def as_numpy(value: object) -> object:
    for kind, scalar in ((bool, np.bool_), (int, np.int64), (float, np.float64)):
        if isinstance(value, kind):
            return scalar(value)
    return value


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry.runs])
def test_scalars_of_numpy_are_numbers(objects, name):
    arguments = {key: as_numpy(value) for key, value in ENTRIES[name].valid(objects).items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call(objects, name, arguments)


def test_there_are_enough_cases():
    assert len(CASES) >= FEWEST_CASES


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_has_an_entry_or_a_reason(room):
    names = set(importlib.import_module(f"qmmlmm{room}").__all__)
    assert not names - set(ENTRIES) - set(COVERED_ELSEWHERE) - set(WITHOUT_ENTRY)


def test_files_that_cover_names_elsewhere_mention_them():
    root = Path(__file__).parents[2]
    wrong = [name for name, file in COVERED_ELSEWHERE.items() if name not in (root / file).read_text(encoding="utf-8")]
    assert not wrong


def test_a_name_has_an_entry_or_a_reason_and_not_both():
    assert not set(ENTRIES) & (set(COVERED_ELSEWHERE) | set(WITHOUT_ENTRY))
