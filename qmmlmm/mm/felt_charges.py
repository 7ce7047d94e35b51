"""Charges of the force field that terms feel, against later changes of the System."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import openmm

from qmmlmm.errors import UnsupportedSystemError, listed
from qmmlmm.mm.electrostatics import force_field_charges, nonbonded_force
from qmmlmm.units import FloatArray

ADVICE = (
    "the terms of the mixed System still feel the charges of the time when it was created. Change the System of the "
    "force field and call create_mixed_system again"
)


@dataclass(frozen=True)
class FeltCharges:
    """Charges of a System when its terms were created, and how they interact.

    Parameters
    ----------
    charges : (n_particles,) float array, e
    offsets : tuple
        Parameter offsets of particles and exceptions that change charges.
    method : int
        Nonbonded method of OpenMM.
    """

    charges: FloatArray
    offsets: tuple[tuple[object, ...], ...]
    method: int

    @classmethod
    def of(cls, system: openmm.System) -> FeltCharges:
        """Return the charges of a System.

        Raises
        ------
        UnsupportedSystemError
            If there is not exactly one NonbondedForce.
        """
        force = nonbonded_force(system)
        return cls(force_field_charges(system), _offsets(force), force.getNonbondedMethod())

    def check(self, system: openmm.System) -> None:
        """Raise UnsupportedSystemError if a System has other charges, or another nonbonded method.

        Notes
        -----
        It takes a few microseconds for each particle.
        """
        now = FeltCharges.of(system)
        if len(now.charges) != len(self.charges):
            raise UnsupportedSystemError(
                f"the System has {len(now.charges)} particles now and had {len(self.charges)}; {ADVICE}"
            )
        changed = np.flatnonzero(now.charges != self.charges)
        if len(changed):
            raise UnsupportedSystemError(
                "the NonbondedForce has other charges than when the mixed System was created, on particles "
                f"{listed(changed)}; {ADVICE}"
            )
        if now.offsets != self.offsets:
            raise UnsupportedSystemError(
                "the NonbondedForce has other parameter offsets of charges than when the mixed System was created; "
                f"{ADVICE}"
            )
        if now.method != self.method:
            raise UnsupportedSystemError(
                f"the NonbondedForce has another nonbonded method than when the mixed System was created; {ADVICE}"
            )


def _offsets(force: openmm.NonbondedForce) -> tuple[tuple[object, ...], ...]:
    particles = [force.getParticleParameterOffset(k) for k in range(force.getNumParticleParameterOffsets())]
    exceptions = [force.getExceptionParameterOffset(k) for k in range(force.getNumExceptionParameterOffsets())]
    # Name, index, and the share in the charge; the others are Lennard-Jones parameters.
    return tuple((*offset[:2], float(offset[2])) for offset in (*particles, *exceptions) if float(offset[2]) != 0.0)
