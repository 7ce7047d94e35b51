"""Potentials in input files: [qm] of a QM level, a level of any kind in [[term]], [base] of a learned difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from qmmlmm.commands.input_file import Table
from qmmlmm.coupling.potential import EvaluatedPotential, RegionPotential
from qmmlmm.errors import InputFileError, PotentialError, QmmlmmError, SettingError, listed, nearest
from qmmlmm.ml.aimnet2 import aimnet2_potential
from qmmlmm.ml.embedded_potential import EmbeddedPotential, Response
from qmmlmm.ml.fixed_response import FixedResponse
from qmmlmm.ml.general_response import GeneralResponse
from qmmlmm.ml.ml_potential import MLPotential
from qmmlmm.ml.model_charges import ModelCharges
from qmmlmm.ml.network_file import load_network
from qmmlmm.ml.response_model import ResponseModel
from qmmlmm.ml.so3lr import SO3LRPotential
from qmmlmm.mm.force_field_potential import ForceFieldPotential
from qmmlmm.mm.openmm_potential import OpenMMMLPotential
from qmmlmm.qm import CASSCF, TDA, TDDFT, DeltaSCF, PySCFPotential
from qmmlmm.setting_checks import check_flag, check_mapping, check_text, check_whole_number
from qmmlmm.xtb import XTBPotential
from qmmlmm.xtb.settings import TBLITE_NAMES

FORCE_FIELD = "force field"
"""Method of a term that is the force field's own energy of the region."""
LEVELS = ("method", "model", "pretrained")
"""Keys of which one says what the level is."""
RESPONSE = "response"
"""Key of the response that embeds a level."""
MODEL_CHARGES = "model charges"
"""Response by the charges that the level predicts itself."""
GENERAL = "general"
"""Response of many molecules that comes with qmmlmm."""
KINDS = "FixedResponse, ResponseModel or GeneralResponse"
SO3LR = "so3lr"
"""Pretrained potential of the package so3krates-torch."""
AIMNET2 = "aimnet2"
"""Name of openmm-ml, which with a file of TorchScript is read without it, so that its charges are known."""
ZIP_START = b"PK"
"""First bytes of a model file, which a trained response is in; a `FixedResponse` is JSON."""
EXCITED = {"TDA": TDA, "TDDFT": TDDFT, "DeltaSCF": DeltaSCF, "CASSCF": CASSCF}


@dataclass(frozen=True)
class ModelSettings:
    """A learned potential from a file.

    Parameters
    ----------
    model : path
        Model file that qmmlmm train, qmmlmm learn or `MLPotential.save` wrote.
    state : whole number, optional
        Electronic state; the one with which the file was saved if not given.
    trust_code : true or false
        Whether to read a file with TorchScript, which is code. Trust only files whose origin you know.
    """

    model: str
    state: int | None = None
    trust_code: bool = False

    def __post_init__(self) -> None:
        check_text("model", self.model)
        if self.state is not None:
            check_whole_number("state", self.state, at_least=0)
        check_flag("trust_code", self.trust_code)


