from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from qmmlmm import Hamiltonian, MLPotential, Region, Term, create_mixed_system
from qmmlmm.embedding.torch_term import TorchTerm
from qmmlmm.geometry import Geometry
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.ml.response_settings import ResponseSettings
from tests.finite_differences import central_difference
from tests.toy_systems import molecule_among_ions

# Differences over 1e-5 nm, in units of the largest force.
SYSTEM_DIFFERENCE = 1e-6


@functools.cache
def water_potential(near_cutoff):
    """A potential of three atoms whose term of the near charges is not small."""
    torch.manual_seed(3)
    settings = ResponseSettings(features=8, layers=1, near_cutoff=4.5, near_functions=4)
    model = ResponseNetwork([1, 8, 1], [(0, 1), (1, 2)], settings, members=2, dtype=torch.float64)
    model.near_scale = 3.0
    model.near_cutoff = near_cutoff
    return MLPotential(model, atomic_numbers=[1, 8, 1], embeddings=["electrostatic"])


# Without its profiling executor TorchScript leaves energies made under no_grad in the graph.
@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True to a scalar")
@pytest.mark.usefixtures("without_profiling")
@pytest.mark.parametrize("periodic", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_in_a_system_forces_on_all_particles_are_differences_of_the_energy(periodic):
    case = molecule_among_ions(periodic)
    potential, blind = water_potential(4.5), water_potential(0.0)
    hamiltonian = Hamiltonian([Term(potential, Region("mol", [0, 1, 2]), embedding="electrostatic")])
    mixed = create_mixed_system(case.topology, case.system, hamiltonian, ml_backend="pythonforce")
    layout = mixed.terms["mol/ML"].layout
    term = TorchTerm(layout, potential, potential.module)

    def energy_at(positions):
        return term.compute(Geometry(positions, case.box))[0]

    _, forces = term.compute(Geometry(case.positions, case.box))
    _, without = TorchTerm(layout, blind, blind.module).compute(Geometry(case.positions, case.box))
    assert np.abs(forces - without)[3:].max() > 1.0  # the near charges feel their term
    generator = np.random.default_rng(8)
    for group in (slice(0, 3), slice(3, None), slice(None)):
        direction = np.zeros_like(case.positions)
        direction[group] = generator.standard_normal(direction[group].shape)
        expected = -central_difference(energy_at, case.positions, direction, 1e-5, points=4)
        found = float((forces * direction).sum())
        assert found == pytest.approx(expected, abs=SYSTEM_DIFFERENCE * np.abs(forces[group]).max())
