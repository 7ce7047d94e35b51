"""Densities of a block of grid points, and the potential's matrix elements from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qmmlmm.qm.functional.basis_on_grid import Block
from qmmlmm.units import FloatArray

ORDERS = {"LDA": 0, "GGA": 1, "MGGA": 1}
"""Order of derivatives of the basis functions that each kind of functional needs for its energy."""


@dataclass(frozen=True)
class SpinDensity:
    """A density matrix D of one spin, or of both together, with its factor if it is known.

    Parameters
    ----------
    matrix : (n_ao, n_ao) float array
    factor : (n_ao, k) float array, optional
        C sqrt(n) of the occupied orbitals: D is the factor times its transpose.
    """

    matrix: FloatArray
    factor: FloatArray | None = None

    def applied(self, block: Block, values: FloatArray) -> FloatArray:
        """Return D times values, (n, g), for the functions of a block."""
        if self.factor is None:
            return np.asarray(self.matrix[np.ix_(block.functions, block.functions)] @ values)
        factor = self.factor[block.functions]
        return np.asarray(factor @ (factor.T @ values))

    def scaled(self, share: float) -> SpinDensity:
        """Return a share of the density."""
        factor = None if self.factor is None else np.sqrt(share) * self.factor
        return SpinDensity(share * self.matrix, factor)


def spin_densities(density: FloatArray) -> list[SpinDensity]:
    """Return the densities of a matrix of PySCF, which may be tagged with its orbitals.

    Parameters
    ----------
    density : (n_ao, n_ao) or (2, n_ao, n_ao) float array
    """
    matrices = np.asarray(density)
    spins = matrices[None] if matrices.ndim == 2 else matrices
    # PySCF tags matrices that come from orbitals, and only those.
    orbitals: Any = getattr(density, "mo_coeff", None)
    occupations: Any = getattr(density, "mo_occ", None)
    if orbitals is None or occupations is None:
        return [SpinDensity(spin) for spin in spins]
    orbitals, occupations = np.asarray(orbitals), np.asarray(occupations)
    if matrices.ndim == 2:
        orbitals, occupations = orbitals[None], occupations[None]
    return [
        SpinDensity(spin, c[:, n > 0] * np.sqrt(n[n > 0]))
        for spin, c, n in zip(spins, orbitals, occupations, strict=True)
    ]


def density_values(block: Block, density: SpinDensity, kind: str, applied: FloatArray) -> FloatArray:
    """Return the density of a block in PySCF's components.

    Parameters
    ----------
    block : Block
    density : SpinDensity
    kind : {"LDA", "GGA", "MGGA"}
    applied : (n, g) float array
        `SpinDensity.applied` of the functions.

    Returns
    -------
    (1, g), (4, g) or (5, g) float array
        Density, its gradient and the kinetic energy density.
    """
    values = block.values
    found = np.empty(({"LDA": 1, "GGA": 4, "MGGA": 5}[kind], values.shape[2]))
    np.einsum("pg,pg->g", values[0], applied, out=found[0])
    if kind != "LDA":
        np.einsum("xpg,pg->xg", values[1:4], applied, out=found[1:4])
        found[1:4] *= 2.0
    if kind == "MGGA":
        found[4] = 0.5 * sum(np.einsum("pg,pg->g", part, density.applied(block, part)) for part in values[1:4])
    return found


def evaluate(
    integrator: Any, functional: str, kind: str, densities: Sequence[FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """Return the energy per electron, (g,), and its functional derivatives, (spins, c, g)."""
    if len(densities) == 1:
        rho = densities[0][0] if kind == "LDA" else densities[0]
        energies, potential = integrator.eval_xc_eff(functional, rho, deriv=1, xctype=kind, spin=0)[:2]
        return np.asarray(energies), np.asarray(potential).reshape(1, len(densities[0]), -1)
    rho = np.array([part[0] for part in densities] if kind == "LDA" else densities)
    energies, potential = integrator.eval_xc_eff(functional, rho, deriv=1, xctype=kind, spin=1)[:2]
    return np.asarray(energies), np.asarray(potential).reshape(2, len(densities[0]), -1)


def add_potential(matrix: FloatArray, block: Block, weighted: FloatArray) -> None:
    """Add the matrix elements of a block's potential.

    Parameters
    ----------
    matrix : (n_ao, n_ao) float array, hartree
    block : Block
    weighted : (c, g) float array
        Weights times the functional derivatives.
    """
    values = block.values
    half = values[0] * (0.5 * weighted[0])
    for part, factors in zip(values[1:4], weighted[1:4], strict=False):
        half += part * factors
    found = values[0] @ half.T
    found += found.T.copy()
    if len(weighted) == 5:
        for part in values[1:4]:
            found += (part * (0.5 * weighted[4])) @ part.T
    matrix[np.ix_(block.functions, block.functions)] += found
