"""Electronic states that are separate terms: learned states, other methods, other potentials."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import openmm
from openmm import unit

from qmmlmm.coupling.potential import Memory
from qmmlmm.errors import HamiltonianError, listed
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.nonadiabatic.spin_crossing import SpinOrbit, spin_orbit_matrix
from qmmlmm.nonadiabatic.surfaces import SurfacePoint
from qmmlmm.setting_checks import check_instance, check_names
from qmmlmm.units import FloatArray, IntArray


class CoefficientSurfaces:
    """Electronic states that parameters of the Hamiltonian select, for hops by `LandauZener`.

    Parameters
    ----------
    mixed : MixedSystem
        State 0 is the Hamiltonian with all these parameters zero; state k has the k-th parameter one.
    parameters : sequence of str
        Names of parameters, one for each state except state 0.
    spin_orbit : Quantity, float, (m, m) array or callable, optional
        Coupling between states of different multiplicity, an energy or a wave number such as ``40 / unit.centimeter``;
        a bare number is in kJ/mol. A number is the coupling of all states whose multiplicities differ by two, a matrix
        has one for each pair. A callable is passed the results of the terms, ``{"dye/S0": {...}, "dye/T1": {...}}``, at
        every geometry, and returns a number or a matrix. Multiplicities are those of the terms.

    Raises
    ------
    HamiltonianError
        If a name is no parameter of the Hamiltonian, or parameters occur in terms of different regions; if the terms of
        a state have several multiplicities; if the states differ in multiplicity and there is no coupling, or they do
        not and there is one.

    Notes
    -----
    Energies are linear in the parameters: the derivative by the k-th is the energy of state k less that of state 0.
    There are no overlaps and no derivative couplings between models.

    A spin state is one surface with one coupling V, as if it had no sublevels. For hops from a singlet V^2 is the sum
    over the sublevels of the triplet, |<S|H|T_x>|^2 + |<S|H|T_y>|^2 + |<S|H|T_z>|^2; from a triplet with equally
    populated sublevels a third of that, if V is small. The same V for both directions is a choice.

    Examples
    --------
    ::

        models = [MLPotential.load("dye.pt", state=k) for k in (0, 1)]
        mixed = create_mixed_system(topology, system, Hamiltonian([
            Term(models[0], dye, embedding="electrostatic", coefficient="1-s1", name="dye/S0"),
            Term(models[1], dye, embedding="electrostatic", coefficient="s1", name="dye/S1"),
        ], parameters={"s1": 1.0}))
        hopping = SurfaceHopping(simulation, CoefficientSurfaces(mixed, ["s1"]), 1, method=LandauZener())

    Two spins::

        mixed = create_mixed_system(topology, system, Hamiltonian([
            Term(qm, dye, embedding="electrostatic", coefficient="1-t", name="dye/S0"),
            Term(qm, dye, embedding="electrostatic", coefficient="t", name="dye/T1", multiplicity=3),
        ], parameters={"t": 1.0}))
        surfaces = CoefficientSurfaces(mixed, ["t"], spin_orbit=40 / unit.centimeter)
    """

    def __init__(self, mixed: MixedSystem, parameters: Sequence[str], *, spin_orbit: SpinOrbit | None = None) -> None:
        check_instance("mixed", mixed, MixedSystem)
        names = list(check_names("parameters", parameters, HamiltonianError))
        known = mixed.hamiltonian.parameters
        wrong = [name for name in names if name not in known]
        if wrong:
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
        self._terms = [
            name
            for name, found in mixed.terms.items()
            if found.term.region == region and any(n in names for n in found.term.weight.parameters)
        ]
        self._spin_orbit = spin_orbit
        self._multiplicities = self._spins()

    @property
    def n_states(self) -> int:
        """Number of states."""
        return len(self._names) + 1

    @property
    def atoms(self) -> IntArray:
        """The atoms of the region."""
        return self._atoms

    def select(self, context: openmm.Context, state: int) -> None:
        """Select the state that moves the particles."""
        for index, name in enumerate(self._names, start=1):
            context.setParameter(name, 1.0 if index == state else 0.0)

    def observe(self, context: openmm.Context) -> SurfacePoint:
        """Return the energies at the present geometry, less that of state 0."""
        derivatives = self._mixed.parameter_derivatives(context)
        gaps = [derivatives[name].value_in_unit(unit.kilojoule_per_mole) for name in self._names]
        return SurfacePoint(
            np.array([0.0, *gaps]),
            multiplicities=self._multiplicities,
            spin_orbit=None if self._multiplicities is None else self._couplings(self._multiplicities),
        )

    def memory(self) -> Memory:
        """Return nothing: energies need no memory."""
        return {}

    def recall(self, memory: Memory) -> None:
        """Do nothing."""

    def _couplings(self, multiplicities: IntArray) -> FloatArray:
        """Return the spin-orbit coupling of all states at the present geometry."""
        given = self._spin_orbit
        if callable(given):
            given = given({name: self._mixed.results(name) for name in self._terms})
        return spin_orbit_matrix(given, multiplicities)

    def _spins(self) -> IntArray | None:
        """Return the multiplicity of each state, or None if there is only one."""
        found = []
        for state in range(self.n_states):
            values = dict.fromkeys(self._mixed.hamiltonian.parameters, 0.0)
            if state:
                values[self._names[state - 1]] = 1.0
            terms = {name: found.term for name, found in self._mixed.terms.items()}
            # Terms without a parameter, such as the surroundings of a QM core, are the same for all states.
            spins = {terms[n].spin_multiplicity for n in self._terms if terms[n].weight.value(values) != 0.0}
            if len(spins) != 1:
                raise HamiltonianError(
                    f"state {state} has terms of the multiplicities {listed(sorted(spins)) or 'none'}; the terms that "
                    "a state switches on have one"
                )
            found.append(spins.pop())
        several = len(set(found)) > 1
        if several != (self._spin_orbit is not None):
            raise HamiltonianError(
                f"the states have multiplicities {found}: "
                + (
                    "say how they are coupled, for example spin_orbit=40 / unit.centimeter"
                    if several
                    else "leave spin_orbit out, or give terms their own with Term(..., multiplicity=3)"
                )
            )
        if not several:
            return None
        multiplicities = np.array(found, dtype=np.int64)
        if not callable(self._spin_orbit):
            spin_orbit_matrix(self._spin_orbit, multiplicities)
        return multiplicities
