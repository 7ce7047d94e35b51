"""Potentials for tests: quick, and with an answer that is known exactly or can be written down once more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict  # noqa: UP035  (TorchScript reads it)

import numpy as np
import openmm
import torch
from torch import Tensor

from qmmlmm import OpenMMPotential
from qmmlmm.coupling.potential import Capabilities, EvaluatedPotential, Evaluation, Evaluator, RegionSpecification
from qmmlmm.embedding.fixed_charges import charges_in_field

BOTH = frozenset({"mechanical", "electrostatic"})
ELEMENTS = [1, 6, 7, 8]

# --- torch modules: forward(positions) ---


class Springs(torch.nn.Module):
    """Harmonic in the squares of all distances."""

    def __init__(self, strength: float = 0.1) -> None:
        super().__init__()
        self.strength = torch.nn.Parameter(torch.tensor(strength, dtype=torch.float64))

    def forward(self, positions):
        delta = positions[:, None, :] - positions[None, :, :]
        return 0.25 * self.strength * ((delta * delta).sum(-1) - 4.0).pow(2).sum()


class NotANumberBeyond(torch.nn.Module):
    """The energy of a spring until two atoms are further apart than 4 bohr."""

    def forward(self, positions):
        r = torch.sqrt(((positions[0] - positions[1]) ** 2).sum())
        return torch.sqrt(4.0 - r)


class Fails(torch.nn.Module):
    """Raises an error of its own."""

    def forward(self, positions):
        if bool(positions[0, 0] < 100.0):
            raise ValueError("the model was asked for something that it cannot do")
        return positions.sum()


# --- torch modules: forward(positions, potential, field) ---


class SpringsInField(torch.nn.Module):
    """Springs, charges that follow the geometry, a polarisability."""

    def __init__(self) -> None:
        super().__init__()
        self.springs = Springs()

    def forward(self, positions, potential, field):
        away = positions - positions.mean(0)
        charges = 0.1 * ((away * away).sum(-1) - (away * away).sum(-1).mean())
        return self.springs(positions) + (charges * potential).sum() - 1.5 * (field * field).sum()


class NotANumberInField(torch.nn.Module):
    """Never a number."""

    def forward(self, positions, potential, field):
        return torch.log(potential - 10.0).sum()


class FixedCharges(torch.nn.Module):
    """E = sum of q phi."""

    def __init__(self, charges) -> None:
        super().__init__()
        self.register_buffer("charges", torch.tensor(charges, dtype=torch.float64))

    def forward(self, positions, potential, field):
        return (self.charges * potential).sum()


class BondedSprings(torch.nn.Module):
    """A region that any engine can compute: springs on all pairs, and fixed charges in the potential."""

    def __init__(self, charges, stiffness: float = 0.001, length: float = 4.0) -> None:
        super().__init__()
        self.stiffness, self.length = stiffness, length
        self.register_buffer("charges", torch.tensor(charges))

    def forward(self, positions: Tensor, potential: Tensor, field: Tensor) -> Tensor:
        n = positions.shape[0]
        pairs = torch.triu_indices(n, n, 1)
        r = torch.sqrt(((positions[pairs[0]] - positions[pairs[1]]) ** 2).sum(-1))
        return self.stiffness * ((r - self.length) ** 2).sum() + (self.charges * potential).sum()


class Polarisable(torch.nn.Module):
    """Charges and dipoles that follow the geometry, and polarisabilities that do, around charges that are given."""

    def __init__(self, charges) -> None:
        super().__init__()
        self.register_buffer("charges", torch.tensor(charges, dtype=torch.float64))

    def forward(self, positions, potential, field):
        delta = positions[:, None, :] - positions[None, :, :]
        squared = (delta * delta).sum(-1)
        spread = torch.exp(-squared / 30.0).sum(-1)
        charges = self.charges + 0.3 * (spread - spread.mean())
        dipoles = 0.2 * (delta * torch.exp(-squared / 20.0)[:, :, None]).sum(1)
        alpha = 4.0 + spread
        return (
            0.01 * squared.sum()
            + (charges * potential).sum()
            - (dipoles * field).sum()
            - 0.5 * (alpha * (field * field).sum(-1)).sum()
        )


class PolarisableModel(torch.nn.Module):
    """Charges that depend on the geometry, dipoles and polarisabilities, of any molecule: every kind of response."""

    def forward(self, positions: Tensor, potential: Tensor, field: Tensor) -> Tensor:
        n = positions.shape[0]
        center = positions.mean(0)
        r2 = ((positions - center) ** 2).sum(-1)
        charges = 0.1 * torch.sin(0.3 * r2 + torch.arange(n))
        dipoles = 0.05 * (positions - center)
        return (
            0.002 * (r2 - 9.0).square().sum() / n
            + (charges * potential).sum()
            - (dipoles * field).sum()
            - 0.5 * (3.0 * field.square().sum(-1)).sum()
        )


# --- torch modules: forward(inputs) ---


class Contract(torch.nn.Module):
    """An energy from all inputs of the contract."""

    def __init__(self) -> None:
        super().__init__()
        self.springs = Springs()

    def forward(self, inputs: Dict[str, Tensor]) -> Dict[str, Tensor]:  # noqa: UP006
        energy = self.springs(inputs["positions"]) * (1.0 + 0.1 * inputs["charge"])
        energy = energy + 0.01 * inputs["multiplicity"] * inputs["atomic_numbers"].sum()
        if "potential" in inputs:
            energy = energy + 0.1 * inputs["potential"].sum() - (inputs["field"] ** 2).sum()
        return {"energy": energy}


COMMITTEE_MEMBERS = 3
COMMITTEE_SCALE = 1.7


class Committee(torch.nn.Module):
    """Members with springs, charges and polarisabilities of their own; `only` makes one of them a model."""

    def __init__(self, only: int = -1, separate: bool = False) -> None:
        super().__init__()
        self.only = only
        self.members = COMMITTEE_MEMBERS
        self.register_buffer("uncertainty_scale", torch.tensor(COMMITTEE_SCALE, dtype=torch.float64))
        self.register_buffer("separate_parts", torch.tensor(separate))

    def forward(self, inputs: Dict[str, Tensor]) -> Dict[str, Tensor]:  # noqa: UP006
        x = inputs["positions"]
        n = x.shape[0]
        pairs = torch.triu_indices(n, n, 1)
        r = torch.sqrt(((x[pairs[0]] - x[pairs[1]]) ** 2).sum(-1))
        energies = []
        for k in range(self.members):
            energy = 0.001 * ((r - 4.0 - 0.3 * k) ** 2).sum()
            if "potential" in inputs:
                charges = 0.1 * torch.cos(torch.arange(n, dtype=x.dtype) * (1.0 + 0.2 * k)) + 0.01 * k * x[:, 0]
                energy = energy + (charges * inputs["potential"]).sum()
                energy = energy - (1.0 + k) * (inputs["field"] ** 2).sum()
            energies.append(energy)
        member_energies = torch.stack(energies)
        if self.only >= 0:
            return {"energy": member_energies[self.only]}
        return {"energy": member_energies.mean(), "member_energies": member_energies}


# --- potentials of OpenMM ---


def fixed_in_openmm(charges) -> OpenMMPotential:
    """Return a region of fixed charges as a System of its own, in which they do not feel each other."""
    system, force = openmm.System(), openmm.NonbondedForce()
    for k, charge in enumerate(charges):
        system.addParticle(1.0)
        force.addParticle(charge, 1.0, 0.0)
        for other in range(k):
            force.addException(other, k, 0.0, 1.0, 0.0)
    system.addForce(force)
    return OpenMMPotential(system)


# --- potentials with an evaluator in Python ---


@dataclass(frozen=True)
class SettingsOnly(EvaluatedPotential):
    """A potential of which nothing but its settings is asked."""

    level: str = "QM"
    embeddings: frozenset[str] = BOTH
    smeared_charges: bool = False

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(self.embeddings, smeared_charges=self.smeared_charges)

    def create_evaluator(self, specification: RegionSpecification) -> Evaluator:
        raise NotImplementedError


class SpringsEvaluator(Evaluator):
    """The energy of `BondedSprings`, written once more in numpy."""

    def __init__(self, charges) -> None:
        self.charges = charges

    def evaluate(self, geometry, field):
        positions = geometry.positions
        i, j = np.triu_indices(len(positions), 1)
        bonds = positions[i] - positions[j]
        r = np.linalg.norm(bonds, axis=1)
        pull = (0.002 * (r - 4.0) / r)[:, None] * bonds
        gradient = np.zeros_like(positions)
        np.add.at(gradient, i, pull)
        np.subtract.at(gradient, j, pull)
        inside = charges_in_field(positions, self.charges, field)
        return Evaluation(
            0.001 * ((r - 4.0) ** 2).sum() + inside.energy,
            gradient + inside.gradient,
            inside.charge_gradient,
            inside.smooth_points,
            inside.smooth_charges,
        )


class EvaluatedSprings(EvaluatedPotential):
    """A stand-in for a QM program: `BondedSprings` of default stiffness and length, computed in Python."""

    level = "QM"

    def __init__(self, charges) -> None:
        self.charges = np.array(charges)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(frozenset({"electrostatic"}))

    def create_evaluator(self, specification: RegionSpecification) -> Evaluator:
        return SpringsEvaluator(self.charges)


class Failing(EvaluatedSprings):
    """Raises an error instead of computing."""

    def __init__(self, error: BaseException, n_sites: int = 22) -> None:
        super().__init__(np.zeros(n_sites))
        self.error = error

    def create_evaluator(self, specification: RegionSpecification) -> Evaluator:
        return _FailingEvaluator(self.error)


class _FailingEvaluator(Evaluator):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def evaluate(self, geometry, field):
        raise self.error
