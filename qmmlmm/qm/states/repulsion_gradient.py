"""The gradient of Coulomb and exchange energies of several density matrices, with integrals screened by both of them.

Notes
-----
PySCF contracts the integrals (nabla i j|k l) with one density matrix of each product and leaves out those that are
negligible for that one. The gradient needs the sum

    G_i = -sum_jkl (nabla i j|k l) [sum_a L^a_ij R^a_kl - sum_b B^b_il A^b_jk],

and most integrals that survive are small next to one of the two matrices. Here the pairs of shells i and j are taken
one after the other, and for each the bound of (k l) that PySCF's screening takes is multiplied by the largest products
of matrix elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyscf.grad import rhf
from pyscf.scf import _vhf

from qmmlmm.qm.field.compact_charges import sum_by_atom
from qmmlmm.units import FloatArray

NEGLIGIBLE = 1e-11
"""Bound of an integral times its two matrix elements, hartree/bohr, below which it is left out."""

INTEGRALS = "int2e_ip1"

Pair = tuple[FloatArray, FloatArray]
"""Two matrices, (n_ao, n_ao) each."""


@dataclass(frozen=True)
class PairDensities:
    """Density matrices by twos, whose products make an energy.

    Parameters
    ----------
    coulomb : sequence of pairs (L, R)
        Pairs whose second matrix is symmetric.
    exchange : sequence of pairs (B, A)
    """

    coulomb: Sequence[Pair]
    exchange: Sequence[Pair]


def repulsion_gradient(molecule: Any, densities: PairDensities, omega: float = 0.0) -> FloatArray:
    """Return the sum of G_i over the functions of each atom.

    Parameters
    ----------
    molecule : pyscf.gto.Mole
    densities : PairDensities
    omega : float, 1/bohr
        Parameter of the error function in the repulsion: positive for the long range, negative for the short one, and
        zero for the full repulsion.

    Returns
    -------
    (n, 3) float array, hartree/bohr
    """
    by_function = np.zeros((molecule.nao, 3))
    with molecule.with_range_coulomb(omega or None):
        screen = _vhf._VHFOpt(molecule, INTEGRALS, "CVHFgrad_j_prescreen", direct_scf_tol=NEGLIGIBLE)
        first, second = rhf._calc_q_cond(molecule, screen)
        # The bounds of both pairs and of the densities are all in that of the second pair.
        screen.dm_cond = one = np.ones_like(first)
        bounds = _Bounds(molecule, densities)
        edges, shells = molecule.ao_loc_nr(), molecule.nbas
        name = molecule._add_suffix(INTEGRALS)
        coulomb, exchange = len(densities.coulomb), len(densities.exchange)
        scripts = ["lk->s1ij"] * coulomb + ["jk->s1il"] * exchange
        right = [matrix for _, matrix in densities.coulomb]
        for i in range(shells):
            i_rows = slice(edges[i], edges[i + 1])
            for j in range(shells):
                bound = first[i, j] * second * bounds.of(i, j)
                if not bound.max() > NEGLIGIBLE:
                    continue
                j_rows = slice(edges[j], edges[j + 1])
                screen.q_cond = np.array([one, bound])
                matrices = right + [inner[j_rows] for _, inner in densities.exchange]
                found = _vhf.direct_bindm(
                    name,
                    "s2kl",
                    scripts,
                    matrices,
                    3,
                    molecule._atm,
                    molecule._bas,
                    molecule._env,
                    vhfopt=screen,
                    shls_slice=(i, i + 1, j, j + 1, *(0, shells) * 2),
                )
                for (left, _), part in zip(densities.coulomb, found[:coulomb], strict=True):
                    by_function[i_rows] -= np.einsum("xij,ij->ix", part, left[i_rows, j_rows])
                for (outer, _), part in zip(densities.exchange, found[coulomb:], strict=True):
                    by_function[i_rows] += np.einsum("xil,il->ix", part, outer[i_rows])
    return sum_by_atom(molecule, by_function)


class _Bounds:
    """Largest products of matrix elements between shells."""

    def __init__(self, molecule: Any, densities: PairDensities) -> None:
        self._coulomb = [tuple(_by_shells(molecule, matrix) for matrix in pair) for pair in densities.coulomb]
        self._exchange = [tuple(_by_shells(molecule, matrix) for matrix in pair) for pair in densities.exchange]

    def of(self, i: int, j: int) -> FloatArray:
        """Return the largest product for each pair of k and l, (n_shells, n_shells), symmetric."""
        found: FloatArray = np.zeros(1)
        for left, right in self._coulomb:
            found = np.maximum(found, left[i, j] * right)
        for outer, inner in self._exchange:
            product = np.outer(inner[j], outer[i])
            found = np.maximum(found, np.maximum(product, product.T))
        return found


def _by_shells(molecule: Any, matrix: FloatArray) -> FloatArray:
    """Return the largest elements between shells, (n_shells, n_shells)."""
    starts = molecule.ao_loc_nr()[:-1]
    return np.asarray(np.maximum.reduceat(np.maximum.reduceat(abs(matrix), starts, axis=0), starts, axis=1))
