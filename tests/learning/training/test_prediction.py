from __future__ import annotations

import numpy as np
import pytest
import torch

from qmmlmm.learning import DataSetError
from qmmlmm.learning.training.frame_tensors import frame_tensors
from qmmlmm.learning.training.prediction import predict
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.ml.response_settings import ResponseSettings
from tests.finite_differences import central_difference

CONDITIONS = [(0, 1, 0)]
STEP = 1e-4
# Central differences with that step; the near map is kept in single precision.
FORCE_TOLERANCE = 1e-7
NEAR_TOLERANCE = 1e-6


def network(near_cutoff: float) -> ResponseNetwork:
    torch.manual_seed(2)
    settings = ResponseSettings(features=8, near_cutoff=near_cutoff, near_functions=3)
    return ResponseNetwork([8, 1, 1, 6], [(0, 1), (0, 2)], settings, CONDITIONS, members=2, dtype=torch.float64).eval()


def energies(model, x, near, charges) -> torch.Tensor:
    """Return the members' energies among point charges whose potential is summed here."""
    x = x.clone().requires_grad_(True)
    r = (x[:, None] - near[None]).norm(dim=-1)
    potential = (1.0 / r) @ charges
    (slope,) = torch.autograd.grad(potential.sum(), x)
    every = x.detach().expand(2, 1, 4, 3)
    condition = torch.tensor([0])
    properties = model.properties(every, condition)
    energy = model.intrinsic_energy(every, properties, condition)
    energy = energy + model.field_energy(properties, potential.detach().expand(2, 1, 4), -slope.expand(2, 1, 4, 3))
    if model.near_cutoff > 0:
        energy = energy + model.near_energy(properties, model.near(every, near.expand(2, 1, *near.shape), charges))
    return energy[:, 0].detach()


@pytest.mark.parametrize("near_cutoff", [0.0, 5.5])
def test_forces_on_atoms_and_near_charges_are_differences_of_the_energy(teacher, near_cutoff):
    model = network(near_cutoff)
    # A float32 map is exact enough here; the two frames differ in the number of near charges.
    frames = [teacher.frame(k=k) for k in (5, 3)]
    data = frame_tensors(frames, CONDITIONS)
    predicted = predict(model, data)
    for index, frame in enumerate(frames):
        x = torch.tensor(frame.positions)
        near, charges = torch.tensor(frame.near.positions), torch.tensor(frame.near.charges)
        torch.testing.assert_close(
            predicted.energy[:, index].detach(), energies(model, x, near, charges), rtol=0, atol=1e-10
        )
        for places, forces, tolerance in (
            (x, predicted.forces[:, index], FORCE_TOLERANCE),
            (near, predicted.near_forces[:, index], NEAR_TOLERANCE),
        ):
            atoms = places is x

            def energy_at(moved, atoms=atoms, x=x, near=near, charges=charges):
                return energies(model, moved if atoms else x, near if atoms else moved, charges)

            for k in range(len(places)):
                for axis in range(3):
                    direction = torch.zeros_like(places)
                    direction[k, axis] = 1.0
                    difference = -central_difference(energy_at, places, direction, STEP)
                    assert (difference - forces[:, k, axis].detach()).abs().max() < tolerance
    assert (predicted.near_forces[:, 1, 3:] == 0).all()


def test_the_dipole_is_minus_the_derivative_of_the_energy_by_a_uniform_field(teacher):
    model = network(0.0)
    frame = teacher.frame()
    data = frame_tensors([frame], CONDITIONS)
    predicted = predict(model, data)
    arms = data.positions - data.origin[:, None]

    def energy(strength):
        changed = frame_tensors([frame], CONDITIONS)
        changed.potential_gradient.sub_(strength)
        changed.potential.sub_(arms @ strength)
        return predict(model, changed).energy[:, 0].detach()

    none, directions = torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    for axis in range(3):
        difference = -central_difference(energy, none, directions[axis], STEP)
        torch.testing.assert_close(difference, predicted.dipole[:, 0, axis].detach(), rtol=0, atol=1e-7)


def test_in_a_vacuum_the_two_energies_are_one(teacher):
    model = network(5.5)
    data = frame_tensors([teacher.frame().without_surroundings()], CONDITIONS)
    predicted = predict(model, data)
    torch.testing.assert_close(predicted.energy, predicted.vacuum_energy)
    torch.testing.assert_close(predicted.forces, predicted.vacuum_forces)
    torch.testing.assert_close(predicted.dipole, predicted.vacuum_dipole)  # the first by differentiation


def test_near_charges_beyond_the_reach_are_left_to_the_potential(teacher):
    frame = teacher.frame(k=6)
    distance = np.linalg.norm(frame.near.positions[:, None] - frame.positions[None], axis=-1).min(1) * 0.529177
    reach = np.sort(distance)[2:4].mean()
    assert (frame_tensors([frame], CONDITIONS, near_reach=reach).near_charges != 0).sum() == 3


def test_frames_with_unlike_labels_and_unknown_conditions_are_refused(teacher):
    whole, bare = teacher.frame(name="whole"), teacher.frame(name="bare").without_surroundings()
    with pytest.raises(DataSetError, match=r"1 of 2 frames have the label 'potential', frame 1 \('bare'\)"):
        frame_tensors([whole, bare], CONDITIONS)
    with pytest.raises(DataSetError, match="also have"):
        frame_tensors([whole], [(1, 2, 0)])
