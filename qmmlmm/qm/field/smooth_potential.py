"""The smooth part of the external potential as a one-electron operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from qmmlmm.errors import NonFiniteError
from qmmlmm.qm.field.compact_charges import sum_by_atom
from qmmlmm.qm.field.polynomial import PolynomialFit, moment_gradients, moment_integrals
from qmmlmm.qm.field.quadrature import AtomGrid
from qmmlmm.units import FloatArray

BLOCK_POINTS = 256
"""Number of grid points in one block, whose basis functions and gradients fit into the cache. They are computed when
needed: to keep them for the whole grid takes longer."""

NEGLIGIBLE_WEIGHT = 1e-13
"""Weight times largest squared basis function below which a grid point is removed."""

FARTHEST = 40.0
"""Distance from an atom in bohr beyond which its basis functions are as small as there."""


class SmoothPotential:
    """A smooth external potential around a molecule.

    Parameters
    ----------
    molecule : pyscf.gto.Mole
    level : int
        Grid level.
    potential : callable
        `ExternalField.smooth_potential`.
    name : str
        Name of the term, for messages.

    Notes
    -----
    A polynomial of second degree is fitted to the potential. The energy of the density in the polynomial is computed
    with exact integrals of its moments, and that in the rest by quadrature: the charge, dipole and quadrupole that the
    surroundings feel are exact, and the error of the quadrature is ten times smaller.

        E = -sum_g w_g rho_g [phi(r_g) - b(r_g).c] - c.mu + sum_A Z_A phi(R_A),    mu = tr D <b>

    with c linear in phi at the fitting points. The gradient is the exact derivative of this, with that of the
    points, their weights and the fit.
    """

    def __init__(
        self,
        molecule: Any,
        level: int,
        potential: Callable[[FloatArray], tuple[FloatArray, FloatArray]],
        name: str,
    ) -> None:
        self._molecule = molecule
        self._grid = AtomGrid(molecule, level)
        self._grid.keep(np.abs(self._grid.weights) * _largest_squares(molecule, self._grid.points) > NEGLIGIBLE_WEIGHT)
        self._fit = PolynomialFit(molecule)
        nuclei = molecule.atom_coords()
        values, gradients = potential(np.concatenate([self._grid.points, self._fit.points, nuclei]))
        values, gradients = np.asarray(values, dtype=float), np.asarray(gradients, dtype=float)
        if not (np.all(np.isfinite(values)) and np.all(np.isfinite(gradients))):
            raise NonFiniteError(f"term {name!r}: the smooth part of the external potential is not finite")
        ends = [len(self._grid.points), len(self._grid.points) + len(self._fit.points)]
        at_points, at_fit, self._at_nuclei = np.split(values, ends)
        gradients_at_points, gradients_at_fit, self._gradients_at_nuclei = np.split(gradients, ends)
        self._fit.solve(at_fit, gradients_at_fit)
        polynomial, polynomial_gradients = self._fit.evaluate(self._grid.points)
        self._rest = at_points - polynomial
        self._rest_gradients = gradients_at_points - polynomial_gradients

    def core_hamiltonian(self) -> FloatArray:
        """Return the operator of the potential, (n_ao, n_ao) hartree."""
        operator = -np.einsum("m,mpq->pq", self._fit.coefficients, self._moments())
        factors = self._grid.weights * self._rest
        for block, functions in self._blocks("GTOval_sph"):
            operator -= (functions * factors[block]) @ functions.T
        return np.asarray(0.5 * (operator + operator.T))

    def nuclear_energy(self) -> float:
        """Return the energy of the nuclei in the potential, hartree."""
        return float(self._molecule.atom_charges() @ self._at_nuclei)

    def gradient_and_charges(self, density: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the atoms' gradient at a fixed density matrix, and the charges in the potential.

        Parameters
        ----------
        density : (n_ao, n_ao) float array
            One-particle density matrix, relaxed for methods that are not variational.

        Returns
        -------
        gradient : (n, 3) float array, hartree/bohr
        points : (g, 3) float array, bohr
        charges : (g,) float array, e
        """
        molecule, grid, fit = self._molecule, self._grid, self._fit
        symmetric = 0.5 * (density + density.T)
        nuclear_charges = molecule.atom_charges().astype(float)
        gradient = nuclear_charges[:, None] * self._gradients_at_nuclei
        point_density, slopes = np.zeros(len(grid.points)), np.zeros((3, len(grid.points)))
        factors = grid.weights * self._rest
        by_function = np.zeros((molecule.nao, 3))
        for block, functions in self._blocks("GTOval_sph_deriv1") if symmetric.any() else ():
            contracted = symmetric @ functions[0]
            point_density[block] = np.einsum("pg,pg->g", contracted, functions[0])
            # Products of a function's gradient with the density, for the motion of the function with its atom and for
            # that of the point with its owner.
            products = np.multiply(functions[1:], contracted, out=functions[1:])
            slopes[:, block] = 2.0 * products.sum(axis=1)
            by_function += 2.0 * (products @ factors[block]).T
        charges = -grid.weights * point_density
        moving = factors * slopes - charges * self._rest_gradients.T
        gradient -= grid.sum_by_owner(moving)
        gradient += grid.weight_gradient(-point_density * self._rest)
        by_function += 2.0 * moment_gradients(molecule, fit.origin, fit.coefficients, symmetric)
        gradient += sum_by_atom(molecule, by_function)
        defect = np.einsum("mpq,pq->m", self._moments(), symmetric) + fit.moments(grid.points, charges)
        fit_charges, fit_gradient = fit.adjoint(-defect)
        return (
            gradient + fit_gradient,
            np.concatenate([grid.points, fit.points, molecule.atom_coords()]),
            np.concatenate([charges, fit_charges, nuclear_charges]),
        )

    def _moments(self) -> FloatArray:
        return moment_integrals(self._molecule, self._fit.origin)

    def _blocks(self, name: str) -> Iterator[tuple[slice, FloatArray]]:
        """Yield blocks of points and PySCF's functions there, (..., n_ao, g), valid until the next block."""
        count, parts = len(self._grid.points), 4 if name.endswith("deriv1") else 1
        memory = np.empty(parts * self._molecule.nao * BLOCK_POINTS)
        for start in range(0, count, BLOCK_POINTS):
            block = slice(start, min(start + BLOCK_POINTS, count))
            values = self._molecule.eval_gto(name, self._grid.points[block], out=memory)
            yield block, np.asarray(values).swapaxes(-1, -2)


