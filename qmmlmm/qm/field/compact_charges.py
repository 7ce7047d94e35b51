"""The compact external charges, points and Gaussians, as a one-electron operator and its derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qmmlmm.coupling.potential import ExternalField
from qmmlmm.coupling.smeared_charges import REACH
from qmmlmm.embedding.kernels import screened_kernel, smeared_kernel
from qmmlmm.units import FloatArray, IntArray

SCREENING = 1e-13
"""Overlap factor below which primitive pairs are left out of the integrals; libcint's own limit is 1e-26. The matrix
elements change by less than 1e-12, and this saves a quarter of the time."""

BLOCK_BYTES = 2**25
"""Memory for the integrals over one block of charges. Small blocks fit into the cache and are faster."""

DENSITY_REACH = 13.2
"""Distance from the nearest nucleus, bohr, beyond which a Gaussian charge feels no electron density; its potential
differs from that of a point by pi w^2 times their density."""


@dataclass(frozen=True)
class _Kernel:
    """Charges with the same radial function: 1/r, erf(a r)/r or erfc(a r)/r.

    `omega` is 0, a or -a, as in PySCF's range separation.
    """

    omega: float
    indices: IntArray
    charges: FloatArray


class CompactCharges:
    """External point and Gaussian charges around a molecule.

    Parameters
    ----------
    molecule : pyscf.gto.Mole
    external_field : ExternalField
        External field, whose smooth part is not used.

    Notes
    -----
    A point charge with an opposite Gaussian charge acts through erfc(a r)/r, for which the integral library has a
    kernel: one pass instead of two.
    """

    def __init__(self, molecule: Any, external_field: ExternalField) -> None:
        self._molecule = molecule
        self._positions = np.ascontiguousarray(external_field.positions, dtype=float)
        self._kernels = _kernels(external_field, molecule.atom_coords())

    def core_hamiltonian(self) -> FloatArray:
        """Return the operator of the charges, (n_ao, n_ao) hartree."""
        molecule = self._molecule
        n_ao = molecule.nao
        operator = np.zeros(n_ao * n_ao)
        for kernel in self._kernels:
            for block in _blocks(len(kernel.indices), 8 * n_ao**2):
                points = self._positions[kernel.indices[block]]
                integrals = self._integrals("int1e_grids", kernel.omega, points, hermi=1)
                # The integrals are in Fortran order: the transpose is contiguous, charges last.
                operator -= integrals.T.reshape(n_ao * n_ao, -1) @ kernel.charges[block]
        return operator.reshape(n_ao, n_ao)

    def nuclear_energy(self) -> float:
        """Return the energy of the nuclei in the potential of the charges, hartree."""
        energy = 0.0
        for kernel in self._kernels:
            for block in _blocks(len(kernel.indices), 64 * self._molecule.natm):
                _, distances = self._separations(kernel, block)
                values, _ = radial(distances, kernel.omega)
                energy += float(self._molecule.atom_charges() @ values @ kernel.charges[block])
        return energy

    def charge_energies(self, density: FloatArray) -> FloatArray:
        """Return the energy of the electrons and nuclei in the potential of each charge, (k,) hartree.

        Parameters
        ----------
        density : (n_ao, n_ao) float array
            One-particle density matrix.
        """
        n_ao = self._molecule.nao
        energies = np.zeros(len(self._positions))
        symmetric = 0.5 * (density + density.T).ravel()
        for kernel in self._kernels:
            for block in _blocks(len(kernel.indices), 8 * n_ao**2):
                chosen = kernel.indices[block]
                integrals = self._integrals("int1e_grids", kernel.omega, self._positions[chosen], hermi=1)
                _, distances = self._separations(kernel, block)
                values, _ = radial(distances, kernel.omega)
                potential = self._molecule.atom_charges() @ values - symmetric @ integrals.T.reshape(n_ao * n_ao, -1)
                energies[chosen] += kernel.charges[block] * potential
        return energies

    def gradients(self, density: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the derivative of the energy of the electrons and nuclei in the potential of the charges.

        Parameters
        ----------
        density : (n_ao, n_ao) float array
            One-particle density matrix; the relaxed one for methods that are not variational.

        Returns
        -------
        atoms : (n, 3) float array, hartree/bohr
            Derivative at a fixed density matrix; the Pulay part is in the gradient of the method.
        charges : (k, 3) float array, hartree/bohr

        Notes
        -----
        With T[x, p, k] = sum_q D_pq (d/dx p | K(r - r_k) | q), the derivative of an atom is 2 q_k times the sum of T
        over its functions, and that of a charge minus 2 q_k times the sum over all functions, by translational
        invariance.
        """
        molecule = self._molecule
        n_ao = molecule.nao
        functions = np.zeros((n_ao, 3))
        charge_gradient = np.zeros((len(self._positions), 3))
        atom_gradient = np.zeros((molecule.natm, 3))
        symmetric = np.ascontiguousarray(0.5 * (density + density.T))
        electrons = bool(symmetric.any())  # a coupling is a difference from nuclei only
        for kernel in self._kernels:
            for block in _blocks(len(kernel.indices), 24 * n_ao**2) if electrons else []:
                chosen = kernel.indices[block]
                charges = kernel.charges[block]
                integrals = self._integrals("int1e_grids_ip", kernel.omega, self._positions[chosen])
                # In memory the order is (x, q, p, k); summing over q keeps the innermost index contiguous.
                contracted = np.einsum("xkpq,pq->xpk", integrals, symmetric)
                functions += 2.0 * (contracted @ charges).T
                charge_gradient[chosen] -= 2.0 * charges[:, None] * contracted.sum(axis=1).T
            for block in _blocks(len(kernel.indices), 64 * molecule.natm):
                vectors, distances = self._separations(kernel, block)
                _, derivatives = radial(distances, kernel.omega)
                weights = derivatives * molecule.atom_charges()[:, None] * kernel.charges[block]
                forces = weights[:, :, None] * vectors
                atom_gradient += forces.sum(axis=1)
                charge_gradient[kernel.indices[block]] -= forces.sum(axis=0)
        return atom_gradient + sum_by_atom(molecule, functions), charge_gradient

    def _integrals(self, name: str, omega: float, points: FloatArray, hermi: int = 0) -> FloatArray:
        with self._molecule.with_range_coulomb(omega), self._molecule.with_integral_screen(SCREENING):
            return np.asarray(self._molecule.intor(name, hermi=hermi, grids=points))

    def _separations(self, kernel: _Kernel, block: slice) -> tuple[FloatArray, FloatArray]:
        points = self._positions[kernel.indices[block]]
        vectors = self._molecule.atom_coords()[:, None, :] - points[None, :, :]
        return vectors, np.linalg.norm(vectors, axis=2)


