"""Checks of an external field before a quantum-chemical program gets it."""

from __future__ import annotations

import numpy as np

from qmmlmm.coupling.potential import ExternalField
from qmmlmm.errors import EvaluationError, NonFiniteError, listed
from qmmlmm.units import ANGSTROM_IN_BOHR, FloatArray

CLOSEST = 0.3 * ANGSTROM_IN_BOHR
"""Distance in bohr below which a point charge lies inside an atom."""


def checked_field(positions: FloatArray, external_field: ExternalField, term: str) -> ExternalField:
    """Return an external field after checks of its arrays and distances.

    Parameters
    ----------
    positions : (n, 3) float array, bohr
        Positions of the region's atoms.
    external_field : ExternalField
    term : str
        Name of the term, for messages.

    Raises
    ------
    NonFiniteError
        If a number is not finite.
    EvaluationError
        If shapes or widths are wrong, or a point charge lies inside an atom.
    """
    count = len(external_field.positions)
    shapes = {
        "positions": (external_field.positions, (count, 3)),
        "point_charges": (external_field.point_charges, (count,)),
        "gaussian_charges": (external_field.gaussian_charges, (count,)),
    }
    for name, (values, shape) in shapes.items():
        if np.shape(values) != shape:
            raise EvaluationError(
                f"{term}: {name} of the external field have shape {np.shape(values)}, expected {shape}"
            )
        wrong = np.unique(np.nonzero(~np.isfinite(values))[0])
        if len(wrong):
            raise NonFiniteError(f"{term}: {name} of external charges {listed(wrong)} are not finite")
    widths = external_field.widths
    if widths is not None and (np.shape(widths) != (count,) or not np.all((widths >= 0.0) & (widths < np.inf))):
        raise EvaluationError(
            f"{term}: widths of the external field are ({count},) finite numbers that are not negative, got "
            f"an array of shape {np.shape(widths)} from {np.min(widths, initial=np.inf):g} bohr on"
        )
    splitting = external_field.splitting
    if np.any(external_field.gaussian_charges) and not (splitting is not None and splitting > 0.0):
        raise EvaluationError(
            f"{term}: the external field has Gaussian charges but its splitting is {splitting!r}; "
            "give a positive splitting in 1/bohr"
        )
    points = np.flatnonzero(external_field.point_charges)
    if len(points) and len(positions):
        # One product of matrices; the centre keeps the digits of molecules far from the origin.
        centre = positions.mean(axis=0)
        atoms, places = positions - centre, external_field.positions[points] - centre
        squares = (atoms**2).sum(axis=1)[:, None] + (places**2).sum(axis=1) - 2.0 * atoms @ places.T
        atom, point = np.unravel_index(np.argmin(squares), squares.shape)
        if squares[atom, point] < CLOSEST**2:
            away = np.sqrt(max(squares[atom, point], 0.0)) / ANGSTROM_IN_BOHR
            raise EvaluationError(
                f"{term}: external point charge {points[point]} lies {away:.2f} angstrom from atom {atom} "
                "of the region, closer than 0.3; leave the region's own charges out of its external field"
            )
    return external_field
