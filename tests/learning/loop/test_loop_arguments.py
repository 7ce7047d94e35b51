"""A loop refuses what it cannot use when it is made, before anything is simulated or labelled."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import openmm
import pytest
from openmm import unit

from qmmlmm import Region, Term
from qmmlmm.errors import LoopError
from qmmlmm.geometry import Geometry
from qmmlmm.learning import ResponseNetwork, ResponseSettings, TrainingSettings
from qmmlmm.learning.loop import Distance, HillVariable, LabelSettings, LearningLoop, LoopSettings, Metadynamics, Walker
from tests.learning.loop.water_case import SETTINGS, make_loop, make_source, springs, waters

NO_RECORD = [None, 5, "x", {}, []]
BAD_BIAS = openmm.CustomBondForce("k*(r")


def labels(count=8, **changes):
    topology, system, positions = waters()
    source = make_source(topology, system, term())
    return [replace(source.label(Geometry(positions), f"g{k}"), **changes) for k in range(count)]


def term(**changes):
    return Term(springs(), Region("water", [0, 1, 2], **changes), embedding="electrostatic")


def network(numbers=(8, 1, 1), condition=(0, 1, 0), members=2):
    return ResponseNetwork(list(numbers), (), ResponseSettings(features=4, layers=1), [condition], members)


CASES = [
    *(({"walkers": value}, "walkers is a list of Walker objects") for value in (5, None, "x", {})),
    ({"walkers": []}, "walkers has one Walker or more, got none"),
    ({"walkers": [5]}, "each of walkers is an instance of Walker, got 5"),
    ({"walkers": [Walker({"hh_center": 0.1})]}, "sets the parameter 'hh_center', which no Force has.*hh_centre"),
    ({"walkers": [Walker(positions=np.zeros((3, 3)))]}, "the System has 12 particles, the positions of walker 0"),
    *(({"settings": value}, "settings is an instance of LoopSettings") for value in (None, 5, [], LoopSettings)),
    ({"settings": {"reacting_bonds": [[0, 3]]}}, r"\[0, 3\] has the atom 3, which is not in the region"),
    ({"settings": {"reacting_bonds": [[0, 99]]}}, r"\[0, 99\] has the atom 99, which is not in the region"),
    ({"settings": {"reacting_bonds": [[1, 2]]}}, "atoms 1 and 2 have no bond in the Topology; 1 has bonds with 0"),
    *(({"network": value}, "network is an instance of ResponseSettings") for value in NO_RECORD),
    *(({"training": value}, "training is an instance of TrainingSettings") for value in (*NO_RECORD, TrainingSettings)),
    *(({"labelling": value}, "labelling is an instance of LabelSettings") for value in (*NO_RECORD, LabelSettings)),
    *(({"metadynamics": value}, "metadynamics is an instance of Metadynamics") for value in (5, "x", {})),
    *(({"source": value}, "source is an instance of LabelSource") for value in (5, "x", {})),
    *(({"on_model": value}, "on_model is a function, got") for value in (5, "x", {})),
    *(({"platform": value}, "platform is one of 'Reference'") for value in (None, 5, "", "cpu", "NoSuch")),
    ({"platform_properties": 5}, "platform_properties maps names"),
    ({"platform_properties": {"Foo": "1"}}, "the platform Reference has no 'Foo'; it has none"),
    ({"platform": "CPU", "platform_properties": {"Thread": "1"}}, "has no 'Thread'.*Nearest names: Threads"),
    ({"platform": "CPU", "platform_properties": {"Threads": 1}}, 'Threads is a text, such as "1", got 1'),
    *(({"ml_backend": value}, "ml_backend is one of 'auto'") for value in (None, 5, "foo", [])),
    *(({"biases": value}, "biases is a list of Force objects") for value in (None, 5, "x")),
    ({"biases": [None]}, "each of biases is an instance of Force, got None"),
    ({"biases": [BAD_BIAS]}, "OpenMM cannot run the System with its biases"),
    *(({"variables": value}, "variables maps names") for value in (5, "x", [], [Distance(0, 1)])),
    ({"variables": {"a": 5}}, "variables: 'a' is a function of a Geometry"),
    ({"variables": {"a": lambda geometry: "x"}}, "variables: 'a' returns a finite number, got 'x' at the start"),
    ({"variables": {"a": lambda geometry: math.nan}}, "variables: 'a' returns a finite number, got nan"),
    ({"variables": {"a": lambda geometry: geometry.no}}, "variables: 'a' cannot be computed at the start: Attribute"),
    ({"variables": {"a": Distance(0, 99999)}}, "variables: 'a' has the particles 99999, the System has 0 to 11"),
    (
        {"metadynamics": Metadynamics(HillVariable(Distance(0, 12), 0.1, 0.1, 1.0), 1.0, 5.0, 20)},
        "'variable 0 of metadynamics' has the particles 12",
    ),
    *(({"executor": value}, "executor is a concurrent.futures.Executor") for value in (5, "x", {})),
    *(({"method": value}, "method must be named") for value in (5, "", 'a"b', "a\nb", True)),
    *(({"labels": value}, "labels is a list of LabelledFrame objects") for value in (None, 5, "x")),
    ({"labels": [5]}, "each of labels is an instance of LabelledFrame"),
    *(({"model": value}, "model is a ResponseNetwork or the path") for value in (5, [], {})),
    ({"model": network(numbers=(8, 1, 6))}, "model: they are of the atoms 8, 1, 6, the region .* has 8, 1, 1"),
    ({"model": network(condition=(1, 2, 0))}, r"model: it was trained for .*\(1, 2, 0\), the region has \(0, 1, 0\)"),
    ({"network": ResponseSettings(response=False)}, "network: response=False has no electrostatic embedding"),
]


@pytest.mark.parametrize(
    ("changes", "message"), CASES, ids=[f"{next(reversed(c))}-{str(m)[:40]}-{k}" for k, (c, m) in enumerate(CASES)]
)
def test_a_wrong_argument_is_refused_by_name(tmp_path, changes, message):
    with pytest.raises(LoopError, match=message):
        make_loop(tmp_path / "loop", **changes)
    assert not (tmp_path / "loop").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "other"}, "labels: they are of 'other', the loop computes 'springs'"),
        ({"atomic_numbers": np.array([16, 1, 1])}, "labels: they are of the atoms 16, 1, 1, the region"),
        ({"charge": -2, "multiplicity": 1}, r"frame 'g0' has charge and multiplicity \(-2, 1\), the region \(0, 1\)"),
        ({"multiplicity": 3}, r"frame 'g0' has charge and multiplicity \(0, 3\)"),
    ],
)
def test_labels_of_something_else_are_refused(tmp_path, changes, message):
    with pytest.raises(LoopError, match=message):
        make_loop(tmp_path, labels=labels(**changes))


def test_labels_that_are_too_few_for_a_model_are_refused(tmp_path):
    with pytest.raises(LoopError, match="5 are too few for a first model, 6 are needed"):
        make_loop(tmp_path, labels=labels(5))
    make_loop(tmp_path, labels=labels(6))


@pytest.mark.filterwarnings("ignore:region 'water' has charge:qmmlmm.errors.QmmlmmWarning")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"multiplicity": 2}, "10 electrons .charge 0. have an odd multiplicity up to 11, got 2"),
        ({"charge": 1}, "9 electrons .charge 1. have an even multiplicity"),
        ({"charge": 11}, "charge 11 leaves -1 electrons of 10 protons"),
        ({"multiplicity": 13}, "have an odd multiplicity up to 11, got 13"),
    ],
)
def test_a_multiplicity_that_does_not_fit_is_refused(tmp_path, changes, message):
    topology, system, positions = waters()
    with pytest.raises(LoopError, match=message):
        LearningLoop(tmp_path, topology, system, term(**changes), positions, method="springs")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        *((1, value, "topology is an instance of Topology") for value in (None, 5, "x")),
        *((2, value, "system is an instance of System") for value in (None, 5, "x")),
        *((3, value, "term is an instance of Term") for value in (None, 5, "x", Term)),
        *((4, value, "positions") for value in (None, 5, "x", [], np.zeros((12, 2)), np.full((12, 3), math.nan))),
        (4, np.zeros((12, 3)) * unit.kelvin, "positions has a unit like nanometer"),
        (4, np.zeros((11, 3)), "the System has 12 particles, the positions of walker 0 are of 11"),
        *((0, value, "directory is a path") for value in (None, 5, b"x", "", "a\0b")),
    ],
)
def test_a_wrong_object_is_refused(tmp_path, place, value, message):
    topology, system, positions = waters()
    arguments = [tmp_path / "loop", topology, system, term(), positions]
    arguments[place] = value
    with pytest.raises(LoopError, match=message):
        LearningLoop(*arguments, method="springs")


def test_a_directory_that_is_a_file_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(LoopError, match="is a file; give a folder"):
        make_loop(path)


@pytest.mark.parametrize("value", ["x", "0", "-1", "", "1.5"])
def test_a_number_of_threads_is_one(tmp_path, value):
    with pytest.raises(LoopError, match="platform_properties: Threads is a number of threads"):
        make_loop(tmp_path, platform="CPU", platform_properties={"Threads": value})


def test_nothing_is_made_of_settings_that_fit(tmp_path):
    loop = make_loop(tmp_path / "loop", settings=SETTINGS)
    assert not loop.directory.exists()
