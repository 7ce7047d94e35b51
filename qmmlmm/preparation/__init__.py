"""From a structure file and ligands to a solvated System, and from a System to an active site."""

from qmmlmm.preparation.findings import Finding, Report
from qmmlmm.preparation.inspection import inspect
from qmmlmm.preparation.ligand import Ligand
from qmmlmm.preparation.preparing import Prepared, prepare
from qmmlmm.preparation.settings import PreparationSettings
from qmmlmm.preparation.site import Site
from qmmlmm.preparation.site_choice import pick_site

__all__ = [
    "Finding",
    "Ligand",
    "PreparationSettings",
    "Prepared",
    "Report",
    "Site",
    "inspect",
    "pick_site",
    "prepare",
]
