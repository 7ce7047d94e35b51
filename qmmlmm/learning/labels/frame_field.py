"""The field of a labelled frame's surroundings, for the evaluation of another potential in it."""

from __future__ import annotations

import numpy as np
import torch

from qmmlmm.coupling.potential import ExternalField
from qmmlmm.embedding.kernels import external_kernel
from qmmlmm.errors import DataSetError
from qmmlmm.learning.labels.labelled_frame import LabelledFrame
from qmmlmm.units import FloatArray

POINTS_AT_ONCE = 20_000
"""Number of points in one block; bounds the memory."""

SHARPNESS = 1e-8
"""Square of the distance from an atom, bohr^2, within which its weight no longer grows."""


def field_of_frame(frame: LabelledFrame) -> ExternalField | None:
    """Return the field of a frame's surroundings; None in a vacuum.

    Parameters
    ----------
    frame : LabelledFrame
        Frame with the potential, the field and its gradient at the atoms if it has surroundings.

    Raises
    ------
    DataSetError
        If it has a potential and no gradient of the field.

    Notes
    -----
    The near charges of the frame act as they are. The potential of all others is known at the atoms with its first and
    second derivatives, and is interpolated around them, see `RestPotential`. So a potential that feels phi, its
    gradient and its curvature at the atoms feels what the labels felt, to the digits of the data set; one with an
    electron density feels an approximation in which only the far charges are interpolated.
    """
    if frame.potential is None or frame.field is None:
        return None
    if frame.field_gradient is None:
        raise DataSetError(
            f"frame {frame.name!r} has no gradient of the field (field_gradient), which a second potential in the same "
            "field needs; label it again"
        )
    near, charges, widths = np.zeros((0, 3)), np.zeros(0), None
    if frame.near is not None:
        near, charges, widths = frame.near.positions, frame.near.charges, frame.near.widths
    value, gradient, curvature = _of_near_charges(frame.positions, near, charges, widths)
    rest = RestPotential(
        frame.positions, frame.potential - value, -frame.field - gradient, -frame.field_gradient - curvature
    )
    return ExternalField(near, charges, np.zeros_like(charges), smooth_potential=rest, widths=widths)


class RestPotential:
    """A potential that is known at atoms with two derivatives, as a smooth function of space.

    Parameters
    ----------
    positions : (n, 3) float array, bohr
    value : (n,) float array, hartree/e
    gradient : (n, 3) float array, hartree/(e bohr)
    curvature : (n, 3, 3) float array, hartree/(e bohr^2)

    Notes
    -----
    phi(r) = sum_i w_i(r) T_i(r), with the second-order Taylor expansions T_i about the atoms and the weights
    w_i ~ 1/|r - r_i|^6, which add up to one. Value and first two derivatives at the atoms are those given, because the
    weights of all other atoms vanish there with five derivatives.
    Source: modified Shepard interpolation, Farwig, Math. Comput. 46, 577 (1986).
    """

    def __init__(self, positions: FloatArray, value: FloatArray, gradient: FloatArray, curvature: FloatArray) -> None:
        self._positions, self._value, self._gradient = positions, value, gradient
        self._curvature = 0.5 * (curvature + curvature.transpose(0, 2, 1))

    def __call__(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the potential, (g,) hartree/e, and its gradient, (g, 3), at points, (g, 3) bohr."""
        count = max(1, -(-len(points) // POINTS_AT_ONCE))
        blocks = [self._block(part) for part in np.array_split(points, count)]
        return np.concatenate([value for value, _ in blocks]), np.concatenate([gradient for _, gradient in blocks])

    def _block(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        delta = points[:, None, :] - self._positions
        square = (delta * delta).sum(axis=-1) + SHARPNESS
        # Relative to the nearest atom, so that no power overflows.
        weights = (square.min(axis=1, keepdims=True) / square) ** 3
        weights /= weights.sum(axis=1, keepdims=True)
        bent = np.einsum("nab,gnb->gna", self._curvature, delta)
        expansions = self._value + ((self._gradient + 0.5 * bent) * delta).sum(axis=-1)
        value = (weights * expansions).sum(axis=1)
        # d ln(weight)/dr is -6 delta/square, less the mean of it.
        slopes = -6.0 * weights[..., None] * delta / square[..., None]
        slopes -= weights[..., None] * slopes.sum(axis=1, keepdims=True)
        gradient = (weights[..., None] * (self._gradient + bent)).sum(axis=1)
        return value, gradient + (slopes * expansions[..., None]).sum(axis=1)


def _of_near_charges(
    positions: FloatArray, near: FloatArray, charges: FloatArray, widths: FloatArray | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the potential of charges at positions, with its gradient and second derivatives."""
    delta = positions[:, None, :] - near[None, :, :]
    r = np.linalg.norm(delta, axis=-1)
    none = torch.zeros(len(charges), dtype=torch.float64)
    found = external_kernel(
        torch.from_numpy(r), torch.tensor(charges), none, None, None if widths is None else torch.tensor(widths)
    )
    value, radial, second = (part.numpy() for part in found)
    along = (second - radial) / r**2
    curvature = np.einsum("nk,nka,nkb->nab", along, delta, delta) + radial.sum(axis=1)[:, None, None] * np.eye(3)
    return value.sum(axis=1), (radial[..., None] * delta).sum(axis=1), curvature
