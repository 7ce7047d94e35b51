"""The electronic states of a region at one geometry."""

from __future__ import annotations

from dataclasses import dataclass, fields

from qmmlmm.units import FloatArray, IntArray


@dataclass(frozen=True)
class StateResults:
    """All m electronic states of a region at one geometry, in the order of energy.

    Parameters
    ----------
    state : int
        Index of the state that has energy and forces.
    state_energies : (m,) float array, hartree
        Energies, the ground state first.
    state_order : (m,) int array or None
        Index at the first geometry of the state with the same character; None if characters are not tracked.
    state_overlaps : (m, m) float array or None
        Overlaps of the states of the previous geometry, in rows, with these; None at the first geometry.
    oscillator_strengths : (m,) float array or None
        Oscillator strengths from the ground state, whose own entry is zero.
    transition_dipoles : (m, 3) float array or None, e bohr
        Transition dipoles from the ground state, whose own entry is zero.
    """

    state: int
    state_energies: FloatArray
    state_order: IntArray | None = None
    state_overlaps: FloatArray | None = None
    oscillator_strengths: FloatArray | None = None
    transition_dipoles: FloatArray | None = None

    def report(self) -> dict[str, object]:
        """Return the fields that are not None, by name."""
        return {f.name: value for f in fields(self) if (value := vars(self)[f.name]) is not None}
