"""What a region's energy in its surroundings is made of, source by source."""

from __future__ import annotations

from dataclasses import dataclass

from qmmlmm.coupling.layout import TermLayout
from qmmlmm.coupling.potential import EvaluatedPotential, Evaluation
from qmmlmm.embedding.evaluated_term import EvaluatedTerm
from qmmlmm.errors import PotentialError
from qmmlmm.units import FloatArray


@dataclass(frozen=True)
class RegionInteraction:
    """The energy of a region in the field of its surroundings, in parts.

    Parameters
    ----------
    embedded_energy : float, hartree
        Of the region's charge density, as the field has polarised it, with its interaction with the field.
    vacuum_energy : float, hartree
        Of the region alone, relaxed without a field, at the same positions.
    source_energies : (n_sources,) float array, hartree
        Interaction of the polarised density with each source of `TermLayout.surroundings`: all particles, then
        the derived charges. The region's own atoms have the interaction with their periodic images.
    """

    embedded_energy: float
    vacuum_energy: float
    source_energies: FloatArray

    @property
    def interaction_energy(self) -> float:
        """Sum over the sources, hartree: the energy with field minus that of the same density without it."""
        return float(self.source_energies.sum())

    @property
    def polarisation_energy(self) -> float:
        """What it costs the region to polarise: energy of the polarised density alone minus the relaxed one's."""
        return self.embedded_energy - self.interaction_energy - self.vacuum_energy


def evaluated_interaction(
    layout: TermLayout,
    potential: EvaluatedPotential,
    positions: FloatArray,
    box: FloatArray,
    evaluation: Evaluation | None = None,
) -> RegionInteraction:
    """Return the interaction of a region with its surroundings for a potential that runs in Python.

    Parameters
    ----------
    layout : TermLayout
        With surroundings.
    potential : EvaluatedPotential
        It gets an evaluator of its own; one that drives a simulation is not touched.
    positions : (n_particles, 3) float array, bohr
    box : (3, 3) float array, bohr
    evaluation : Evaluation, optional
        Of this potential in its surroundings at these positions, if there is one already.

    Raises
    ------
    PotentialError
        If the potential cannot tell its interaction with single charges.
    EvaluationError
        If it fails.
    """
    evaluator = potential.create_evaluator(layout.specification)
    term = EvaluatedTerm(layout, potential)
    sites, external_field = term.external_field(positions, box)
    embedded = evaluator.evaluate(sites, external_field) if evaluation is None else evaluation
    if embedded.charge_energies is None:
        raise PotentialError(
            f"term {layout.specification.name!r}: {type(potential).__name__} does not tell its interaction with single "
            "charges; its evaluator has to give Evaluation.charge_energies"
        )
    # Gradients in vacuum are not needed; an evaluator may offer the energy alone.
    alone = evaluator.energy(sites, None) if hasattr(evaluator, "energy") else evaluator.evaluate(sites, None).energy
    return RegionInteraction(embedded.energy, float(alone), term.source_energies(embedded))
