"""The energy of a region in its surroundings, in parts and by source."""

from __future__ import annotations

from dataclasses import dataclass

from qmmlmm.units import FloatArray


@dataclass(frozen=True)
class RegionInteraction:
    """The energy of a region in the field of its surroundings, in parts.

    Parameters
    ----------
    embedded_energy : float, hartree
        Energy of the polarised region, including its interaction with the field.
    vacuum_energy : float, hartree
        Energy of the region relaxed without a field, at the same positions.
    source_energies : (n_sources,) float array, hartree
        Interaction of the polarised density with each source of `TermLayout.surroundings`: all particles, then
        the derived charges. For the region's own atoms it is that with their periodic images.
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
        """Energy without the field of the polarised density minus that of the relaxed one, hartree."""
        return self.embedded_energy - self.interaction_energy - self.vacuum_energy
