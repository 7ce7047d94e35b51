"""Steps of molecules towards the seam of two surfaces: what is stiff, how far to go, and turns without strain."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.optimize import brentq
from scipy.spatial.transform import Rotation

from qmmlmm.units import FloatArray

BOND = 0.4
"""hartree/bohr^2: of a bond. Those of hydrogen have 0.35, of carbon 0.3 to 0.6."""

BONDED, FALL = 2.5, 4
"""Distance in bohr up to which two atoms are taken for bonded, and the power with which springs between others fall
off: 0.1 hartree/bohr^2 between hydrogens on one carbon, whose angle has about that."""

LOOSE = 0.02
"""hartree/bohr^2: of motion that changes no distance, as of a whole molecule among others: a hydrogen's libration in
water, 600 1/cm, has 0.014."""

SOFTEST = 1e-3
"""hartree/bohr^2, below which a direction is not believed to be."""

DAMPING = 0.2
"""Share of the expected curvature that an update of the curvature keeps (Powell)."""

CLOSING = 0.8
"""Share of the trust radius that closing the gap may take, so that something is left for going downhill."""

TINY = float(np.finfo(float).tiny)


def expected_curvature(places: FloatArray) -> FloatArray:
    """Return second derivatives, (3 n, 3 n) hartree/bohr^2, of atoms that are held together by springs.

    Parameters
    ----------
    places : (n, 3) float array, bohr

    Notes
    -----
    A spring along every distance, that of a bond for neighbours and softer ones for others, and a soft one on every
    atom. In the manner of Lindh et al., Chem. Phys. Lett. 241, 423 (1995), with distances in the place of internal
    coordinates and no need of elements. What it lacks, updates bring in.
    """
    n = len(places)
    found = LOOSE * np.eye(3 * n)
    blocks = found.reshape(n, 3, n, 3)
    for i, j in itertools.combinations(range(n), 2):
        arm = places[j] - places[i]
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
    The part along the seam is shortened by a shift of the curvature, so that stiff directions still relax where soft
    ones would go far. Nocedal and Wright, Numerical Optimization, 2nd edition, algorithm 18.4 and section 4.3.
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
    slopes = vectors.T @ (seam.T @ (downhill + curvature @ closing))
    left = float(np.sqrt(max(radius**2 - float(closing @ closing), 0.0)))

    def too_long(shift: float) -> float:
        return float(np.linalg.norm(slopes / (values + shift))) - left

    shift = 0.0
    if too_long(0.0) > 0.0:
        shift = float(brentq(too_long, 0.0, float(np.linalg.norm(slopes)) / left))
    return np.asarray(closing - seam @ (vectors @ (slopes / (values + shift))))


def updated(curvature: FloatArray, step: FloatArray, change: FloatArray) -> FloatArray:
    """Return second derivatives that know how the gradient has changed along a step; they stay positive.

    Notes
    -----
    BFGS with Powell's damping: Nocedal and Wright, procedure 18.2.
    """
    expected = curvature @ step
    own, seen = float(step @ expected), float(step @ change)
    if seen < DAMPING * own:
        share = (1.0 - DAMPING) * own / (own - seen)
        change = share * change + (1.0 - share) * expected
        seen = float(step @ change)
    return np.asarray(curvature + np.outer(change, change) / seen - np.outer(expected, expected) / own)


def displaced(places: FloatArray, step: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return where a step leads, with its turn as a turn, and the (3, 3) matrix of that turn.

    Parameters
    ----------
    places : (n, 3) float array, bohr
    step : (n, 3) float array, bohr
        Small steps are taken as they are. The part that turns the whole is made a rotation about the centre, which
        strains no bond; along a straight line, half a radian stretches bonds by a tenth.
    """
    centre = places.mean(axis=0)
    arms = places - centre
    inertia = float((arms**2).sum()) * np.eye(3) - arms.T @ arms
    # A line has no turn about itself, and a single atom none at all.
    axis = np.linalg.pinv(inertia, rcond=1e-8, hermitian=True) @ np.cross(arms, step).sum(axis=0)
    turn = Rotation.from_rotvec(axis).as_matrix()
    shift = step.mean(axis=0)
    strain = step - shift - np.cross(axis, arms)
    return centre + shift + (arms + strain) @ turn.T, np.asarray(turn)


def turned(vectors: FloatArray, turn: FloatArray) -> FloatArray:
    """Return vectors of all atoms, (..., 3 n), that go with a turn.

    Parameters
    ----------
    vectors : (..., 3 n) float array
    turn : (3, 3) float array
    """
    return np.asarray((vectors.reshape(*vectors.shape[:-1], -1, 3) @ turn.T).reshape(vectors.shape))
