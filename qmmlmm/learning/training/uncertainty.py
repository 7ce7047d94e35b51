"""The spread of a committee as a measure of the error of its forces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qmmlmm.embedding.committee import force_variance
from qmmlmm.errors import DataSetError
from qmmlmm.learning.training.frame_tensors import FrameTensors
from qmmlmm.learning.training.prediction import Prediction
from qmmlmm.setting_checks import check_choice
from qmmlmm.units import FORCE_AU_IN_OPENMM, FloatArray


@dataclass(frozen=True)
class ForceUncertainty:
    """Spread of the forces of all members, and true error of their mean.

    Values of an atom are root mean squares over x, y and z; values of a frame are means over its atoms.

    Parameters
    ----------
    atom_spread, atom_error : (frames, n) float array, kJ/(mol nm)
    """

    atom_spread: FloatArray
    atom_error: FloatArray

    @property
    def frame_spread(self) -> FloatArray:
        """Mean over the atoms, (frames,) kJ/(mol nm)."""
        return np.mean(self.atom_spread, axis=1)

    @property
    def frame_error(self) -> FloatArray:
        """Mean over the atoms, (frames,) kJ/(mol nm)."""
        return np.mean(self.atom_error, axis=1)

    def scale(self) -> float:
        """Return the factor that makes the spread as large as the error in the mean square."""
        return float(np.sqrt(np.mean(self.atom_error**2) / np.mean(self.atom_spread**2)))

    def correlation(self, per: str = "frame") -> float:
        """Return the correlation coefficient of spread and error.

        Parameters
        ----------
        per : {"frame", "atom"}
        """
        check_choice("per", per, ("frame", "atom"))
        pair = (
            (self.frame_spread, self.frame_error)
            if per == "frame"
            else (self.atom_spread.ravel(), self.atom_error.ravel())
        )
        return float(np.corrcoef(*pair)[0, 1])


def force_uncertainty(predicted: Prediction, frames: FrameTensors) -> ForceUncertainty:
    """Return spread and error of the forces of a committee on labelled frames.

    Raises
    ------
    DataSetError
        If there is only one member.
    """
    members = predicted.forces.detach()
    if len(members) < 2:
        raise DataSetError("one model has no spread; train a committee (members=4)")
    in_vacuum = predicted.vacuum_forces.detach() if predicted.separate_parts else None
    spread = force_variance(members, in_vacuum).mean(-1).sqrt()
    error = (members.mean(0) - frames.forces).square().mean(-1).sqrt()
    return ForceUncertainty(
        atom_spread=spread.cpu().numpy() * FORCE_AU_IN_OPENMM,
        atom_error=error.cpu().numpy() * FORCE_AU_IN_OPENMM,
    )
