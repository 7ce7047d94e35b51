"""Absorption spectra: snapshots of a trajectory, their excitations, and the spectrum."""

from qmmlmm.spectra.absorption import write_spectrum_report
from qmmlmm.spectra.snapshots import read_snapshots
from qmmlmm.spectra.transitions import Transitions, compute_transitions

__all__ = [
    "Transitions",
    "compute_transitions",
    "read_snapshots",
    "write_spectrum_report",
]
