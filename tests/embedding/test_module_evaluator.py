"""A torch module as an evaluator of the contract, against the same module as one piece with its surroundings."""

from __future__ import annotations

import numpy as np
import pytest

from qmmlmm import Hamiltonian, MLPotential, Region, Term, create_mixed_system
from qmmlmm.embedding.evaluated_term import EvaluatedTerm
from qmmlmm.geometry import Geometry
from tests.toy_potentials import Polarisable
from tests.toy_systems import chains_among_ions

SAME_PHYSICS = 1e-12  # relative, without a mesh
# Relative; the field of the smooth part is a difference of its potential over 0.02 bohr, right to (0.02 a)^2 / 6 with
# the splitting a = 0.32/bohr here: 7e-6 of the smooth part, which is a small part of the whole.
STENCIL = 1e-6
WHOLE, CUT = (0, 1, 2, 3, 4, 5), (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("shape", "atoms", "smeared"),
    [("octahedron", WHOLE, None), ("triclinic", CUT, 0.1), (None, CUT, None), (None, WHOLE, {7: 0.1, 30: 0.05})],
)
def test_both_ways_of_running_a_model_give_the_same(shape, atoms, smeared):
    case = chains_among_ions(shape, 0, 2)
    model = Polarisable(np.linspace(-0.6, 0.8, len(atoms) + (atoms == CUT)))
    potential = MLPotential(model, elements=[1, 6], embeddings=["electrostatic"], charge=None)
    term = Term(potential, Region("site", atoms), embedding="electrostatic", smeared_charges=smeared)
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([term]), ml_backend="pythonforce")
    geometry = Geometry(case.positions, case.box)
    whole = mixed.terms["site/ML"]
    energy, forces = whole.runner.region_term.compute(geometry)
    found, found_forces = EvaluatedTerm(whole.layout, potential).compute(geometry)
    tolerance = SAME_PHYSICS if shape is None else STENCIL
    assert found == pytest.approx(energy, rel=tolerance)
    np.testing.assert_allclose(found_forces, forces, rtol=0, atol=tolerance * abs(forces).max())
