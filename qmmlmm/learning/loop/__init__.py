"""Learning while simulations run: sampling, labels in parallel, training, and a directory that can be resumed."""

from qmmlmm.errors import LoopError, LoopStoreError
from qmmlmm.learning.labels.label_queue import LabelSettings
from qmmlmm.learning.labels.label_task import JobLimits, LabelSource
from qmmlmm.learning.loop.learning_loop import LearningLoop, LoopResult
from qmmlmm.learning.loop.settings import LoopSettings, Walker
from qmmlmm.sampling.collective_variables import Distance, DistanceDifference, Torsion
from qmmlmm.sampling.metadynamics import HillVariable, Metadynamics

__all__ = [
    "Distance",
    "DistanceDifference",
    "HillVariable",
    "JobLimits",
    "LabelSettings",
    "LabelSource",
    "LearningLoop",
    "LoopError",
    "LoopResult",
    "LoopSettings",
    "LoopStoreError",
    "Metadynamics",
    "Torsion",
    "Walker",
]
