"""Creation of a mixed System from a force field and a Hamiltonian."""

from __future__ import annotations

import copy
from typing import Literal

import openmm
import torch
from openmm import app

from qmmlmm.coupling.coefficient import Coefficient
from qmmlmm.coupling.hamiltonian import Hamiltonian, Term
from qmmlmm.coupling.layout import TermLayout
from qmmlmm.coupling.potential import EvaluatedPotential, RegionPotential
from qmmlmm.embedding.evaluated_term import EvaluatedTerm
from qmmlmm.embedding.module_potential import ResponsePotential
from qmmlmm.embedding.region_term import RegionTerm
from qmmlmm.embedding.response_term import ResponseTerm
from qmmlmm.embedding.static_term import StaticTerm
from qmmlmm.embedding.torch_term import MeshPrecision, TorchTerm
from qmmlmm.errors import HamiltonianError, SettingError, UnsupportedSystemError, listed
from qmmlmm.ml.ml_potential import MLPotential
from qmmlmm.ml.static_network import check_static_network
from qmmlmm.mm.electrostatics import check_electrostatics
from qmmlmm.mm.force_field_potential import ForceFieldPotential, force_field_term
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.mm.mixed_term import MixedTerm
from qmmlmm.mm.own_images import without_own_images
from qmmlmm.mm.python_force import PythonRunner, create_python_force
from qmmlmm.mm.removal import RegionToRemove, remove_regions
from qmmlmm.mm.term_layouts import build_layouts, particle_labels, regions_to_remove, resolve_regions
from qmmlmm.mm.term_runner import ForceFieldRunner, TermRunner, TorchForceRunner
from qmmlmm.mm.torch_force import create_torch_force, unavailable_because
from qmmlmm.setting_checks import check_choice, check_flag, check_instance

MLBackend = Literal["auto", "torchforce", "pythonforce"]
MLStep = Literal["default", "static", "graph"]

ML_STEPS: tuple[MLStep, ...] = ("default", "static", "graph")


def create_mixed_system(
    topology: app.Topology,
    system: openmm.System,
    hamiltonian: Hamiltonian,
    *,
    remove_constraints: bool = True,
    ml_backend: MLBackend = "auto",
    ml_precision: MeshPrecision = "double",
    ml_step: MLStep = "default",
    ml_compiled: bool = True,
) -> MixedSystem:
    """Replace the force field of regions by the terms of a Hamiltonian.

    Parameters
    ----------
    topology : openmm.app.Topology
        Topology with the elements, and with the bonds that regions cut. Other bonds may be only in the System.
    system : openmm.System
        System of the force field only, from ForceField, Amber, CHARMM or GROMACS files. It is not changed. Add biases,
        restraints and barostats to the System that is returned.
    hamiltonian : Hamiltonian
    remove_constraints : bool
        Whether to remove constraints between two atoms of a region.
    ml_backend : {"auto", "torchforce", "pythonforce"}
        Force of ML terms; "auto" is TorchForce, or PythonForce if the plug-in cannot be loaded or a part of the term is
        compiled. Some calls of OpenMM need "pythonforce", see Notes.
    ml_precision : {"double", "mixed"}
        "mixed" computes the long-range field of ML terms and embedded potentials on a mesh in single precision, as
        OpenMM's CPU platform and the mixed precision of its GPU platforms do for PME; energies and forces then differ
        by approximately 1e-6 of the interaction. All else is in double precision.
    ml_step : {"default", "static", "graph"}
        "static" evaluates ML terms through PythonForce on the first CUDA device, or without one on the CPU, by
        operations of fixed shapes that never wait for the host. "graph" has the CUDA device record them and replay
        them; without one it is an error. Energies and forces are the same. Both are for networks of `qmmlmm train` and
        **experimental**: the first was tested on the CPU, where it is slower, and neither has run on a GPU yet.
    ml_compiled : bool
        Whether parts of ML terms that ``qmmlmm compile`` compiled on this machine are used. They run through
        PythonForce; with ``ml_backend="torchforce"`` they are not used. Energies and forces are the same but for
        round-off. `MixedSystem.describe` says which parts are compiled, and if not, why.

    Returns
    -------
    MixedSystem

    Raises
    ------
    UnsupportedSystemError
        If a part of the System cannot be treated correctly, or only one of Topology and System has a bond across the
        border of a region.
    RegionError, PotentialError, HamiltonianError
        If a region or potential does not fit, or an element does not fit the mass.
    SettingError
        If an argument has another type.

    Notes
    -----
    A region has to be narrower than half the box: each evaluation checks the largest distance between two of its atoms.

    The terms feel the charges that the System has now. Charges, parameter offsets of charges and the nonbonded method
    of the System that is returned cannot be changed later, see `MixedSystem.check_unchanged`.

    Some calls of OpenMM hold Python's lock: a minimisation with a reporter, ``stepTo`` of integrators with variable
    steps, and ``computeCurrentPressure`` of barostats. Torch computes no forces then, so that a TorchForce raises an
    exception. With ``ml_backend="pythonforce"`` they work.
    """
    if isinstance(topology, openmm.System) and isinstance(system, app.Topology):
        raise SettingError(
            "topology and system are exchanged: write create_mixed_system(topology, system, hamiltonian)"
        )
    check_instance("topology", topology, app.Topology, "an openmm.app.Topology")
    check_instance("system", system, openmm.System, "an openmm.System")
    check_instance("hamiltonian", hamiltonian, Hamiltonian, error=HamiltonianError)
    check_flag("remove_constraints", remove_constraints)
    check_choice("ml_backend", ml_backend, ("auto", "torchforce", "pythonforce"), HamiltonianError)
    check_choice("ml_precision", ml_precision, ("double", "mixed"), HamiltonianError)
    check_choice("ml_step", ml_step, ML_STEPS, HamiltonianError)
    check_flag("ml_compiled", ml_compiled)
    if ml_step != "default" and ml_backend == "torchforce":
        raise HamiltonianError(
            f"ml_step={ml_step!r} runs through PythonForce; leave ml_backend at 'auto' or write "
            "ml_backend='pythonforce'"
        )
    if ml_step == "graph" and not torch.cuda.is_available():
        raise HamiltonianError(
            "ml_step='graph' records CUDA graphs, and torch finds no CUDA device here; leave ml_step at its default"
        )
    n_atoms, n_particles = topology.getNumAtoms(), system.getNumParticles()
    if n_atoms != n_particles:
        raise UnsupportedSystemError(
            f"the Topology has {n_atoms} atoms and the System {n_particles} particles; pass the pair that belongs "
            "together (with Modeller, the Topology after addExtraParticles)"
        )
    check_electrostatics(system)
    labels = particle_labels(topology)
    resolved = resolve_regions(hamiltonian.regions, topology, system, labels)
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
    compiled = ml_compiled and ml_backend != "torchforce"
    terms: dict[str, MixedTerm] = {}
    for term, layout, group in zip(hamiltonian.terms, layouts, groups, strict=True):
        name = layout.specification.name
        parameters = {parameter: hamiltonian.parameters[parameter] for parameter in term.weight.parameters}
        runner: TermRunner
        if isinstance(term.potential, ForceFieldPotential):
            assert without_region is not None
            force = _force_field(system, without_region, removals, term.weight, parameters)
            runner = ForceFieldRunner(name)
        else:
            evaluated = create_region_term(layout, term.potential, ml_precision, ml_step, compiled)
            runner, force = _run(evaluated, term, parameters, backend)
        force.setName(name)
        force.setForceGroup(group)
        mixed.addForce(force)
        terms[name] = MixedTerm(name, term, layout, runner)
    return MixedSystem(topology, mixed, hamiltonian, terms, tuple(resolved.values()))


