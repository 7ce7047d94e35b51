"""No setting of a training or a learning loop is accepted that is not one: every field against every kind of value."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from openmm import unit

from qmmlmm.commands.spectrum import SpectrumSettings
from qmmlmm.errors import SettingError
from qmmlmm.learning import ResponseSettings, TrainingSettings
from qmmlmm.learning.loop import JobLimits, LabelSettings, LoopSettings, Walker
from tests.wrong_values import NUMPY, short, wrong_values

SIZE = "count"
KINDS = {
    ResponseSettings: {
        "features": SIZE, "layers": SIZE, "radial_functions": SIZE, "cutoff": "positive",
        "near_cutoff": "not negative", "near_functions": SIZE, "near_features": "count or zero",
        "long_range": "flag", "response": "flag", "dispersion": "name", "tensor_features": "count or zero",
    },
    TrainingSettings: {
        "steps": "count", "batch_size": "count", "learning_rate": "positive", "clip": "positive",
        "near_decay": "not negative", "averaging": "not negative", "force_weight": "not negative",
        "near_weight": "not negative", "vacuum_weight": "not negative", "dipole_weight": "not negative",
        "energy_weight": "not negative", "patience": "count", "validations": "count", "seed": "seed",
    },
    LoopSettings: {
        "force_error": "positive", "energy_error": "positive or None", "confidence": "positive",
        "fresh_labels": "count", "labels_per_round": "count or zero", "max_rounds": "count", "start_labels": "count",
        "start_steps": "count or zero", "start_displacement": "not negative", "steps_per_round": "count",
        "check_interval": "count", "uncertain_above": "positive or None", "stop_above": "positive or None",
        "force_limit": "positive", "heat_limit": "positive", "bond_limit": "positive or None",
        "contact_limit": "positive", "walkers_at_once": "count", "candidates_per_walker": "count",
        "temperature": "positive", "friction": "not negative", "time_step": "positive", "members": "count",
        "validation": "positive", "retrain": "name", "seed": "seed", "reacting_bonds": "list or None",
    },
    JobLimits: {"threads": "count", "memory": "positive or None", "seconds": "positive"},
    LabelSettings: {"workers": "count", "limits": "record", "attempts": "count", "isolated": "flag"},
    SpectrumSettings: {
        "frames": "count", "first": "count or zero", "full_width": "positive", "vacuum": "flag", "workers": "count",
    },
}  # fmt: skip
MORE = {
    ResponseSettings: {
        "cutoff": [0.5, 1e9, 5 * unit.angstrom], "near_cutoff": [1e9], "features": [10**6], "layers": [10**6],
        "dispersion": ["", "b3lyp", "x-d3"],
    },
    TrainingSettings: {"learning_rate": [2.0], "averaging": [1.0, 2.0]},
    LoopSettings: {
        "confidence": [0.5, 1.0, 95], "validation": [0.5, 1.0], "start_displacement": [5.0],
        "start_labels": [7], "members": [1], "time_step": [0.5, 4, 0.5 * unit.kelvin], "heat_limit": [1.0, 0.5],
        "reacting_bonds": [[[0]], [[0, 1, 2]], [[0, -1]], [[0, 1.5]], [["a", "b"]]],
        "bond_limit": [1.0, "none"], "contact_limit": [1.0], "retrain": [None, "never", ""],
        "temperature": [300 * unit.nanometer], "friction": [1.0 * unit.picosecond],
        "force_error": [5 * unit.kilojoule_per_mole],
    },
    JobLimits: {"seconds": [1e9, 60 * unit.second], "memory": [1e12]},
    LabelSettings: {"limits": [JobLimits]},
    SpectrumSettings: {"full_width": [2000.0]},
}  # fmt: skip
CASES = [
    (record, name, value)
    for record, kinds in KINDS.items()
    for name, value in wrong_values(kinds, MORE.get(record, {}))
]


@pytest.mark.parametrize("record", list(KINDS))
def test_every_field_is_in_the_table(record):
    assert set(KINDS[record]) == {field.name for field in dataclasses.fields(record)}


@pytest.mark.parametrize(("record", "name", "value"), CASES, ids=[f"{r.__name__}-{n}-{short(v)}" for r, n, v in CASES])
def test_a_wrong_value_is_refused_by_name(record, name, value):
    with pytest.raises(SettingError, match=rf"^{name}\b.*got "):
        record(**{name: value})


@pytest.mark.parametrize(
    ("record", "name"),
    [(record, name) for record, kinds in KINDS.items() for name, kind in kinds.items() if kind in NUMPY],
)
def test_numbers_of_numpy_become_those_of_python(record, name):
    """Records are written as JSON and compared with those of a run that was stopped."""
    value = getattr(record(), name)
    made = record(**{name: NUMPY[KINDS[record][name]](value)})
    assert type(getattr(made, name)) is type(value)
    assert getattr(made, name) == pytest.approx(value)


@pytest.mark.parametrize(
    ("record", "changes", "message"),
    [
        (
            TrainingSettings,
            dict.fromkeys(("force_weight", "near_weight", "vacuum_weight", "dipole_weight", "energy_weight"), 0.0),
            "all of force_weight, .* are zero",
        ),
        (LoopSettings, {"steps_per_round": 10}, "steps_per_round is at least check_interval, got 10 and 20"),
        (LoopSettings, {"uncertain_above": 60.0, "stop_above": 60.0}, "uncertain_above lies below stop_above"),
    ],
)
def test_values_that_do_not_go_together_are_refused(record, changes, message):
    with pytest.raises(SettingError, match=message):
        record(**changes)


def test_quantities_are_converted():
    settings = LoopSettings(
        force_error=2.5 * unit.kilojoule_per_mole / unit.angstrom, temperature=300 * unit.kelvin,
        friction=1 / unit.femtosecond, time_step=0.5 * unit.femtosecond, start_displacement=0.04 * unit.angstrom,
    )  # fmt: skip
    assert settings.force_error == pytest.approx(25.0)
    assert settings.temperature == 300.0
    assert settings.friction == pytest.approx(1000.0)
    assert settings.time_step == pytest.approx(0.0005)
    assert settings.start_displacement == pytest.approx(0.004)


def test_bonds_may_break_where_the_limit_is_none():
    assert LoopSettings(bond_limit=None).bond_limit is None


def test_reacting_bonds_are_pairs_in_one_order_and_once():
    given = np.array([[7, 3], [1, 2], [3, 7]])
    assert LoopSettings(reacting_bonds=given).reacting_bonds == ((3, 7), (1, 2))
    with pytest.raises(SettingError, match="reacting_bonds: a bond has an atom twice: 4"):
        LoopSettings(reacting_bonds=[[4, 4]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parameters": 5}, "Walker: parameters maps names"),
        ({"parameters": {5: 1.0}}, "Walker: parameters maps names"),
        ({"parameters": {"": 1.0}}, "Walker: name of a parameter is a text"),
        *(
            ({"parameters": {"k": value}}, "Walker: parameter 'k' is a finite number")
            for value in (math.nan, "x", True)
        ),
        ({"positions": "x"}, "Walker: positions is an array of numbers"),
        ({"positions": np.zeros((4, 2))}, r"Walker: positions has the shape \(any, 3\)"),
        ({"positions": np.full((4, 3), math.nan)}, "Walker: positions is finite"),
        ({"positions": np.zeros((4, 3)) * unit.kelvin}, "Walker: positions has a unit like nanometer"),
    ],
)
def test_a_wrong_walker_is_refused(arguments, message):
    with pytest.raises(SettingError, match=message):
        Walker(**arguments)
