"""The keys of input files: those of settings records from their docstrings, all others written down here.

A test compares this list with the keys that `qmmlmm.commands` reads.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields

from qmmlmm.commands.spectrum import SpectrumSettings
from qmmlmm.learning.labels.label_queue import LabelSettings
from qmmlmm.learning.labels.label_task import JobLimits
from qmmlmm.learning.loop.settings import LoopSettings
from qmmlmm.learning.training.trainer import TrainingSettings
from qmmlmm.ml.response_network import ResponseSettings
from qmmlmm.qm import TDA, TDDFT, PySCFPotential
from qmmlmm.sampling.metadynamics import HillVariable, Metadynamics
from qmmlmm.xtb import XTBPotential

REQUIRED = "required"
_TYPES = {"int": "whole number", "float": "number", "bool": "true or false", "str": "text", "Scalar": "number"}


@dataclass(frozen=True)
class Key:
    """A key of an input file, with the columns of its row."""

    name: str
    kind: str
    unit: str
    default: str
    text: str

    def columns(self) -> tuple[str, str, str, str]:
        """Return type, unit, default and description."""
        return self.kind, self.unit, self.default, self.text


@dataclass(frozen=True)
class InputTable:
    """A table of an input file.

    Parameters
    ----------
    name : str
        As in the file, or a heading.
    text : str
        What the table is for.
    written : tuple of Key
        Keys that no record has.
    records : tuple of type
        Settings records whose fields are keys of the table.
    left_out : tuple of str
        Fields of the records that the file cannot set.
    defaults : tuple of (str, str)
        Defaults that differ from those of the record.
    """

    name: str
    text: str
    written: tuple[Key, ...] = ()
    records: tuple[type, ...] = ()
    left_out: tuple[str, ...] = ()
    defaults: tuple[tuple[str, str], ...] = ()

    def rows(self) -> list[Key]:
        """Return all keys in their order."""
        found = list(self.written)
        for record in self.records:
            found += [key for key in record_keys(record) if key.name not in self.left_out]
        changed = dict(self.defaults)
        return [Key(key.name, key.kind, key.unit, changed.get(key.name, key.default), key.text) for key in found]


def record_keys(record: type) -> list[Key]:
    """Return the fields of a settings record as keys.

    Parameters
    ----------
    record : type
        Dataclass whose numpydoc docstring describes its fields.

    Raises
    ------
    LookupError
        If the docstring does not describe a field.
    """
    described = _parameters(record)
    keys = []
    for field in fields(record):
        if not field.init:
            continue
        if field.name not in described:
            raise LookupError(f"the docstring of {record.__name__} does not describe {field.name!r}")
        kind, unit, text = described[field.name]
        # Modules with annotations that are evaluated have types here, others their names.
        annotation = field.type.__name__ if isinstance(field.type, type) else str(field.type)
        keys.append(Key(field.name, _kind(annotation, kind), unit, _default(field.default), _in_toml(text)))
    return keys


def _in_toml(text: str) -> str:
    """Return a description with the words of TOML for constants of Python."""
    return text.replace("None if", '`"none"` if').replace("; False for", "; `false` for")


def _default(value: object) -> str:
    if value is MISSING:
        return REQUIRED
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def _kind(annotation: str, documented: str) -> str:
    choices = re.fullmatch(r"\{(.*)\}", documented)
    if choices:
        return " or ".join(f"`{choice.strip()}`" for choice in choices[1].split(","))
    names = [name for name in re.split(r"\s*\|\s*", annotation) if name != "None"]
    if any(name.startswith("Mapping") for name in names):
        return "text, or table of texts"
    return _TYPES.get(names[0], documented)


def _parameters(record: type) -> dict[str, tuple[str, str, str]]:
    """Return type, unit and description of the parameters in a numpydoc docstring."""
    section = re.search(r"Parameters\n-+\n(.*?)(?:\n\w[^\n]*\n-+\n|\Z)", inspect.getdoc(record) or "", re.DOTALL)
    found: dict[str, tuple[str, str, str]] = {}
    for names, kind, body in re.findall(
        r"^(\w[\w, ]*) : (.*)\n((?:    .*\n?|\n)*)", (section[1] if section else "") + "\n", re.MULTILINE
    ):
        text = " ".join(body.split())
        for name in names.split(","):
            found[name.strip()] = (*_unit(kind), text)
    # A parameter without a description of its own, such as "seed : int".
    return found


def _unit(kind: str) -> tuple[str, str]:
    """Return the type without its unit, and the unit."""
    if kind.startswith("{"):
        return re.sub(r", optional$", "", kind), ""
    parts = [part.strip() for part in kind.split(", ") if part.strip() != "optional"]
    return (parts[0], parts[1]) if len(parts) > 1 else (kind.removesuffix(", optional"), "")


def _text(name: str, text: str, default: str = REQUIRED) -> Key:
    return Key(name, "text", "", default, text)


SYSTEM = InputTable(
    "[system]",
    "The force field. Either Amber files, or a PDB file with force fields of OpenMM.",
    (
        _text("prmtop", "Amber topology", "or `pdb`"),
        _text("coordinates", "Amber coordinates or restart file; its box is the one that counts", "with `prmtop`"),
        _text("pdb", "PDB file, with its box (CRYST1)", "or `prmtop`"),
        Key("force_field", "list of texts", "", "with `pdb`", "files of OpenMM's `ForceField`"),
        Key("cutoff", "number", "nm", "`0.9`", "cutoff of PME"),
        Key("constraints", '`"HBonds"`, `"AllBonds"`, `"HAngles"` or `"none"`', "", '`"HBonds"`', "as in OpenMM"),
        Key("no_box", "true or false", "", "`false`", "no box and no cutoff instead of PME"),
    ),
)
REGION = InputTable(
    "[region]",
    "The region.",
    (
        _text("select", "selection, see [Selections](../howto/regions.md#selections)"),
        Key("charge", 'whole number or `"auto"`', "e", REQUIRED, '`"auto"`: the charge of the force field'),
        Key("multiplicity", "whole number", "", "`1`", "2S + 1"),
        _text("name", "name in messages, tables and files", '`"region"`'),
    ),
)
QM = InputTable(
    "[qm]",
    "The level of the labels: the arguments of `PySCFPotential`.",
    records=(PySCFPotential,),
    left_out=("excited", "state", "follow_state"),
)
XTB = InputTable(
    "[qm] with xTB",
    'With `method = "gfn2-xtb"` or `"gfn1-xtb"` the table has the arguments of `XTBPotential` instead.',
    records=(XTBPotential,),
)
EMBEDDING = Key(
    "embedding", '`"electrostatic"` or `"mechanical"`', "", '`"electrostatic"`', "how the region feels its surroundings"
)

LEARN = [
    InputTable(
        "Top of the file",
        "Paths are relative to the file. Tables in single brackets occur once, those in double brackets any number "
        "of times.",
        (
            _text("directory", "folder of the loop", "name of the file and `_run`"),
            EMBEDDING,
            _text("method", "name of the method in the labels", "method and basis of `[qm]`"),
            _text("model", "committee to start from, its file `network.pt`", ""),
            Key("data", "list of texts", "", "", "labels to start from, extended XYZ"),
            _text("platform", "platform of OpenMM", '`"CPU"`'),
        ),
    ),
    SYSTEM,
    REGION,
    QM,
    XTB,
    InputTable("[loop]", '`bond_limit = "none"` lets bonds break.', records=(LoopSettings,)),
    InputTable("[network]", "Size and physics of the network.", records=(ResponseSettings,)),
    InputTable(
        "[training]", "Each training of the loop.", records=(TrainingSettings,), defaults=(("steps", "`2000`"),)
    ),
    InputTable(
        "[labels]",
        "How labels are computed.",
        (_text("dask", 'address of a scheduler of Dask, such as `"tcp://head:8786"`', ""),),
        (LabelSettings, JobLimits),
        ("limits", "isolated"),
    ),
    InputTable(
        "[[variable]]",
        "A collective variable: a name, and one of the three others. Atoms are counted from 0.",
        (
            _text("name", "name by which `[umbrella]` and `[[metadynamics.along]]` refer to it"),
            Key("distance", "list of 2 whole numbers", "", "one of three", "distance of two atoms, nm"),
            Key(
                "difference",
                "list of 3 whole numbers",
                "",
                "one of three",
                "donor, proton, acceptor: first distance minus second, nm",
            ),
            Key("torsion", "list of 4 whole numbers", "", "one of three", "torsion, rad"),
        ),
    ),
    InputTable(
        "[umbrella]",
        "A harmonic bias, with a walker for each of its centres.",
        (
            _text("variable", "name of the variable"),
            Key("centres", "list of numbers", "nm or rad", REQUIRED, "one for each walker"),
            Key("force_constant", "number", "kJ/(mol nm^2) or kJ/(mol rad^2)", REQUIRED, "of k/2 (s - s0)^2"),
        ),
    ),
    InputTable(
        "[[walker]]",
        "A walker; one if there is none and no `[umbrella]`.",
        (Key("parameters", "table of numbers", "", "", "global parameters of the Context"),),
    ),
    InputTable("[metadynamics]", "Well-tempered hills.", records=(Metadynamics,), left_out=("variables",)),
    InputTable(
        "[[metadynamics.along]]",
        "One or two variables of the hills.",
        (_text("variable", "name of the variable"),),
        (HillVariable,),
        ("variable",),
    ),
]
SPECTRUM = [
    InputTable(
        "Top of the file",
        "Paths are relative to the file.",
        (
            _text("trajectory", "trajectory that MDTraj reads, such as DCD or XTC"),
            _text("directory", "folder of the results", "name of the file and `_run`"),
            EMBEDDING,
        ),
    ),
    SYSTEM,
    REGION,
    InputTable(
        "[qm]",
        "Reference for the excited states: arguments of `PySCFPotential`.",
        records=(PySCFPotential,),
        left_out=(
            "excited",
            "state",
            "follow_state",
            "density_fit",
            "auxiliary_basis",
            "guess",
            "unrestricted",
            "failure_directory",
        ),
    ),
    InputTable(
        "[states]",
        "The excited states.",
        (Key("kind", '`"TDA"` or `"TDDFT"`', "", '`"TDA"`', "method"),),
        (TDA,),
    ),
    InputTable("[spectrum]", "Snapshots and lines.", records=(SpectrumSettings,)),
]
COMMANDS = {"learn": LEARN, "spectrum": SPECTRUM}
SAME_KEYS = {TDDFT}
"""Records that share the keys of another one."""


def all_names(tables: Iterable[InputTable]) -> set[str]:
    """Return the names of all keys and tables."""
    found: set[str] = set()
    for table in tables:
        found.update(re.findall(r"\w+", table.name))
        found.update(key.name for key in table.rows())
    return found
