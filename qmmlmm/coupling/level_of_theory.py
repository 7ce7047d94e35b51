"""Levels of theory, and the difference between two of them as it is recorded with a learned correction."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from qmmlmm.errors import PotentialError
from qmmlmm.setting_checks import check_instance, check_mapping, check_text


@dataclass(frozen=True)
class LevelOfTheory:
    """A method with the settings on which its energies depend.

    Parameters
    ----------
    method : str
        Name of the method, such as ``"gfn2-xtb"`` or ``"b3lyp/6-31g*"``.
    settings : mapping of str to object
        Settings as JSON values. Settings that change only the cost, such as a number of threads, are left out, so that
        two potentials of one level compare equal.

    Raises
    ------
    PotentialError
        If the method is no text, or a setting is no JSON value.
    """

    method: str
    settings: Mapping[str, object] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        check_text("the method of a LevelOfTheory", self.method, PotentialError)
        given = dict(check_mapping("the settings of a LevelOfTheory", self.settings, PotentialError))
        try:
            # As a file returns them: a tuple becomes a list.
            settings = json.loads(json.dumps(given, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise PotentialError(f"the settings of a LevelOfTheory are JSON values, got {given!r}: {error}") from error
        object.__setattr__(self, "settings", settings)

    def __str__(self) -> str:
        return self.method

    def differences_to(self, other: LevelOfTheory) -> list[str]:
        """Return what differs, such as ``"multipoles 1, not 0"``; empty for the same level."""
        found = [] if self.method == other.method else [f"{self.method}, not {other.method}"]
        if found:
            return found
        names = sorted({*self.settings, *other.settings})
        return [
            f"{name} {self.settings.get(name)!r}, not {other.settings.get(name)!r}"
            for name in names
            if self.settings.get(name) != other.settings.get(name)
        ]

    def as_json(self) -> dict[str, object]:
        """Return the level as JSON values, for `from_json`."""
        return {"method": self.method, "settings": dict(self.settings)}

    @classmethod
    def from_json(cls, values: object) -> LevelOfTheory:
        """Return the level of `as_json`.

        Raises
        ------
        PotentialError
            If the values are something else.
        """
        if not isinstance(values, Mapping) or {*values} != {"method", "settings"}:
            raise PotentialError(f"a level of theory has the keys method and settings, got {values!r:.200}")
        return cls(values["method"], values["settings"])


@dataclass(frozen=True)
class Difference:
    """The two levels whose difference a potential is: ``target - base``.

    Parameters
    ----------
    target : LevelOfTheory
        Level of base and difference together.
    base : LevelOfTheory
        Level that the difference is added to.

    Raises
    ------
    PotentialError
        If they are no levels, or the same one.
    """

    target: LevelOfTheory
    base: LevelOfTheory

    def __post_init__(self) -> None:
        check_instance("target", self.target, LevelOfTheory, error=PotentialError)
        check_instance("base", self.base, LevelOfTheory, error=PotentialError)
        if self.target == self.base:
            raise PotentialError(f"target and base of a difference are two levels, got {self.base} for both")

    @property
    def method(self) -> str:
        """Method of labels that are such differences, such as ``"b3lyp/6-31g* - gfn2-xtb"``."""
        return f"{self.target} - {self.base}"

    def __str__(self) -> str:
        return self.method

    def as_json(self) -> dict[str, object]:
        """Return the difference as JSON values, for `from_json`."""
        return {"target": self.target.as_json(), "base": self.base.as_json()}

    @classmethod
    def from_json(cls, values: object) -> Difference:
        """Return the difference of `as_json`.

        Raises
        ------
        PotentialError
            If the values are something else.
        """
        if not isinstance(values, Mapping) or {*values} != {"target", "base"}:
            raise PotentialError(f"a difference has the keys target and base, got {values!r:.200}")
        return cls(LevelOfTheory.from_json(values["target"]), LevelOfTheory.from_json(values["base"]))
