"""The lowest eigenvectors of linear response, from products with trial vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qmmlmm.errors import UnstableReferenceError
from qmmlmm.units import FloatArray

LEAST_NEW = 1e-3
"""Least share of a new trial vector outside the space of the others."""

LARGEST_SPACE = 24
"""Largest number of trial vectors for each state; beyond it the space is restarted from the best vectors."""

CLOSEST_GAP = 1e-2
"""Least difference between diagonal and eigenvalue in the preconditioner, hartree."""


@dataclass(frozen=True)
class Eigenvectors:
    """Result of a diagonalisation.

    Parameters
    ----------
    values : (m,) float array
        Eigenvalues, ascending.
    x, y : (m, n) float array
        Eigenvectors of norm X.X - Y.Y = 1; Y is zero for a symmetric matrix.
    residuals : (m,) float array
        Norms of the residuals.
    cycles, products : int
        Numbers of iterations, and of products of the matrix with a vector.
    """

    values: FloatArray
    x: FloatArray
    y: FloatArray
    residuals: FloatArray
    cycles: int
    products: int


def lowest_symmetric(
    product: Callable[[FloatArray], FloatArray],
    diagonal: FloatArray,
    trial: FloatArray,
    count: int,
    tolerance: float,
    max_cycle: int,
) -> Eigenvectors:
    """Return the lowest eigenvectors of a symmetric matrix A.

    Parameters
    ----------
    product : callable
        Function from vectors, (k, n), to A times these.
    diagonal : (n,) float array
        Approximate diagonal of A.
    trial : (k, n) float array
        At least `count` independent vectors.
    count : int
        Number of eigenvectors.
    tolerance : float
        Largest norm of a residual.
    max_cycle : int
        Largest number of iterations.

    Notes
    -----
    Davidson, J. Comput. Phys. 17, 87 (1975). Trial vectors are normalised before they are orthogonalised, twice, so
    that small corrections keep their accuracy and residuals reach 1e-10.
    """
    space = _new_directions(np.zeros((0, len(diagonal))), trial)
    images = product(space)
    products = len(space)
    for cycle in range(1, max_cycle + 1):
        values, vectors = np.linalg.eigh(_symmetric(space @ images.T))
        values, vectors = values[:count], vectors[:, :count].T
        x = vectors @ space
        rest = vectors @ images - values[:, None] * x
        norms = np.linalg.norm(rest, axis=1)
        unconverged = norms > tolerance
        if not unconverged.any() or cycle == max_cycle:
            break
        if len(space) > LARGEST_SPACE * count:
            space, images = x, vectors @ images
        new = _new_directions(space, _preconditioned(rest[unconverged], diagonal, values[unconverged]))
        if not len(new):
            break
        products += len(new)
        space, images = np.concatenate([space, new]), np.concatenate([images, product(new)])
    return Eigenvectors(values, x, np.zeros_like(x), norms, cycle, products)


def lowest_response(
    products: Callable[[FloatArray], tuple[FloatArray, FloatArray]],
    diagonal: FloatArray,
    trial: FloatArray,
    count: int,
    tolerance: float,
    max_cycle: int,
) -> Eigenvectors:
    """Return the lowest solutions of (A B; B A)(X; Y) = w (X; -Y) for symmetric A and B.

    Parameters
    ----------
    products : callable
        Function from vectors, (k, n), to A and B times these.
    diagonal, trial, count, tolerance, max_cycle
        As in `lowest_symmetric`.

    Raises
    ------
    UnstableReferenceError
        If A + B or A - B is not positive in the space of the trial vectors.

    Notes
    -----
    Stratmann, Scuseria and Frisch, J. Chem. Phys. 109, 8218 (1998): with R = X + Y and L = X - Y,
    (A + B) R = w L and (A - B) L = w R, solved in one space for both.
    """
    space = _new_directions(np.zeros((0, len(diagonal))), trial)
    of_a, of_b = products(space)
    counted = len(space)
    for cycle in range(1, max_cycle + 1):
        plus, minus = _symmetric(space @ (of_a + of_b).T), _symmetric(space @ (of_a - of_b).T)
        minus_values, minus_vectors = np.linalg.eigh(minus)
        if minus_values[0] <= 0.0:
            raise UnstableReferenceError(f"A - B has the eigenvalue {minus_values[0]:.2e} hartree")
        root = (minus_vectors * np.sqrt(minus_values)) @ minus_vectors.T
        inverse_root = (minus_vectors / np.sqrt(minus_values)) @ minus_vectors.T
        squares, vectors = np.linalg.eigh(_symmetric(root @ plus @ root))
        if squares[0] <= 0.0:
            raise UnstableReferenceError(f"the lowest excitation energy squared is {squares[0]:.2e} hartree^2")
        values = np.sqrt(squares[:count])
        right = (root @ vectors[:, :count] / np.sqrt(values)).T
        left = (inverse_root @ vectors[:, :count] * np.sqrt(values)).T
        plus_xy, minus_xy = right @ space, left @ space
        rest_r = right @ (of_a + of_b) - values[:, None] * minus_xy
        rest_l = left @ (of_a - of_b) - values[:, None] * plus_xy
        norms = np.sqrt((rest_r**2).sum(axis=1) + (rest_l**2).sum(axis=1))
        unconverged = norms > tolerance
        if not unconverged.any() or cycle == max_cycle:
            break
        if len(space) > 2 * LARGEST_SPACE * count:
            space = _new_directions(
                np.zeros((0, len(diagonal))), np.concatenate([plus_xy + minus_xy, plus_xy - minus_xy])
            )
            of_a, of_b = products(space)
            counted += len(space)
        rest = np.concatenate([rest_r[unconverged], rest_l[unconverged]])
        new = _new_directions(space, _preconditioned(rest, diagonal, np.tile(values[unconverged], 2)))
        if not len(new):
            break
        more_a, more_b = products(new)
        counted += len(new)
        space = np.concatenate([space, new])
        of_a, of_b = np.concatenate([of_a, more_a]), np.concatenate([of_b, more_b])
    return Eigenvectors(values, 0.5 * (plus_xy + minus_xy), 0.5 * (plus_xy - minus_xy), norms, cycle, counted)


def _symmetric(matrix: FloatArray) -> FloatArray:
    return 0.5 * (matrix + matrix.T)


def _preconditioned(rest: FloatArray, diagonal: FloatArray, values: FloatArray) -> FloatArray:
    gaps = diagonal - values[:, None]
    return np.asarray(rest / np.where(np.abs(gaps) < CLOSEST_GAP, CLOSEST_GAP, gaps))


def _new_directions(space: FloatArray, vectors: FloatArray) -> FloatArray:
    """Return the orthonormal vectors by which the given ones extend the space."""
    found = space
    for vector in vectors:
        norm = np.linalg.norm(vector)
        if norm == 0.0:
            continue
        rest = vector / norm
        rest = rest - (found @ rest) @ found
        norm = np.linalg.norm(rest)
        if norm < LEAST_NEW:
            continue
        rest /= norm
        rest = rest - (found @ rest) @ found
        found = np.concatenate([found, (rest / np.linalg.norm(rest))[None]])
    return found[len(space) :]
