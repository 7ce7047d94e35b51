"""The response of the grid in the gradient of an excited state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pyscf.dft import gen_grid
from pyscf.grad.rks import grids_response_cc

from qmmlmm.units import FloatArray

BLOCK_POINTS = 4096
"""Number of grid points in one block; bounds the memory for the third derivatives of the functional."""


def grid_response(mean_field: Any, ground: FloatArray, difference: FloatArray, transition: FloatArray) -> FloatArray:
    """Return the derivative of the exchange-correlation energy of a state through points and weights of the grid.

    Parameters
    ----------
    mean_field : pyscf.dft.rks.RKS or pyscf.dft.uks.UKS
        Converged mean-field object.
    ground : (2, n_ao, n_ao) float array
        Density matrices of the reference, spin up and down.
    difference : (2, n_ao, n_ao) float array
        Relaxed density matrices of the state minus those of the reference, symmetric.
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

    and is stationary in all density matrices. Besides the part of the moving basis functions, the gradient on atom A
    has sum_g dw_g/dR_A F_g and, for the points of atom A, the gradient of F in space. PySCF leaves both out. Weights
    and their derivatives are those of its gradients of the ground state: Johnson, Gill and Pople, J. Chem. Phys. 98,
    5612 (1993), appendix B.
    """
    integrator, grids, functional = mean_field._numint, mean_field.grids, mean_field.xc
    kind = integrator._xc_type(functional)
    gradient = np.zeros((mean_field.mol.natm, 3))
    if kind == "HF":
        return gradient
    alike = all(np.array_equal(abs(first), abs(second)) for first, second in (ground, difference, transition))
    for atom, (points, weights, weight_gradient) in enumerate(grids_response_cc(grids)):
        for start in range(0, len(points), BLOCK_POINTS):
            block = slice(start, start + BLOCK_POINTS)
            mask = gen_grid.make_mask(mean_field.mol, points[block])
            functions = integrator.eval_ao(
                mean_field.mol, points[block], deriv=1 if kind == "LDA" else 2, non0tab=mask, cutoff=grids.cutoff
            )
            rho, rho_p, rho_t = (
                _both_spins(functions, matrices, kind, alike) for matrices in (ground, difference, transition)
            )
            energy, v, f, k = integrator.eval_xc_eff(functional, rho.values, 3, xctype=kind, spin=1)
            f_t = np.einsum("axbyg,byg->axg", f, rho_t.values)
            of_ground = v + np.einsum("axbyg,byg->axg", f, rho_p.values)
            of_ground += np.einsum("axbyczg,byg,czg->axg", k, rho_t.values, rho_t.values, optimize=True)
            integrand = energy * rho.values[:, 0].sum(axis=0)
            integrand += np.einsum("axg,axg->g", v, rho_p.values) + np.einsum("axg,axg->g", f_t, rho_t.values)
            along = np.einsum("axg,iaxg->ig", of_ground, rho.gradients)
            first, second = (
                np.einsum("axg,iaxg->ig", v, rho_p.gradients),
                np.einsum("axg,iaxg->ig", f_t, rho_t.gradients),
            )
            along += first + 2.0 * second
            gradient += np.einsum("g,nig->ni", integrand, weight_gradient[:, :, block])
            gradient[atom] += along @ weights[block]
    return gradient


@dataclass(frozen=True)
class _Density:
    """Variables of the functional on the grid, (2, c, g): density, its gradient, kinetic energy density.

    `gradients`, (3, 2, c, g), are their gradients in space.
    """

    values: FloatArray
    gradients: FloatArray


def _both_spins(functions: FloatArray, matrices: FloatArray, kind: str, alike: bool) -> _Density:
    up = _density(functions, matrices[0], kind)
    if alike:
        # Spin down is equal or opposite, as for the transition to a triplet.
        sign = 1.0 if np.array_equal(matrices[0], matrices[1]) else -1.0
        down = (sign * up[0], sign * up[1])
    else:
        down = _density(functions, matrices[1], kind)
    return _Density(np.array([up[0], down[0]]), np.stack([up[1], down[1]], axis=1))


SECOND = np.array([[4, 5, 6], [5, 7, 8], [6, 8, 9]])
"""Index of the second derivatives of a basis function in PySCF's order xx, xy, xz, yy, yz, zz."""


def _density(functions: FloatArray, matrix: FloatArray, kind: str) -> tuple[FloatArray, FloatArray]:
    """Return the variables, (c, g), and their gradients in space, (3, c, g), for a symmetric density matrix."""

    def product(first: FloatArray, second: FloatArray) -> FloatArray:
        return np.asarray(np.einsum("gp,gp->g", first, second))

    contracted = functions[0] @ matrix
    density = product(functions[0], contracted)
    first = np.array([2.0 * product(functions[1 + i], contracted) for i in range(3)])
    if kind == "LDA":
        return density[None], first[:, None]
    of_gradients = [functions[1 + i] @ matrix for i in range(3)]
    second = np.array(
        [
            [
                2.0 * (product(functions[SECOND[i, j]], contracted) + product(functions[1 + i], of_gradients[j]))
                for j in range(3)
            ]
            for i in range(3)
        ]
    )
    values, gradients = [density[None], first], [first[:, None], second]
    if kind == "MGGA":
        kinetic = 0.5 * sum(product(functions[1 + i], of_gradients[i]) for i in range(3))
        kinetic_gradients = [sum(product(functions[SECOND[i, j]], of_gradients[j]) for j in range(3)) for i in range(3)]
        values.append(np.asarray(kinetic)[None])
        gradients.append(np.array(kinetic_gradients)[:, None])
    return np.concatenate(values), np.concatenate(gradients, axis=1)
