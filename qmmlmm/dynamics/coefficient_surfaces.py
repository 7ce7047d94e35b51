"""Electronic states that are terms of their own: learned states, other methods, other potentials."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import openmm
from openmm import unit

from qmmlmm.dynamics.surfaces import SurfacePoint
from qmmlmm.errors import HamiltonianError, listed
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.units import FloatArray, IntArray


class CoefficientSurfaces:
    """States between which parameters of the Hamiltonian switch, for hops by `LandauZener`.

    Parameters
    ----------
    mixed : MixedSystem
        State 0 is the Hamiltonian with all these parameters zero, state k that with the k-th parameter one.
    parameters : sequence of str
        Names, one for each state but state 0.

    Raises
    ------
    HamiltonianError
        If one is no parameter of the Hamiltonian, or a parameter stands in terms of different regions.

    Notes
    -----
    Energies are linear in the parameters, so that the derivative by the k-th is that of state k less that of state
    0. There are no overlaps and no couplings between models.

    Examples
    --------
    ::

        models = [MLPotential.load("dye.pt", state=k) for k in (0, 1)]
        mixed = create_mixed_system(topology, system, Hamiltonian([
            Term(models[0], dye, embedding="electrostatic", coefficient="1-s1", name="dye/S0"),
            Term(models[1], dye, embedding="electrostatic", coefficient="s1", name="dye/S1"),
        ], parameters={"s1": 1.0}))
        hopping = SurfaceHopping(simulation, CoefficientSurfaces(mixed, ["s1"]), 1, method=LandauZener())
    """

    def __init__(self, mixed: MixedSystem, parameters: Sequence[str]) -> None:
        names = list(parameters)
        known = mixed.hamiltonian.parameters
        wrong = [name for name in names if name not in known]
        if wrong or not names or len(set(names)) != len(names):
            raise HamiltonianError(
                f"states are switched by different parameters of the Hamiltonian, which has {listed(known) or 'none'}; "
                f"got {names}"
            )
        regions = {term.region for term in mixed.hamiltonian.terms if any(n in names for n in term.weight.parameters)}
        if len(regions) != 1:
            raise HamiltonianError(
                f"the parameters {listed(names)} switch terms of the regions {listed(r.name for r in regions)}; states "
                "belong to one region"
            )
        (region,) = regions
        self._mixed = mixed
        self._names = names
        self._atoms = np.array(sorted(region.atoms), dtype=np.int64)

    @property
    def n_states(self) -> int:
        """Number of states."""
        return len(self._names) + 1

    @property
    def atoms(self) -> IntArray:
        """The atoms of the region."""
        return self._atoms

    def select(self, context: openmm.Context, state: int) -> None:
        """Let a state move the particles from now on."""
        for index, name in enumerate(self._names, start=1):
            context.setParameter(name, 1.0 if index == state else 0.0)

    def observe(self, context: openmm.Context) -> SurfacePoint:
        """Return the energies at the present geometry, less that of state 0."""
        slopes = self._mixed.parameter_derivatives(context)
        gaps = [slopes[name].value_in_unit(unit.kilojoule_per_mole) for name in self._names]
        return SurfacePoint(np.array([0.0, *gaps]))

    def memory(self) -> dict[str, FloatArray]:
        """Return nothing: energies need no memory."""
        return {}

    def recall(self, memory: dict[str, FloatArray]) -> None:
        """Do nothing."""
