"""A term whose potential runs in Python: energy and forces on all particles from their positions."""

from __future__ import annotations

import numpy as np
import torch

from qmmlmm.coupling.layout import TermLayout
from qmmlmm.coupling.potential import EvaluatedPotential, Evaluation, Evaluator
from qmmlmm.embedding.committee import CommitteeSpread
from qmmlmm.embedding.evaluator_field import EvaluatorField, FieldAtGeometry
from qmmlmm.embedding.interaction import RegionInteraction
from qmmlmm.embedding.labels import NEAR_REACH, Label
from qmmlmm.embedding.module_potential import ResponsePotential
from qmmlmm.embedding.region_geometry import RegionGeometry, tensors_of
from qmmlmm.embedding.region_term import RegionTerm
from qmmlmm.errors import EvaluationError, NonFiniteError, PotentialError, listed
from qmmlmm.geometry import Geometry
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL, NM_IN_BOHR, FloatArray


class EvaluatedTerm(RegionTerm):
    """One term of the Hamiltonian, computed by an `Evaluator` in its surroundings.

    Parameters
    ----------
    layout : TermLayout
    potential : EvaluatedPotential
    """

    potential: EvaluatedPotential

    def __init__(self, layout: TermLayout, potential: EvaluatedPotential) -> None:
        super().__init__(layout, potential)
        self._last: Evaluation | None = None
        self._evaluator = potential.create_evaluator(layout.specification)
        self._geometry = RegionGeometry(layout)
        self._field = None if layout.surroundings is None else EvaluatorField(layout, potential.capabilities)

    def __reduce__(self) -> tuple[object, ...]:
        return (EvaluatedTerm, (self.layout, self.potential))

    @property
    def evaluator(self) -> Evaluator:
        """The evaluator that computes the term."""
        return self._evaluator

    @property
    def last(self) -> Evaluation | None:
        """The last result of the evaluator; None before the first."""
        return self._last

    def compute(self, geometry: Geometry) -> tuple[float, FloatArray]:
        """Return energy, kJ/mol, and forces, kJ/(mol nm), see `RegionTerm.compute`."""
        energy, gradient = self.energy_and_gradient(geometry.in_bohr())
        coefficient = self.layout.coefficient
        return coefficient * energy * HARTREE_IN_KJ_PER_MOL, -coefficient * FORCE_AU_IN_OPENMM * gradient

    def energy_and_gradient(self, geometry: Geometry) -> tuple[float, FloatArray]:
        """Return the energy and its gradient with respect to all particles, without the coefficient.

        Parameters
        ----------
        geometry : Geometry, bohr
            All particles of the System.

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
        field = self.field_at(geometry)
        evaluation = self._evaluate(geometry, field)
        self._last = evaluation
        energy, gradient = self._collected(evaluation, geometry, field)
        if not np.isfinite(energy):
            raise NonFiniteError(f"term {self.name!r} has the energy {energy}")
        wrong = np.flatnonzero(~np.isfinite(gradient).all(axis=1))
        if len(wrong):
            raise NonFiniteError(f"term {self.name!r} has forces that are not numbers on atoms {listed(wrong)}")
        return energy, gradient

    def field_at(self, geometry: Geometry) -> FieldAtGeometry | None:
        """Return the field of the surroundings at a geometry of all particles, bohr; None with mechanical embedding."""
        return None if self._field is None else self._field.at(geometry)

    def region_geometry(self, geometry: Geometry) -> Geometry:
        """Return the region's atoms and link atoms, bohr, from a geometry of all particles, bohr.

        The result has a box only if the potential computes the region's periodic images.
        """
        sites = np.asarray(self._geometry.sites(*tensors_of(geometry)).numpy())
        return Geometry(sites, geometry.box if self.potential.capabilities.long_range else None)

    def coupling(self, first: int, second: int, geometry: Geometry) -> FloatArray:
        """Return the derivative coupling <first | gradient of second> of all particles at the last geometry, 1/nm.

        Parameters
        ----------
        first, second : int
            Electronic states.
        geometry : Geometry, nm
            The geometry of the last evaluation.

        Raises
        ------
        EvaluationError
            If the evaluator has no couplings or they cannot be computed.
        """
        if self._last is None or self._last.coupling is None:
            raise EvaluationError(
                f"term {self.name!r} has no derivative couplings; PySCF has them for CASSCF. Local diabatisation and "
                "Landau-Zener do not need them"
            )
        bohr = geometry.in_bohr()
        field = self.field_at(bohr)
        upper, lower = self._last.coupling(first, second)
        difference = self._collected(upper, bohr, field)[1] - self._collected(lower, bohr, field)[1]
        return difference / (upper.energy - lower.energy) * NM_IN_BOHR

    def label(self, geometry: Geometry, near_reach: float = NEAR_REACH) -> Label:
        """Return a label for the training of a learned potential.

        Parameters
        ----------
        geometry : Geometry, nm
            All particles of the System.
        near_reach : float, bohr
            Distance from an atom within which charges are near.
        """
        bohr = geometry.in_bohr()
        field = self.field_at(bohr)
        evaluation = self._evaluate(bohr, field)
        if field is None:
            sites = self.region_geometry(bohr).positions
            n = len(sites)
            return Label(sites, np.zeros(n), np.zeros((n, 3)), np.zeros((n, 3, 3)), evaluation)
        potential = field.site_potential()
        return Label(
            field.sites,
            potential.value.numpy(),
            potential.gradient.numpy(),
            potential.curvature.numpy(),
            evaluation,
            field.near_sources(evaluation, near_reach),
        )

    def interaction(self, geometry: Geometry, evaluation: Evaluation | None = None) -> RegionInteraction:
        """Return the interaction of the region with its surroundings, see `RegionTerm.interaction`.

        A new evaluator computes it, so that the one of a simulation is unchanged.
        """
        bohr = geometry.in_bohr()
        field = self.field_at(bohr)
        assert field is not None
        evaluator = self.potential.create_evaluator(self.layout.specification)
        region = Geometry(field.sites)
        embedded = evaluator.evaluate(region, field.external_field()) if evaluation is None else evaluation
        if embedded.charge_energies is None:
            raise PotentialError(
                f"term {self.name!r}: {type(self.potential).__name__} has no interaction with single charges; its "
                "evaluator has to return Evaluation.charge_energies"
            )
        alone = evaluator.energy(region, None)
        return RegionInteraction(embedded.energy, alone, field.source_energies(embedded))

    def committee(self) -> CommitteeSpread:
        """Return the spread of a committee's members, see `RegionTerm.committee`: of those in the field, if any."""
        module: torch.jit.ScriptModule | None = None
        if isinstance(self.potential, ResponsePotential) and self._field is not None:
            module = self.potential.committee_in_field(self.layout.specification)
        if module is None:
            return super().committee()
        return CommitteeSpread(self.layout, module, self.potential.capabilities.state)

    def _evaluate(self, geometry: Geometry, field: FieldAtGeometry | None) -> Evaluation:
        if field is None:
            return self._evaluator.evaluate(self.region_geometry(geometry), None)
        return self._evaluator.evaluate(Geometry(field.sites), field.external_field())

    def _collected(
        self, evaluation: Evaluation, geometry: Geometry, field: FieldAtGeometry | None
    ) -> tuple[float, FloatArray]:
        """Return the energy and its gradient with respect to all particles."""
        if field is None:
            energy = evaluation.energy
            site_gradient = torch.from_numpy(np.ascontiguousarray(evaluation.gradient))
            source_gradient = torch.zeros((0, 3), dtype=torch.float64)
        else:
            energy, site_gradient, source_gradient = field.collect(evaluation)
        collected = self._geometry.collect(site_gradient, source_gradient, *tensors_of(geometry))
        return energy, np.asarray(collected.numpy())