def create_region_term(
    layout: TermLayout,
    potential: RegionPotential,
    precision: MeshPrecision = "double",
    step: MLStep = "default",
    compiled: bool = False,
) -> RegionTerm:
    """Return the term of a potential with a layout, by the kind of the potential.

    Parameters
    ----------
    layout : TermLayout
    potential : EvaluatedPotential or MLPotential
    precision : {"double", "mixed"}
        Precision of the mesh of an ML term.
    step : {"default", "static", "graph"}
        Kind of evaluation of an ML term.
    compiled : bool
        Whether compiled parts of an ML term are used, if they are there.

    Raises
    ------
    HamiltonianError
        If the potential is of neither kind.
    PotentialError
        If the model has no static step.
    """
    if isinstance(potential, MLPotential):
        if step != "default":
            check_static_network(potential.network, layout.specification.name)
            return StaticTerm(layout, potential, precision, graph=step == "graph", compiled=compiled)
        return TorchTerm(layout, potential, precision=precision, compiled=compiled)
    if isinstance(potential, ResponsePotential) and layout.surroundings is not None:
        return ResponseTerm(layout, potential, precision, compiled)
    if isinstance(potential, EvaluatedPotential):
        return EvaluatedTerm(layout, potential)
    raise HamiltonianError(
        f"term {layout.specification.name!r}: {type(potential).__name__} cannot be evaluated; your own potential is a "
        "subclass of qmmlmm.coupling.potential.EvaluatedPotential"
    )


def _run(
    region_term: RegionTerm, term: Term, parameters: dict[str, float], backend: str
) -> tuple[TermRunner, openmm.Force]:
    """Return the runner of a term and its Force."""
    on_torch = isinstance(region_term, TorchTerm) and not region_term.only_in_python
    if on_torch and backend == "torchforce" and not term.weight.slopes:
        assert isinstance(region_term, TorchTerm)
        force = create_torch_force(region_term.module, region_term.layout.periodic)
        return TorchForceRunner(region_term.name, region_term), force
    runner = PythonRunner(region_term, weight=term.weight if term.weight.slopes else None)
    return runner, create_python_force(runner, parameters)


def _force_field(
    system: openmm.System,
    without_region: openmm.System,
    removals: list[RegionToRemove],
    weight: Coefficient,
    parameters: dict[str, float],
) -> openmm.Force:
    (removal,) = removals
    return force_field_term(system, without_region, removal, weight, parameters)


def _has_force_field_term(hamiltonian: Hamiltonian) -> bool:
    terms = [term for term in hamiltonian.terms if isinstance(term.potential, ForceFieldPotential)]
    if terms and (len(hamiltonian.outermost) > 1 or any(term.region not in hamiltonian.outermost for term in terms)):
        raise HamiltonianError(
            "a ForceFieldPotential is for the outermost region, of which there is only one; this Hamiltonian has "
            f"{listed(region.name for region in hamiltonian.outermost)}"
        )
    return bool(terms)


def _assign_groups(system: openmm.System, hamiltonian: Hamiltonian) -> list[int]:
    """Return a force group for each term: its own or a free one."""
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
    if ml_backend == "torchforce":
        for term in hamiltonian.terms:
            if isinstance(term.potential, MLPotential) and term.potential.runs_in_python:
                reason = f"the model of term {term.name!r} is a program of torch.export, which only Python calls"
    if reason is None:
        return "torchforce"
    if ml_backend == "torchforce":
        raise HamiltonianError(f"ML terms cannot run through TorchForce: {reason}")
    return "pythonforce"
