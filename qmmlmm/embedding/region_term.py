"""One term of a Hamiltonian in its surroundings, for potentials of every kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from qmmlmm.coupling.layout import TermLayout
from qmmlmm.coupling.potential import Evaluation, Evaluator, RegionPotential
from qmmlmm.embedding.interaction import RegionInteraction
from qmmlmm.errors import HamiltonianError
from qmmlmm.geometry import Geometry
from qmmlmm.units import FloatArray

if TYPE_CHECKING:
    from qmmlmm.embedding.committee import CommitteeSpread


class RegionTerm(ABC):
    """One term: energy and forces on all particles from their positions.

    Parameters
    ----------
    layout : TermLayout
    potential : RegionPotential
    """

    def __init__(self, layout: TermLayout, potential: RegionPotential) -> None:
        self.layout = layout
        self.potential = potential

    @property
    def name(self) -> str:
        """Name of the term."""
        return self.layout.specification.name

    @property
    def evaluator(self) -> Evaluator | None:
        """The evaluator that computes the term; None if it is a torch module."""
        return None

    @property
    def last(self) -> Evaluation | None:
        """The last result of the evaluator; None before the first, and for a torch module."""
        return None

    @abstractmethod
    def compute(self, geometry: Geometry) -> tuple[float, FloatArray]:
        """Return energy and forces, with the term's coefficient if it is a number.

        Parameters
        ----------
        geometry : Geometry, nm
            All particles of the System.

        Returns
        -------
        energy : float, kJ/mol
        forces : (n_particles, 3) float array, kJ/(mol nm)

        Raises
        ------
        NonFiniteError
            If the energy or a force is not a number.
        EvaluationError
            If the term cannot be computed.
        """

    @abstractmethod
    def interaction(self, geometry: Geometry, evaluation: Evaluation | None = None) -> RegionInteraction:
        """Return the interaction of the region with its surroundings, source by source.

        Parameters
        ----------
        geometry : Geometry, nm
            All particles of the System.
        evaluation : Evaluation, optional
            Result of the potential at this geometry, if there is one already.

        Raises
        ------
        PotentialError
            If the potential has no interaction with single charges.
        """

    def committee(self) -> CommitteeSpread:
        """Return the spread of a committee's members.

        Raises
        ------
        HamiltonianError
            If the term is no learned potential.
        """
        raise HamiltonianError(f"term {self.name!r} is no learned potential and has no committee")