@dataclass(frozen=True)
class PretrainedSettings:
    """A pretrained potential: of openmm-ml, SO3LR, or AIMNet2 from a file.

    Parameters
    ----------
    pretrained : text
        Name of a model in openmm-ml, such as "mace-off23-small" or "aimnet2", or "so3lr" for the model in the package
        so3krates-torch.
    file : path, optional
        Model file, for names that need one, such as "mace". With "aimnet2" it is a TorchScript file (.jpt), which also
        provides charges.
    options : table
        Other arguments of `openmmml.MLPotential.createSystem`.
    long_range : true or false
        Whether the model has its own Ewald electrostatics.
    model_charge : whole number, optional
        Charge for which the model was trained, if the model does not take it as an input.
    model_multiplicity : whole number, optional
        Multiplicity for which the model was trained, if the model does not take it as an input.
    trust_code : true or false
        Whether to read "so3lr" or the file of "aimnet2", which contain code. Trust them only if you trust their
        authors.
    """

    pretrained: str
    file: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    long_range: bool = False
    model_charge: int | None = None
    model_multiplicity: int | None = None
    trust_code: bool = False

    def __post_init__(self) -> None:
        check_text("pretrained", self.pretrained)
        if self.file is not None:
            check_text("file", self.file)
        check_mapping("options", self.options)
        check_flag("long_range", self.long_range)
        if self.model_charge is not None:
            check_whole_number("model_charge", self.model_charge, at_least=-1000)
        if self.model_multiplicity is not None:
            check_whole_number("model_multiplicity", self.model_multiplicity)
        check_flag("trust_code", self.trust_code)
        self._check_goes_together()

    @property
    def is_of_openmm_ml(self) -> bool:
        """Whether openmm-ml reads the model."""
        return self.pretrained != SO3LR and (self.pretrained != AIMNET2 or self.file is None)

    def _check_goes_together(self) -> None:
        """Raise SettingError if a setting is given that the model does not have."""
        if self.is_of_openmm_ml:
            if self.trust_code:
                raise SettingError(
                    f"trust_code is for {SO3LR!r} and for {AIMNET2!r} with a file; openmm-ml reads its files without it"
                )
            return
        given = {
            "file": self.pretrained == SO3LR and self.file is not None,
            "options": bool(self.options),
            "long_range": self.long_range,
            "model_charge": self.model_charge is not None,
            "model_multiplicity": self.model_multiplicity is not None,
        }
        wrong = [name for name, is_given in given.items() if is_given]
        if wrong:
            raise SettingError(f"{self.pretrained!r} has no {listed(wrong)}; leave it out")


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


def read_level(table: Table, folder: Path, embedding: str) -> RegionPotential:
    """Return the potential of a term, described by one of ``method``, ``model`` and ``pretrained``.

    Parameters
    ----------
    table : Table
        Besides, the arguments of `PySCFPotential` (``excited`` as a table with its ``kind``) or `XTBPotential`, or the
        fields of `ModelSettings` or `PretrainedSettings`. With ``response`` the level is the base of an
        `EmbeddedPotential`.
    folder : Path
        Folder to which paths are relative.
    embedding : str
        Embedding of the term; a response needs ``"electrostatic"``.

    Raises
    ------
    InputFileError
        If a key is unknown or missing, or a value is invalid.
    """
    level = table.without(RESPONSE)
    if RESPONSE not in table:
        return _read_alone(level, folder)
    if table.is_word("method", FORCE_FIELD):
        raise InputFileError(
            f"{table.where} response: the force field has charges of its own; leave the response out, or take another "
            "level"
        )
    response = _read_response(table, folder, embedding)
    return _embedded(table, _read_alone(level, folder), response)


def _read_alone(table: Table, folder: Path) -> RegionPotential:
    """Return the potential of a level, without a response."""
    given = [key for key in LEVELS if key in table]
    if len(given) != 1:
        raise InputFileError(
            f"{table.where} has one of {', '.join(LEVELS)}, got {listed(given) or 'none'}: "
            'method = "gfn2-xtb", or a method of PySCF with its basis, or "force field"; model = a file; '
            'pretrained = a name of openmm-ml, or "so3lr"'
        )
    with table.place():
        if "model" in table:
            settings = table.build(ModelSettings)
            return MLPotential.load(
                _existing(folder, settings.model), state=settings.state, trust_code=settings.trust_code
            )
        if "pretrained" in table:
            return _pretrained(table.build(PretrainedSettings), folder)
        method = table.text("method")
        if method == FORCE_FIELD:
            table.check_keys(("method",))
            return ForceFieldPotential()
        if method in TBLITE_NAMES:
            return table.build(XTBPotential)
        if "excited" in table:
            return table.without("excited").build(PySCFPotential, {"excited": _excited(table.table("excited"))})
        if "basis" not in table and nearest(method, [*TBLITE_NAMES, FORCE_FIELD]):
            raise InputFileError(
                f"{table.where} lacks 'basis', which the method {method!r} of PySCF needs."
                f"{nearest(method, [*TBLITE_NAMES, FORCE_FIELD])}"
            )
        return table.build(PySCFPotential)


def _excited(table: Table) -> TDA | TDDFT | DeltaSCF | CASSCF:
    kind = table.text("kind")
    if kind not in EXCITED:
        raise InputFileError(
            f"{table.where} kind is one of {listed(EXCITED)}, got {kind!r}.{nearest(kind, list(EXCITED))}"
        )
    found: TDA | TDDFT | DeltaSCF | CASSCF = table.without("kind").build(EXCITED[kind])
    return found


