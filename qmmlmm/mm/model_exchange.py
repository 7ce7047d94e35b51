"""Another model in the place of one that a System runs, without building the System or its Contexts anew."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import openmm

from qmmlmm.coupling.hamiltonian import Hamiltonian
from qmmlmm.errors import HamiltonianError
from qmmlmm.ml.ml_potential import MLPotential
from qmmlmm.ml.term_module import MeshPrecision, TorchTerm
from qmmlmm.ml.torch_force import create_torch_force
from qmmlmm.mm.mixed_system import MixedSystem


def exchange_model(
    mixed: MixedSystem,
    name: str,
    potential: MLPotential,
    contexts: Iterable[openmm.Context] = (),
    *,
    ml_precision: MeshPrecision = "double",
) -> None:
    """Let an ML term run with another model of the same region, for example after more training.

    The MixedSystem and its System are changed in place; Contexts, Simulations, integrators and reporters stay, and with
    them positions, velocities, time and parameters.

    Parameters
    ----------
    mixed : MixedSystem
    name : str
        Of an ML term, for example ``"ligand/ML"``.
    potential : MLPotential
        The new model.
    contexts : iterable of openmm.Context
        All that run the System. They are reinitialised where the term is a TorchForce, which holds a frozen copy of its
        module; an integrator's random numbers begin anew then. A term that runs in Python goes on without that.
    ml_precision : {"double", "mixed"}
        As in `create_mixed_system`.

    Raises
    ------
    HamiltonianError
        If there is no such ML term.
    PotentialError
        If the model does not fit the region.

    Notes
    -----
    A TorchForce moves to the end of the System's forces, so that forces behind it have an index one lower.
    """
    running = list(contexts)
    names = list(mixed.force_groups)
    terms = list(mixed.hamiltonian.terms)
    learned = [key for key, term in zip(names, terms, strict=True) if isinstance(term.potential, MLPotential)]
    if name not in learned:
        raise HamiltonianError(f"there is no ML term {name!r}; those that there are: {', '.join(learned) or 'none'}")
    layout = mixed.layouts[name]
    potential.check(layout.specification)
    at = names.index(name)
    terms[at] = replace(terms[at], potential=potential)
    hamiltonian = Hamiltonian(terms, parameters=dict(mixed.hamiltonian.parameters))
    module = potential.term_module(layout, ml_precision)
    # A MixedSystem does not let its users assign; this function stands beside it.
    object.__setattr__(mixed, "hamiltonian", hamiltonian)
    mixed._committees.pop(name, None)
    if name in mixed._callbacks:
        callback = mixed._callbacks[name]
        callback.computation = TorchTerm(name, module)
        callback.forget()
        # OpenMM keeps forces that it has computed; setting positions makes them void.
        for context in running:
            context.setPositions(context.getState(positions=True).getPositions(asNumpy=True))
        return
    states = [context.getState(positions=True, velocities=True, parameters=True) for context in running]
    index = mixed._forces[name]
    mixed.system.removeForce(index)
    force = create_torch_force(module, layout.periodic)
    force.setName(name)
    force.setForceGroup(mixed.force_groups[name])
    moved = {key: place - (place > index) for key, place in mixed._forces.items()}
    moved[name] = mixed.system.addForce(force)
    object.__setattr__(mixed, "_forces", moved)
    for context, state in zip(running, states, strict=True):
        context.reinitialize(preserveState=False)
        context.setState(state)
