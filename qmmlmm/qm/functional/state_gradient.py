"""The gradient of the functional's part of an excited state, with the response of the grid."""

from __future__ import annotations

from typing import Any

import numpy as np

from qmmlmm.qm.functional.basis_on_grid import Block
from qmmlmm.qm.functional.densities import SpinDensity, density_values, spin_densities
from qmmlmm.qm.functional.functional_gradient import Change, integrated_gradient
from qmmlmm.qm.functional.response_kernel import response_kernel
from qmmlmm.units import FloatArray


def state_functional_gradient(mean_field: Any, difference: FloatArray, transition: FloatArray) -> FloatArray:
    """Return the gradient of the exchange-correlation energy of a state at fixed density matrices.

    Parameters
    ----------
    mean_field : pyscf.dft.rks.RKS or pyscf.dft.uks.UKS
        Converged mean-field object.
    difference : (2, n_ao, n_ao) float array
        Relaxed density matrices of the state minus those of the reference, spin up and down, symmetric.
    transition : (2, n_ao, n_ao) float array
        Symmetric transition density matrices, of X + Y.

    Returns
    -------
    (n, 3) float array, hartree/bohr

    Notes
    -----
    The part of the functional in the Lagrangian of the state is a sum over the grid (Furche and Ahlrichs,
    J. Chem. Phys. 117, 7433 (2002), eqs. 18 and 24),

        E = sum_g w_g F_g,    F = e(rho) + v(rho) . rho_P + rho_T . f(rho) . rho_T,

    with the derivatives v + f . rho_P + g . rho_T . rho_T with respect to rho, v with respect to rho_P and
    2 f . rho_T with respect to rho_T.
    """
    integrator, functional = mean_field._numint, mean_field.xc
    kind = integrator._xc_type(functional)
    ground = spin_densities(mean_field.make_rdm1())
    triplet = len(ground) == 1 and not np.array_equal(transition[0], transition[1])
    if triplet:
        ground = [part.scaled(0.5) for part in ground]
    if len(ground) == 1:
        # One density: that of spin up for a triplet, and of both spins together for a singlet.
        part = slice(0, 1) if triplet else slice(0, 2)
        difference, transition = (m[part].sum(axis=0, keepdims=True) for m in (difference, transition))
    relaxed, mixed = ([SpinDensity(matrix) for matrix in matrices] for matrices in (difference, transition))

    def at(block: Block) -> tuple[FloatArray, list[Change]]:
        densities = (ground, relaxed, mixed)
        applied = [[spin.applied(block, block.values[0]) for spin in spins] for spins in densities]
        rho, rho_p, rho_t = (
            np.array([density_values(block, spin, kind, done) for spin, done in zip(spins, found, strict=True)])
            for spins, found in zip(densities, applied, strict=True)
        )
        kernel = response_kernel(integrator, functional, kind, list(rho), triplet)
        of_transition = kernel.respond_to_transition(rho_t)
        of_ground = kernel.potential + kernel.respond(rho_p) + kernel.respond_twice(rho_t)
        integrand = kernel.energies * rho[:, 0].sum(axis=0)
        integrand += np.einsum("axg,axg->g", kernel.potential, rho_p) + np.einsum("axg,axg->g", of_transition, rho_t)
        changes = [
            (spin, done, kernel.copies * derivative)
            for spins, found, derivatives in zip(
                densities, applied, (of_ground, kernel.potential, 2.0 * of_transition), strict=True
            )
            for spin, done, derivative in zip(spins, found, derivatives, strict=True)
        ]
        return kernel.copies * integrand, changes

    return integrated_gradient(mean_field, kind, at)[1]
