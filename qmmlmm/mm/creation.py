"""From a force field and a Hamiltonian to one ordinary System."""

from __future__ import annotations

import copy
import warnings
from typing import Literal, cast

import openmm
from openmm import app

from qmmlmm.coupling.hamiltonian import Hamiltonian
from qmmlmm.coupling.potential import EvaluatedPotential
from qmmlmm.embedding.evaluated_term import EvaluatedTerm
from qmmlmm.errors import HamiltonianError, QmmlmmWarning, UnsupportedSystemError, listed
from qmmlmm.ml.ml_potential import MLPotential
from qmmlmm.ml.term_module import MeshPrecision, TorchTerm
from qmmlmm.ml.torch_force import create_torch_force, unavailable_because
from qmmlmm.mm.force_field_potential import ForceFieldPotential, force_field_term
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.mm.own_images import without_own_images
from qmmlmm.mm.python_force import (
    ComputesInOpenMMUnits,
    EvaluatedTermInOpenMMUnits,
    TermCallback,
    create_python_force,
)
from qmmlmm.mm.removal import remove_regions
from qmmlmm.mm.term_layouts import build_layouts, particle_labels, regions_to_remove, resolve_region

MLBackend = Literal["auto", "torchforce", "pythonforce"]


def create_mixed_system(
    topology: app.Topology,
    system: openmm.System,
    hamiltonian: Hamiltonian,
    *,
    remove_constraints: bool = True,
    ml_backend: MLBackend = "auto",
    ml_precision: MeshPrecision = "double",
) -> MixedSystem:
    """Put the terms of a Hamiltonian in the place of the force field of their regions.

    Parameters
    ----------
    topology : openmm.app.Topology
        With all bonds of the regions.
    system : openmm.System
        From ForceField, Amber, CHARMM or GROMACS files: the force field alone. It is not changed. Add biases,
        restraints and barostats to the System that is returned.
    hamiltonian : Hamiltonian
    remove_constraints : bool
        Whether constraints between two atoms of a region go, so that the potential decides about the bond.
    ml_backend : {"auto", "torchforce", "pythonforce"}
        How ML terms run; "auto" takes TorchForce, or with one warning PythonForce where the plug-in cannot be
        loaded.
    ml_precision : {"double", "mixed"}
        "mixed" computes the long-range field of electrostatically embedded ML terms on a mesh in single precision,
        as OpenMM's CPU platform and the mixed precision of its GPU platforms do for PME; energies then differ by
        about 1e-6 of the interaction, and forces by as much. Models and all else stay in double precision.

    Returns
    -------
    MixedSystem

    Raises
    ------
    UnsupportedSystemError
        If the System holds what cannot be treated correctly.
    RegionError, PotentialError, HamiltonianError
        If a region or potential does not fit.
    """
    if not isinstance(hamiltonian, Hamiltonian):
        raise HamiltonianError(f"the third argument is a Hamiltonian, got {type(hamiltonian).__name__}")
    if ml_backend not in ("auto", "torchforce", "pythonforce"):
        raise HamiltonianError(f"ml_backend is 'auto', 'torchforce' or 'pythonforce', got {ml_backend!r}")
    if ml_precision not in ("double", "mixed"):
        raise HamiltonianError(f"ml_precision is 'double' or 'mixed', got {ml_precision!r}")
    n_atoms, n_particles = topology.getNumAtoms(), system.getNumParticles()
    if n_atoms != n_particles:
        raise UnsupportedSystemError(
            f"the Topology has {n_atoms} atoms and the System {n_particles} particles; hand in the pair that belongs "
            "together (with Modeller, the Topology after addExtraParticles)"
        )
    labels = particle_labels(topology)
    resolved = {region: resolve_region(region, topology, system, labels) for region in hamiltonian.regions}
    removals = regions_to_remove(hamiltonian, resolved)
    layouts = build_layouts(system, hamiltonian, resolved, labels)
    for term, layout in zip(hamiltonian.terms, layouts, strict=True):
        term.potential.check(layout.specification)
    has_force_field_term = _has_force_field_term(hamiltonian)
    mixed = remove_regions(system, removals, remove_constraints=remove_constraints)
    without_region = copy.deepcopy(mixed) if has_force_field_term else None
    for region, removal in zip(hamiltonian.outermost, removals, strict=True):
        if hamiltonian.long_range(region):
            mixed.addForce(without_own_images(system, removal))
    groups = _assign_groups(mixed, hamiltonian)
    backend = _choose_backend(hamiltonian, ml_backend)
    names = hamiltonian.term_names()
    forces: dict[str, int] = {}
    callbacks: dict[str, TermCallback] = {}
    for term, name, layout, group in zip(hamiltonian.terms, names, layouts, groups, strict=True):
        weight = term.weight if term.weight.slopes else None
        parameters = {parameter: hamiltonian.parameters[parameter] for parameter in term.weight.parameters}
        if isinstance(term.potential, ForceFieldPotential):
            (removal,) = removals
            assert without_region is not None
            force = force_field_term(system, without_region, removal, term.weight, parameters)
        elif isinstance(term.potential, MLPotential) and backend == "torchforce" and weight is None:
            force = create_torch_force(term.potential.term_module(layout, ml_precision), layout.periodic)
        else:
            computation: ComputesInOpenMMUnits
            if isinstance(term.potential, MLPotential):
                computation = TorchTerm(name, term.potential.term_module(layout, ml_precision))
            else:
                evaluated = EvaluatedTerm(layout, cast(EvaluatedPotential, term.potential))
                computation = EvaluatedTermInOpenMMUnits(evaluated)
            callbacks[name] = TermCallback(computation, weight=weight)
            force = create_python_force(callbacks[name], layout.periodic, parameters)
        force.setName(name)
        force.setForceGroup(group)
        forces[name] = mixed.addForce(force)
    return MixedSystem(
        topology=topology,
        system=mixed,
        hamiltonian=hamiltonian,
        force_groups=dict(zip(names, groups, strict=True)),
        layouts=dict(zip(names, layouts, strict=True)),
        regions=tuple(resolved.values()),
        _forces=forces,
        _callbacks=callbacks,
    )


