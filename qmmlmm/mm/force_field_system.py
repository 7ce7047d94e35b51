"""A System of the force field only, for reporters and run directories, which take a `MixedSystem`."""

from __future__ import annotations

from typing import NoReturn

import openmm
from openmm import app, unit

from qmmlmm.coupling.potential import Memory
from qmmlmm.errors import HamiltonianError, UnsupportedSystemError
from qmmlmm.mm.description import SystemDescription
from qmmlmm.mm.mixed_system import MM
from qmmlmm.setting_checks import check_flag, check_instance


class ForceFieldSystem:
    """A System without regions and terms.

    Parameters
    ----------
    topology : openmm.app.Topology
    system : openmm.System
        System of the force field; biases and barostats may be added to it.

    Raises
    ------
    UnsupportedSystemError
        If they have different numbers of particles.
    SettingError
        If an argument has another type.
    """

    def __init__(self, topology: app.Topology, system: openmm.System) -> None:
        self._topology = check_instance("topology", topology, app.Topology, "an openmm.app.Topology")
        self._system = check_instance("system", system, openmm.System, "an openmm.System")
        if topology.getNumAtoms() != system.getNumParticles():
            raise UnsupportedSystemError(
                f"the Topology has {topology.getNumAtoms()} atoms and the System {system.getNumParticles()} particles; "
                "pass the pair that belongs together"
            )

    @property
    def topology(self) -> app.Topology:
        """The Topology."""
        return self._topology

    @property
    def system(self) -> openmm.System:
        """The System."""
        return self._system

    def term_energies(self, context: openmm.Context, *, check_charges: bool = True) -> dict[str, unit.Quantity]:
        """Return the energy of the force field under the key ``"MM"``, kJ/mol."""
        check_flag("check_charges", check_charges)
        check_instance("context", context, openmm.Context, "an openmm.Context, such as simulation.context")
        return {MM: context.getState(energy=True).getPotentialEnergy()}

    def check_unchanged(self, context: openmm.Context) -> None:
        """Do nothing: no term depends on the System."""

    def describe(self) -> SystemDescription:
        """Return the number of particles, and no region and no term, as JSON values."""
        return {"particles": self._topology.getNumAtoms(), "regions": [], "terms": []}

    def summary(self) -> dict[str, dict[str, object]]:
        """Return no counts: there are no terms."""
        return {}

    def forget(self) -> None:
        """Do nothing: there are no terms."""

    def memory(self) -> dict[str, Memory]:
        """Return no memory: there are no terms."""
        return {}

    def recall(self, name: str, memory: Memory) -> None:
        """Raise HamiltonianError: there are no terms."""
        raise HamiltonianError(f"there is no term {name!r}: this System is of the force field only")

    def raise_original(self, error: BaseException) -> NoReturn:
        """Raise the error."""
        raise error
