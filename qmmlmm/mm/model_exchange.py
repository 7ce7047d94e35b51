"""Exchange of the model of a term, without a new System or new Contexts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import openmm

from qmmlmm.coupling.hamiltonian import Hamiltonian
from qmmlmm.embedding.static_term import StaticTerm
from qmmlmm.embedding.torch_term import MeshPrecision, TorchTerm
from qmmlmm.errors import HamiltonianError
from qmmlmm.ml.ml_potential import MLPotential
from qmmlmm.mm.creation import MLStep, create_region_term
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.mm.python_force import PythonRunner
from qmmlmm.mm.term_runner import TorchForceRunner
from qmmlmm.mm.torch_force import create_torch_force
from qmmlmm.setting_checks import check_choice, check_instance, check_items


def exchange_model(
    mixed: MixedSystem,
    name: str,
    potential: MLPotential,
    contexts: Iterable[openmm.Context] = (),
    *,
    ml_precision: MeshPrecision = "double",
) -> None:
    """Let an ML term run with another model of the same region, for example after more training.

    The MixedSystem and its System are changed in place; Contexts, Simulations, integrators and reporters are kept, with
    positions, velocities, time and parameters.

    Parameters
    ----------
    mixed : MixedSystem
    name : str
        Name of an ML term, for example ``"ligand/ML"``.
    potential : MLPotential
        New model.
    contexts : iterable of openmm.Context
        All Contexts of the System. If the term is a TorchForce, which has a frozen copy of its module, they are
        reinitialised and the integrator's random numbers start again. This is not needed for terms in Python.
    ml_precision : {"double", "mixed"}
        As in `create_mixed_system`.

    Raises
    ------
    HamiltonianError
        If there is no such ML term.
    SettingError
        If an argument has another type.
    PotentialError
        If the model does not fit the region.

    Notes
    -----
    A TorchForce moves to the end of the System's forces; the indices of later forces decrease by one.
    """
    check_instance("mixed", mixed, MixedSystem)
    check_instance("potential", potential, MLPotential)
    check_choice("ml_precision", ml_precision, ("double", "mixed"))
    running = check_items("contexts", contexts, openmm.Context, empty=True)
    mixed_term = mixed.term(name)
    runner, layout = mixed_term.runner, mixed_term.layout
    if not isinstance(runner.region_term, TorchTerm | StaticTerm):
        raise HamiltonianError(f"term {name!r} is no ML term and has no model to exchange")
    potential.check(layout.specification)
    running_term = runner.region_term
    step: MLStep = "default"
    if isinstance(running_term, StaticTerm):
        step = "graph" if running_term.graph else "static"
    # A TorchForce remains one.
    compiled = running_term.compiled and isinstance(runner, PythonRunner)
    region_term = create_region_term(layout, potential, ml_precision, step, compiled)
    term = replace(mixed_term.term, potential=potential)
    # Before anything changes: the terms must still add up to one energy, with the base of a correction among them.
    terms = [term if other is mixed_term else other.term for other in mixed.terms.values()]
    Hamiltonian(terms, parameters=mixed.hamiltonian.parameters)
    if isinstance(runner, PythonRunner):
        runner.exchange(region_term)
        mixed.replace_term(replace(mixed_term, term=term))
        # OpenMM keeps forces that it has computed; setting positions makes them void.
        for context in running:
            context.setPositions(context.getState(positions=True).getPositions(asNumpy=True))
        return
    if potential.runs_in_python:
        raise HamiltonianError(
            f"term {name!r} is a TorchForce, which cannot run a program of torch.export; make the System with "
            "ml_backend='pythonforce'"
        )
    states = [context.getState(positions=True, velocities=True, parameters=True) for context in running]
    group = mixed.force_group(name)
    index = [force.getName() for force in mixed.system.getForces()].index(name)
    assert isinstance(region_term, TorchTerm)
    force = create_torch_force(region_term.module, layout.periodic)
    mixed.system.removeForce(index)
    force.setName(name)
    force.setForceGroup(group)
    mixed.system.addForce(force)
    mixed.replace_term(replace(mixed_term, term=term, runner=TorchForceRunner(name, region_term)))
    for context, state in zip(running, states, strict=True):
        context.reinitialize(preserveState=False)
        context.setState(state)
