"""Fixed charges in the field of the surroundings."""

from __future__ import annotations

import numpy as np
import torch

from qmmlmm.coupling.potential import Evaluation, ExternalField
from qmmlmm.embedding.kernels import external_kernel
from qmmlmm.units import FloatArray


def charges_in_field(positions: FloatArray, charges: FloatArray, external_field: ExternalField) -> Evaluation:
    """Return the energy of fixed charges in an external field and its derivatives.

    Parameters
    ----------
    positions : (n, 3) float array, bohr
    charges : (n,) float array, e
    external_field : ExternalField
    """
    delta = positions[:, None, :] - external_field.positions[None, :, :]
    widths = external_field.widths
    value, radial, _ = external_kernel(
        torch.from_numpy(np.linalg.norm(delta, axis=2)),
        torch.from_numpy(external_field.point_charges),
        torch.from_numpy(external_field.gaussian_charges),
        external_field.splitting,
        None if widths is None else torch.from_numpy(widths),
    )
    pull = (charges[:, None] * radial.numpy())[:, :, None] * delta
    charge_energies = charges @ value.numpy()
    energy = float(charge_energies.sum())
    gradient = pull.sum(axis=1)
    if external_field.smooth_potential is not None:
        smooth, smooth_gradient = external_field.smooth_potential(positions)
        energy += float(charges @ smooth)
        gradient = gradient + charges[:, None] * smooth_gradient
    return Evaluation(
        energy, gradient, -pull.sum(axis=0), positions, charges, charge_energies=lambda: np.asarray(charge_energies)
    )
