"""A QM region in a periodic box: acetone in water."""

from __future__ import annotations

from functools import cache

import numpy as np
import openmm
import pytest
from openmm import unit

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.errors import EvaluationError
from qmmlmm.geometry import Geometry
from qmmlmm.units import ANGSTROM_IN_BOHR
from systems.acetone_water import build
from tests.finite_differences import central_difference

ACETONE = tuple(range(10))
SAME_FIELD = 1e-6  # hartree
STEP = 2e-3  # bohr, along directions of norm 1
EXACT = 1e-6  # hartree/bohr


@cache
def _structure():
    return build(constraints=None, rigid_water=False)


def _term(alpha, spacing, potential):
    """The QM term with this Ewald splitting, 1/nm, and a mesh of this spacing, nm; all particles, bohr."""
    structure = _structure()
    system = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(structure.system))
    force = next(f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    edges = [v[k].value_in_unit(unit.nanometer) for k, v in enumerate(system.getDefaultPeriodicBoxVectors())]
    force.setPMEParameters(alpha, *(int(np.ceil(edge / spacing)) for edge in edges))
    hamiltonian = Hamiltonian([Term(potential, Region("acetone", ACETONE), embedding="electrostatic")])
    mixed = create_mixed_system(structure.topology, system, hamiltonian)
    geometry = Geometry.from_quantities(structure.positions, np.diag(edges))
    return mixed.evaluated_term("acetone/QM"), geometry.in_bohr()


def test_the_energy_does_not_depend_on_where_short_and_long_range_are_split():
    # The third is beyond the splitting that PySCF asks for: no finer mesh.
    qm = PySCFPotential("hf", "sto-3g", conv_tol=1e-10)
    energies, compact = [], []
    for alpha, spacing in ((3.0, 0.035), (4.8, 0.025), (7.0, 0.02)):
        term, geometry = _term(alpha, spacing, qm)
        energies.append(term.energy_and_gradient(geometry)[0])
        compact.append(len(term.last.charge_gradient))
    assert np.ptp(energies) < SAME_FIELD
    assert compact[0] == compact[1]


def test_the_gradient_is_the_derivative_of_the_energy_for_region_near_and_far_atoms():
    term, geometry = _term(3.0, 0.1, PySCFPotential("hf", "sto-3g", conv_tol=1e-11))
    _, gradient = term.energy_and_gradient(geometry)
    positions = geometry.positions

    def energy(places):
        return term.energy_and_gradient(Geometry(places, geometry.box))[0]

    distances = np.linalg.norm(positions - positions[1], axis=1)
    distances[:10] = np.inf
    order = np.argsort(distances)
    groups = {"region": np.arange(10), "near": order[:10], "far": order[[600, 601, -2, -1]]}
    rng = np.random.default_rng(4)
    for name, atoms in groups.items():
        direction = np.zeros_like(positions)
        direction[atoms] = rng.normal(size=(len(atoms), 3))
        direction /= np.linalg.norm(direction)
        expected = central_difference(energy, positions, direction, STEP)
        assert (gradient * direction).sum() == pytest.approx(expected, abs=EXACT), name


def test_a_water_that_sits_on_an_atom_of_the_region_is_named():
    term, geometry = _term(3.0, 0.1, PySCFPotential("hf", "sto-3g"))
    positions = geometry.positions
    positions[10] = positions[1] + np.array([0.2 * ANGSTROM_IN_BOHR, 0.0, 0.0])
    message = r"HOH1:O \(chain W, index 10\) is 0\.20 angstrom from ACN1:C2 \(chain A, index 1\)"
    with pytest.raises(EvaluationError, match=message):
        term.energy_and_gradient(geometry)
