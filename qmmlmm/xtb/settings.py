"""Settings of a region's calculation with xTB."""

from __future__ import annotations

from dataclasses import dataclass, field

from openmm import unit

from qmmlmm.errors import PotentialError
from qmmlmm.setting_checks import check_choice, check_number, check_quantity, check_whole_number, is_number
from qmmlmm.units import GAS_CONSTANT, HARTREE_IN_KJ_PER_MOL, Scalar
from qmmlmm.xtb.multipoles import CHARGES, DIPOLES, QUADRUPOLES

TBLITE_NAMES = {"gfn2-xtb": "GFN2-xTB", "gfn1-xtb": "GFN1-xTB"}
DEFAULT_MULTIPOLES = {"gfn2-xtb": DIPOLES, "gfn1-xtb": CHARGES}
"""Multipoles whose energy in the field is closest to that of B3LYP in the same charges, see ``docs/xtb.md``."""

LOWEST_ACCURACY, HIGHEST_ACCURACY = 1.0, 1e-5


@dataclass(frozen=True)
class XTBSettings:
    """All settings of an `XTBPotential`, which documents them."""

    method: str = "gfn2-xtb"
    multipoles: int | None = field(default=None, kw_only=True)
    accuracy: float = field(default=0.01, kw_only=True)
    electronic_temperature: Scalar = field(default=300.0, kw_only=True)
    damping: float = field(default=0.4, kw_only=True)
    threads: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        check_choice("method", self.method, TBLITE_NAMES, PotentialError)
        if self.multipoles is not None:
            check_whole_number(
                "multipoles",
                self.multipoles,
                at_least=CHARGES,
                at_most=QUADRUPOLES,
                what="the highest rank of multipoles that feel the field, a whole number",
                error=PotentialError,
            )
        if not is_number(self.accuracy) or not HIGHEST_ACCURACY <= self.accuracy <= LOWEST_ACCURACY:
            raise PotentialError(
                f"accuracy lies between {HIGHEST_ACCURACY:g}, beyond which tblite may not converge, and "
                f"{LOWEST_ACCURACY:g}, beyond which forces are no derivative of the energy; got {self.accuracy!r}"
            )
        kelvin = check_quantity(
            "electronic_temperature", self.electronic_temperature, unit.kelvin, above=0.0, error=PotentialError
        )
        object.__setattr__(self, "electronic_temperature", kelvin)
        damping = check_number("damping", self.damping, above=0.0, at_most=1.0, error=PotentialError)
        object.__setattr__(self, "damping", damping)
        check_whole_number("threads", self.threads, at_most=1024, what="a number of threads", error=PotentialError)

    @property
    def tblite_name(self) -> str:
        """Name of the method in tblite."""
        return TBLITE_NAMES[self.method]

    @property
    def rank(self) -> int:
        """Highest rank of the multipoles that feel the field."""
        return DEFAULT_MULTIPOLES[self.method] if self.multipoles is None else self.multipoles

    @property
    def thermal_energy(self) -> float:
        """Boltzmann's constant times the electronic temperature, hartree."""
        return self.electronic_temperature * GAS_CONSTANT / HARTREE_IN_KJ_PER_MOL
