"""The gradient of the exchange-correlation energy, with the response of the grid's points and weights."""

from __future__ import annotations

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


def functional_gradient(mean_field: Any, density: FloatArray, kind: str) -> tuple[float, FloatArray]:
    """Return the exchange-correlation energy on the full grid, hartree, and its gradient, (n, 3) hartree/bohr.

    Parameters
    ----------
    mean_field : pyscf.dft.rks.RKS or pyscf.dft.uks.UKS
    density : (n_ao, n_ao) or (2, n_ao, n_ao) float array
        Density matrix, which may be tagged with its orbitals.
    kind : {"LDA", "GGA", "MGGA"}

    Notes
    -----
    A function moves with its atom, a point with its owner, and the weights with all atoms. The energy at a point
    depends only on differences of positions, so that the motion of the point is minus that of all functions together:

        dE/dR_A = sum_mu on A g_mu - sum_points of A sum_mu g_mu + sum e rho dw/dR_A.
    """
    molecule, grids, integrator = mean_field.mol, mean_field.grids, mean_field._numint
    shells = grids.gen_atomic_grids(molecule, grids.atom_grid, grids.radi_method, grids.level, grids.prune)
    partition = grids.get_partition(
        molecule, shells, grids.radii_adjust, grids.atomic_radii, grids.becke_scheme, concat=False
    )
    becke = BeckeWeights(molecule, grids)
    spins = spin_densities(density)
    energy, gradient = 0.0, np.zeros((molecule.natm, 3))
    by_function = np.zeros((molecule.nao, 3))
    for atom, (points, weights) in enumerate(zip(*partition, strict=True)):
        # Points in boxes: neighbours share the functions that vanish.
        order = gen_grid.arg_group_grids(molecule, points)
        points, weights, volumes = points[order], weights[order], shells[molecule.atom_symbol(atom)][1][order]
        own = np.zeros((molecule.nao, 3))
        for block in BasisOnGrid(molecule, points, 1 if kind == "LDA" else 2).blocks():
            part = slice(block.start, block.stop)
            applied = [spin.applied(block, block.values[0]) for spin in spins]
            densities = [density_values(block, spin, kind, done) for spin, done in zip(spins, applied, strict=True)]
            energies, derivatives = evaluate(integrator, mean_field.xc, kind, densities)
            by_point = energies * sum(found[0] for found in densities)
            energy += float(weights[part] @ by_point)
            gradient += becke.gradient(points[part], atom, volumes[part] * by_point)
            for spin, done, derivative in zip(spins, applied, derivatives, strict=True):
                own[block.functions] += _function_gradient(block, spin, done, weights[part] * derivative)
        gradient[atom] -= own.sum(axis=0)
        by_function += own
    return energy, gradient + sum_by_atom(molecule, by_function)


def _function_gradient(block: Block, spin: SpinDensity, applied: FloatArray, weighted: FloatArray) -> FloatArray:
    """Return the derivative with respect to the motion of each function of a block, (n, 3) hartree/bohr.

    Parameters
    ----------
    block : Block
        Block with derivatives of one order more than the functional has.
    spin : SpinDensity
    applied : (n, g) float array
        The density matrix times the functions.
    weighted : (c, g) float array
        Weights times the functional derivatives.
    """
    values = block.values
    if len(weighted) == 1:
        return np.asarray(-2.0 * np.einsum("pg,xpg->px", weighted[0] * applied, values[1:4]))
    along = sum(factors * part for factors, part in zip(weighted[1:4], values[1:4], strict=True))
    left = weighted[0] * applied + spin.applied(block, np.asarray(along))
    found = -2.0 * np.einsum("pg,xpg->px", left, values[1:4])
    turned = weighted[1:4, None, :] * applied
    if len(weighted) == 5:
        # The kinetic energy density is half the sum over y of squares, and its derivative has a half less.
        turned = turned + 0.5 * np.array([weighted[4] * spin.applied(block, part) for part in values[1:4]])
    for x in range(3):
        found[:, x] -= 2.0 * sum(np.einsum("pg,pg->p", values[SECOND[x, y]], turned[y]) for y in range(3))
    return np.asarray(found)
