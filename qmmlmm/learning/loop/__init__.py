"""Learning while a simulation runs: sampling, labels in parallel, training, and a directory that survives it all."""

from qmmlmm.learning.loop.collective_variables import Distance, DistanceDifference, Torsion
from qmmlmm.learning.loop.errors import LoopError, LoopStoreError
from qmmlmm.learning.loop.label_queue import LabelSettings
from qmmlmm.learning.loop.label_task import JobLimits, LabelSource
from qmmlmm.learning.loop.learning_loop import LearningLoop, LoopResult
from qmmlmm.learning.loop.metadynamics import HillVariable, Metadynamics
from qmmlmm.learning.loop.settings import LoopSettings, Walker

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
