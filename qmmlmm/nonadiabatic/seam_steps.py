"""Steps of molecules towards the seam of two surfaces: curvature, trust radius, and rotations without strain."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.optimize import brentq
from scipy.spatial.transform import Rotation

from qmmlmm.units import FloatArray

BOND = 0.4
"""Force constant of a bond, hartree/bohr^2. Bonds of hydrogen have 0.35, of carbon 0.3 to 0.6."""

BONDED, FALL = 2.5, 4
"""Distance in bohr up to which two atoms count as bonded, and the power with which the force constant decreases beyond:
0.1 hartree/bohr^2 between hydrogens on one carbon, approximately that of their angle."""

LOOSE = 0.02
"""Force constant of motion that changes no distance, hartree/bohr^2, such as that of a whole molecule among others: a
hydrogen's libration in water, 600 1/cm, has 0.014."""

SOFTEST = 1e-3
"""Smallest curvature that a step assumes, hartree/bohr^2."""

DAMPING = 0.2
"""Fraction of the expected curvature that an update of the curvature keeps (Powell)."""

CLOSING = 0.8
"""Fraction of the trust radius that closing the gap may take; the rest is left for descent."""

TINY = float(np.finfo(float).tiny)


def expected_curvature(positions: FloatArray) -> FloatArray:
    """Return a guess of the second derivatives of a molecule, (3 n, 3 n) hartree/bohr^2.

    Parameters
    ----------
    positions : (n, 3) float array, bohr

    Notes
    -----
    A spring along every distance, stiff between neighbours and softer between others, and a soft spring on every atom.
    Similar to Lindh et al., Chem. Phys. Lett. 241, 423 (1995), with distances instead of internal coordinates and
    without elements. Updates correct it.
    """
    n = len(positions)
    found = LOOSE * np.eye(3 * n)
    blocks = found.reshape(n, 3, n, 3)
    for i, j in itertools.combinations(range(n), 2):
        arm = positions[j] - positions[i]
        distance = max(float(np.linalg.norm(arm)), TINY)
        spring = BOND * min(1.0, BONDED / distance) ** FALL * np.outer(arm, arm) / distance**2
        blocks[i, :, i, :] += spring
        blocks[j, :, j, :] += spring
        blocks[i, :, j, :] -= spring
        blocks[j, :, i, :] -= spring
    return found


def seam_step(
    gap: float, opening: FloatArray, downhill: FloatArray, curvature: FloatArray, radius: float
) -> FloatArray:
    """Return the step, (3 n,) bohr, that closes the gap and minimises the energy along the seam within a trust radius.

    Parameters
    ----------
    gap : float, hartree
    opening : (3 n,) float array, hartree/bohr
        Gradient of the gap.
    downhill : (3 n,) float array, hartree/bohr
        Gradient of the mean energy without its part along `opening`.
    curvature : (3 n, 3 n) float array, hartree/bohr^2
    radius : float, bohr

    Notes
    -----
    A shift of the curvature shortens the part along the seam: stiff directions still relax where soft ones would go
    far. Source: Nocedal and Wright, Numerical Optimization, 2nd edition, algorithm 18.4 and section 4.3.
    """
    square = float(opening @ opening)
    closing = np.zeros_like(opening)
    seam = np.eye(len(opening))
    if square > TINY:
        closing = -gap * opening / square
        closing *= min(1.0, CLOSING * radius / max(float(np.linalg.norm(closing)), TINY))
        # The first column is the direction of the opening, the others are orthogonal to it.
        seam = np.linalg.qr(np.column_stack([opening, seam]))[0][:, 1:]
    values, vectors = np.linalg.eigh(seam.T @ curvature @ seam)
    values = np.maximum(abs(values), SOFTEST)
    gradient = vectors.T @ (seam.T @ (downhill + curvature @ closing))
    left = float(np.sqrt(max(radius**2 - float(closing @ closing), 0.0)))

    def too_long(shift: float) -> float:
        return float(np.linalg.norm(gradient / (values + shift))) - left

    shift = 0.0
    if too_long(0.0) > 0.0:
        shift = float(brentq(too_long, 0.0, float(np.linalg.norm(gradient)) / left))
    return np.asarray(closing - seam @ (vectors @ (gradient / (values + shift))))


def updated(curvature: FloatArray, step: FloatArray, change: FloatArray) -> FloatArray:
    """Return second derivatives after an update with the change of the gradient along a step; they remain positive.

    Notes
    -----
    Source: BFGS with Powell's damping, Nocedal and Wright, procedure 18.2.
    """
    expected = curvature @ step
    predicted, observed = float(step @ expected), float(step @ change)
    if observed < DAMPING * predicted:
        share = (1.0 - DAMPING) * predicted / (predicted - observed)
        change = share * change + (1.0 - share) * expected
        observed = float(step @ change)
    return np.asarray(curvature + np.outer(change, change) / observed - np.outer(expected, expected) / predicted)


def displaced(positions: FloatArray, step: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the positions after a step, (n, 3) bohr, and the (3, 3) matrix of the rotation in it.

    Parameters
    ----------
    positions : (n, 3) float array, bohr
    step : (n, 3) float array, bohr
        Its part that rotates the whole molecule to first order becomes a rotation about the centre, which strains no
        bond; along a straight line, half a radian stretches bonds by a tenth.
    """
    centre = positions.mean(axis=0)
    arms = positions - centre
    inertia = float((arms**2).sum()) * np.eye(3) - arms.T @ arms
    # A line has no rotation about itself, and a single atom none at all.
    axis = np.linalg.pinv(inertia, rcond=1e-8, hermitian=True) @ np.cross(arms, step).sum(axis=0)
    turn = Rotation.from_rotvec(axis).as_matrix()
    shift = step.mean(axis=0)
    strain = step - shift - np.cross(axis, arms)
    return centre + shift + (arms + strain) @ turn.T, np.asarray(turn)


def turned(vectors: FloatArray, turn: FloatArray) -> FloatArray:
    """Return rotated vectors of all atoms, (..., 3 n).

    Parameters
    ----------
    vectors : (..., 3 n) float array
    turn : (3, 3) float array
        Rotation matrix.
    """
    return np.asarray((vectors.reshape(*vectors.shape[:-1], -1, 3) @ turn.T).reshape(vectors.shape))
