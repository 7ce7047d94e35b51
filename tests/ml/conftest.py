"""Small models, and a small solution to run them in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Dict  # noqa: UP035  (TorchScript reads it)

import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit
from torch import Tensor


class Springs(torch.nn.Module):
    """forward(positions): harmonic in all distances."""

    def __init__(self, strength=0.1):
        super().__init__()
        self.strength = torch.nn.Parameter(torch.tensor(strength, dtype=torch.float64))

    def forward(self, positions):
        delta = positions[:, None, :] - positions[None, :, :]
        return 0.25 * self.strength * ((delta * delta).sum(-1) - 4.0).pow(2).sum()


class SpringsInField(torch.nn.Module):
    """forward(positions, potential, field): springs, charges that follow the geometry, a polarisability."""

    def __init__(self):
        super().__init__()
        self.springs = Springs()

    def forward(self, positions, potential, field):
        away = positions - positions.mean(0)
        charges = 0.1 * ((away * away).sum(-1) - (away * away).sum(-1).mean())
        return self.springs(positions) + (charges * potential).sum() - 1.5 * (field * field).sum()


class Contract(torch.nn.Module):
    """forward(inputs): energy from all inputs of the contract."""

    def __init__(self):
        super().__init__()
        self.springs = Springs()

    def forward(self, inputs: Dict[str, Tensor]) -> Dict[str, Tensor]:  # noqa: UP006
        energy = self.springs(inputs["positions"]) * (1.0 + 0.1 * inputs["charge"])
        energy = energy + 0.01 * inputs["multiplicity"] * inputs["atomic_numbers"].sum()
        if "potential" in inputs:
            energy = energy + 0.1 * inputs["potential"].sum() - (inputs["field"] ** 2).sum()
        return {"energy": energy}


class NotANumberBeyond(torch.nn.Module):
    """The energy of a spring until two atoms are further apart than 4 bohr."""

    def forward(self, positions):
        r = torch.sqrt(((positions[0] - positions[1]) ** 2).sum())
        return torch.sqrt(4.0 - r)


def solution(shape="box"):
    """A molecule of three atoms and 20 ions, in a skewed box or without one."""
    rng = np.random.default_rng(11)
    topology, system, force = app.Topology(), openmm.System(), openmm.NonbondedForce()
    elements = [app.element.hydrogen, app.element.oxygen, app.element.hydrogen]
    residue = topology.addResidue("MOL", topology.addChain())
    atoms = [topology.addAtom(f"A{k}", element, residue) for k, element in enumerate(elements)]
    topology.addBond(atoms[0], atoms[1])
    topology.addBond(atoms[1], atoms[2])
    box = np.array([[1.9, 0, 0], [0.4, 1.8, 0], [-0.5, 0.6, 2.0]])
    # The ions stand on a lattice, shaken, with one place free for the molecule.
    lattice = np.array([[a, b, c] for a in range(3) for b in range(3) for c in range(3)])[1:21] / 3.0
    places = [[0.0, 0.0, 0.0], [0.08, 0.05, 0.0], [0.15, -0.01, 0.02]]
    places += [*(lattice @ box + 0.05 * rng.standard_normal((20, 3)))]
    charges = [0.3, -0.6, 0.3] + [0.4, -0.4] * 10
    for k, charge in enumerate(charges):
        system.addParticle(16.0)
        force.addParticle(charge, 0.2, 0.1)
        if k > 2:
            topology.addAtom("NA", app.element.sodium, topology.addResidue("ION", topology.addChain()))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        force.addException(i, j, 0.0, 0.2, 0.0)
    if shape == "box":
        system.setDefaultPeriodicBoxVectors(*box)
        topology.setPeriodicBoxVectors(box * unit.nanometer)
        force.setNonbondedMethod(openmm.NonbondedForce.PME)
        force.setCutoffDistance(0.7)
        force.setPMEParameters(4.0, 25, 25, 27)
    system.addForce(force)
    return SimpleNamespace(topology=topology, system=system, positions=np.array(places), box=box)


def energy_and_forces(system, positions):
    """In kJ/mol and kJ/(mol nm), on Reference."""
    integrator = openmm.VerletIntegrator(0.001)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform("Reference"))
    context.setPositions(positions)
    state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value


@pytest.fixture
def models():
    return SimpleNamespace(
        Springs=Springs,
        SpringsInField=SpringsInField,
        Contract=Contract,
        NotANumberBeyond=NotANumberBeyond,
        solution=solution,
        energy_and_forces=energy_and_forces,
    )
