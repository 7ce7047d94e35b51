"""Checks of the arguments of a learning loop, before anything is simulated or labelled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import openmm
from openmm import unit

from qmmlmm.coupling.hamiltonian import Term
from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.elements import multiplicity_fault
from qmmlmm.errors import DataSetError, LoopError, listed, nearest
from qmmlmm.geometry import Geometry
from qmmlmm.learning.labels.labelled_frame import LabelledFrame, check_together
from qmmlmm.learning.loop.settings import Walker
from qmmlmm.learning.training.retraining import FEWEST_FRAMES
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.ml.response_settings import ResponseSettings
from qmmlmm.sampling.collective_variables import CollectiveVariable
from qmmlmm.sampling.metadynamics import Metadynamics
from qmmlmm.sampling.variable import Variable
from qmmlmm.setting_checks import check_array, check_items, check_mapping, check_path, is_number
from qmmlmm.units import FloatArray, Vectors


def check_directory(directory: object) -> Path:
    """Return the directory of a loop, which need not exist."""
    path = check_path("directory", directory, LoopError)
    if path.exists() and not path.is_dir():
        raise LoopError(f"directory {str(path)!r} is a file; give a folder, or a path that does not exist")
    return path


def start_positions(positions: Vectors, walkers: Sequence[Walker], n_particles: int) -> list[FloatArray]:
    """Return the positions of all walkers at the start, (n, 3) nm each."""
    default = check_array("positions", positions, (None, 3), unit.nanometer, LoopError)
    starts = [walker.start_positions(default) for walker in walkers]
    for k, start in enumerate(starts):
        if len(start) != n_particles:
            raise LoopError(f"the System has {n_particles} particles, the positions of walker {k} are of {len(start)}")
    return starts


def check_region(specification: RegionSpecification) -> None:
    """Raise LoopError if charge and multiplicity do not fit the electrons of the region and its link atoms."""
    numbers = specification.atomic_numbers
    fault = multiplicity_fault(numbers, specification.charge, specification.multiplicity)
    if fault:
        raise LoopError(
            f"term {specification.name!r}: {fault}; check charge and multiplicity of the Region, and its cut bonds"
        )


def check_variables(
    variables: object, metadynamics: Metadynamics | None, start: Geometry
) -> dict[str, CollectiveVariable]:
    """Return collective variables, each of which has a finite value at the start.

    Parameters
    ----------
    variables : mapping of str to collective variable
    metadynamics : Metadynamics or None
        Its variables are checked too.
    start : Geometry, nm
    """
    found = dict(check_mapping("variables", variables, LoopError))
    hills = [] if metadynamics is None else [entry.variable for entry in metadynamics.along]
    for name, variable in [*found.items(), *((f"variable {k} of metadynamics", v) for k, v in enumerate(hills))]:
        _check_variable(name, variable, start)
    return found  # type: ignore[return-value]


def _check_variable(name: str, variable: object, start: Geometry) -> None:
    if not callable(variable):
        raise LoopError(
            f"variables: {name!r} is a function of a Geometry, such as Distance(0, 1), that returns a number, got "
            f"{variable!r}"
        )
    if isinstance(variable, Variable):
        beyond = [index for index in variable.particles if index >= len(start.positions)]
        if beyond:
            last = len(start.positions) - 1
            raise LoopError(f"variables: {name!r} has the particles {listed(beyond)}, the System has 0 to {last}")
    try:
        value = variable(start)
    except Exception as error:
        raise LoopError(
            f"variables: {name!r} cannot be computed at the start: {type(error).__name__}: {error}"
        ) from error
    if not is_number(value) or not np.isfinite(value):
        raise LoopError(f"variables: {name!r} returns a finite number, got {value!r} at the start")


def check_biases(biases: object) -> list[str]:
    """Return Forces as XML."""
    forces = check_items("biases", biases, openmm.Force, empty=True, error=LoopError)
    return [openmm.XmlSerializer.serialize(force) for force in forces]


def check_labels(labels: object, specification: RegionSpecification, method: str) -> list[LabelledFrame]:
    """Return labels that are of the region of a loop and computed with its method."""
    frames = list(check_items("labels", labels, LabelledFrame, empty=True, error=LoopError))
    if not frames:
        return []
    try:
        check_together(frames)
    except DataSetError as error:
        raise LoopError(f"labels: {error}") from error
    _check_molecule("labels", frames[0].atomic_numbers, specification)
    if frames[0].method != method:
        raise LoopError(
            f"labels: they are of {frames[0].method!r}, the loop computes {method!r}; use labels of one method, or "
            "give method=... if both are the same"
        )
    asked = (specification.charge, specification.multiplicity)
    for frame in frames:
        if frame.condition[:2] != asked:
            raise LoopError(
                f"labels: frame {frame.name!r} has charge and multiplicity {frame.condition[:2]}, the region {asked}"
            )
    return frames


def check_enough_labels(labels: Sequence[LabelledFrame], model: ResponseNetwork | None) -> None:
    """Raise LoopError if a first model would have to be trained on too few labels."""
    if model is None and 0 < len(labels) < FEWEST_FRAMES:
        raise LoopError(
            f"labels: {len(labels)} are too few for a first model, {FEWEST_FRAMES} are needed; give more, or none, and "
            "the loop computes start_labels"
        )


def check_network(network: ResponseSettings, term: Term) -> None:
    """Raise LoopError if a network cannot do the embedding of a term."""
    if term.embedding == "electrostatic" and not network.response:
        raise LoopError(
            "network: response=False has no electrostatic embedding, which the term has; leave response out, or give "
            'the term embedding="mechanical"'
        )


def check_model(model: ResponseNetwork, specification: RegionSpecification, state: int) -> None:
    """Raise LoopError if a model to start from is of another region."""
    _check_molecule("model", model.atomic_numbers, specification)
    asked = (specification.charge, specification.multiplicity, state)
    if asked not in model.known_conditions():
        raise LoopError(
            f"model: it was trained for (charge, multiplicity, state) {listed(model.known_conditions())}, the region "
            f"has {asked}"
        )


def check_parameters(walkers: Iterable[Walker], known: Iterable[str]) -> None:
    """Raise LoopError if a walker sets a global parameter that no Force has."""
    names = sorted(known)
    for k, walker in enumerate(walkers):
        for name in walker.parameters:
            if name not in names:
                raise LoopError(
                    f"walker {k} sets the parameter {name!r}, which no Force has; there are {listed(names) or 'none'}."
                    f"{nearest(name, names)}"
                )


def _check_molecule(name: str, numbers: Iterable[int], specification: RegionSpecification) -> None:
    mine = [int(z) for z in numbers]
    asked = [int(z) for z in specification.atomic_numbers]
    if mine != asked:
        raise LoopError(
            f"{name}: they are of the atoms {listed(mine, 30)}, the region with its link atoms has {listed(asked, 30)}"
        )


def check_platform(name: object, properties: Mapping[str, str] | None) -> dict[str, str]:
    """Return the properties of a platform of OpenMM that is there."""
    platforms = [openmm.Platform.getPlatform(k).getName() for k in range(openmm.Platform.getNumPlatforms())]
    if not isinstance(name, str) or name not in platforms:
        raise LoopError(
            f"platform is one of {listed(map(repr, platforms), 10)}, which this OpenMM has, got {name!r}."
            f"{nearest(str(name), platforms)}"
        )
    given = dict(check_mapping("platform_properties", {} if properties is None else properties, LoopError))
    known = list(openmm.Platform.getPlatform(name).getPropertyNames())
    for key, value in given.items():
        if key not in known:
            raise LoopError(
                f"platform_properties: the platform {name} has no {key!r}; it has {listed(known, 20) or 'none'}."
                f"{nearest(key, known)}"
            )
        if not isinstance(value, str):
            raise LoopError(f'platform_properties: {key} is a text, such as "1", got {value!r}')
        # OpenMM reads any other text as the default.
        if key == "Threads" and not (value.isdecimal() and int(value) > 0):
            raise LoopError(f'platform_properties: Threads is a number of threads, such as "1", got {value!r}')
    return given  # type: ignore[return-value]