def _has_force_field_term(hamiltonian: Hamiltonian) -> bool:
    terms = [term for term in hamiltonian.terms if isinstance(term.potential, ForceFieldPotential)]
    if terms and (len(hamiltonian.outermost) > 1 or any(term.region not in hamiltonian.outermost for term in terms)):
        raise HamiltonianError(
            "a ForceFieldPotential gives back what one region lost: it stands on the outermost region, and there is no "
            f"second one; here are {listed(region.name for region in hamiltonian.outermost)}"
        )
    return bool(terms)


def _assign_groups(system: openmm.System, hamiltonian: Hamiltonian) -> list[int]:
    """Return a force group for each term: the one asked for, or a free one."""
    taken = {force.getForceGroup() for force in system.getForces()}
    taken.update(
        force.getReciprocalSpaceForceGroup()
        for force in system.getForces()
        if isinstance(force, openmm.NonbondedForce) and force.getReciprocalSpaceForceGroup() >= 0
    )
    taken.update(term.force_group for term in hamiltonian.terms if term.force_group is not None)
    free = [group for group in range(32) if group not in taken]
    groups: list[int] = []
    for term in hamiltonian.terms:
        if term.force_group is not None:
            groups.append(term.force_group)
            continue
        if not free:
            raise HamiltonianError(
                "OpenMM has 32 force groups and all are in use; give terms that may share one the same force_group"
            )
        groups.append(free.pop(0))
    return groups


def _choose_backend(hamiltonian: Hamiltonian, ml_backend: MLBackend) -> str:
    if ml_backend == "pythonforce" or not any(isinstance(t.potential, MLPotential) for t in hamiltonian.terms):
        return "pythonforce"
    reason = unavailable_because()
    if reason is None:
        return "torchforce"
    if ml_backend == "torchforce":
        raise HamiltonianError(f"ML terms cannot run through TorchForce: {reason}")
    warnings.warn(
        f"ML terms run through openmm.PythonForce, because TorchForce is not available: {reason}",
        QmmlmmWarning,
        stacklevel=3,
    )
    return "pythonforce"
