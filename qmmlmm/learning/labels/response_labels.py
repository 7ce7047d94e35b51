"""Labels of the response of a region to its surroundings: those in the field, less those in a vacuum."""

from __future__ import annotations

from dataclasses import replace

from qmmlmm.errors import DataSetError
from qmmlmm.learning.labels.labelled_frame import LabelledFrame

RESPONSE_OF = "response of "
"""Start of the method of such labels."""


def response_labels(frames: list[LabelledFrame]) -> list[LabelledFrame]:
    """Return frames whose energy and forces are those of the interaction with the surroundings.

    Parameters
    ----------
    frames : list of LabelledFrame
        Frames in a field, with energy and forces in a vacuum.

    Raises
    ------
    DataSetError
        If a frame lacks one of these.
    """
    found = []
    for frame in frames:
        if frame.potential is None or frame.vacuum_energy is None or frame.vacuum_forces is None:
            raise DataSetError(
                f"frame {frame.name!r} lacks the field, or energy and forces in a vacuum, of which a response is "
                "learned; label it with Labeller(..., vacuum=True) in electrostatic embedding"
            )
        found.append(
            replace(
                frame,
                energy=frame.energy - frame.vacuum_energy,
                forces=frame.forces - frame.vacuum_forces,
                vacuum_energy=None,
                vacuum_forces=None,
                method=RESPONSE_OF + frame.method,
            )
        )
    return found
