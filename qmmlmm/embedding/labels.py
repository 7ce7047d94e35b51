"""Labels for the training of a region's learned potential."""

from __future__ import annotations

from dataclasses import dataclass

from qmmlmm.coupling.potential import Evaluation
from qmmlmm.units import ANGSTROM_IN_BOHR, FloatArray

NEAR_REACH = 6.5 * ANGSTROM_IN_BOHR
"""Default distance from an atom within which charges of the surroundings are near, bohr."""


@dataclass(frozen=True)
class NearSources:
    """The charges of the surroundings that are close to a region.

    Parameters
    ----------
    positions : (k, 3) float array, bohr
        Positions of the near images.
    charges : (k,) float array, e
    gradient : (k, 3) float array, hartree/bohr
        Derivative of the energy with respect to the positions of these images only, through 1/r; all other images are
        fixed.
    widths : (k,) float array or None, bohr
        Widths of Gaussian charges, which act through erf(r/w)/r instead of 1/r; zero for points.

    Notes
    -----
    Only 1/r is harmonic. Interactions through erfc(a r)/r depend on the extent of the electrons too, which a model of
    charges and multipoles cannot represent.
    """

    positions: FloatArray
    charges: FloatArray
    gradient: FloatArray
    widths: FloatArray | None = None


@dataclass(frozen=True)
class Label:
    """An evaluation of a region with the potential of its surroundings.

    Parameters
    ----------
    positions : (n, 3) float array, bohr
        Positions of the region's atoms and link atoms.
    potential : (n,) float array, hartree/e
        Potential of the surroundings at these positions; zeros with mechanical embedding, as are the next two.
    potential_gradient : (n, 3) float array, hartree/(e bohr)
    potential_curvature : (n, 3, 3) float array, hartree/(e bohr^2)
    evaluation : Evaluation
        Energy of the region with its interaction with the surroundings, and its derivatives.
    near : NearSources or None
        None with mechanical embedding.
    """

    positions: FloatArray
    potential: FloatArray
    potential_gradient: FloatArray
    potential_curvature: FloatArray
    evaluation: Evaluation
    near: NearSources | None = None
