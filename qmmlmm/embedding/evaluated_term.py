"""A term whose potential runs in Python: from positions of all particles to energy and forces on all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from qmmlmm.coupling.layout import TermLayout
from qmmlmm.coupling.potential import EvaluatedPotential, Evaluation, ExternalField
from qmmlmm.embedding.geometry import RegionGeometry
from qmmlmm.embedding.surroundings_field import SurroundingsField
from qmmlmm.errors import NonFiniteError, listed
from qmmlmm.units import FloatArray


@dataclass(frozen=True)
class Label:
    """What a learned potential of a region is trained on, at one geometry.

    Parameters
    ----------
    positions : (n, 3) float array, bohr
        Of the region's atoms and link atoms.
    potential : (n,) float array, hartree/e
        Of the surroundings, at these positions; zeros with mechanical embedding, as are the next two.
    potential_gradient : (n, 3) float array, hartree/(e bohr)
    potential_curvature : (n, 3, 3) float array, hartree/(e bohr^2)
    energy : float, hartree
        Of the region with its interaction with the surroundings.
    gradient : (n, 3) float array, hartree/bohr
        Derivative of the energy at a fixed potential phi(r).
    results : dict
        Of the evaluator.
    """

    positions: FloatArray
    potential: FloatArray
    potential_gradient: FloatArray
    potential_curvature: FloatArray
    energy: float
    gradient: FloatArray
    results: dict[str, object]


class EvaluatedTerm:
    """One term of the Hamiltonian, computed by an `Evaluator` in its surroundings.

    Parameters
    ----------
    layout : TermLayout
    potential : EvaluatedPotential

    Attributes
    ----------
    last : Evaluation or None
        What the evaluator returned last, with its `results`.
    """

    def __init__(self, layout: TermLayout, potential: EvaluatedPotential) -> None:
        self.layout = layout
        self.potential = potential
        self.last: Evaluation | None = None
        self._evaluator = potential.create_evaluator(layout.specification)
        self._geometry = RegionGeometry(layout)
        self._field = SurroundingsField(layout) if layout.surroundings is not None else None

    def __reduce__(self) -> tuple[object, ...]:
        return (EvaluatedTerm, (self.layout, self.potential))

    @property
    def name(self) -> str:
        """Name of the term."""
        return self.layout.specification.name

    def external_field(self, positions: FloatArray, box: FloatArray) -> tuple[FloatArray, ExternalField]:
        """Return the region's sites and the field that they are in.

        Parameters
        ----------
        positions : (n_particles, 3) float array, bohr
        box : (3, 3) float array, bohr

        Returns
        -------
        sites : (n_sites, 3) float array, bohr
        field : ExternalField
        """
        field = self._field
        if field is None:
            raise TypeError(f"term {self.name!r} has mechanical embedding: there is no external field")
        sites = field.prepare(torch.from_numpy(positions), torch.from_numpy(box)).numpy()
        near = field.near_positions.numpy()
        charges = field.near_charges().numpy()
        if not self.layout.periodic:
            return sites, ExternalField(near, charges, np.zeros_like(charges))
        own = field.own_charges.numpy()

        def smooth_potential(points: FloatArray) -> tuple[FloatArray, FloatArray]:
            value, gradient = field.smooth_potential(torch.from_numpy(np.ascontiguousarray(points)))
            return value.numpy(), gradient.numpy()

        return sites, ExternalField(
            positions=np.concatenate([near, sites[: len(own)]]),
            point_charges=np.concatenate([charges, np.zeros_like(own)]),
            gaussian_charges=np.concatenate([-charges, -own]),
            splitting=field.splitting,
            smooth_potential=smooth_potential,
        )

    def label(self, positions: FloatArray, box: FloatArray) -> Label:
        """Return what a learned potential is trained on.

        Parameters
        ----------
        positions : (n_particles, 3) float array, bohr
        box : (3, 3) float array, bohr
        """
        if self._field is None:
            sites = self._geometry.sites(torch.from_numpy(positions), torch.from_numpy(box)).numpy()
            n = len(sites)
            potential, slope, curvature = np.zeros(n), np.zeros((n, 3)), np.zeros((n, 3, 3))
            evaluation = self._evaluator.evaluate(sites, None)
        else:
            sites, field = self.external_field(positions, box)
            potential, slope, curvature = (tensor.numpy() for tensor in self._field.potential())
            evaluation = self._evaluator.evaluate(sites, field)
        return Label(sites, potential, slope, curvature, evaluation.energy, evaluation.gradient, evaluation.results)

    def compute(self, positions: FloatArray, box: FloatArray) -> tuple[float, FloatArray]:
        """Return the term's energy and its gradient on all particles, without the coefficient.

        Parameters
        ----------
        positions : (n_particles, 3) float array, bohr
        box : (3, 3) float array, bohr
            Not used without periodicity.

        Returns
        -------
        energy : float, hartree
        gradient : (n_particles, 3) float array, hartree/bohr

        Raises
        ------
        NonFiniteError
            If the energy or a force is not a number.
        EvaluationError
            If the evaluator fails.
        """
        if self._field is None:
            sites = self._geometry.sites(torch.from_numpy(positions), torch.from_numpy(box)).numpy()
            evaluation = self._evaluator.evaluate(sites, None)
            energy = evaluation.energy
            source_gradient = torch.zeros((0, 3), dtype=torch.float64)
            site_gradient = torch.from_numpy(np.ascontiguousarray(evaluation.gradient))
        else:
            sites, field = self.external_field(positions, box)
            evaluation = self._evaluator.evaluate(sites, field)
            energy, site_gradient, source_gradient = self._in_field(evaluation)
        self.last = evaluation
        where = torch.from_numpy(positions), torch.from_numpy(box)
        gradient: FloatArray = self._geometry.collect(site_gradient, source_gradient, *where).numpy()
        self._check(energy, gradient)
        return energy, gradient

    def _in_field(self, evaluation: Evaluation) -> tuple[float, torch.Tensor, torch.Tensor]:
        field = self._field
        assert field is not None
        once, once_sites, once_sources = field.reference_energy()
        site_gradient = torch.from_numpy(np.ascontiguousarray(evaluation.gradient)) + once_sites
        source_gradient = once_sources
        charge_gradient = torch.from_numpy(np.ascontiguousarray(evaluation.charge_gradient))
        n_near = field.near_index.shape[0]
        source_gradient.index_add_(0, field.near_index, charge_gradient[:n_near])
        if self.layout.periodic:
            # The smeared charges that come last sit on the region's own atoms.
            site_gradient[: charge_gradient.shape[0] - n_near] += charge_gradient[n_near:]
            points = torch.from_numpy(np.ascontiguousarray(evaluation.smooth_points))
            charges = torch.from_numpy(np.ascontiguousarray(evaluation.smooth_charges))
            source_gradient = source_gradient + field.smooth_adjoint(points, charges, None)
        return evaluation.energy + float(once), site_gradient, source_gradient

    def _check(self, energy: float, gradient: FloatArray) -> None:
        if not np.isfinite(energy):
            raise NonFiniteError(f"term {self.name!r} has the energy {energy}")
        wrong = np.flatnonzero(~np.isfinite(gradient).all(axis=1))
        if len(wrong):
            raise NonFiniteError(f"term {self.name!r} has forces that are not numbers on atoms {listed(wrong)}")
