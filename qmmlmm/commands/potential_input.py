"""The potentials of an input file: that of the labels in [qm], and the base of a learned difference in [base]."""

from __future__ import annotations

from pathlib import Path

from qmmlmm.commands.input_file import Table
from qmmlmm.coupling.potential import EvaluatedPotential
from qmmlmm.errors import InputFileError, SettingError, listed, nearest
from qmmlmm.ml.ml_potential import MLPotential
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


def read_base(table: Table, folder: Path) -> EvaluatedPotential:
    """Return the base that a table describes: by ``method`` and its arguments as in [qm], or by ``model``.

    Parameters
    ----------
    table : Table
        ``model`` is the path of a model file; ``trust_code = true`` reads one that has code in it.
    folder : Path
        Folder to which the path is relative.

    Raises
    ------
    InputFileError
        If a key is unknown or missing, or the file cannot be read.
    """
    if "model" not in table:
        if "method" not in table:
            raise InputFileError(
                '[base] names a level: method = "gfn2-xtb" with its settings as in [qm], or model = "pretrained.pt"'
            )
        return read_potential(table)
    table.check_keys(("model", "trust_code"))
    path = folder / table.text("model")
    if not path.is_file():
        raise InputFileError(f"[base] model: there is no file {str(path)!r}")
    with table.place():
        return MLPotential.load(path, trust_code=table.flag("trust_code", default=False))


def base_of_name(option: str, name: str, *, trust_code: bool = False) -> EvaluatedPotential:
    """Return the potential of a name on the command line.

    Parameters
    ----------
    option : str
        Option, for messages.
    name : str
        A method of xTB, or the path of a model file.
    trust_code : bool
        Whether a file with code may be read.

    Raises
    ------
    SettingError
        If it is neither.
    PotentialError
        If the file cannot be read.
    """
    if name in TBLITE_NAMES:
        return XTBPotential(name)
    if not Path(name).is_file():
        raise SettingError(
            f"{option} is {listed(TBLITE_NAMES)}, or a model file, got {name!r}, and there is no such file."
            f"{nearest(name, list(TBLITE_NAMES))}"
        )
    return MLPotential.load(name, trust_code=trust_code)
