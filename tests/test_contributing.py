"""What CONTRIBUTING.md shows is true: its potential is short, passes the check, and runs in a System."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import openmm
import pytest
from openmm import app

from qmmlmm import Hamiltonian, Region, Term, create_mixed_system
from tests.contexts import system_energy_and_forces
from tests.finite_differences import central_difference

TEXT = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
MOST_LINES = 25
STEP = 1e-4  # nm
# The mesh of the force field is the larger part of it; forces are some 1e3 kJ/(mol nm).
FORCE_ERROR = 1e-2


def block(name: str) -> str:
    found = re.findall(rf"<!-- code: {name} -->\n```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(found) == 1, f"CONTRIBUTING.md has {len(found)} blocks named {name!r}, expected one"
    return found[0]


@pytest.fixture
def springs(monkeypatch):
    """The module that a reader would write."""
    module = ModuleType("springs_of_a_contributor")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # pickle looks for the class there
    exec(block("potential"), vars(module))
    return module


def test_a_potential_takes_few_lines():
    assert len([line for line in block("potential").splitlines() if line.strip()]) <= MOST_LINES


def test_the_potential_passes_the_check(springs, capsys):
    exec(block("check"), vars(springs))
    printed = capsys.readouterr().out
    assert "forces on the charges in a box" in printed
    assert "FAILED" not in printed


def water_and_ions():
    """Return topology, System with PME and positions, nm, of one water and four ions."""
    topology, system, force = app.Topology(), openmm.System(), openmm.NonbondedForce()
    chain = topology.addChain()
    water = topology.addResidue("HOH", chain)
    for name in ("O", "H", "H"):
        topology.addAtom(name, app.Element.getBySymbol(name), water)
    for name in ("Na", "Cl", "Na", "Cl"):
        topology.addAtom(name, app.Element.getBySymbol(name), topology.addResidue(name, chain))
    oxygen, *hydrogens = list(topology.atoms())[:3]
    for hydrogen in hydrogens:
        topology.addBond(oxygen, hydrogen)
    for atom, charge in zip(topology.atoms(), (-0.8, 0.4, 0.4, 1.0, -1.0, 1.0, -1.0), strict=True):
        system.addParticle(atom.element.mass)
        force.addParticle(charge, 0.3, 0.1)
    force.createExceptionsFromBonds([(0, 1), (0, 2)], 0.8333, 0.5)
    force.setNonbondedMethod(openmm.NonbondedForce.PME)
    force.setCutoffDistance(0.9)
    system.addForce(force)
    box = 2.0 * np.eye(3)
    system.setDefaultPeriodicBoxVectors(*box)
    topology.setPeriodicBoxVectors(box)
    ions = [[0.5, 0.1, 0.0], [-0.4, 0.3, 0.2], [0.1, -0.5, 0.3], [0.2, 0.4, -0.6]]
    return topology, system, np.array([[0.0, 0.0, 0.0], [0.2, 0.0, 0.0], [-0.05, 0.18, 0.0], *ions])


@pytest.mark.parametrize("embedding", ["mechanical", "electrostatic"])
def test_the_potential_runs_in_a_system(springs, embedding):
    topology, system, positions = water_and_ions()
    potential = springs.Springs([-0.8, 0.4, 0.4])
    term = Term(potential, Region("water", [0, 1, 2]), embedding=embedding)
    mixed = create_mixed_system(topology, system, Hamiltonian([term]))
    energy, forces = system_energy_and_forces(mixed.system, positions)
    assert np.isfinite(energy)
    direction = np.random.default_rng(1).normal(size=positions.shape)
    for chosen in ([0, 1, 2], [3, 4, 5, 6]):
        along = np.zeros_like(positions)
        along[chosen] = direction[chosen]
        numerical = central_difference(
            lambda moved: system_energy_and_forces(mixed.system, moved)[0], positions, along, STEP, points=4
        )
        assert abs(numerical + (forces * along).sum()) < FORCE_ERROR
