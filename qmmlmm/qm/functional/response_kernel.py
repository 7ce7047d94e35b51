"""Derivatives of the functional at a block of grid points, as its response and excited states need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qmmlmm.units import FloatArray


@dataclass(frozen=True)
class ResponseKernel:
    """Derivatives of the functional with respect to the densities of s = 1 or 2 spins with c components.

    There is one density for restricted orbitals: that of both spins together, or, where a transition to a triplet
    is concerned, that of spin up, whose opposite is the transition density of spin down.

    Parameters
    ----------
    energies : (g,) float array, hartree
        Energy per electron.
    potential : (s, c, g) float array
        First derivatives.
    even, odd : (s, c, s, c, g) float array
        Second derivatives for densities that are equal for both spins, and for transition densities.
    third : (s, c, s, c, s, c, g) float array
        Third derivatives, twice with transition densities.
    copies : int
        Number of spins for which each density stands.
    """

    energies: FloatArray
    potential: FloatArray
    even: FloatArray
    odd: FloatArray
    third: FloatArray
    copies: int

    def respond(self, densities: FloatArray) -> FloatArray:
        """Return the change of the potential by densities that are equal for both spins, (s, c, g)."""
        return np.asarray(np.einsum("axbyg,byg->axg", self.even, densities))

    def respond_to_transition(self, densities: FloatArray) -> FloatArray:
        """Return the change of the potential by transition densities, (s, c, g)."""
        return np.asarray(np.einsum("axbyg,byg->axg", self.odd, densities))

    def respond_twice(self, densities: FloatArray) -> FloatArray:
        """Return the change of the potential in second order of transition densities, (s, c, g), times two."""
        once = np.einsum("axbyczg,czg->axbyg", self.third, densities)
        return np.asarray(np.einsum("axbyg,byg->axg", once, densities))


def response_kernel(
    integrator: Any, functional: str, kind: str, densities: Sequence[FloatArray], triplet: bool
) -> ResponseKernel:
    """Return the derivatives up to third order.

    Parameters
    ----------
    integrator : pyscf.dft.numint.NumInt
    functional : str
    kind : {"LDA", "GGA", "MGGA"}
    densities : sequence of (c, g) float array
        Density of both spins together, or of spin up, or of each spin.
    triplet : bool
        Whether the density is that of spin up and the transition density of spin down its opposite.
    """
    spins = [*densities, *densities] if triplet else densities
    rho = np.array([part[0] for part in spins] if kind == "LDA" else spins)
    polarised = len(spins) == 2
    energies, v, f, k = integrator.eval_xc_eff(
        functional, rho if polarised else rho[0], deriv=3, xctype=kind, spin=int(polarised)
    )
    c = len(densities[0])
    if not polarised:
        shape = (1, c, 1, c, -1)
        pairs = f.reshape(shape)
        return ResponseKernel(energies, v.reshape(1, c, -1), pairs, pairs, k.reshape(*shape[:4], 1, c, -1), 1)
    v, f, k = v.reshape(2, c, -1), f.reshape(2, c, 2, c, -1), k.reshape(2, c, 2, c, 2, c, -1)
    if not triplet:
        return ResponseKernel(energies, v, f, f, k, 1)
    even, odd = f[:1, :, :1] + f[:1, :, 1:], f[:1, :, :1] - f[:1, :, 1:]
    half = k[:1, :, :1] - k[:1, :, 1:]
    return ResponseKernel(energies, v[:1], even, odd, half[:, :, :, :, :1] - half[:, :, :, :, 1:], 2)