def _largest_squares(molecule: Any, points: FloatArray) -> FloatArray:
    """Return an upper bound of the squared basis functions at points, (g,).

    Notes
    -----
    The sum of the squares of a shell depends on the distance alone (Unsoeld's theorem), so that the values along one
    direction are enough. Atoms with the same functions share a table of them, made to fall with the distance.
    """
    nuclei, slices = molecule.atom_coords(), molecule.aoslice_by_atom()
    radii = np.linspace(0.0, FARTHEST, 401)
    largest = np.zeros(len(points))
    for kind in {molecule.atom_symbol(atom) for atom in range(molecule.natm)}:
        atoms = [atom for atom in range(molecule.natm) if molecule.atom_symbol(atom) == kind]
        first_shell, last_shell = slices[atoms[0], :2]
        along = nuclei[atoms[0]] + radii[:, None] * np.array([0.0, 0.0, 1.0])
        values = molecule.eval_gto("GTOval_sph", along, shls_slice=(first_shell, last_shell))
        squares = (np.asarray(values) ** 2).sum(axis=1)
        envelope = np.maximum.accumulate(squares[::-1])[::-1]
        distances = cdist(points, nuclei[atoms]).min(axis=1)
        # The value at the next smaller radius of the table.
        found = envelope[np.minimum(distances / radii[1], len(radii) - 1).astype(int)]
        largest = np.maximum(largest, found)
    return largest
