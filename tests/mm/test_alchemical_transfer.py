"""A molecule at two places: energies of each place, forces by central differences, and no hang with Python terms."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import unit

from qmmlmm import Hamiltonian, Region, Term, create_mixed_system
from qmmlmm.errors import SettingError, UnsupportedSystemError
from qmmlmm.mm.alchemical_transfer import alchemical_transfer
from tests.toy_potentials import EvaluatedSprings, fixed_in_openmm
from tests.toy_systems import molecule_among_ions

SHIFT = np.array([0.31, -0.22, 0.17])
SAME_ENERGY = 1e-8
"""kJ/mol, of the same sums in double precision."""

STEP = 1e-5
DERIVATIVE = 2e-4
"""kJ/(mol nm): error of central differences with steps of 1e-5 nm in energies of some 1000 kJ/mol."""


@pytest.fixture(scope="module", params=["fixed charges", "Python"])
def mixed(request):
    case = molecule_among_ions(periodic=True)
    charges = [0.3, -0.6, 0.3]
    potential = fixed_in_openmm(charges) if request.param == "fixed charges" else EvaluatedSprings(charges)
    term = Term(potential, Region("mol", [0, 1, 2]), embedding="electrostatic")
    return case, create_mixed_system(case.topology, case.system, Hamiltonian([term]))


def context_of(system, positions, platform="Reference"):
    context = openmm.Context(system, openmm.VerletIntegrator(0.0005), openmm.Platform.getPlatform(platform))
    context.setPositions(positions)
    return context


def energy(context):
    return context.getState(energy=True).getPotentialEnergy()._value


def test_energies_at_both_ends_are_those_of_the_two_places(mixed):
    case, given = mixed
    transfer = alchemical_transfer(given, [0, 1, 2], SHIFT * unit.nanometer)
    context = context_of(transfer.system, case.positions)
    displaced = case.positions.copy()
    displaced[:3] += SHIFT
    expected = [energy(context_of(given.system, positions)) for positions in (case.positions, displaced)]
    assert abs(expected[1] - expected[0]) > 1.0
    for value in (0.0, 0.3, 1.0):
        transfer.set_lambda(context, value)
        assert energy(context) == pytest.approx((1 - value) * expected[0] + value * expected[1], abs=SAME_ENERGY)
    transfer.set_lambda(context, 0.3)
    found = [end._value for end in transfer.energies(context)]
    assert found == pytest.approx(expected, abs=SAME_ENERGY)
    assert context.getParameter(transfer.force.Lambda1()) == 0.3


def test_forces_are_the_derivatives_of_the_energy(mixed):
    case, given = mixed
    transfer = alchemical_transfer(given, [0, 1, 2], SHIFT, soft_core=(400.0, 100.0))
    context = context_of(transfer.system, case.positions)
    for value in (0.0, 0.4, 1.0):
        transfer.set_lambda(context, value)
        context.setPositions(case.positions)
        forces = context.getState(forces=True).getForces(asNumpy=True)._value
        for atom, axis in ((0, 0), (1, 2), (2, 1), (5, 0), (17, 2)):
            ends = []
            for sign in (1.0, -1.0):
                positions = case.positions.copy()
                positions[atom, axis] += sign * STEP
                context.setPositions(positions)
                ends.append(energy(context))
            assert forces[atom, axis] == pytest.approx(-(ends[0] - ends[1]) / (2 * STEP), abs=DERIVATIVE)


def test_the_soft_core_limits_the_energy(mixed):
    case, given = mixed
    onto = case.positions[7] - case.positions[1] + np.array([0.06, 0.0, 0.0])
    hard, soft = (alchemical_transfer(given, [0, 1, 2], onto, soft_core=core) for core in (None, (400.0, 100.0)))
    ends = []
    for transfer in (hard, soft):
        context = context_of(transfer.system, case.positions)
        transfer.set_lambda(context, 1.0)
        ends.append(energy(context) - energy(context_of(given.system, case.positions)))
    assert ends[0] > 1e4
    assert 250.0 < ends[1] <= 400.0


SCRIPT = """
import sys
import openmm
from qmmlmm import Hamiltonian, Region, Term, create_mixed_system
from qmmlmm.mm.alchemical_transfer import alchemical_transfer
from tests.toy_potentials import EvaluatedSprings
from tests.toy_systems import molecule_among_ions

case = molecule_among_ions(periodic=True)
term = Term(EvaluatedSprings([0.3, -0.6, 0.3]), Region("mol", [0, 1, 2]), embedding="electrostatic")
mixed = create_mixed_system(case.topology, case.system, Hamiltonian([term]))
transfer = alchemical_transfer(mixed, [0, 1, 2], [0.31, -0.22, 0.17])
context = openmm.Context(transfer.system, openmm.VerletIntegrator(0.0005), openmm.Platform.getPlatform(sys.argv[1]))
context.setPositions(case.positions)
transfer.set_lambda(context, 0.5)
context.getIntegrator().step(5)
print(*transfer.energies(context))
"""
LONGEST = 100.0
"""Seconds after which a process hangs: it takes some ten."""


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_python_terms_run_within_an_alchemical_transfer(platform):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, platform],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("kJ/mol") == 2


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"ligand": [0, 1]}, UnsupportedSystemError, r"ligand is a part of a molecule, with bonds \(1, 2\)"),
        ({"ligand": [0, 99]}, SettingError, "ligand has atom indices from 0 to 22"),
        ({"displacement": [0.0, 0.0, 0.0]}, SettingError, "displacement is a vector that is not zero"),
        ({"displacement": [1.0, 0.0]}, SettingError, r"displacement has the shape \(3\)"),
        ({"soft_core": (100.0, 400.0)}, SettingError, "the base is below the largest energy, got 400 and 100"),
        ({"soft_core": 5.0}, SettingError, "soft_core is a pair of energies"),
        ({"mixed": None}, SettingError, "mixed is an instance of MixedSystem"),
    ],
)
def test_wrong_arguments_are_refused(mixed, change, error, text):
    arguments = {"mixed": mixed[1], "ligand": [0, 1, 2], "displacement": SHIFT} | change
    with pytest.raises(error, match=text):
        alchemical_transfer(**arguments)


def test_a_context_of_another_system_is_refused(mixed):
    case, given = mixed
    transfer = alchemical_transfer(given, [0, 1, 2], SHIFT)
    with pytest.raises(SettingError, match="context runs another System"):
        transfer.energies(context_of(given.system, case.positions))
    with pytest.raises(SettingError, match="value is a finite number at least 0 and at most 1"):
        transfer.set_lambda(context_of(transfer.system, case.positions), 1.5)
