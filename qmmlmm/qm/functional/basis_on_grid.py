"""Basis functions on a quadrature grid, block by block, without those that vanish in a block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyscf.dft import gen_grid, numint

from qmmlmm.units import FloatArray, IntArray

BLOCK_POINTS = 1024
"""Number of points in a block: its values fit into the cache."""

NEGLIGIBLE = 1e-11
"""Value below which PySCF's screening leaves out a shell on 56 neighbouring points."""

MOSTLY = 0.75
"""Share of functions in a block above which all of them are used: to copy the others costs more than it saves."""

DERIVATIVES = (1, 4, 10)
"""Number of components with derivatives up to order 0, 1 and 2."""


@dataclass(frozen=True)
class Block:
    """Some points of a grid.

    Parameters
    ----------
    start, stop : int
        Range of the points.
    functions : (n,) int array
        Indices of the basis functions that do not vanish here.
    values : (c, n, g) float array
        Values of these functions, and their derivatives in PySCF's order.
    """

    start: int
    stop: int
    functions: IntArray
    values: FloatArray


class BasisOnGrid:
    """Values of the basis functions on a grid, kept if the memory allows.

    Parameters
    ----------
    molecule : pyscf.gto.Mole
    points : (g, 3) float array, bohr
        Points; neighbours in this order are neighbours in space.
    order : {0, 1, 2}
        Order of the derivatives.
    max_memory : float, MB
        Memory for the values; if they need more, they are computed in every pass.
    """

    def __init__(self, molecule: Any, points: FloatArray, order: int, max_memory: float = 0.0) -> None:
        self._molecule, self._points, self._order = molecule, points, order
        size = 8e-6 * DERIVATIVES[order] * molecule.nao * len(points)
        self._kept: list[Block] | None = [] if size < max_memory else None

    def blocks(self) -> Iterator[Block]:
        """Yield all blocks."""
        if self._kept:
            yield from self._kept
            return
        for start in range(0, len(self._points), BLOCK_POINTS):
            block = self._block(start, min(start + BLOCK_POINTS, len(self._points)))
            if self._kept is not None:
                self._kept.append(block)
            yield block

    def _block(self, start: int, stop: int) -> Block:
        points, molecule = self._points[start:stop], self._molecule
        mask = gen_grid.make_mask(molecule, points, cutoff=NEGLIGIBLE)
        found = numint.eval_ao(molecule, points, deriv=self._order, non0tab=mask)
        # PySCF's values are in Fortran order: the points are contiguous.
        values = np.asarray(found if self._order else found[None]).transpose(0, 2, 1)
        functions = np.flatnonzero(np.repeat(mask.any(axis=0), np.diff(molecule.ao_loc)))
        if len(functions) > MOSTLY * molecule.nao:
            return Block(start, stop, np.arange(molecule.nao), values)
        return Block(start, stop, functions, values[:, functions])
