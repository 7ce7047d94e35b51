"""The table [qm] of an input file: the potential that a region is to have."""

from __future__ import annotations

from qmmlmm.commands.input_file import Table
from qmmlmm.coupling.potential import EvaluatedPotential
from qmmlmm.qm import PySCFPotential
from qmmlmm.xtb import XTBPotential
from qmmlmm.xtb.settings import TBLITE_NAMES


def read_potential(table: Table) -> EvaluatedPotential:
    """Return the potential that a table describes by the arguments of `PySCFPotential` or `XTBPotential`.

    Parameters
    ----------
    table : Table
        Its ``method`` is ``"gfn2-xtb"`` or ``"gfn1-xtb"``, or a method of PySCF.

    Raises
    ------
    InputFileError
        If a key is unknown or missing.
    PotentialError
        If a value is invalid.
    """
    return table.build(XTBPotential if table.text("method") in TBLITE_NAMES else PySCFPotential)
