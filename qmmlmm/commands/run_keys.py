"""The tables of the input file of ``qmmlmm run`` with all their keys."""

from __future__ import annotations

from collections.abc import Mapping

from qmmlmm.commands.hamiltonian_input import RegionSettings, TermSettings
from qmmlmm.commands.key_reference import Key, keys_of
from qmmlmm.commands.potential_input import ModelSettings, PretrainedSettings
from qmmlmm.commands.run_settings import (
    DynamicsSettings,
    EquilibrateSettings,
    HeatSettings,
    HoldSettings,
    MinimiseSettings,
    OutputSettings,
    PlatformSettings,
    RestraintSettings,
)
from qmmlmm.commands.system_input import SystemSettings
from qmmlmm.commands.variable_input import OTHERS, POINTS
from qmmlmm.qm import PySCFPotential
from qmmlmm.xtb import XTBPotential

EXCITED = Key(
    "excited",
    "table",
    False,
    "",
    'Method for electronic states: `kind = "TDA"`, `"TDDFT"`, `"DeltaSCF"` or `"CASSCF"` with its arguments, such as '
    "`n_states = 3`.",
)
"""In Python it is an object."""

RESPONSE = Key(
    "response",
    'path, "general" or "model charges"',
    False,
    "",
    "Response to the field of the surroundings, which embeds the level: a file that `FixedResponse`, `ResponseModel` "
    'or `GeneralResponse` saved, "general" for the response that comes with qmmlmm, or "model charges" for the charges '
    "that the model predicts. See docs/embedded_potentials.md.",
)
"""Levels of all kinds except the force field have this key."""

DIRECTORY = Key("directory", "path", False, "", "Folder of the run; the file's name without its suffix if not given.")

VARIABLE = (
    Key("name", "text", True, "", "Name of its column in `variables.csv`."),
    *(Key(name, "list of atoms", False, "", f"The {kind.text}.") for name, kind in POINTS.items()),
    *(Key(name, kind, False, "", text) for name, (kind, text) in OTHERS.items()),
)

COORDINATION = (
    Key("first", "list of atoms", True, "", "Atoms that have neighbours."),
    Key("second", "list of atoms", True, "", "Atoms that are neighbours."),
    Key("distance", "number, nm", True, "", "Distance at which a pair counts one half."),
    Key("exponent", "whole number", False, "6", "The higher, the sharper."),
)
"""Keys of the table ``coordination`` of a variable."""

_ATOMS = Key("atoms", "text or list of atoms", True, "", "Three atoms or more, as a selection or one by one.")

RMSD = (
    _ATOMS,
    Key(
        "reference", "path", True, "",
        "Structure of the whole System or of these atoms, not cut by a box.",
    ),
)  # fmt: skip
"""Keys of the table ``rmsd`` of a variable."""

PATH = (
    _ATOMS,
    Key(
        "images", "path or list of paths", True, "",
        "Structures of the whole System or of these atoms, evenly spaced, such as `scan/scan.pdb` with all its models.",
    ),
    Key("sharpness", "number, 1/nm^2", False, "", "2.3 over the mean square deviation of neighbours if not given."),
)  # fmt: skip
"""Keys of the tables ``path_progress`` and ``path_distance`` of a variable."""


def run_keys() -> Mapping[str, tuple[Key, ...]]:
    """Return the keys of each table, and of each kind of level in [[term]]."""
    pyscf = keys_of(PySCFPotential, without=["excited"])
    return {
        "top": (DIRECTORY,),
        "system": keys_of(SystemSettings),
        "region": keys_of(RegionSettings),
        "term": (RESPONSE, *keys_of(TermSettings)),
        "pyscf": (*pyscf, EXCITED),
        "xtb": keys_of(XTBPotential),
        "model": keys_of(ModelSettings),
        "pretrained": keys_of(PretrainedSettings),
        "minimise": keys_of(MinimiseSettings),
        "heat": keys_of(HeatSettings),
        "equilibrate": keys_of(EquilibrateSettings),
        "dynamics": keys_of(DynamicsSettings),
        "hold": keys_of(HoldSettings),
        "variable": VARIABLE,
        "restraint": keys_of(RestraintSettings),
        "output": keys_of(OutputSettings),
        "platform": keys_of(PlatformSettings),
    }
