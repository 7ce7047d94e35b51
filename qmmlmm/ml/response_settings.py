"""Size and physics of a learned potential."""

from __future__ import annotations

from dataclasses import dataclass

from qmmlmm.errors import SettingError
from qmmlmm.ml.dispersion import SUFFIX
from qmmlmm.setting_checks import check_flag, check_number, check_text, check_whole_number

LARGEST_SIZE = 4096
"""Largest number of features, functions or layers."""

LARGEST_CUTOFF = 50.0
"""Largest cutoff, angstrom; a larger one is a mistake in the unit."""

FIRST_CENTRE = 0.7
"""Centre of the first radial function, angstrom."""


@dataclass(frozen=True)
class ResponseSettings:
    """Size and physics of a `ResponseNetwork`.

    Parameters
    ----------
    features : int
        Number of scalar features, and of vector features, of an atom.
    layers : int
        Number of message-passing layers.
    radial_functions : int
        Number of radial functions of distances in the region.
    cutoff : float, angstrom
        Largest distance of messages between atoms.
    near_cutoff : float, angstrom
        Distance from an atom within which charges of the surroundings act on it through a learned, directional term in
        addition to the electrostatics of its charge, dipole and polarisability. Zero: no such term.
    near_functions : int
        Number of radial functions of that term.
    near_features : int
        Number of features by which atoms pass the effect of near charges on to their neighbours, beyond second order
        in the charges. Zero: each atom responds by itself, to second order.
    long_range : bool
        Whether the electrostatics within the region is included; False for comparisons.
    response : bool
        Whether the surroundings act; False for comparisons, with mechanical embedding.
    dispersion : str, optional
        Functional of labels with D3(BJ), such as "b3lyp-d3bj": the dispersion is then a fixed part of the energy,
        correct at any distance, and only the rest is learned.
    tensor_features : int
        Number of second-rank features of an atom, of pairs of directions to its neighbours. Without them all directions
        about an axis of symmetry are the same for an atom, so that the lone pairs of a carbonyl's oxygen, which lie in
        one plane, become a ring. Zero: none.

    Raises
    ------
    SettingError
        If a value has the wrong type or is out of range.
    """

    features: int = 48
    layers: int = 2
    radial_functions: int = 16
    cutoff: float = 5.0
    near_cutoff: float = 6.5
    near_functions: int = 12
    near_features: int = 16
    long_range: bool = True
    response: bool = True
    dispersion: str | None = None
    tensor_features: int = 16

    def __post_init__(self) -> None:
        checked: dict[str, object] = {}
        for name in ("features", "layers", "radial_functions", "near_functions"):
            checked[name] = check_whole_number(name, vars(self)[name], at_most=LARGEST_SIZE)
        for name in ("near_features", "tensor_features"):
            checked[name] = check_whole_number(name, vars(self)[name], at_least=0, at_most=LARGEST_SIZE)
        checked["cutoff"] = check_number(
            "cutoff", self.cutoff, above=FIRST_CENTRE, at_most=LARGEST_CUTOFF, unit_name="angstrom"
        )
        checked["near_cutoff"] = check_number(
            "near_cutoff", self.near_cutoff, at_least=0.0, at_most=LARGEST_CUTOFF, unit_name="angstrom"
        )
        for name in ("long_range", "response"):
            checked[name] = check_flag(name, vars(self)[name])
        if self.dispersion is not None and not check_text("dispersion", self.dispersion).endswith(SUFFIX):
            raise SettingError(f"dispersion is a functional with {SUFFIX!r}, or None, got {self.dispersion!r}")
        for name, value in checked.items():
            object.__setattr__(self, name, value)


DEFAULT_SETTINGS = ResponseSettings()
