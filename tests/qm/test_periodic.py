"""A QM region in a periodic box: acetone in water."""

from __future__ import annotations

from functools import cache

import numpy as np
import openmm
import pytest
from openmm import unit

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.errors import EvaluationError
from qmmlmm.units import ANGSTROM_IN_BOHR, NM_IN_BOHR
from systems.acetone_water import build

ACETONE = tuple(range(10))
SAME_FIELD = 1e-6  # hartree
STEP = 2e-3  # bohr, along directions of norm 1
EXACT = 1e-6  # hartree/bohr


@cache
def _structure():
    return build(constraints=None, rigid_water=False)


def _term(alpha, spacing, potential):
    """The QM term with this Ewald splitting, 1/nm, and a mesh of this spacing, nm."""
    structure = _structure()
    system = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(structure.system))
    force = next(f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    edges = [v[k].value_in_unit(unit.nanometer) for k, v in enumerate(system.getDefaultPeriodicBoxVectors())]
    force.setPMEParameters(alpha, *(int(np.ceil(edge / spacing)) for edge in edges))
    hamiltonian = Hamiltonian([Term(potential, Region("acetone", ACETONE), embedding="electrostatic")])
    mixed = create_mixed_system(structure.topology, system, hamiltonian)
    positions = structure.positions.value_in_unit(unit.nanometer) * NM_IN_BOHR
    box = np.diag(edges) * NM_IN_BOHR
    return mixed.evaluated_term("acetone/QM"), positions, box


def test_the_energy_does_not_depend_on_where_short_and_long_range_are_split():
    # The third is beyond the splitting that PySCF asks for: no finer mesh.
    qm = PySCFPotential("hf", "sto-3g", conv_tol=1e-10)
    energies, compact = [], []
    for alpha, spacing in ((3.0, 0.035), (4.8, 0.025), (7.0, 0.02)):
        term, positions, box = _term(alpha, spacing, qm)
        energies.append(term.compute(positions, box)[0])
        compact.append(len(term.last.charge_gradient))
    assert np.ptp(energies) < SAME_FIELD
    assert compact[0] == compact[1]


def test_the_gradient_is_the_derivative_of_the_energy_for_region_near_and_far_atoms():
    term, positions, box = _term(3.0, 0.1, PySCFPotential("hf", "sto-3g", conv_tol=1e-11))
    _, gradient = term.compute(positions, box)
    distances = np.linalg.norm(positions - positions[1], axis=1)
    distances[:10] = np.inf
    order = np.argsort(distances)
    groups = {"region": np.arange(10), "near": order[:10], "far": order[[600, 601, -2, -1]]}
    rng = np.random.default_rng(4)
    for name, atoms in groups.items():
        direction = np.zeros_like(positions)
        direction[atoms] = rng.normal(size=(len(atoms), 3))
        direction /= np.linalg.norm(direction)
        above, below = (term.compute(positions + sign * STEP * direction, box)[0] for sign in (1, -1))
        assert (gradient * direction).sum() == pytest.approx((above - below) / (2 * STEP), abs=EXACT), name


def test_a_water_that_sits_on_an_atom_of_the_region_is_named():
    term, positions, box = _term(3.0, 0.1, PySCFPotential("hf", "sto-3g"))
    positions = positions.copy()
    positions[10] = positions[1] + np.array([0.2 * ANGSTROM_IN_BOHR, 0.0, 0.0])
    message = r"HOH1:O \(index 10\) is 0\.20 angstrom from ACN1:C2 \(index 1\)"
    with pytest.raises(EvaluationError, match=message):
        term.compute(positions, box)
