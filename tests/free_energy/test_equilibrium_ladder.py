"""Windows between two springs, whose free energies are known, and between a level and itself."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
from openmm import app, unit

from qmmlmm import ForceFieldPotential
from qmmlmm.errors import QmmlmmWarning, RunDirectoryError, SettingError
from qmmlmm.free_energy import EquilibriumLadder, multistate_free_energies
from qmmlmm.free_energy.trajectory_tasks import PARAMETER, window_derivatives
from qmmlmm.sampling.segments import SegmentSimulation
from tests.free_energy.spring_legs import CHEAP, FORCE_FIELD, POCKET, TEMPERATURE, UPPER, exact, leg, quick, spring

SAME_MODEL = 1e-6
"""kJ/mol, of a correction from a model to itself."""


def ladder(folder, **changes):
    given = {
        "legs": {"solvent": leg()},
        "lower": ForceFieldPotential(),
        "upper": spring(UPPER, 20.0),
        "values": [0.0, 0.5, 1.0],
        "frames": 20,
        "embedding": "mechanical",
        "settings": quick(),
    }
    return EquilibriumLadder(folder, **{**given, **changes})


def kj(quantity):
    return np.asarray(quantity.value_in_unit(unit.kilojoule_per_mole))


@pytest.mark.parametrize(
    "pockets", [{"solvent": 0.0}, pytest.param({"complex": POCKET, "solvent": 0.0}, marks=pytest.mark.slow)]
)
def test_windows_along_the_whole_way_are_exact(tmp_path, pockets):
    values = np.array([0.0, 0.4, 1.0])
    settings = quick(replicas=2, steps_between_frames=15)
    legs = {name: leg(pocket) for name, pocket in pockets.items()}
    found = ladder(tmp_path, legs=legs, values=values, frames=60, settings=settings).run()
    stiffness = FORCE_FIELD + values * (UPPER - FORCE_FIELD)
    for name, pocket in pockets.items():
        exacts = [exact(FORCE_FIELD, k, pocket, 20.0 * value) for k, value in zip(stiffness, values, strict=True)]
        one = found.legs[name]
        assert (np.abs(kj(one.free_energies) - exacts) <= 2.0 * kj(one.errors) + 1e-9).all()
        assert kj(one.error) < 1.5
        assert (one.overlaps > 0.3).all()
    first = next(iter(pockets))
    difference, error = found.difference(first, "solvent")
    expected = exact(FORCE_FIELD, UPPER, pockets[first]) - exact(FORCE_FIELD, UPPER)
    assert kj(difference) == pytest.approx(expected, abs=2.0 * kj(error) + 1e-9)
    rows = (tmp_path / "ladder.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == '#"Leg","Parameter","Free Energy (kJ/mol)","Error (kJ/mol)","Overlap With Next"'
    assert len(rows) == 1 + 3 * len(pockets)
    assert float(rows[-1].split(",")[2]) == pytest.approx(kj(found.legs["solvent"].free_energy), rel=1e-8)


def test_a_ladder_from_a_model_to_itself_is_zero(tmp_path):
    found = ladder(tmp_path, lower=spring(CHEAP, 7.0), upper=spring(CHEAP, 7.0), frames=10).run()
    assert kj(found.legs["solvent"].free_energies) == pytest.approx(0.0, abs=SAME_MODEL)
    assert kj(found.legs["solvent"].error) == pytest.approx(0.0, abs=SAME_MODEL)


def test_windows_that_do_not_overlap_are_a_warning_with_advice(tmp_path):
    far = ladder(tmp_path, upper=spring(1e6), values=[0.0, 1.0], frames=10, settings=quick(step_size=0.0005))
    with pytest.warns(QmmlmmWarning, match="the windows at 0 and 1 hardly overlap .* put a value between them"):
        far.run()


def test_an_interrupted_ladder_continues_with_the_same_numbers(tmp_path, monkeypatch):
    settings = quick(checkpoint_steps=7)
    whole = ladder(tmp_path / "whole", frames=10, settings=settings).run()
    original, left = SegmentSimulation.sample, [0]

    def interrupted(self, *given):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return original(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentSimulation, "sample", interrupted)
        for _ in range(3):
            left[0] = 17
            with pytest.raises(KeyboardInterrupt):
                ladder(tmp_path / "cut", frames=10, settings=settings).run()
    found = ladder(tmp_path / "cut", frames=10, settings=settings).run()
    assert np.array_equal(kj(found.legs["solvent"].free_energies), kj(whole.legs["solvent"].free_energies))
    window = tmp_path / "cut" / "solvent" / "FF-XTB" / "window-0.5" / "replica0"
    assert len(window_derivatives(window, 10)) == 10
    assert window_derivatives(window, 11) is None


def test_more_frames_use_what_is_there(tmp_path):
    ladder(tmp_path, frames=10).run()
    window = tmp_path / "solvent" / "FF-XTB" / "window-1" / "replica0"
    before = window_derivatives(window, 10)
    ladder(tmp_path, frames=12).run()
    assert np.array_equal(window_derivatives(window, 12)[:10], before)


def test_a_ladder_that_is_not_complete_is_named(tmp_path):
    with pytest.raises(RunDirectoryError, match="window-0.replica0 is missing or not complete; call run"):
        ladder(tmp_path).result()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(app, "ReplicaExchangeSampler"), reason="OpenMM before 8.6")
def test_replica_exchange_of_openmm_samples_the_windows_of_a_leg(tmp_path):
    values = [0.0, 0.4, 1.0]
    given = ladder(tmp_path)
    mixed = given.stages[0].create()
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 10.0, 0.005)
    integrator.setRandomNumberSeed(1)
    reference = openmm.Platform.getPlatform("Reference")
    simulation = app.Simulation(mixed.topology, mixed.system, integrator, reference)
    simulation.context.setPositions(given.legs["solvent"].positions)
    states = [{"temperature": TEMPERATURE * unit.kelvin, PARAMETER: value} for value in values]
    sampler = app.ReplicaExchangeSampler(states, simulation, 20)
    tables = [[] for _ in values]

    def keep(sampler):
        for index, energies in zip(sampler.replicaStateIndex, sampler.replicaStateEnergy, strict=True):
            tables[index].append([energy.value_in_unit(unit.kilojoule_per_mole) for energy in energies])

    sampler.reporters.append(keep)
    sampler.simulate(150)
    free, errors = multistate_free_energies([np.array(table[10:]) for table in tables], TEMPERATURE)
    stiffness = [FORCE_FIELD + value * (UPPER - FORCE_FIELD) for value in values]
    exacts = [exact(FORCE_FIELD, k, offset=20.0 * value) for k, value in zip(stiffness, values, strict=True)]
    assert (np.abs(kj(free) - exacts) <= 2.0 * kj(errors) + 1e-9).all()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"values": [0.0, 0.5]}, "values ascend from 0 to 1, got 0.0, 0.5"),
        ({"values": [0.0, 0.7, 0.3, 1.0]}, "values ascend from 0 to 1"),
        ({"frames": 9}, "frames is a whole number of 10 or more, got 9"),
        ({"settings": None}, "settings is an instance of SwitchingSettings"),
        ({"lower": 5}, "lower is a potential such as XTBPotential"),
        ({"embedding": "elstat"}, "embedding is one of"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, change, text):
    with pytest.raises(SettingError, match=text):
        ladder(tmp_path, **change)
