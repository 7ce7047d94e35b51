"""Training of embedded potentials: labels, data sets, training, committees and reports."""

from qmmlmm.errors import DataSetError, TrainingError
from qmmlmm.learning.labels.data_set import append_frames, read_frames
from qmmlmm.learning.labels.difference_labels import DifferenceLabels, difference_labels
from qmmlmm.learning.labels.labelled_frame import LabelledFrame, NearCharges
from qmmlmm.learning.labels.labeller import Labeller
from qmmlmm.learning.training.fit import fine_tune, learning_curve, train
from qmmlmm.learning.training.general_training import train_general_response
from qmmlmm.learning.training.response_fit import fit_response
from qmmlmm.learning.training.response_from_qm import response_from_qm
from qmmlmm.learning.training.training_settings import TrainingSettings
from qmmlmm.ml.ml_potential import region_potential
from qmmlmm.ml.network_file import load_network, save_network
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.ml.response_settings import ResponseSettings

__all__ = [
    "DataSetError",
    "DifferenceLabels",
    "LabelledFrame",
    "Labeller",
    "NearCharges",
    "ResponseNetwork",
    "ResponseSettings",
    "TrainingError",
    "TrainingSettings",
    "append_frames",
    "difference_labels",
    "fine_tune",
    "fit_response",
    "learning_curve",
    "load_network",
    "read_frames",
    "region_potential",
    "response_from_qm",
    "save_network",
    "train",
    "train_general_response",
]
