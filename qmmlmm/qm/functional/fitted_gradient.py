"""The gradient of density-fitted Coulomb and exchange energies from one set of derivative integrals.

Notes
-----
With the fitted integrals (mn|kl) = sum_PQ (mn|P) (P|Q)^-1 (Q|kl), the energies of Coulomb repulsion and exact exchange
change by

    dE = sum_P,mn G^P_mn d(mn|P) - 1/2 sum_PQ [g_P g_Q - 2 c sum_ij Z^P_ij Z^Q_ij] d(P|Q),
    G^P_mn = g_P D_mn - 2 c sum_ij C_mi Z^P_ij C_nj,    g = (P|Q)^-1 (Q|D),    Z = (P|Q)^-1 (Q|ij),

with the occupied orbitals i, j of one spin and c the share of exchange, half of it for unrestricted orbitals. The
derivative of (mn|P) with respect to the atom of P is minus the sum of those with respect to the atoms of m and n, by
translational invariance: the integrals (nabla m n|P) are enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.linalg
from pyscf import df, lib
from pyscf.ao2mo.outcore import balance_partition

from qmmlmm.qm.field.compact_charges import sum_by_atom
from qmmlmm.units import FloatArray

BLOCK_BYTES = 2**26
"""Memory for the integrals of one block of auxiliary functions."""


def fitted_gradient(fit: Any, orbitals: Sequence[FloatArray], coulomb: bool, exchange: float) -> FloatArray | None:
    """Return the gradient of the Coulomb energy and of a share of the exchange energy.

    Parameters
    ----------
    fit : pyscf.df.DF
        Density fitting, with its integrals.
    orbitals : sequence of (n_ao, k) float array
        Occupied orbitals: of both spins together, if there is one, or of each spin.
    coulomb : bool
        Whether the Coulomb energy counts.
    exchange : float
        Share of exact exchange.

    Returns
    -------
    (n, 3) float array, hartree/bohr, or None
        None if the auxiliary functions are linearly dependent, and PySCF fits in another way.
    """
    molecule, auxiliary = fit.mol, fit.auxmol
    metric = auxiliary.intor("int2c2e", hermi=1)
    try:
        lower = scipy.linalg.cholesky(metric, lower=True)
    except scipy.linalg.LinAlgError:
        return None
    if fit.get_naoaux() != len(metric):
        return None
    occupation = 2.0 if len(orbitals) == 1 else 1.0
    density = occupation * np.sum([c @ c.T for c in orbitals], axis=0)
    fitted = _fitted_orbitals(fit, lower, orbitals if exchange else ())
    coefficients = _solved(lower, _fitted_density(fit, density)) if coulomb else np.zeros(len(metric))
    share = exchange * (occupation / 2.0)
    gradient_metric = -0.5 * np.outer(coefficients, coefficients)
    for part in fitted:
        flat = part.reshape(len(metric), -1)
        gradient_metric += share * (flat @ flat.T)
    by_function, by_auxiliary = _integral_gradients(molecule, auxiliary, density, coefficients, orbitals, fitted, share)
    # d(P|Q) moves with P, and by symmetry as much with Q.
    by_auxiliary -= 2.0 * np.einsum("xpq,pq->px", auxiliary.intor("int2c2e_ip1"), gradient_metric)
    return np.asarray(sum_by_atom(molecule, by_function) + sum_by_atom(auxiliary, by_auxiliary))


def _solved(lower: FloatArray, values: FloatArray) -> FloatArray:
    """Return the inverse of the transposed Cholesky factor times values."""
    return np.asarray(scipy.linalg.solve_triangular(lower, values, lower=True, trans="T", overwrite_b=True))


def _fitted_density(fit: Any, density: FloatArray) -> FloatArray:
    """Return the Cholesky-decomposed integrals contracted with the density matrix, (n_aux,)."""
    doubled = 2.0 * density - np.diag(np.diag(density))
    packed = lib.pack_tril(doubled)
    return np.concatenate([rows @ packed for rows in fit.loop()])


def _fitted_orbitals(fit: Any, lower: FloatArray, orbitals: Sequence[FloatArray]) -> list[FloatArray]:
    """Return Z of each spin, (n_aux, k, k)."""
    found: list[list[FloatArray]] = [[] for _ in orbitals]
    for rows in fit.loop() if orbitals else ():
        integrals = lib.unpack_tril(rows)
        for parts, c in zip(found, orbitals, strict=True):
            half = (integrals.reshape(-1, len(c)) @ c).reshape(len(rows), len(c), -1)
            parts.append(np.matmul(c.T, half))
    done = []
    for parts in found:
        whole = np.concatenate(parts)
        done.append(_solved(lower, whole.reshape(len(lower), -1)).reshape(whole.shape))
    return done


def _integral_gradients(
    molecule: Any,
    auxiliary: Any,
    density: FloatArray,
    coefficients: FloatArray,
    orbitals: Sequence[FloatArray],
    fitted: Sequence[FloatArray],
    share: float,
) -> tuple[FloatArray, FloatArray]:
    """Return sum G d(mn|P) by the motion of each function, (n_ao, 3), and each auxiliary function, (n_aux, 3)."""
    n_ao, n_shells = molecule.nao, molecule.nbas
    by_function, by_auxiliary = np.zeros((n_ao, 3)), np.zeros((auxiliary.nao, 3))
    size = max(1, BLOCK_BYTES // (24 * n_ao**2))
    for first, last, _ in balance_partition(auxiliary.ao_loc, size):
        start, stop = auxiliary.ao_loc[first], auxiliary.ao_loc[last]
        shells = (0, n_shells, 0, n_shells, first, last)
        integrals = df.incore.aux_e2(molecule, auxiliary, "int3c2e_ip1", aosym="s1", comp=3, shls_slice=shells)
        # In memory the order is (x, P, n, m).
        integrals = integrals.transpose(0, 3, 2, 1)
        weights = coefficients[start:stop, None, None] * density
        for c, part in zip(orbitals, fitted, strict=False):
            half = np.matmul(part[start:stop], c.T)
            weights -= 2.0 * share * np.matmul(c, half)
        for x in range(3):
            product = np.einsum("pnm,pnm->pm", integrals[x], weights)
            by_function[:, x] -= 2.0 * product.sum(axis=0)
            by_auxiliary[start:stop, x] += 2.0 * product.sum(axis=1)
    return by_function, by_auxiliary
