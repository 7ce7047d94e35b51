"""Learning while simulations run: rounds of sampling, labels, and training of a model for the next round."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.coupling.hamiltonian import Hamiltonian, Term
from qmmlmm.coupling.potential import EvaluatedPotential
from qmmlmm.durable_files import checksum, is_full
from qmmlmm.errors import LoopError, RunDirectoryError
from qmmlmm.geometry import Geometry
from qmmlmm.learning.full_disk import full_disk
from qmmlmm.learning.labels.label_job import FAILED
from qmmlmm.learning.labels.label_queue import LabelQueue, LabelSettings, check_executor
from qmmlmm.learning.labels.label_task import LabelSource
from qmmlmm.learning.labels.labelled_frame import LabelledFrame, check_method
from qmmlmm.learning.labels.labeller import Labeller
from qmmlmm.learning.loop.loop_base import LoopBase, check_given_model
from qmmlmm.learning.loop.loop_checks import (
    check_biases,
    check_directory,
    check_enough_labels,
    check_labels,
    check_model,
    check_network,
    check_parameters,
    check_platform,
    check_region,
    check_variables,
    start_positions,
)
from qmmlmm.learning.loop.loop_identity import check_loop_identity
from qmmlmm.learning.loop.loop_models import MODEL_NAME, LoopModels, bounds_hold
from qmmlmm.learning.loop.loop_report import write_free_energy, write_loop_report
from qmmlmm.learning.loop.loop_sampling import LoopSampling
from qmmlmm.learning.loop.progress import LoopProgress, create_progress
from qmmlmm.learning.loop.reacting_bonds import bonds_along, check_reacting_bonds
from qmmlmm.learning.loop.round_record import DONE, LABEL, SAMPLE, TRAIN, RoundResult
from qmmlmm.learning.loop.running_model import RunningModel
from qmmlmm.learning.loop.settings import LoopSettings, Walker
from qmmlmm.learning.loop.store import LoopStore
from qmmlmm.learning.loop.timer import QM, Timer, overhead
from qmmlmm.learning.training.training_settings import TrainingSettings
from qmmlmm.ml.network_file import load_network
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.ml.response_settings import ResponseSettings
from qmmlmm.mm.creation import MLBackend, create_mixed_system
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.runs.directory_lock import DirectoryLock
from qmmlmm.sampling.collective_variables import CollectiveVariable
from qmmlmm.sampling.metadynamics import Metadynamics
from qmmlmm.setting_checks import check_callable, check_choice, check_instance, check_items
from qmmlmm.units import FloatArray, Vectors

WAITING_TIME = "waiting"
DEFAULT_SETTINGS, DEFAULT_NETWORK, DEFAULT_TRAINING = LoopSettings(), ResponseSettings(), TrainingSettings(steps=2000)
DEFAULT_LABELLING, ONE_WALKER = LabelSettings(), (Walker(),)


@dataclass(frozen=True)
class LoopResult:
    """The result of a loop.

    Parameters
    ----------
    passed : bool
        Whether the bounds hold for `model` with the confidence of the settings.
    rounds : int
        Number of rounds of dynamics with a learned potential.
    labels, failed : int
        Number of labels, computed or given, and of failed ones.
    model : Path
        File for `MLPotential.load`.
    report : Path
    overhead : float
        Fraction of wall time that was not QM, ML or OpenMM.
    """

    passed: bool
    rounds: int
    labels: int
    failed: int
    model: Path
    report: Path
    overhead: float


class LearningLoop:
    """A learning loop in a directory, which continues wherever it was stopped.

    Parameters
    ----------
    directory : path
        Directory of the loop, created if necessary. A loop in it that has the same settings is continued.
    topology : openmm.app.Topology
    system : openmm.System
        System of the force field, as for `create_mixed_system`.
    term : Term
        QM potential of the region with its embedding, for the labels. The learned potential replaces it.
    positions : (n, 3) Quantity or float array, nm
        Positions at which walkers start.
    settings : LoopSettings
        Without `reacting_bonds`, the bonds along which `metadynamics` puts hills may break. Name those that `biases`
        drive.
    walkers : sequence of Walker
    biases : iterable of openmm.Force
        Forces that are added to the System, for example umbrellas; walkers set their global parameters.
    variables : mapping of str to collective variable
        Collective variables for the report, such as `Torsion`.
    metadynamics : Metadynamics, optional
        Hills that walkers with a learned potential add; the free energy is written to ``free_energy.csv``.
    network : ResponseSettings
    training : TrainingSettings
    labelling : LabelSettings
        Number of labels computed at the same time, with the limits of each.
    executor : Executor, or callable that returns one, optional
        Executor of `concurrent.futures` for the labels; processes on this machine by default. Dask, Parsl and MPI send
        tasks and labels as pickles, which run code when they are read: use TLS or a private network.
    method : str, optional
        Name of the method of the labels; functional and basis of a PySCFPotential by default.
    source : LabelSource, optional
        Source of the labels instead of `term`.
    model : ResponseNetwork or path, optional
        Committee to start from, or its file ``network.pt``.
    labels : iterable of LabelledFrame
        Labels of the same region and method to start from.
    base : EvaluatedPotential, optional
        Level to which the models are differences, such as ``XTBPotential("gfn2-xtb")``. Walkers run with the base
        before the first model, and with base and model after it. See ``docs/delta_learning.md``.
    platform : str
        Name of the OpenMM platform.
    platform_properties : mapping of str to str
    ml_backend : {"auto", "torchforce", "pythonforce"}
    on_model : callable, optional
        Function that is called with the MixedSystem and the number of the round after each exchange of the model.

    Attributes
    ----------
    timer : Timer
        Wall time of the present phase by kind.

    Raises
    ------
    LoopError
        If an argument has the wrong type, the arguments do not go together, or the directory holds another loop.
    RunDirectoryError
        If another loop, in this process or another, uses the directory.

    Notes
    -----
    A round has four phases that end with a transaction each: every walker runs (one transaction per walker); some of
    their configurations are chosen; labels are computed (one transaction per label); a model is trained. All random
    numbers come from the seed and the numbers of round and walker, and each walker starts with a reinitialised Context.
    So a loop that was killed has the same results as one that was not, on a deterministic platform (Reference, or CPU
    with one thread).

    Examples
    --------
    ::

        loop = LearningLoop(
            "ligand_loop", topology, system, Term(PySCFPotential("b3lyp", "6-31g*"), ligand, embedding="electrostatic"),
            positions, settings=LoopSettings(force_error=25.0), walkers=[Walker() for _ in range(4)],
        )
        print(loop.run())
    """

    def __init__(
        self,
        directory: str | Path,
        topology: app.Topology,
        system: openmm.System,
        term: Term,
        positions: Vectors,
        *,
        settings: LoopSettings = DEFAULT_SETTINGS,
        walkers: Sequence[Walker] = ONE_WALKER,
        biases: Iterable[openmm.Force] = (),
        variables: Mapping[str, CollectiveVariable] | None = None,
        metadynamics: Metadynamics | None = None,
        network: ResponseSettings = DEFAULT_NETWORK,
        training: TrainingSettings = DEFAULT_TRAINING,
        labelling: LabelSettings = DEFAULT_LABELLING,
        executor: Executor | Callable[[], Executor] | None = None,
        method: str | None = None,
        source: LabelSource | None = None,
        model: ResponseNetwork | str | Path | None = None,
        labels: Iterable[LabelledFrame] = (),
        base: EvaluatedPotential | None = None,
        platform: str = "CPU",
        platform_properties: Mapping[str, str] | None = None,
        ml_backend: MLBackend = "auto",
        on_model: Callable[[MixedSystem, int], None] | None = None,
    ) -> None:
        self.directory = check_directory(directory)
        kinds: tuple[tuple[str, object, type], ...] = (
            ("topology", topology, app.Topology), ("system", system, openmm.System), ("term", term, Term),
            ("settings", settings, LoopSettings), ("network", network, ResponseSettings),
            ("training", training, TrainingSettings), ("labelling", labelling, LabelSettings),
        )  # fmt: skip
        for argument, value, kind in kinds:
            check_instance(argument, value, kind, error=LoopError)
        if metadynamics is not None:
            check_instance("metadynamics", metadynamics, Metadynamics, error=LoopError)
        if source is not None:
            check_instance("source", source, LabelSource, error=LoopError)  # type: ignore[type-abstract]
        if on_model is not None:
            check_callable("on_model", on_model, error=LoopError)
        check_choice("ml_backend", ml_backend, get_args(MLBackend), LoopError)
        check_executor(executor)
        check_network(network, term)
        properties = check_platform(platform, platform_properties)
        settings = _with_reacting_bonds(settings, topology, term.region.atoms, metadynamics)
        self.settings = settings
        self.walkers = list(check_items("walkers", walkers, Walker, error=LoopError))
        self._system, self._term = system, term
        starts = start_positions(positions, self.walkers, system.getNumParticles())
        self._starts_checksum = checksum(np.concatenate(starts).tobytes())
        box = _box(system)
        self._biases = check_biases(biases)
        self.variables = check_variables({} if variables is None else variables, metadynamics, Geometry(starts[0], box))
        self.metadynamics = metadynamics
        if metadynamics is not None and metadynamics.interval % settings.check_interval:
            raise LoopError(
                f"interval of metadynamics is a multiple of check_interval, got {metadynamics.interval} and "
                f"{settings.check_interval}"
            )
        self._network, self._training = network, training
        self._executor, self._labelling = executor, labelling
        self._method = _method_name(term) if method is None else check_method("method", method, LoopError)
        given = self._given_model(model)
        self._base = None if base is None else LoopBase(base, term, self._method)
        reference = create_mixed_system(topology, system, Hamiltonian([term]))
        (self._name,) = reference.terms
        self._layout = reference.terms[self._name].layout
        specification = self._layout.specification
        check_region(specification)
        if self._base is not None:
            self._base.check(specification, network)
        self._given_labels = check_labels(labels, specification, self._method)
        check_enough_labels(self._given_labels, given)
        if given is not None:
            check_model(given, specification, term.potential.capabilities.state)
            check_given_model(given, self._base)
        self._source = source or Labeller(reference.evaluated_term(self._name), self._method)
        at_once = min(settings.walkers_at_once, len(self.walkers))
        if at_once > 1 and platform == "Reference":
            raise LoopError(
                f"walkers_at_once={settings.walkers_at_once} on the Reference platform, whose Contexts share one "
                "stream of random numbers in a process: walkers would depend on each other. Use the CPU platform"
            )
        if at_once > 1 and platform == "CPU" and "Threads" not in properties:
            properties["Threads"] = str(max(1, (os.cpu_count() or 1) // at_once))
        running = [
            RunningModel(
                topology, system, term, self._biases, settings, self.variables, platform, properties, ml_backend,
                metadynamics, base,
            )
            for _ in range(at_once)
        ]  # fmt: skip
        # A Context finds errors in biases and properties before the first label; it is not kept.
        check_parameters(self.walkers, running[0].force_field().context.getParameters())
        self.timer = Timer()
        self._models = LoopModels(self.directory, settings, network, training, given, self.timer, self._base)
        self._sampling = LoopSampling(
            settings,
            self.walkers,
            [Geometry(start, box) for start in starts],
            term.region.atoms,
            np.asarray(self._layout.specification.atomic_numbers),
            running,
            self._models,
            self.timer,
            metadynamics,
            on_model,
        )

    @staticmethod
    def _given_model(model: ResponseNetwork | str | Path | None) -> ResponseNetwork | None:
        """Return the model to start from."""
        if model is None or isinstance(model, ResponseNetwork):
            return model
        if not isinstance(model, str | Path):
            raise LoopError(f"model is a ResponseNetwork or the path of network.pt, got {model!r}")
        return load_network(model)

    @property
    def mixed(self) -> MixedSystem | None:
        """The System with the learned potential; None before the first model."""
        return self._sampling.mixed

    def run(self, progress: bool | None = None) -> LoopResult:
        """Run until the bounds hold or all rounds are complete; continue a loop that the directory holds.

        Parameters
        ----------
        progress : bool, optional
            Whether to show progress, as a live table on a terminal and as lines elsewhere. By default only on a
            terminal.

        Raises
        ------
        LoopError
            If the loop cannot continue. The files in the directory remain valid.
        LoopStoreError
            If the disk is full or the files cannot be read.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            lock = DirectoryLock(self.directory)
        except OSError as error:
            if is_full(error):
                raise full_disk(self.directory, error) from error
            raise
        except RunDirectoryError as error:
            text = str(error).replace("call close() on the RunDirectory that holds it", "wait for it to end")
            raise RunDirectoryError(text) from None
        store = None
        queue = None
        shown = create_progress(progress, len(self.walkers), self.settings)
        try:
            store = LoopStore(self.directory, self._system.getNumParticles())
            self._models.prepare()
            check_loop_identity(store, self._identity())
            queue = LabelQueue(store, self._source, self._label_size(), self._labelling, self._executor)
            with shown:
                return self._run(store, queue, shown)
        except OSError as error:
            if is_full(error):
                raise full_disk(self.directory, error) from error
            raise
        finally:
            if queue is not None:
                queue.close()
            if store is not None:
                store.close()
            lock.release()

    def _run(self, store: LoopStore, queue: LabelQueue, shown: LoopProgress) -> LoopResult:
        self.timer.restart()
        number, phase, result = store.round()
        if number < 0:
            number, phase, result = 0, SAMPLE, {}
            store.enter(number, phase, result)
        if phase == LABEL and store.jobs(number=number) == store.jobs(FAILED, number=number):
            # The user has seen the error and may have removed its reason.
            store.try_again(number)
        while True:
            shown.phase(number, phase, store.counts(), store.rounds())
            if phase == SAMPLE:
                if number == 0:
                    self._sampling.start(store, self._given_labels)
                else:
                    self._sampling.run_round(store, number, shown)
                self._sampling.choose(store, number)
                phase = LABEL
            elif phase == LABEL:
                with self.timer.measure(WAITING_TIME):
                    busy = queue.run(lambda: shown.labels(store.counts()))
                # Waiting counts as QM only while at least one label was being computed.
                self.timer.add(QM, min(busy, self.timer.take(WAITING_TIME)))
                self._check_labels(store, number)
                phase = TRAIN
                store.enter(number, phase, result)
            elif phase == TRAIN:
                result = self._models.train(store, number, shown.training)
                phase = DONE
                store.enter(number, phase, result)
            else:
                store.add_times(number, self.timer.restart())
                if self.metadynamics is not None:
                    write_free_energy(
                        self.directory, store, self.metadynamics, self.settings, len(self.walkers), self.variables
                    )
                report = write_loop_report(self.directory, store, self.settings)
                # The settings may have tighter bounds than before.
                if result.get("passed") and not bounds_hold(result, self.settings):
                    phase = TRAIN
                    store.enter(number, phase, {})
                    continue
                if result.get("passed") or number >= self.settings.max_rounds:
                    return self._result(store, number, result, report)
                number, phase, result = number + 1, SAMPLE, {}
                store.enter(number, phase, result)
                continue
            store.add_times(number, self.timer.restart())

    def _check_labels(self, store: LoopStore, number: int) -> None:
        jobs = store.jobs(number=number)
        failed = [job for job in jobs if job.status == FAILED]
        if failed and len(failed) == len(jobs):
            raise LoopError(
                f"none of the {len(jobs)} labels of round {number} could be made; the first reason: "
                f"{failed[0].reason}. Geometries and reasons are in the table jobs of {store.path}; start the loop "
                "again to repeat them"
            )

    def _label_size(self) -> int:
        """Return an upper limit of the size of a label, bytes."""
        sites = len(self._layout.specification.atomic_numbers)
        near = min(self._layout.n_particles, 4000) if self._layout.surroundings is not None else 0
        return 4096 + 500 * sites + 90 * near

    def _identity(self) -> dict[str, object]:
        """Return all values that determine the results of the loop."""
        return {
            "settings": self.settings.identity(),
            "reacting bonds": self.settings.reacting_bonds or None,
            "network": asdict(self._network),
            "training": asdict(self._training),
            "walkers": [dict(walker.parameters) for walker in self.walkers],
            "start": self._starts_checksum,
            "method": self._method,
            "potential": repr(self._term.potential),
            "region": [self._term.region.name, list(map(int, self._term.region.atoms))],
            "particles": self._system.getNumParticles(),
            "biases": [checksum(xml) for xml in self._biases],
            "labels": len(self._given_labels),
            "base": None if self._base is None else self._base.difference.base.as_json(),
            "metadynamics": None if self.metadynamics is None else self.metadynamics.identity(),
        }

    def _result(self, store: LoopStore, number: int, result: RoundResult, report: Path) -> LoopResult:
        counts = store.counts()
        return LoopResult(
            passed=bool(result.get("passed")),
            rounds=number,
            labels=counts["labelled"],
            failed=counts[FAILED],
            model=self.directory / MODEL_NAME,
            report=report,
            overhead=overhead(store.times()),
        )


def _with_reacting_bonds(
    settings: LoopSettings, topology: app.Topology, atoms: Sequence[int], metadynamics: Metadynamics | None
) -> LoopSettings:
    """Return settings with reacting bonds of the region: those that were given, or those along which hills are put."""
    if settings.reacting_bonds is None:
        along = () if metadynamics is None else metadynamics.along
        return replace(settings, reacting_bonds=bonds_along(topology, atoms, (e.variable for e in along)) or None)
    check_reacting_bonds(topology, atoms, [(first, second) for first, second in settings.reacting_bonds])
    return settings


def _method_name(term: Term) -> str:
    name = term.potential.method_name
    return name if term.smeared_charges is None else f"{name}, smeared charges"


def _box(system: openmm.System) -> FloatArray | None:
    if not system.usesPeriodicBoundaryConditions():
        return None
    vectors = system.getDefaultPeriodicBoxVectors()
    return np.array([list(v.value_in_unit(unit.nanometer)) for v in vectors])
