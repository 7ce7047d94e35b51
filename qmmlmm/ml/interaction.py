"""What the energy of a learned region in its surroundings is made of."""

from __future__ import annotations

import torch

from qmmlmm.coupling.layout import TermLayout
from qmmlmm.embedding.interaction import RegionInteraction
from qmmlmm.embedding.surroundings_field import SurroundingsField
from qmmlmm.ml.ml_potential import MLPotential
from qmmlmm.units import FloatArray


def learned_interaction(
    layout: TermLayout, potential: MLPotential, positions: FloatArray, box: FloatArray
) -> RegionInteraction:
    """Return the interaction of a learned region with its surroundings.

    Parameters
    ----------
    layout : TermLayout
        With surroundings.
    potential : MLPotential
    positions : (n_particles, 3) float array, bohr
    box : (3, 3) float array, bohr

    Notes
    -----
    A model's charges and dipoles in the field are the derivatives of its energy with respect to potential and
    gradient at its atoms, induced dipoles included. With alpha a polarisability, -1/2 alpha F^2 then falls into the
    interaction -alpha F^2 and the polarisation energy 1/2 alpha F^2.
    """
    field = SurroundingsField(layout)
    specification = layout.specification
    sites = field.prepare(torch.from_numpy(positions), torch.from_numpy(box)).clone()
    values, slopes, _ = field.potential()

    def inputs(value: torch.Tensor, electric_field: torch.Tensor) -> dict[str, torch.Tensor]:
        return {
            "atomic_numbers": torch.tensor(specification.atomic_numbers),
            "charge": torch.tensor(float(specification.charge), dtype=torch.float64),
            "multiplicity": torch.tensor(float(specification.multiplicity), dtype=torch.float64),
            "state": torch.tensor(float(potential.state), dtype=torch.float64),
            "positions": sites,
            "potential": value,
            "field": electric_field,
        }

    value = values.clone().requires_grad_(True)
    electric_field = (-slopes).clone().requires_grad_(True)
    energy = potential.module(inputs(value, electric_field))["energy"].sum()
    charges, minus_dipoles = torch.autograd.grad([energy], [value, electric_field], allow_unused=True)
    charges = torch.zeros_like(value) if charges is None else charges
    dipoles = torch.zeros_like(slopes) if minus_dipoles is None else -minus_dipoles
    with torch.no_grad():
        alone = potential.module(inputs(torch.zeros_like(values), torch.zeros_like(slopes)))["energy"].sum()
        energies = field.source_energies(charges, dipoles)
    return RegionInteraction(float(energy.detach()), float(alone), energies.numpy())
