"""The smooth part of the external potential as a one-electron operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from qmmlmm.errors import NonFiniteError
from qmmlmm.qm.field.compact_charges import sum_by_atom
from qmmlmm.qm.field.polynomial import PolynomialFit, moment_gradients, moment_integrals
from qmmlmm.qm.field.quadrature import AtomGrid
from qmmlmm.units import FloatArray

BLOCK_POINTS = 2048
"""Number of grid points in one block, whose basis function values fit into the cache."""

NEGLIGIBLE_WEIGHT = 1e-13
"""Weight times largest squared basis function below which a grid point is removed."""


class SmoothPotential:
    """A smooth external potential around a molecule.

    Parameters
    ----------
    molecule : pyscf.gto.Mole
    level : int
        Grid level.
    potential : callable
        `ExternalField.smooth_potential`.
    max_memory : float, MB
        Memory for the values of the basis functions on the grid; they are not kept if they need more.
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
        max_memory: float,
        name: str,
    ) -> None:
        self._molecule = molecule
        self._grid = AtomGrid(molecule, level)
        self._functions = self._kept_functions(max_memory)
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
        for block, functions in self._blocks():
            operator -= (functions[0] * factors[block]) @ functions[0].T
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
        charges = np.zeros(len(grid.points))
        by_function = np.zeros((molecule.nao, 3))
        for block, functions in self._blocks() if symmetric.any() else ():
            weights, rest = grid.weights[block], self._rest[block]
            contracted = symmetric @ functions[0]
            point_density = np.einsum("pg,pg->g", contracted, functions[0])
            charges[block] = -weights * point_density
            # Products of a function's gradient with the density, for the motion of the function with its atom and for
            # that of the point with its owner.
            products = functions[1:] * contracted
            density_gradients = 2.0 * products.sum(axis=1).T
            by_function += 2.0 * (products @ (weights * rest)).T
            moving = density_gradients * rest[:, None] + point_density[:, None] * self._rest_gradients[block]
            np.subtract.at(gradient, grid.owners[block], weights[:, None] * moving)
            gradient += grid.weight_gradient(block, -point_density * rest)
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

    def _kept_functions(self, max_memory: float) -> list[FloatArray] | None:
        """Remove the points without density, and return the basis functions at the others if they fit into memory."""
        grid, n_ao = self._grid, self._molecule.nao
        room = 4 * 8 * n_ao * len(grid.points) < max_memory * 1e6
        kept, functions = [], []
        for start in range(0, len(grid.points), BLOCK_POINTS):
            block = slice(start, start + BLOCK_POINTS)
            values = _functions(self._molecule, grid.points[block], derivatives=room)
            # Lebedev grids have negative weights too.
            mask = np.abs(grid.weights[block]) * (values[0] ** 2).max(axis=0) > NEGLIGIBLE_WEIGHT
            kept.append(mask)
            if room:
                functions.append(values if mask.all() else values[:, :, mask])
        grid.keep(np.concatenate(kept))
        return functions if room else None

    def _blocks(self) -> Iterator[tuple[slice, FloatArray]]:
        """Yield blocks of points and the basis functions there with their gradients, (4, n_ao, g)."""
        if self._functions is not None:
            start = 0
            for functions in self._functions:
                stop = start + functions.shape[2]
                yield slice(start, stop), functions
                start = stop
            return
        count = len(self._grid.points)
        for start in range(0, count, BLOCK_POINTS):
            block = slice(start, min(start + BLOCK_POINTS, count))
            yield block, _functions(self._molecule, self._grid.points[block], derivatives=True)


def _functions(molecule: Any, points: FloatArray, derivatives: bool) -> FloatArray:
    """Return the basis functions, (1, n_ao, g), or these and their gradients, (4, n_ao, g)."""
    values = molecule.eval_gto("GTOval_sph_deriv1" if derivatives else "GTOval_sph", points)
    return np.asarray(values if derivatives else values[None]).transpose(0, 2, 1)
