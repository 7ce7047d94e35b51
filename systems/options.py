"""Options that the builders share: how OpenMM makes a System from a force field."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import openmm
from openmm import app, unit

from qmmlmm.errors import SettingError
from qmmlmm.setting_checks import check_between, check_flag, check_positive
from qmmlmm.units import Scalar, in_unit

Returned = TypeVar("Returned")

NONBONDED_METHODS = {
    app.NoCutoff: openmm.NonbondedForce.NoCutoff,
    app.CutoffNonPeriodic: openmm.NonbondedForce.CutoffNonPeriodic,
    app.CutoffPeriodic: openmm.NonbondedForce.CutoffPeriodic,
    app.Ewald: openmm.NonbondedForce.Ewald,
    app.PME: openmm.NonbondedForce.PME,
    app.LJPME: openmm.NonbondedForce.LJPME,
}
"""Methods of a NonbondedForce by the constants of openmm.app."""
CONSTRAINTS = (None, app.HBonds, app.AllBonds, app.HAngles)


@dataclass(frozen=True)
class SystemOptions:
    """Arguments of ``createSystem``.

    Parameters
    ----------
    nonbonded_method : openmm.app constant or None
        app.NoCutoff, app.CutoffNonPeriodic, app.CutoffPeriodic, app.Ewald, app.PME or app.LJPME. None is PME in a box
        and NoCutoff without one.
    nonbonded_cutoff : Quantity or float, nm
        Cutoff of Lennard-Jones and direct-space electrostatics. It is stored as a float, like all numbers here.
    switch_distance : Quantity or float, nm, optional
        Distance at which Lennard-Jones interactions begin to go to zero; they end at the cutoff if it is not given.
    constraints : openmm.app constant or None
        app.HBonds, app.AllBonds, app.HAngles or None. They act on the solute; `rigid_water` decides about water.
    rigid_water : bool
        Whether water is rigid. Flexible water has harmonic bonds and angles.
    ewald_error_tolerance : float
        Error tolerance from which OpenMM chooses alpha and the mesh.
    hydrogen_mass : Quantity or float, dalton, optional
        Mass of hydrogens outside rigid water, taken from the atoms that carry them; the masses of the elements if it is
        not given.
    remove_cm_motion : bool
        Whether the System has a CMMotionRemover.

    Raises
    ------
    SettingError
        If a value is not one of those above.
    """

    nonbonded_method: object | None = None
    nonbonded_cutoff: Scalar = 0.9
    switch_distance: Scalar | None = None
    constraints: object | None = app.HBonds
    rigid_water: bool = True
    ewald_error_tolerance: float = 5e-4
    hydrogen_mass: Scalar | None = None
    remove_cm_motion: bool = True

    def __post_init__(self) -> None:
        if self.nonbonded_method is not None and self.nonbonded_method not in tuple(NONBONDED_METHODS):
            raise SettingError(_unknown("nonbonded_method", tuple(NONBONDED_METHODS), self.nonbonded_method))
        if self.constraints not in CONSTRAINTS:
            raise SettingError(_unknown("constraints", CONSTRAINTS, self.constraints))
        for name, dimension in (
            ("nonbonded_cutoff", unit.nanometer),
            ("switch_distance", unit.nanometer),
            ("hydrogen_mass", unit.dalton),
        ):
            given = vars(self)[name]
            if given is not None:
                number = check_positive(name, in_unit(given, dimension), dimension.get_name())
                object.__setattr__(self, name, number)
        if self.switch_distance is not None and not self.switch_distance < self.nonbonded_cutoff:
            raise SettingError(
                f"switch_distance lies below nonbonded_cutoff, {self.nonbonded_cutoff:g} nm, "
                f"got {self.switch_distance:g}"
            )
        check_between("ewald_error_tolerance", self.ewald_error_tolerance, 0.0, 1.0)
        for name in ("rigid_water", "remove_cm_motion"):
            check_flag(name, vars(self)[name])

    def method(self, box: bool = True) -> object:
        """Return the nonbonded method of a System with or without a periodic box."""
        if self.nonbonded_method is not None:
            return self.nonbonded_method
        return app.PME if box else app.NoCutoff

    def part(self) -> SystemOptions:
        """Return the options for a part of a solution, to which `solution_system` adds cutoff and CMMotionRemover."""
        return replace(self, nonbonded_method=app.NoCutoff, switch_distance=None, remove_cm_motion=False)

    def arguments(self, box: bool = True) -> dict[str, Any]:
        """Return the arguments of ``createSystem`` of an OpenMM ForceField or AmberPrmtopFile, by name."""
        found = {
            "nonbondedMethod": self.method(box),
            "nonbondedCutoff": self.nonbonded_cutoff * unit.nanometer,
            "constraints": self.constraints,
            "rigidWater": self.rigid_water,
            "ewaldErrorTolerance": self.ewald_error_tolerance,
            "hydrogenMass": None if self.hydrogen_mass is None else self.hydrogen_mass * unit.dalton,
            "removeCMMotion": self.remove_cm_motion,
        }
        if self.switch_distance is not None:
            found["switchDistance"] = self.switch_distance * unit.nanometer
        return found


def with_option_keywords(function: Callable[..., Returned]) -> Callable[..., Returned]:
    """Let a function with an argument ``options`` take the fields of `SystemOptions` as keywords.

    A keyword changes one field of ``options``, or of its default, so that ``build(constraints=None)`` needs no record.
    """
    signature = inspect.signature(function)
    default = signature.parameters["options"].default
    fields = inspect.signature(SystemOptions).parameters

    @functools.wraps(function)
    def called(*arguments: Any, **keywords: Any) -> Returned:
        changes = {name: keywords.pop(name) for name in fields if name in keywords}
        options = replace(keywords.pop("options", default), **changes)
        return function(*arguments, options=options, **keywords)

    shown = [field.replace(kind=inspect.Parameter.KEYWORD_ONLY) for field in fields.values()]
    parameters = [*signature.parameters.values(), *shown]
    called.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return called


def _unknown(name: str, choices: tuple[object, ...], given: object) -> str:
    return f"{name} is one of {', '.join(map(str, choices))} of openmm.app, got {given!r}"
