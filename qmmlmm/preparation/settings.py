"""Settings of a preparation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from qmmlmm.errors import SettingError, listed, nearest
from qmmlmm.setting_checks import (
    check_between,
    check_choice,
    check_mapping,
    check_not_negative,
    check_positive,
    check_seed,
    check_text,
    check_whole_number,
)

STATES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ASP": ("ASP", "ASH"),
        "GLU": ("GLU", "GLH"),
        "HIS": ("HID", "HIE", "HIP"),
        "LYS": ("LYS", "LYN"),
        "CYS": ("CYS", "CYM", "CYX"),
    }
)
"""States of residues for which the force fields have templates; CYX is a cysteine in a disulfide bridge."""

FORCE_FIELDS = ("amber14", "amber19")
WATERS = ("tip3p", "opc")
LIGAND_FORCE_FIELDS = ("sage", "gaff2")
BOXES = ("dodecahedron", "octahedron", "cube")
MISSING = ("refuse", "cap", "build")

_ALL_STATES = tuple(state for states in STATES.values() for state in states)


@dataclass(frozen=True)
class PreparationSettings:
    """How a structure becomes a System.

    Parameters
    ----------
    ph : float
        pH for the states of titratable residues.
    states : mapping of str to str
        State of single residues, keyed by ``"CHAIN:NUMBER"`` with the insertion code if there is one, such as
        ``{"A:25": "ASH"}``. They win over what the pKa values say.
    force_field : {"amber14", "amber19"}
        ff14SB or ff19SB for the protein.
    water : {"tip3p", "opc"}, optional
        TIP3P with ff14SB and OPC with ff19SB if not given.
    ligand_force_field : {"sage", "gaff2"}
        OpenFF Sage with NAGL charges, or GAFF2 with AM1-BCC charges by AmberTools.
    chains : tuple of str
        Chains to keep; all if empty.
    keep : tuple of str, optional
        Names of crystal waters and ions to keep, such as ``("HOH", "CA")``. Without it waters and metal ions are kept.
    remove : tuple of str
        Names of other groups to leave out.
    replace : tuple of str
        Names of phosphorylated residues that become their parent residue, such as ``("SEP",)``.
    model : int, optional
        Model of a file with several.
    missing : {"refuse", "cap", "build"}
        What to do at a gap inside a chain: refuse, cap both ends (ACE, NME), or build the residues by PDBFixer.
    hydrogens : {"keep", "ignore"}
        Whether hydrogens in the file say what the states are. Their positions are built anew either way.
    padding : float, nm
        Smallest distance between the solute and its periodic images, as in OpenMM's Modeller.
    box : {"dodecahedron", "octahedron", "cube"}
    salt : float, mol/l
        Concentration of sodium chloride.
    cutoff : float, nm
        Cutoff of the non-bonded interactions.
    hydrogen_mass : float, optional, dalton
        Mass of hydrogens outside water; taken from the heavy atoms.
    minimise : int
        Iterations of each of the two stages of minimisation; zero for none.
    seed : int
        Seed of everything random: places of ions, first positions of hydrogens.
    """

    ph: float = 7.4
    states: Mapping[str, str] = field(default_factory=dict)
    force_field: str = "amber14"
    water: str | None = None
    ligand_force_field: str = "sage"
    chains: tuple[str, ...] = ()
    keep: tuple[str, ...] | None = None
    remove: tuple[str, ...] = ()
    replace: tuple[str, ...] = ()
    model: int | None = None
    missing: str = "refuse"
    hydrogens: str = "keep"
    padding: float = 1.0
    box: str = "dodecahedron"
    salt: float = 0.15
    cutoff: float = 0.9
    hydrogen_mass: float | None = None
    minimise: int = 150
    seed: int = 1

    def __post_init__(self) -> None:
        check_between("ph", self.ph, -1.0, 15.0)
        check_choice("force_field", self.force_field, FORCE_FIELDS)
        water = self.water or ("opc" if self.force_field == "amber19" else "tip3p")
        object.__setattr__(self, "water", check_choice("water", water, WATERS))
        check_choice("ligand_force_field", self.ligand_force_field, LIGAND_FORCE_FIELDS)
        check_choice("missing", self.missing, MISSING)
        check_choice("hydrogens", self.hydrogens, ("keep", "ignore"))
        check_choice("box", self.box, BOXES)
        check_positive("padding", self.padding, "nm")
        check_not_negative("salt", self.salt, "mol/l")
        check_positive("cutoff", self.cutoff, "nm")
        if self.padding < self.cutoff:
            raise SettingError(
                f"padding is at least the cutoff of {self.cutoff:g} nm, so that the solute does not see its own image, "
                f"got {self.padding:g} nm"
            )
        if self.hydrogen_mass is not None:
            check_between("hydrogen_mass", self.hydrogen_mass, 1.0, 4.1)
        check_whole_number("minimise", self.minimise, at_least=0, what="a number of iterations")
        check_seed("seed", self.seed)
        if self.model is not None:
            check_whole_number("model", self.model, at_least=0)
        object.__setattr__(self, "chains", _names("chains", self.chains))
        object.__setattr__(self, "remove", _names("remove", self.remove))
        object.__setattr__(self, "replace", _names("replace", self.replace))
        if self.keep is not None:
            object.__setattr__(self, "keep", _names("keep", self.keep))
        object.__setattr__(self, "states", MappingProxyType(_states(self.states)))


def _names(setting: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        raise SettingError(f"{setting} is a list of names, got the text {value!r}; write [{value!r}]")
    try:
        names: tuple[object, ...] = tuple(value)  # type: ignore[arg-type]
    except TypeError:
        raise SettingError(f"{setting} is a list of names, got {value!r}") from None
    return tuple(check_text(setting, name) for name in names)


def _states(value: object) -> dict[str, str]:
    states = {}
    for key, state in check_mapping("states", value).items():
        if ":" not in key:
            raise SettingError(f"a residue in states is CHAIN:NUMBER, such as 'A:25', got {key!r}")
        if not isinstance(state, str) or state.upper() not in _ALL_STATES:
            raise SettingError(
                f"the state of {key} is one of {listed(_ALL_STATES, 20)}, got {state!r}."
                f"{nearest(str(state), _ALL_STATES)}"
            )
        states[key] = state.upper()
    return states
