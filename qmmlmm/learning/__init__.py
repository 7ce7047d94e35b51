"""Training of embedded potentials: data sets, labels, training, committees, reports."""

from qmmlmm.learning.data_set import append_frames, read_frames
from qmmlmm.learning.labelled_frame import DataSetError, LabelledFrame, NearCharges

__all__ = ["DataSetError", "LabelledFrame", "NearCharges", "append_frames", "read_frames"]
