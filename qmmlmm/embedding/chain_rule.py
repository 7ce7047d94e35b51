"""The derivative of an embedded energy with respect to the positions of its sites.

Atomic units. TorchScript compiles the function.
"""

# Annotations are objects (no `from __future__ import annotations`): TorchScript cannot read strings.

import torch
from torch import Tensor


def site_gradient(explicit: Tensor, charges: Tensor, dipoles: Tensor, gradient: Tensor, curvature: Tensor) -> Tensor:
    """Return the derivative of an energy f(R, phi(R), grad phi(R)) with respect to the positions R of the sites.

    Parameters
    ----------
    explicit : (..., n, 3) tensor, hartree/bohr
        Derivative of f with respect to R at fixed phi and grad phi.
    charges : (..., n) tensor, e
        Derivative of f with respect to phi.
    dipoles : (..., n, 3) tensor, e bohr
        Derivative of f with respect to grad phi.
    gradient : (..., n, 3) tensor, hartree/(e bohr)
        Gradient of the potential at the sites.
    curvature : (..., n, 3, 3) tensor, hartree/(e bohr^2)
        Second derivatives of the potential at the sites.

    Returns
    -------
    (..., n, 3) tensor, hartree/bohr

    Notes
    -----
    df/dR_i = (df/dR_i)_phi + q_i grad phi(R_i) + (grad grad phi(R_i)) . mu_i. `SurroundingsField.adjoint` gives the
    derivatives with respect to the sources of phi; `RegionGeometry.collect` distributes both to the particles, those of
    link atoms to their hosts.
    """
    along = torch.matmul(curvature, dipoles.unsqueeze(-1)).squeeze(-1)
    return explicit + charges.unsqueeze(-1) * gradient + along
