"""Files of a run: directory, lock, checkpoint, record, provenance, reporters."""

from qmmlmm.runs.reporters import ProgressReporter, TermEnergyReporter
from qmmlmm.runs.result_reporter import ResultReporter
from qmmlmm.runs.run_directory import RunDirectory
from qmmlmm.runs.variable_reporter import VariableReporter

__all__ = [
    "ProgressReporter",
    "ResultReporter",
    "RunDirectory",
    "TermEnergyReporter",
    "VariableReporter",
]
