"""The input file of ``qmmlmm learn``: a learning loop in TOML."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.commands.hamiltonian_input import read_region
from qmmlmm.commands.input_file import Table, read_toml, reading
from qmmlmm.commands.metadynamics_input import read_metadynamics, variable_of
from qmmlmm.commands.potential_input import read_base, read_potential
from qmmlmm.commands.system_input import Start, read_coordinates, read_structures, read_system
from qmmlmm.commands.variable_input import read_atom, read_variables
from qmmlmm.coupling.hamiltonian import Term
from qmmlmm.coupling.potential import EMBEDDINGS
from qmmlmm.errors import InputFileError, LoopError, MissingDependencyError
from qmmlmm.geometry import Geometry
from qmmlmm.learning.labels.data_set import read_frames
from qmmlmm.learning.labels.label_queue import LabelSettings
from qmmlmm.learning.labels.label_task import JobLimits
from qmmlmm.learning.loop.learning_loop import LearningLoop
from qmmlmm.learning.loop.reacting_bonds import bonds_along
from qmmlmm.learning.loop.settings import LoopSettings, Walker
from qmmlmm.learning.training.training_settings import TrainingSettings
from qmmlmm.ml.response_settings import ResponseSettings
from qmmlmm.sampling.variable import Variable
from qmmlmm.setting_checks import check_choice, check_path
from qmmlmm.units import FloatArray

TOP = ("directory", "system", "region", "qm", "loop", "network", "training", "labels", "variable", "umbrella",
       "metadynamics", "walker", "embedding", "method", "model", "data", "platform", "base")  # fmt: skip


def read_loop(path: Path) -> LearningLoop:
    """Return the loop that a file describes; paths in it are relative to the file.

    Parameters
    ----------
    path : Path

    Raises
    ------
    InputFileError
        If a key is unknown or missing, or has a wrong value.
    """
    path = check_path("the input file", path, InputFileError)
    with reading(path):
        return _read_loop(path)


def _read_loop(path: Path) -> LearningLoop:
    content = read_toml(path, TOP)
    folder = path.parent
    network = content.optional_table("network").build(ResponseSettings)
    training = content.optional_table("training").build(TrainingSettings, {"steps": 2000})
    embedding = check_choice("embedding", content.text("embedding", "electrostatic"), EMBEDDINGS, error=InputFileError)
    potential = read_potential(content.table("qm"))
    start = read_system(content.table("system"), folder)
    region = read_region(content.table("region"), start, folder)
    with content.place():
        term = Term(potential, region, embedding=embedding)
    variables = read_variables(content, start.topology, folder)
    biases, walkers, driven = _read_walkers(content, variables, start, folder)
    metadynamics = read_metadynamics(content, variables)
    if metadynamics is not None:
        driven += [entry.variable for entry in metadynamics.along]
    settings = _read_settings(content.optional_table("loop"), start.topology)
    if settings.reacting_bonds is None:
        settings = replace(settings, reacting_bonds=bonds_along(start.topology, region.atoms, driven) or None)
    labels = content.optional_table("labels")
    labels.check_keys(("workers", "attempts", "threads", "memory", "seconds", "dask"))
    limits = labels.part("threads", "memory", "seconds").build(JobLimits)
    with content.place():
        return LearningLoop(
            folder / content.text("directory", path.stem + "_run"),
            start.topology,
            start.system,
            term,
            start.positions,
            settings=settings,
            walkers=walkers,
            biases=biases,
            variables=variables,
            metadynamics=metadynamics,
            network=network,
            training=training,
            labelling=labels.part("workers", "attempts").build(LabelSettings, {"limits": limits}),
            executor=_dask(labels.text("dask")) if "dask" in labels else None,
            method=content.text("method") if "method" in content else None,
            model=folder / content.text("model") if "model" in content else None,
            labels=[frame for name in content.texts("data", []) for frame in read_frames(folder / name)],
            base=read_base(content.table("base"), folder, embedding) if "base" in content else None,
            platform=content.text("platform", "CPU"),
        )


def _read_settings(table: Table, topology: app.Topology) -> LoopSettings:
    bonds = None
    if "reacting_bonds" in table:
        where = "[loop] reacting_bonds"
        bonds = [[read_atom(where, entry, topology) for entry in row] for row in table.rows("reacting_bonds")]
    given = table.without("reacting_bonds")
    return given.build(LoopSettings, {"reacting_bonds": bonds}, optional=("bond_limit",))


def _read_walkers(
    content: Table, variables: Mapping[str, Variable], start: Start, folder: Path
) -> tuple[list[openmm.Force], list[Walker], list[Variable]]:
    """Return the biases, a walker for each centre of the umbrella or each [[walker]], and the biased variables."""
    if "umbrella" not in content:
        tables = content.tables("walker") if "walker" in content else [Table("walker", {})]
        return [], [_read_walker(table, folder) for table in tables], []
    if "walker" in content:
        raise InputFileError("an umbrella has a walker for each of its centres: leave [[walker]] out")
    umbrella = content.table("umbrella")
    umbrella.check_keys(("variable", "centres", "force_constant", "starts"))
    variable = variable_of(umbrella, variables)
    constant = umbrella.number("force_constant")
    umbrella.check("force_constant", constant > 0.0, "is above zero")
    umbrella.check("centres", bool(umbrella.numbers("centres")), "has one number or more")
    centres = umbrella.numbers("centres")
    starts: list[FloatArray | None] = [None] * len(centres)
    if "starts" in umbrella:
        frames = read_structures(folder, umbrella.text("starts"), "[umbrella] starts:")
        starts = [*_nearest(frames, variable, centres, start)]
    key = "umbrella"
    walkers = [
        Walker({f"{key}_centre": centre, f"{key}_k": constant}, positions)
        for centre, positions in zip(centres, starts, strict=True)
    ]
    return [variable.umbrella(key, start.periodic)], walkers, [variable]


def _nearest(frames: list[FloatArray], variable: Variable, centres: list[float], start: Start) -> list[FloatArray]:
    """Return for each centre the structure whose variable is nearest to it."""
    count = start.topology.getNumAtoms()
    if any(len(frame) != count for frame in frames):
        raise InputFileError(f"[umbrella] starts: its structures have other numbers of atoms than the System, {count}")
    box = None
    if start.periodic:
        vectors = start.system.getDefaultPeriodicBoxVectors()
        box = np.array([vector.value_in_unit(unit.nanometer) for vector in vectors])
    values = np.array([variable(Geometry(frame, box)) for frame in frames])
    return [frames[int(np.abs(variable.difference(values, centre)).argmin())] for centre in centres]


def _read_walker(table: Table, folder: Path) -> Walker:
    table.check_keys(("parameters", "positions"))
    parameters = table.optional_table("parameters")
    positions = None
    if "positions" in table:
        positions = read_coordinates(folder, table.text("positions"), "[[walker]] positions:")
    return Walker({name: parameters.number(name) for name in parameters}, positions)


def _dask(address: str) -> Callable[[], Executor]:
    """Return a function that connects to a scheduler of Dask.

    Its messages are pickles, which run code when they are read: the scheduler needs TLS or a private network.
    """

    def connect() -> Executor:
        try:
            from distributed import Client
        except ImportError as error:
            raise MissingDependencyError(
                f"labels: dask = {address!r} needs the package distributed: pip install 'qmmlmm[dask]'"
            ) from error
        try:
            executor: Executor = Client(address).get_executor()
        except Exception as error:
            raise LoopError(
                f"[labels] dask = {address!r}: no scheduler of Dask answers there ({type(error).__name__}: {error}); "
                'write the address that it prints, such as "tcp://head:8786"'
            ) from error
        return executor

    return connect
