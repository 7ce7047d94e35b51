"""The gradient of Coulomb and exchange energies of several density matrices from one pass over the integrals.

Notes
-----
PySCF contracts each integral (nabla i j|k l) with each density matrix in turn, which takes longer than the integrals. Here
the density of pairs

    G_ij,kl = sum_a L^a_ij R^a_kl - sum_b B^b_il A^b_jk

of a block of i and j is built by matrix products, made symmetric in k and l, and contracted with the integrals once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyscf import lib
from pyscf.gto.moleintor import getints, make_cintopt

from qmmlmm.qm.field.compact_charges import sum_by_atom
from qmmlmm.units import FloatArray

BLOCK_BYTES = 2**26
"""Memory for the integrals of one block, and for the densities of its pairs."""

Pair = tuple[FloatArray, FloatArray]
"""Two matrices, (n_ao, n_ao) each."""


@dataclass(frozen=True)
class PairDensities:
    """Density matrices by twos, whose products make an energy.

    Parameters
    ----------
    coulomb : sequence of pairs (L, R)
        The second ones are symmetric.
    exchange : sequence of pairs (B, A)
    """

    coulomb: Sequence[Pair]
    exchange: Sequence[Pair]


def repulsion_gradient(molecule: Any, densities: PairDensities, omega: float = 0.0) -> FloatArray:
    """Return minus the sum of (nabla i j|k l) G_ij,kl over the functions i of each atom.

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
        name = molecule._add_suffix("int2e_ip1")
        optimiser = make_cintopt(molecule._atm, molecule._bas, molecule._env, name)
        edges, shells = molecule.ao_loc_nr(), molecule.nbas
        builder = _Builder(molecule.nao, densities)
        size = max(1, BLOCK_BYTES // (24 * builder.pairs))
        for shell in range(shells):
            first = slice(edges[shell], edges[shell + 1])
            for start, stop in _ranges(edges, size // (first.stop - first.start)):
                second = slice(edges[start], edges[stop])
                integrals = getints(
                    name,
                    molecule._atm,
                    molecule._bas,
                    molecule._env,
                    comp=3,
                    aosym="s2kl",
                    shls_slice=(shell, shell + 1, start, stop, 0, shells, 0, shells),
                    cintopt=optimiser,
                )
                rows = first.stop - first.start
                values = np.asarray(integrals).reshape(3, rows, second.stop - second.start, -1)
                for row in range(rows):
                    density = builder.of(first.start + row, second)
                    for x in range(3):
                        by_function[first.start + row, x] -= np.vdot(values[x, row], density)
    return sum_by_atom(molecule, by_function)


class _Builder:
    """Densities of pairs for one function i and some j."""

    def __init__(self, n: int, densities: PairDensities) -> None:
        self._n = n
        self.pairs = n * (n + 1) // 2
        self._diagonal = np.arange(n) * (np.arange(n) + 3) // 2
        self._left = np.array([left for left, _ in densities.coulomb]).reshape(-1, n, n)
        right = np.array([2.0 * right for _, right in densities.coulomb]).reshape(-1, n, n)
        self._right = lib.pack_tril(right) if len(right) else np.zeros((0, self.pairs))
        self._right[:, self._diagonal] *= 0.5
        self._outer = np.array([outer for outer, _ in densities.exchange]).reshape(-1, n, n)
        self._inner = np.array([inner for _, inner in densities.exchange]).reshape(-1, n, n)

    def of(self, i: int, second: slice) -> FloatArray:
        """Return G for k >= l, (n_j, pairs), with both orders of k and l together."""
        found = self._left[:, i, second].T @ self._right
        if len(self._outer):
            n, count = self._n, second.stop - second.start
            inner = self._inner[:, second].reshape(len(self._inner), -1)
            square = (inner.T @ self._outer[:, i]).reshape(count, n, n)
            both = lib.pack_tril(lib.hermi_sum(square, axes=(0, 2, 1)))
            both[:, self._diagonal] *= 0.5
            found -= both
        return np.asarray(found)


def _ranges(edges: FloatArray, size: int) -> list[tuple[int, int]]:
    """Return ranges of shells with at most this many functions, or with one shell."""
    found, start = [], 0
    for shell in range(1, len(edges)):
        if edges[shell] - edges[start] > size and shell - start > 1:
            found.append((start, shell - 1))
            start = shell - 1
    return [*found, (start, len(edges) - 1)]
