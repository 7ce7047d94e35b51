"""A torch module as an `Evaluator`, in any external field."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from qmmlmm.coupling.potential import Evaluation, Evaluator, ExternalField, RegionSpecification
from qmmlmm.embedding.chain_rule import site_gradient
from qmmlmm.embedding.kernels import external_kernel
from qmmlmm.embedding.model_inputs import ModelInputs
from qmmlmm.errors import NonFiniteError
from qmmlmm.geometry import Geometry
from qmmlmm.units import FloatArray

STENCIL = 0.02
"""Step of the central differences that give the field of the smooth part, bohr: the smooth part changes over ten bohr,
so that the relative error of the field is 1e-7."""

# Steps to a site and to six points around it, by axis and direction.
_STEPS = STENCIL * np.array(
    [[0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=float
)


class ModuleEvaluator(Evaluator):
    """Computes a region with a module that follows the contract of `qmmlmm.ml.MLPotential`.

    Parameters
    ----------
    specification : RegionSpecification
    module : callable
        Module, or function of its inputs that autograd differentiates.
    state : int
        Electronic state.

    Notes
    -----
    Potential and field of compact charges are exact. Only potential and gradient of the smooth part are known. Its
    field at a site is the central difference of its potential, so that the energy is a function of the potential at
    points, and `Evaluation.smooth_charges` represents a dipole by two opposite charges.
    """

    def __init__(
        self,
        specification: RegionSpecification,
        module: Callable[[dict[str, Tensor]], Mapping[str, Tensor]],
        state: int = 0,
    ) -> None:
        self._name = specification.name
        self._module = module
        self._inputs = ModelInputs(specification, state)

    def evaluate(self, geometry: Geometry, field: ExternalField | None) -> Evaluation:
        """Return energy and derivatives, see `qmmlmm.coupling.potential.Evaluator`."""
        sites = torch.tensor(geometry.positions, dtype=torch.float64)
        if field is None:
            energy, (gradient,) = self._derivatives(sites, {})
            return Evaluation(energy, gradient.numpy())
        charges = torch.tensor(field.positions, dtype=torch.float64)
        delta = sites[:, None, :] - charges[None, :, :]
        r = delta.norm(dim=-1)
        value, radial, second = external_kernel(
            r,
            torch.tensor(field.point_charges),
            torch.tensor(field.gaussian_charges),
            field.splitting,
            None if field.widths is None else torch.tensor(field.widths),
        )
        along = (second - radial) / torch.clamp(r * r, min=1e-24)
        pair_gradient = radial[..., None] * delta
        identity = torch.eye(3, dtype=torch.float64)
        pair_curvature = (
            along[..., None, None] * delta[..., :, None] * delta[..., None, :] + radial[..., None, None] * identity
        )
        potential, potential_gradient, curvature = value.sum(1), pair_gradient.sum(1), pair_curvature.sum(1)
        points = np.zeros((0, 3))
        if field.smooth_potential is not None:
            points = (geometry.positions[:, None, :] + _STEPS).reshape(-1, 3)
            smooth, smooth_gradient = (torch.tensor(array) for array in field.smooth_potential(points))
            smooth, smooth_gradient = smooth.reshape(-1, 7), smooth_gradient.reshape(-1, 7, 3)
            potential = potential + smooth[:, 0]
            potential_gradient = potential_gradient + (smooth[:, 1::2] - smooth[:, 2::2]) / (2.0 * STENCIL)
            curvature = curvature + (smooth_gradient[:, 1::2] - smooth_gradient[:, 2::2]) / (2.0 * STENCIL)
            by_position = smooth_gradient[:, 0]
        near = {"near_positions": charges, "near_charges": torch.tensor(field.point_charges)}
        energy, gradients = self._derivatives(sites, {"potential": potential, "field": -potential_gradient, **near})
        explicit, q, by_field, by_near = gradients
        dipoles = -by_field
        own_gradient = pair_gradient.sum(1) + (by_position if len(points) else 0.0)
        gradient = site_gradient(explicit, q, dipoles, own_gradient, curvature)
        on_charges = by_near - (
            (q[:, None, None] * pair_gradient).sum(0) + torch.einsum("nkab,nb->ka", pair_curvature, dipoles)
        )
        return Evaluation(
            energy,
            gradient.numpy(),
            on_charges.numpy(),
            points,
            _stencil_charges(q, dipoles) if len(points) else np.zeros(0),
        )

    def _derivatives(self, sites: Tensor, around: dict[str, Tensor]) -> tuple[float, list[Tensor]]:
        """Return the energy and its derivatives with respect to sites and, if given, potential, field and charges."""
        leaves = {"positions": sites} | {key: around[key] for key in ("potential", "field", "near_positions") if around}
        leaves = {key: tensor.clone().requires_grad_(True) for key, tensor in leaves.items()}
        inputs = self._inputs(leaves["positions"]) | around | leaves
        with torch.enable_grad():
            energy = self._module(inputs)["energy"].sum()
            found = torch.autograd.grad([energy], list(leaves.values()), allow_unused=True)
        gradients = [
            torch.zeros_like(leaf) if gradient is None else gradient.to(torch.float64)
            for leaf, gradient in zip(leaves.values(), found, strict=True)
        ]
        if not bool(torch.isfinite(energy)) or not all(bool(torch.isfinite(g).all()) for g in gradients):
            raise NonFiniteError(f"term {self._name!r} has an energy or forces that are not numbers")
        return float(energy.detach()), gradients


def _stencil_charges(charges: Tensor, dipoles: Tensor) -> FloatArray:
    """Return charges at the points of the stencil that represent charges and dipoles at the sites, (7 n,) e."""
    pairs = torch.stack([dipoles, -dipoles], dim=-1).reshape(len(charges), 6) / (2.0 * STENCIL)
    return np.asarray(torch.cat([charges[:, None], pairs], dim=1).reshape(-1).numpy())
