"""What the spread of a committee says about the error of its forces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qmmlmm.learning.frame_tensors import FrameTensors
from qmmlmm.learning.labelled_frame import DataSetError
from qmmlmm.learning.prediction import Prediction
from qmmlmm.units import FORCE_AU_IN_OPENMM, FloatArray


@dataclass(frozen=True)
class ForceUncertainty:
    """Spread of the members' forces beside the true error of their mean.

    Of an atom the root mean square over x, y and z; of a frame the mean over its atoms, which a single atom does not
    decide.

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
        if per not in ("frame", "atom"):
            raise ValueError(f"the correlation is per 'frame' or per 'atom', got {per!r}")
        pair = (
            (self.frame_spread, self.frame_error)
            if per == "frame"
            else (self.atom_spread.ravel(), self.atom_error.ravel())
        )
        return float(np.corrcoef(*pair)[0, 1])


def force_uncertainty(predicted: Prediction, frames: FrameTensors) -> ForceUncertainty:
    """Return spread and error of a committee's forces on labelled frames.

    Raises
    ------
    DataSetError
        If there is one member only.

    Notes
    -----
    A force is that in a vacuum and that of the interaction. Where both have labels, the members' deviations in the two
    are hardly correlated: their covariance is 0 to 8 % of the whole variance in acetone, and what four members show of
    it is mostly chance. The variances of the two are added without it then, which tells frames apart better.
    """
    members = predicted.forces.detach()
    if len(members) < 2:
        raise DataSetError("one model has no spread; train a committee (members=4)")
    variance = members.var(0)
    if predicted.separate_parts:
        alone = predicted.vacuum_forces.detach()
        variance = alone.var(0) + (members - alone).var(0)
    spread = variance.mean(-1).sqrt()
    error = (members.mean(0) - frames.forces).square().mean(-1).sqrt()
    return ForceUncertainty(
        atom_spread=spread.cpu().numpy() * FORCE_AU_IN_OPENMM,
        atom_error=error.cpu().numpy() * FORCE_AU_IN_OPENMM,
    )
