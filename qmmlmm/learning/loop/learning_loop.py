"""Learning while a simulation runs: sample, be unsure, label, train, put the new model in, and again."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.coupling.hamiltonian import Hamiltonian, Term
from qmmlmm.learning.data_set import format_frame
from qmmlmm.learning.labelled_frame import LabelledFrame
from qmmlmm.learning.labelling import Labeller
from qmmlmm.learning.loop.collective_variables import CollectiveVariable
from qmmlmm.learning.loop.draws import draw_fresh_looks, draw_seed
from qmmlmm.learning.loop.errors import LoopError, full_disk, is_full
from qmmlmm.learning.loop.first_configurations import start_walk
from qmmlmm.learning.loop.geometry_record import Snapshot, checksum
from qmmlmm.learning.loop.label_queue import LabelQueue, LabelSettings
from qmmlmm.learning.loop.label_task import LabelSource
from qmmlmm.learning.loop.loop_models import MODEL_NAME, LoopModels, holds
from qmmlmm.learning.loop.metadynamics import Hill, Metadynamics
from qmmlmm.learning.loop.progress import LoopProgress, create_progress
from qmmlmm.learning.loop.running_model import RunningModel
from qmmlmm.learning.loop.same_loop import check_same
from qmmlmm.learning.loop.selection import choose_diverse, describe_region
from qmmlmm.learning.loop.settings import LoopSettings, Walker
from qmmlmm.learning.loop.side_by_side import side_by_side
from qmmlmm.learning.loop.store import CANDIDATE, FAILED, LoopStore
from qmmlmm.learning.loop.time_book import ML, OPENMM, QM, TimeBook, overhead
from qmmlmm.learning.loop.walk import Walk, Walking
from qmmlmm.learning.network_file import load_network
from qmmlmm.learning.training import TrainingSettings
from qmmlmm.ml.response_network import ResponseNetwork, ResponseSettings
from qmmlmm.mm.creation import create_mixed_system
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.sampling.directory_lock import DirectoryLock
from qmmlmm.sampling.errors import RunDirectoryError
from qmmlmm.units import FloatArray, in_unit

SAMPLE, LABEL, TRAIN, DONE = "sample", "label", "train", "done"
DEFAULT_SETTINGS, DEFAULT_NETWORK, DEFAULT_TRAINING = LoopSettings(), ResponseSettings(), TrainingSettings(steps=2000)
DEFAULT_LABELLING, ONE_WALKER = LabelSettings(), (Walker(),)


@dataclass(frozen=True)
class LoopResult:
    """Where a loop ended.

    Parameters
    ----------
    passed : bool
        Whether the bounds hold, with the settings' confidence, for `model`.
    rounds : int
        Of dynamics with a learned potential.
    labels, failed : int
        Made or given; set aside.
    model : Path
        For `MLPotential.load`.
    report : Path
    overhead : float
        Share of wall time that was not QM, ML or OpenMM.
    """

    passed: bool
    rounds: int
    labels: int
    failed: int
    model: Path
    report: Path
    overhead: float


class LearningLoop:
    """A loop in a directory, from which it goes on whenever and however it was stopped.

    Parameters
    ----------
    directory : path
        Made if it does not exist. If it holds a loop with the same settings, that goes on.
    topology : openmm.app.Topology
    system : openmm.System
        The force field alone, as for `create_mixed_system`.
    term : Term
        The QM potential on its region, with its embedding: what makes the labels. The learned potential takes
        its place.
    positions : (n, 3) Quantity or array, nm
        Where walkers start.
    settings : LoopSettings
    walkers : sequence of Walker
    biases : iterable of openmm.Force
        Added to the System, for example umbrellas; walkers set their global parameters.
    variables : mapping of str to collective variable
        For the report: functions of positions and box, such as `Torsion`.
    metadynamics : Metadynamics, optional
        Hills that walkers put while they run with a learned potential; the profile is written to ``free_energy.csv``.
    network : ResponseSettings
    training : TrainingSettings
    labelling : LabelSettings
        How many at once, with how many threads, how much memory and time each.
    executor : Executor, or callable that returns one, optional
        Any of `concurrent.futures`; processes on this machine by default.
    method : str, optional
        Name of the labels' method; functional and basis of a PySCFPotential by default.
    source : LabelSource, optional
        Makes the labels in the place of `term`.
    model : ResponseNetwork or path, optional
        A committee to start from, or its file ``network.pt``.
    labels : iterable of LabelledFrame
        Of the same region and method, to start from.
    platform : str
        OpenMM platform.
    platform_properties : mapping of str to str
    ml_backend : {"auto", "torchforce", "pythonforce"}
    on_model : callable, optional
        Called with the MixedSystem and the number of the round whenever a new model was put in.

    Raises
    ------
    LoopError
        If the arguments do not go together, or the directory holds another loop.
    RunDirectoryError
        If another loop, in this process or another, works in the directory.

    Notes
    -----
    A round has four phases, each of which ends in one transaction: every walker runs (a transaction for each); some of
    what they found is chosen; labels are made (a transaction for each); a model is trained. All random numbers come
    from the seed and the numbers of round and walker, and each walk begins in a Context that was initialised anew, so
    that a loop that was killed takes the same course as one that was not, on a platform that is deterministic
    (Reference, or CPU with one thread).

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
        positions: Any,
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
        platform: str = "CPU",
        platform_properties: Mapping[str, str] | None = None,
        ml_backend: Any = "auto",
        on_model: Callable[[MixedSystem, int], None] | None = None,
    ) -> None:
        self.directory = Path(directory)
        self.settings = settings
        self.walkers = list(walkers)
        if not self.walkers:
            raise LoopError("a loop needs a walker")
        self._topology, self._system, self._term = topology, system, term
        self._positions = np.array(in_unit(positions, unit.nanometer), dtype=float)
        self._biases = [openmm.XmlSerializer.serialize(force) for force in biases]
        self.variables = dict(variables or {})
        self.metadynamics = metadynamics
        if metadynamics is not None and metadynamics.interval % settings.check_interval:
            raise LoopError(
                f"interval of metadynamics is a multiple of check_interval, got {metadynamics.interval} and "
                f"{settings.check_interval}"
            )
        self._network, self._training = network, training
        self._executor, self._labelling = executor, labelling
        self._method = method or _method_name(term)
        self._given_labels = list(labels)
        reference = create_mixed_system(topology, system, Hamiltonian([term]))
        self._name = reference.hamiltonian.term_names()[0]
        self._layout = reference.layouts[self._name]
        self._source = source or Labeller(reference.evaluated_term(self._name), self._method)
        properties = dict(platform_properties or {})
        at_once = min(settings.walkers_at_once, len(self.walkers))
        if at_once > 1 and platform == "Reference":
            raise LoopError(
                f"walkers_at_once={settings.walkers_at_once} on the Reference platform, whose Contexts draw from one "
                "stream of random numbers in a process: walkers would disturb each other. Take the CPU platform"
            )
        if at_once > 1 and platform == "CPU" and "Threads" not in properties:
            properties["Threads"] = str(max(1, (os.cpu_count() or 1) // at_once))
        # One for each walker that runs at the same time; the first also does what the main thread has to do.
        self._running = [
            RunningModel(
                topology, system, term, self._biases, settings, self.variables, platform, properties, ml_backend,
                metadynamics,
            )
            for _ in range(at_once)
        ]  # fmt: skip
        self._on_model = on_model
        self.book = TimeBook()
        given = load_network(model) if isinstance(model, str | Path) else model
        self._models = LoopModels(self.directory, settings, network, training, given, self.book)

    @property
    def mixed(self) -> MixedSystem | None:
        """The System with the learned potential, once there is one."""
        return self._running[0].mixed

    def run(self, progress: bool | None = None) -> LoopResult:
        """Run until the bounds hold or the rounds are used up; go on from where the directory is.

        Parameters
        ----------
        progress : bool, optional
            Whether to show what goes on; a live table on a terminal, lines elsewhere. By default only on a terminal.

        Raises
        ------
        LoopError
            If the loop cannot go on. What is in the directory stays good.
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
            check_same(store, self._made_of())
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
        from qmmlmm.learning.loop.loop_report import write_free_energy, write_loop_report

        self.book.close()
        number, phase, result = store.round()
        if number < 0:
            number, phase, result = 0, SAMPLE, {}
            store.enter(number, phase, result)
        if phase == LABEL and store.jobs(number=number) == store.jobs(FAILED, number=number):
            store.try_again(number)  # whatever the reason was, the user has had a look at it
        while True:
            shown.phase(number, phase, store.counts(), store.rounds())
            if phase == SAMPLE:
                self._start(store) if number == 0 else self._sample(store, number, shown)
                self._choose(store, number)
                phase = LABEL
            elif phase == LABEL:
                with self.book.booking("waiting"):
                    busy = queue.run(lambda: shown.labels(store.counts()))
                self._book_labels(busy)
                self._check_labels(store, number)
                phase = TRAIN
                store.enter(number, phase, result)
            elif phase == TRAIN:
                result = self._models.train(store, number, shown.training)
                phase = DONE
                store.enter(number, phase, result)
            else:
                store.book(number, self.book.close())
                if self.metadynamics is not None:
                    write_free_energy(
                        self.directory, store, self.metadynamics, self.settings, len(self.walkers), self.variables
                    )
                report = write_loop_report(self.directory, store, self.settings)
                if result.get("passed") and not holds(result, self.settings):  # the bounds are tighter than they were
                    phase = TRAIN
                    store.enter(number, phase, {})
                    continue
                if result.get("passed") or number >= self.settings.max_rounds:
                    return self._result(store, number, result, report)
                number, phase, result = number + 1, SAMPLE, {}
                store.enter(number, phase, result)
                continue
            store.book(number, self.book.close())

    def _book_labels(self, busy: float) -> None:
        """Of the time that was waited, what passed without any label in the making is not QM."""
        spent = self.book.take("waiting")
        self.book.add(QM, min(busy, spent))

    # Sampling.

    def _start(self, store: LoopStore) -> None:
        """Let the force field make configurations to start from."""
        settings, done = self.settings, store.walkers_done(0)
        if len(done) == len(self.walkers):
            return
        if self._given_labels and not store.counts()["labelled"]:
            store.add_given([(frame.name, format_frame(frame)) for frame in self._given_labels])
        wanted = 0 if self._given_labels or self._models.given is not None else settings.start_labels
        box = _box(self._system)
        walking = self._running[0].force_field()
        for k, walker in enumerate(self.walkers):
            if k in done:
                continue
            count = wanted // len(self.walkers) + (k < wanted % len(self.walkers))
            with self.book.booking(OPENMM):
                state = Snapshot(walker.start(self._positions), box)
                atoms = self._term.region.atoms
                now, candidates = start_walk(walking, self._running[0].guard, atoms, settings, k, walker, state, count)
            # The force field's constraints within the region are gone in what comes next.
            store.add_walk(0, k, dataclasses.replace(now, velocities=None), candidates)

    def _sample(self, store: LoopStore, number: int, shown: LoopProgress) -> None:
        """Run all walkers with the model of the round before."""
        done = store.walkers_done(number)
        left = [k for k in range(len(self.walkers)) if k not in done]
        if not left:
            return
        drawn = draw_fresh_looks(self.settings, number, len(self.walkers))
        # Everything is read before, and written by this thread, in the order of walkers.
        tasks = [(k, store.walker_state(number - 1, k), self._hills(store, number, k)) for k in left]
        places = [self._put_in(number - 1, running) for running in self._running[: len(left)]]
        show = threading.Lock()

        def work(place: tuple[MixedSystem, Walking], task: tuple[int, Snapshot, list[Hill]]) -> Walk:
            (mixed, walking), (k, state, hills) = place, task

            def ticking(step: int, uncertainty: float) -> None:
                with show:
                    shown.walker(k, step, uncertainty)

            ticking(0, float("nan"))
            walking.begin(state, self.walkers[k].parameters, draw_seed(self.settings, number, k, "walk"), hills)
            return walking.learned(mixed, self._running[0].name, number, k, drawn[k], ticking)

        with contextlib.closing(side_by_side(places, tasks, work)) as walks:
            for k in left:
                with self.book.booking(OPENMM):
                    walk = next(walks)
                put = None if self.metadynamics is None else walk.hills
                store.add_walk(number, k, walk.state, walk.candidates, walk.trace, walk.event, put)
                with show:
                    shown.walker(k, walk.steps, float("nan"), walk.event)

    def _hills(self, store: LoopStore, number: int, walker: int) -> list[Hill]:
        """Return the hills with which a walker starts: none of the same round, whatever the order of walkers."""
        if self.metadynamics is None:
            return []
        return store.hills(number, None if self.metadynamics.shared else walker)

    def _choose(self, store: LoopStore, number: int) -> None:
        """Choose which candidates to label."""
        jobs = store.jobs(CANDIDATE, number=number)
        sure = [job for job in jobs if job.kind in ("start", "fresh", "runaway")]
        pool = [job for job in jobs if job.kind == "uncertain"]
        chosen = [job.id for job in sure]
        if pool:
            running = self._running[0]
            self._put_in(number - 1, running)  # which it is not yet after a resume
            with self.book.booking(ML):
                numbers = np.asarray(self._layout.specification.atomic_numbers)
                known = [describe_region(numbers, f.positions, f.potential) for _, f in store.labels()]
                known += [
                    running.describe(job, numbers) for job in [*sure, *store.jobs(FAILED)] if job.snapshot is not None
                ]
                found = choose_diverse(
                    np.array([running.describe(job, numbers) for job in pool]),
                    np.array([job.uncertainty for job in pool]),
                    np.array(known),
                    self.settings.labels_per_round,
                    len(numbers) * (len(numbers) - 1) // 2,
                )
            chosen += [pool[k].id for k in found]
        store.choose(number, chosen, LABEL)

    # Labels and training.

    def _check_labels(self, store: LoopStore, number: int) -> None:
        jobs = store.jobs(number=number)
        failed = [job for job in jobs if job.status == FAILED]
        if failed and len(failed) == len(jobs):
            raise LoopError(
                f"none of the {len(jobs)} labels of round {number} could be made; the first reason: "
                f"{failed[0].reason}. Geometries and reasons are in the table jobs of {store.path}"
            )

    def _put_in(self, number: int, running: RunningModel) -> tuple[MixedSystem, Walking]:
        if running is self._running[0]:
            return running.put_in(number, functools.partial(self._models.potential, number), self._on_model)
        return running.put_in(number, functools.partial(self._models.another_potential, number))

    # What stands around it.

    def _label_size(self) -> int:
        """Return the bytes that a label may take, from above."""
        sites = len(self._layout.specification.atomic_numbers)
        near = min(self._layout.n_particles, 4000) if self._layout.surroundings is not None else 0
        return 4096 + 500 * sites + 90 * near

    def _made_of(self) -> dict[str, Any]:
        """Return all that the course depends on."""
        return {
            "settings": self.settings.course(),
            "network": asdict(self._network),
            "training": asdict(self._training),
            "walkers": [dict(walker.parameters) for walker in self.walkers],
            "start": checksum(np.concatenate([w.start(self._positions) for w in self.walkers]).tobytes()),
            "method": self._method,
            "potential": repr(self._term.potential),
            "region": [self._term.region.name, list(map(int, self._term.region.atoms))],
            "particles": self._system.getNumParticles(),
            "biases": [checksum(xml) for xml in self._biases],
            "labels": len(self._given_labels),
            "metadynamics": None if self.metadynamics is None else self.metadynamics.course(),
        }

    def _result(self, store: LoopStore, number: int, result: dict[str, Any], report: Path) -> LoopResult:
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


def _method_name(term: Term) -> str:
    potential = term.potential
    method, basis = getattr(potential, "method", None), getattr(potential, "basis", None)
    name = f"{method}/{basis}" if method and basis else type(potential).__name__
    return name if term.smeared_charges is None else f"{name}, smeared charges"


def _box(system: openmm.System) -> FloatArray:
    if not system.usesPeriodicBoundaryConditions():
        return np.eye(3)
    vectors = system.getDefaultPeriodicBoxVectors()
    return np.array([list(v.value_in_unit(unit.nanometer)) for v in vectors])
