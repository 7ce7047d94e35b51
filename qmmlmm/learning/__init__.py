"""Training of embedded potentials: data sets, labels, training, committees, reports."""

from qmmlmm.learning.data_set import append_frames, read_frames
from qmmlmm.learning.fit import fine_tune, learning_curve, train
from qmmlmm.learning.labelled_frame import DataSetError, LabelledFrame, NearCharges
from qmmlmm.learning.labelling import Labeller
from qmmlmm.learning.network_file import load_network, region_potential, save_network
from qmmlmm.learning.training import TrainingError, TrainingSettings
from qmmlmm.ml.response_network import ResponseNetwork, ResponseSettings

__all__ = [
    "DataSetError",
    "LabelledFrame",
    "Labeller",
    "NearCharges",
    "ResponseNetwork",
    "ResponseSettings",
    "TrainingError",
    "TrainingSettings",
    "append_frames",
    "fine_tune",
    "learning_curve",
    "load_network",
    "read_frames",
    "region_potential",
    "save_network",
    "train",
]
