"""Gradients of the functional's energy and of its part in an excited state, with the response of the grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pyscf.dft import gen_grid

from qmmlmm.qm.field.compact_charges import sum_by_atom
from qmmlmm.qm.functional.basis_on_grid import BasisOnGrid, Block
from qmmlmm.qm.functional.becke_weights import BeckeWeights
from qmmlmm.qm.functional.densities import SpinDensity, density_values, evaluate, spin_densities
from qmmlmm.units import FloatArray

SECOND = np.array([[4, 5, 6], [5, 7, 8], [6, 8, 9]])
"""Components of second derivatives in PySCF's order."""

Change = tuple[SpinDensity, FloatArray, FloatArray]
"""A density, its matrix times the functions of a block, (n, g), and the derivative with respect to it, (c, g)."""


def functional_gradient(mean_field: Any, density: FloatArray, kind: str) -> tuple[float, FloatArray]:
    """Return the exchange-correlation energy on the full grid, hartree, and its gradient, (n, 3) hartree/bohr.

    Parameters
    ----------
    mean_field : pyscf.dft.rks.RKS or pyscf.dft.uks.UKS
    density : (n_ao, n_ao) or (2, n_ao, n_ao) float array
        Density matrix, which may be tagged with its orbitals.
    kind : {"LDA", "GGA", "MGGA"}
    """
    spins = spin_densities(density)

    def at(block: Block) -> tuple[FloatArray, list[Change]]:
        applied = [spin.applied(block, block.values[0]) for spin in spins]
        densities = [density_values(block, spin, kind, done) for spin, done in zip(spins, applied, strict=True)]
        energies, derivatives = evaluate(mean_field._numint, mean_field.xc, kind, densities)
        integrand = energies * sum(found[0] for found in densities)
        return integrand, list(zip(spins, applied, derivatives, strict=True))

    return integrated_gradient(mean_field, kind, at)


def integrated_gradient(
    mean_field: Any, kind: str, at: Callable[[Block], tuple[FloatArray, Sequence[Change]]]
) -> tuple[float, FloatArray]:
    """Return the integral of a function of densities over the full grid, and its gradient at fixed density matrices.

    Parameters
    ----------
    mean_field : pyscf.dft.rks.RKS or pyscf.dft.uks.UKS
        Mean-field object with the grid.
    kind : {"LDA", "GGA", "MGGA"}
    at : callable
        Function that returns for a block the values of the integrand, (g,), and its derivatives.

    Returns
    -------
    float, hartree
    (n, 3) float array, hartree/bohr

    Notes
    -----
    A function moves with its atom, a point with its owner, and the weights with all atoms. The integrand F at a point
    depends only on differences of positions, so that the motion of the point is minus that of all functions together:

        dE/dR_A = sum_mu on A g_mu - sum_points of A sum_mu g_mu + sum F dw/dR_A.
    """
    molecule, grids = mean_field.mol, mean_field.grids
    shells = grids.gen_atomic_grids(molecule, grids.atom_grid, grids.radi_method, grids.level, grids.prune)
    partition = grids.get_partition(
        molecule, shells, grids.radii_adjust, grids.atomic_radii, grids.becke_scheme, concat=False
    )
    becke = BeckeWeights(molecule, grids)
    energy, gradient = 0.0, np.zeros((molecule.natm, 3))
    by_function = np.zeros((molecule.nao, 3))
    for atom, (points, weights) in enumerate(zip(*partition, strict=True)):
        # Points in boxes: neighbours share the functions that vanish.
        order = gen_grid.arg_group_grids(molecule, points)
        points, weights, volumes = points[order], weights[order], shells[molecule.atom_symbol(atom)][1][order]
        own = np.zeros((molecule.nao, 3))
        for block in BasisOnGrid(molecule, points, 1 if kind == "LDA" else 2).blocks():
            part = slice(block.start, block.stop)
            integrand, changes = at(block)
            energy += float(weights[part] @ integrand)
            gradient += becke.gradient(points[part], atom, volumes[part] * integrand)
            own[block.functions] += _function_gradient(block, changes, weights[part])
        gradient[atom] -= own.sum(axis=0)
        by_function += own
    return energy, gradient + sum_by_atom(molecule, by_function)


def _function_gradient(block: Block, changes: Sequence[Change], weights: FloatArray) -> FloatArray:
    """Return the derivative with respect to the motion of each function of a block, (n, 3) hartree/bohr.

    Parameters
    ----------
    block : Block
        Block with derivatives of one order more than the functional has.
    changes : sequence
        Densities and derivatives with respect to them.
    weights : (g,) float array
        Weights of the points.
    """
    values = block.values
    left = np.zeros(values.shape[1:])
    turned = np.zeros((3, *values.shape[1:]))
    for density, applied, derivative in changes:
        weighted = weights * derivative
        left += weighted[0] * applied
        if len(weighted) == 1:
            continue
        along = sum(factors * part for factors, part in zip(weighted[1:4], values[1:4], strict=True))
        left += density.applied(block, np.asarray(along))
        for x in range(3):
            turned[x] += weighted[1 + x] * applied
        if len(weighted) == 5:
            # The kinetic energy density is half the sum over y of squares, and its derivative has a half less.
            for x in range(3):
                turned[x] += 0.5 * (weighted[4] * density.applied(block, values[1 + x]))
    found = -2.0 * np.einsum("pg,xpg->px", left, values[1:4])
    if len(values) > 4:
        for x in range(3):
            found[:, x] -= 2.0 * sum(np.einsum("pg,pg->p", values[SECOND[x, y]], turned[y]) for y in range(3))
    return np.asarray(found)
