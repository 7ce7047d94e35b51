"""A polynomial of second degree fitted to a potential around a molecule."""

from __future__ import annotations

from typing import Any

import numpy as np

from qmmlmm.units import FloatArray

FIT_RADIUS = 1.5
"""Distance of the fitting points from a nucleus, bohr; they represent its electrons."""

_I, _J = np.triu_indices(3)
_PAIRS = ((0, 1), (0, 2), (1, 2))


def _cuboctahedron() -> FloatArray:
    """Return the centre and the twelve vertices: enough to determine a polynomial of second degree."""
    vertices = [[s * (k == i) + t * (k == j) for k in range(3)] for i, j in _PAIRS for s in (-1, 1) for t in (-1, 1)]
    return np.concatenate([np.zeros((1, 3)), np.array(vertices, dtype=float) / np.sqrt(2.0)])


class PolynomialFit:
    """Least-squares fit of a polynomial to values at points that move with the atoms.

    Parameters
    ----------
    molecule : pyscf.gto.Mole

    Attributes
    ----------
    origin : (3,) float array, bohr
        Origin of the monomials 1, x, y, z, xx, xy, xz, yy, yz, zz. The fit does not depend on it.
    points : (s, 3) float array, bohr
    coefficients : (10,) float array
        Coefficients of the monomials, in hartree/e and bohr, after `solve`.
    """

    def __init__(self, molecule: Any) -> None:
        nuclei = molecule.atom_coords()
        directions = _cuboctahedron()
        charges = np.maximum(molecule.atom_charges().astype(float), 1.0)
        self.origin: FloatArray = charges @ nuclei / charges.sum()
        self.points: FloatArray = (nuclei[:, None, :] + FIT_RADIUS * directions).reshape(-1, 3)
        self._owners = np.repeat(np.arange(len(nuclei)), len(directions))
        self._weights = np.repeat(charges, len(directions)) / len(directions)
        self._basis = _monomials(self.points - self.origin)
        self._normal = self._basis.T @ (self._weights[:, None] * self._basis)
        self.coefficients: FloatArray = np.zeros(10)

    def solve(self, values: FloatArray, gradients: FloatArray) -> None:
        """Fit to values, (s,), with gradients, (s, 3), at the fitting points."""
        right = self._basis.T @ (self._weights * values)
        self.coefficients = np.asarray(np.linalg.solve(self._normal, right), dtype=float)
        polynomial, polynomial_gradients = self.evaluate(self.points)
        self._rest, self._rest_gradients = values - polynomial, gradients - polynomial_gradients

    def evaluate(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the polynomial, (g,), and its gradient, (g, 3), at points, (g, 3) bohr."""
        return _polynomial(self.coefficients, points - self.origin)

    def moments(self, points: FloatArray, charges: FloatArray) -> FloatArray:
        """Return the sums of charges times monomials, (10,) e bohr^l."""
        return np.asarray(charges @ _monomials(points - self.origin))

    def adjoint(self, factors: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the derivatives of factors.coefficients with respect to the potential and the atoms.

        Parameters
        ----------
        factors : (10,) float array, e bohr^l

        Returns
        -------
        charges : (s,) float array, e
            Derivative with respect to the values at the fitting points, in which the sum is linear.
        gradient : (n, 3) float array, hartree/bohr
            Derivative with respect to the atoms, with which the fitting points move, in a fixed potential.

        Notes
        -----
        Derivative of the solution c of the normal equations B^T W B c = B^T W f.
        """
        multipliers = np.asarray(np.linalg.solve(self._normal, factors), dtype=float)
        values, gradients = _polynomial(multipliers, self.points - self.origin)
        charges = self._weights * values
        by_point = self._weights * self._rest * gradients.T + charges * self._rest_gradients.T
        gradient = np.zeros((self._owners[-1] + 1, 3))
        np.add.at(gradient, self._owners, by_point.T)
        return charges, gradient


def moment_integrals(molecule: Any, origin: FloatArray) -> FloatArray:
    """Return the matrices of the ten monomials in the basis functions, (10, n_ao, n_ao)."""
    with molecule.with_common_origin(origin):
        first = molecule.intor_symmetric("int1e_r", comp=3)
        second = molecule.intor_symmetric("int1e_rr", comp=9)
    overlap = molecule.intor_symmetric("int1e_ovlp")
    return np.concatenate([overlap[None], first, second[3 * _I + _J]])


def moment_gradients(molecule: Any, origin: FloatArray, coefficients: FloatArray, density: FloatArray) -> FloatArray:
    """Return sum_q D_pq (nabla p | b.c | q), (n_ao, 3), for the polynomial with these coefficients."""
    hessian = np.zeros((3, 3))
    hessian[_I, _J] = coefficients[4:]
    with molecule.with_common_origin(origin):
        first = molecule.intor("int1e_irp", comp=9).reshape(3, 3, molecule.nao, molecule.nao)
        second = molecule.intor("int1e_irrp", comp=27).reshape(9, 3, molecule.nao, molecule.nao)
    result = coefficients[0] * np.einsum("xpq,pq->px", molecule.intor("int1e_ipovlp", comp=3), density)
    # In these two integrals nabla acts on the ket.
    result += np.einsum("i,ixqp,pq->px", coefficients[1:4], first, density, optimize=True)
    result += np.einsum("i,ixqp,pq->px", hessian.ravel(), second, density, optimize=True)
    return np.asarray(result)


def _monomials(offsets: FloatArray) -> FloatArray:
    return np.concatenate([np.ones((len(offsets), 1)), offsets, offsets[:, _I] * offsets[:, _J]], axis=1)


def _polynomial(coefficients: FloatArray, offsets: FloatArray) -> tuple[FloatArray, FloatArray]:
    hessian = np.zeros((3, 3))
    hessian[_I, _J] = coefficients[4:]
    gradients = coefficients[1:4] + offsets @ (hessian + hessian.T)
    return _monomials(offsets) @ coefficients, gradients