def radial(distances: FloatArray, omega: float) -> tuple[FloatArray, FloatArray]:
    """Return the potential of a unit charge and its radial derivative divided by the distance.

    Parameters
    ----------
    distances : float array, bohr
    omega : float, 1/bohr
        0 for 1/r, positive for erf(omega r)/r, negative for erfc(-omega r)/r.

    Returns
    -------
    values : float array, hartree/e
    derivatives : float array, hartree/(e bohr^2)
        f'(r)/r, so that the gradient is this times the vector.
    """
    if omega == 0.0:
        return 1.0 / distances, -1.0 / distances**3
    r, a = torch.from_numpy(np.ascontiguousarray(distances)), torch.tensor(abs(omega), dtype=torch.float64)
    if omega < 0.0:
        values, first, _ = screened_kernel(r, a)
        return values.numpy(), (first / r).numpy()
    values, derivatives, _ = smeared_kernel(r, a)
    return values.numpy(), derivatives.numpy()


def sum_by_atom(molecule: Any, functions: FloatArray) -> FloatArray:
    """Return the sums of (n_ao, ...) values over the basis functions of each atom, (n, ...)."""
    starts = molecule.aoslice_by_atom()[:, 2]
    return np.asarray(np.add.reduceat(functions, starts, axis=0))


def _kernels(external_field: ExternalField, nuclei: FloatArray) -> list[_Kernel]:
    points, gaussians = external_field.point_charges, external_field.gaussian_charges
    smeared = np.zeros(len(points), dtype=bool)
    widths = external_field.widths
    if widths is not None:
        smeared = (points != 0.0) & (widths > 0.0)
        vectors = external_field.positions[smeared, None, :] - nuclei[None, :, :]
        closest = np.linalg.norm(vectors, axis=2).min(axis=1)
        smeared[smeared] = closest < DENSITY_REACH + REACH * widths[smeared]
    paired = (points != 0.0) & (points == -gaussians) & ~smeared
    splitting = external_field.splitting or 0.0
    choices = [
        (-splitting, paired, points),
        (0.0, (points != 0.0) & ~paired & ~smeared, points),
        (splitting, (gaussians != 0.0) & ~paired, gaussians),
    ]
    if widths is not None:
        choices += [(1.0 / w, smeared & (widths == w), points) for w in np.unique(widths[smeared])]
    return [
        _Kernel(omega, np.flatnonzero(mask), np.asarray(charges[mask], dtype=float))
        for omega, mask, charges in choices
        if mask.any()
    ]


def _blocks(count: int, bytes_each: int) -> list[slice]:
    size = max(1, min(256, BLOCK_BYTES // bytes_each))
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
