"""The smooth part of the external potential, acting on atomic multipoles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qmmlmm.units import FloatArray
from qmmlmm.xtb.multipoles import DIPOLES, AtomicMultipoles, AtomicPotential

GOLDEN = (1.0 + 5.0**0.5) / 2.0
ICOSAHEDRON = np.array(
    [[np.roll([0.0, a, b * GOLDEN], turn) for a in (1.0, -1.0) for b in (1.0, -1.0)] for turn in range(3)]
).reshape(12, 3) / np.hypot(1.0, GOLDEN)
"""Corners v_s of an icosahedron with a radius of one. Sums over them of products of up to five components are averages
over the sphere."""

RADIUS = 0.02
"""Radius of the icosahedron around each atom, bohr. The energy of dipoles and quadrupoles changes with its square, 2e-9
hartree for alanine dipeptide in water; forces are the derivatives of that energy at any radius."""


class SmoothPotential:
    """The smooth potential at atoms, and the charges at points that stand for multipoles in it.

    Parameters
    ----------
    positions : (n, 3) float array, bohr
        Atoms.
    smooth_potential : callable
        As `ExternalField.smooth_potential`.
    rank : int
        Highest rank of the multipoles.

    Notes
    -----
    Dipoles and quadrupoles are charges at the corners x + h v_s of a small icosahedron around their atom,

        w_s = 1/4 d.v_s / h + 5/12 v_s.Theta.v_s / h^2,

    with q - sum_s w_s at the centre. Their energy in the potential is that of the multipoles in the gradient and
    curvature

        g = 1/(4 h) sum_s phi_s v_s,    C = 5/(4 h^2) sum_s (phi_s - phi_0) v_s v_s',

    which are what the density feels in the self-consistent field. So energy and forces belong together exactly, and the
    coupling needs nothing but charges at points.
    """

    def __init__(
        self,
        positions: FloatArray,
        smooth_potential: Callable[[FloatArray], tuple[FloatArray, FloatArray]],
        rank: int,
    ) -> None:
        self._rank = rank
        corners = RADIUS * ICOSAHEDRON if rank >= DIPOLES else np.zeros((0, 3))
        offsets = np.concatenate([np.zeros((1, 3)), corners])
        points = positions[:, None, :] + offsets
        values, slopes = smooth_potential(points.reshape(-1, 3))
        self._points = points
        self._values = np.asarray(values).reshape(points.shape[:2])
        self._slopes = np.asarray(slopes).reshape(points.shape)

    def potential(self) -> AtomicPotential:
        """Return the potential at the atoms, with the derivatives that the multipoles feel."""
        centre, corners = self._values[:, 0], self._values[:, 1:]
        if self._rank < DIPOLES:
            nothing = AtomicPotential.zero(len(centre))
            return AtomicPotential(centre, nothing.gradient, nothing.curvature)
        gradient = corners @ ICOSAHEDRON / (4.0 * RADIUS)
        rise = corners - centre[:, None]
        curvature = 1.25 / RADIUS**2 * np.einsum("as,si,sj->aij", rise, ICOSAHEDRON, ICOSAHEDRON)
        return AtomicPotential(centre, gradient, curvature).up_to(self._rank)

    def gradient_and_charges(self, multipoles: AtomicMultipoles) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the derivative of the energy of multipoles, with points and charges that stand for them.

        Returns
        -------
        gradient : (n, 3) float array, hartree/bohr
            Derivative with respect to the atoms.
        points : (g, 3) float array, bohr
        charges : (g,) float array, e
        """
        charges = multipoles.charges[:, None]
        if self._rank >= DIPOLES:
            several = multipoles.up_to(self._rank)
            corners = several.dipoles @ ICOSAHEDRON.T / (4.0 * RADIUS)
            squares = np.einsum("aij,si,sj->as", several.quadrupoles, ICOSAHEDRON, ICOSAHEDRON)
            corners = corners + 5.0 / 12.0 / RADIUS**2 * squares
            charges = np.concatenate([charges - corners.sum(axis=1, keepdims=True), corners], axis=1)
        gradient = np.einsum("as,asc->ac", charges, self._slopes)
        return gradient, self._points.reshape(-1, 3), charges.reshape(-1)
