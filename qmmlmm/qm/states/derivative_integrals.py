"""Derivatives of the repulsion integrals of one geometry, shared by all contractions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from pyscf import lib

from qmmlmm.units import FloatArray

NAME = "int2e_ip1"

SHARE = 0.4
"""Share of the free memory; larger integrals are computed again for each contraction, in PySCF's blocks."""


class DerivativeIntegrals:
    """The integrals (nabla i j | k l) of a molecule, computed at the first use and kept.

    Notes
    -----
    PySCF's gradient of one CASSCF state contracts them six times, and so does each coupling.

    Parameters
    ----------
    molecule : pyscf.gto.Mole
    """

    def __init__(self, molecule: Any) -> None:
        self._molecule = molecule
        self._values: FloatArray | None = None
        n = molecule.nao
        self._fits = 12.0 * n**3 * (n + 1) < SHARE * 1e6 * (molecule.max_memory - lib.current_memory()[0])

    @contextlib.contextmanager
    def serving(self, gradient: Any) -> Iterator[Any]:
        """Provide the integrals to the molecule and to a gradient object of its mean field."""
        if not self._fits:
            yield gradient
            return
        molecule = self._molecule
        compute = molecule.intor

        def intor(name: str, *arguments: Any, **keywords: Any) -> Any:
            shells = keywords.get("shls_slice")
            if name != NAME or keywords.get("aosym") != "s2kl" or shells is None:
                return compute(name, *arguments, **keywords)
            first, second = (slice(*molecule.ao_loc_nr()[list(shells[k : k + 2])]) for k in (0, 2))
            return self._all(compute)[:, first, second]

        def get_jk(mol: Any = None, dm: Any = None, hermi: int = 0, omega: Any = None) -> tuple[Any, Any]:
            del mol, hermi, omega
            return self._coulomb_and_exchange(self._all(compute), np.asarray(dm))

        molecule.intor = intor
        gradient.get_jk = get_jk
        try:
            yield gradient
        finally:
            del molecule.intor

    def _all(self, compute: Any) -> FloatArray:
        """Return the integrals, (3, n, n, pairs k >= l)."""
        if self._values is None:
            n = self._molecule.nao
            self._values = np.asarray(compute(NAME, comp=3, aosym="s2kl")).reshape(3, n, n, -1)
        return self._values

    @staticmethod
    def _coulomb_and_exchange(values: FloatArray, densities: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return -(nabla i j | k l) D_lk and -(nabla i j | k l) D_jk, (..., 3, n, n) in PySCF's form."""
        n = values.shape[1]
        matrices = densities.reshape(-1, n, n)
        pairs = lib.pack_tril(matrices + matrices.transpose(0, 2, 1))
        diagonal = np.arange(n) * (np.arange(n) + 3) // 2
        pairs[:, diagonal] *= 0.5
        coulomb = np.einsum("xijp,dp->dxij", values, pairs, optimize=True)
        exchange = np.empty_like(coulomb)
        for x in range(3):
            for i in range(n):
                square = lib.unpack_tril(values[x, i])  # (j, k, l)
                exchange[:, x, i] = np.tensordot(matrices, square, axes=([1, 2], [0, 1]))
        shape = (*densities.shape[:-2], 3, n, n)
        return -coulomb.reshape(shape), -exchange.reshape(shape)