def _pretrained(settings: PretrainedSettings, folder: Path) -> EvaluatedPotential:
    if settings.pretrained == SO3LR:
        return SO3LRPotential(trust_code=settings.trust_code)
    if not settings.is_of_openmm_ml:
        assert settings.file is not None
        return aimnet2_potential(_existing(folder, settings.file), trust_code=settings.trust_code)
    return OpenMMMLPotential.pretrained(
        settings.pretrained,
        None if settings.file is None else _existing(folder, settings.file),
        options=settings.options,
        long_range=settings.long_range,
        charge=settings.model_charge,
        multiplicity=settings.model_multiplicity,
    )


def _read_response(table: Table, folder: Path, embedding: str) -> Response:
    """Return the response of a level: a file of numbers, or the charges of the model."""
    where, name = f"{table.where} response:", table.text(RESPONSE)
    if embedding == "mechanical":
        raise InputFileError(
            f'{where} with the embedding "mechanical" there is no field to respond to; take "electrostatic", or leave '
            "the response out"
        )
    if name == MODEL_CHARGES:
        return ModelCharges()
    if name == GENERAL:
        return GeneralResponse.load()
    path = folder / name
    if not path.is_file():
        raise InputFileError(
            f"{where} there is no file {str(path)!r}; name a file that {KINDS} saved, or write "
            f"{GENERAL!r} or {MODEL_CHARGES!r}.{nearest(name, [GENERAL, MODEL_CHARGES])}"
        )
    try:
        with path.open("rb") as file:
            is_model_file = file.read(len(ZIP_START)) == ZIP_START
        if not is_model_file:
            return FixedResponse.load(path)
        return GeneralResponse.load(path) if load_network(path).is_general else ResponseModel.load(path)
    except (QmmlmmError, OSError) as error:
        raise InputFileError(f"{where} {error}. It is a file that {KINDS} saved") from error


def _embedded(table: Table, base: RegionPotential, response: Response) -> EmbeddedPotential:
    try:
        return EmbeddedPotential(base, response)  # type: ignore[arg-type]  # refuses any other potential
    except PotentialError as error:
        raise InputFileError(f"{table.where} response: {error}") from error


def _existing(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise SettingError(f"names the file {str(path)!r}, and there is none")
    return path


def read_base(table: Table, folder: Path, embedding: str) -> EvaluatedPotential:
    """Return the base that a table describes: by ``method`` and its arguments as in [qm], or by ``model``.

    Parameters
    ----------
    table : Table
        ``model`` is the path of a model file; ``trust_code = true`` reads one that has code in it. ``response`` embeds
        the base, as in `read_level`.
    folder : Path
        Folder to which paths are relative.
    embedding : str
        Embedding of the region.

    Raises
    ------
    InputFileError
        If a key is unknown or missing, or a file cannot be read.
    """
    level = table.without(RESPONSE)
    if RESPONSE not in table:
        return _base_alone(level, folder)
    response = _read_response(table, folder, embedding)
    return _embedded(table, _base_alone(level, folder), response)


def _base_alone(table: Table, folder: Path) -> EvaluatedPotential:
    if "pretrained" in table:
        with table.place():
            return _pretrained(table.build(PretrainedSettings), folder)
    if "model" not in table:
        if "method" not in table:
            raise InputFileError(
                '[base] names a level: method = "gfn2-xtb" with its settings as in [qm], model = "pretrained.pt", or '
                'pretrained = "so3lr"'
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
        A method of xTB, ``"so3lr"`` with its charges in the field, or the path of a model file.
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
    if name == SO3LR:
        return EmbeddedPotential(SO3LRPotential(trust_code=trust_code), ModelCharges())
    if not Path(name).is_file():
        raise SettingError(
            f"{option} is {listed([*TBLITE_NAMES, SO3LR])}, or a model file, got {name!r}, and there is no such file."
            f"{nearest(name, [*TBLITE_NAMES, SO3LR])}"
        )
    return MLPotential.load(name, trust_code=trust_code)
