"""A System of a force field only, for run directories and reporters that otherwise take a mixed System."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import openmm
from openmm import app, unit

from qmmlmm.coupling.potential import Memory
from qmmlmm.errors import UnsupportedSystemError
from qmmlmm.setting_checks import check_instance


class ForceFieldSystem:
    """A System of a force field only, which run directories, reporters and umbrella sampling take as a `MixedSystem`.

    Parameters
    ----------
    topology : openmm.app.Topology
    system : openmm.System

    Raises
    ------
    SettingError
        If an argument has another type.
    UnsupportedSystemError
        If they have different numbers of atoms.
    """

    def __init__(self, topology: app.Topology, system: openmm.System) -> None:
        check_instance("topology", topology, app.Topology, "an openmm.app.Topology")
        check_instance("system", system, openmm.System, "an openmm.System")
        if topology.getNumAtoms() != system.getNumParticles():
            raise UnsupportedSystemError(
                f"the Topology has {topology.getNumAtoms()} atoms and the System {system.getNumParticles()} particles; "
                "pass the pair that belongs together"
            )
        self._topology, self._system = topology, system

    @property
    def topology(self) -> app.Topology:
        """The Topology."""
        return self._topology

    @property
    def system(self) -> openmm.System:
        """The System."""
        return self._system

    def term_energies(self, context: openmm.Context, *, check_charges: bool = True) -> dict[str, unit.Quantity]:
        """Return the potential energy as ``"MM"``."""
        return {"MM": context.getState(energy=True).getPotentialEnergy()}

    def check_unchanged(self, context: openmm.Context) -> None:
        """Do nothing, because no term depends on the System."""

    def describe(self) -> Mapping[str, object]:
        """Return settings as JSON values."""
        return {"force_field": True}

    def summary(self) -> dict[str, dict[str, object]]:
        """Return nothing, because there are no terms."""
        return {}

    def forget(self) -> None:
        """Do nothing."""

    def memory(self) -> dict[str, Memory]:
        """Return nothing."""
        return {}

    def recall(self, name: str, memory: Memory) -> None:
        """Do nothing."""

    def raise_original(self, error: BaseException) -> NoReturn:
        """Raise the error."""
        raise error
