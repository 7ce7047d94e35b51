"""Learning while a simulation runs: sample, be unsure, label, train, put the new model in, and again."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.coupling.hamiltonian import Hamiltonian, Term
from qmmlmm.errors import PotentialError, listed
from qmmlmm.learning.data_set import format_frame
from qmmlmm.learning.labelled_frame import LabelledFrame
from qmmlmm.learning.labelling import Labeller
from qmmlmm.learning.loop.collective_variables import CollectiveVariable
from qmmlmm.learning.loop.error_bound import ErrorBound
from qmmlmm.learning.loop.errors import LoopError, full_disk, is_full
from qmmlmm.learning.loop.geometry_record import Snapshot, checksum
from qmmlmm.learning.loop.guard import Guard
from qmmlmm.learning.loop.label_queue import LabelQueue, LabelSettings
from qmmlmm.learning.loop.label_task import LabelSource
from qmmlmm.learning.loop.progress import LoopProgress, create_progress
from qmmlmm.learning.loop.retraining import judge, retrain
from qmmlmm.learning.loop.selection import choose_diverse, describe_region
from qmmlmm.learning.loop.settings import LoopSettings, Walker
from qmmlmm.learning.loop.store import CANDIDATE, FAILED, Job, LoopStore
from qmmlmm.learning.loop.time_book import ML, OPENMM, QM, TimeBook, overhead
from qmmlmm.learning.loop.walk import Walking, displaced
from qmmlmm.learning.network_file import load_network, region_potential, save_network
from qmmlmm.learning.training import TrainingSettings
from qmmlmm.ml.ml_potential import MLPotential
from qmmlmm.ml.response_network import ResponseNetwork, ResponseSettings
from qmmlmm.mm.mixed_system import MixedSystem, create_mixed_system
from qmmlmm.mm.model_exchange import exchange_model
from qmmlmm.sampling.directory_lock import DirectoryLock
from qmmlmm.sampling.errors import RunDirectoryError
from qmmlmm.units import FloatArray, in_unit

SAMPLE, LABEL, TRAIN, DONE = "sample", "label", "train", "done"
DEFAULT_SETTINGS, DEFAULT_NETWORK, DEFAULT_TRAINING = LoopSettings(), ResponseSettings(), TrainingSettings(steps=2000)
DEFAULT_LABELLING, ONE_WALKER = LabelSettings(), (Walker(),)
MODELS_NAME = "models"
MODEL_NAME = "model.pt"


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
        self._network, self._training = network, training
        self._executor, self._labelling = executor, labelling
        self._method = method or _method_name(term)
        self._platform = openmm.Platform.getPlatform(platform)
        self._properties = dict(platform_properties or {})
        if platform == "CPU":
            self._properties.setdefault("DeterministicForces", "true")
        self._backend, self._on_model = ml_backend, on_model
        self._given_model = load_network(model) if isinstance(model, str | Path) else model
        self._given_labels = list(labels)
        if self._given_model is not None and self._given_model.members < 2:
            raise LoopError("the model to start from is no committee; train one with members=4")
        reference = create_mixed_system(topology, system, Hamiltonian([term]))
        self._name = reference.hamiltonian.term_names()[0]
        self._layout = reference.layouts[self._name]
        self._source = source or Labeller(reference.evaluated_term(self._name), self._method)
        self._ml_name = f"{term.region.name}/ML"
        self._guard = Guard(topology, system, term.region.atoms, settings)
        self._mixed: MixedSystem | None = None
        self._walking: Walking | None = None
        self._running_model = -1
        self._potential: tuple[int, MLPotential] | None = None
        self.book = TimeBook()

    @property
    def mixed(self) -> MixedSystem | None:
        """The System with the learned potential, once there is one."""
        return self._mixed

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
            (self.directory / MODELS_NAME).mkdir(exist_ok=True)
            self._check_same(store)
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
        from qmmlmm.learning.loop.loop_report import write_loop_report

        self.book.close()
        number, phase, result = store.round()
        if number < 0:
            number, phase, result = 0, SAMPLE, {}
            store.enter(number, phase, result)
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
                result = self._train(store, number, shown)
                phase = DONE
                store.enter(number, phase, result)
            else:
                store.book(number, self.book.close())
                report = write_loop_report(self.directory, store, self.settings)
                if result.get("passed") and not self._holds(result):  # the bounds are tighter than they were
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
        wanted = 0 if self._given_labels or self._given_model is not None else settings.start_labels
        system = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(self._system))
        self._add_biases(system)
        box = _box(system)
        walking = self._walking_in(system)
        for k, walker in enumerate(self.walkers):
            if k in done:
                continue
            count = wanted // len(self.walkers) + (k < wanted % len(self.walkers))
            with self.book.booking(OPENMM):
                now, candidates = self._start_walk(
                    walking, k, walker, Snapshot(walker.start(self._positions), box), count
                )
            # The force field's constraints within the region are gone in what comes next.
            store.add_walk(0, k, dataclasses.replace(now, velocities=None), candidates)

    def _start_walk(
        self, walking: Walking, k: int, walker: Walker, state: Snapshot, count: int
    ) -> tuple[Snapshot, list[Job]]:
        """Return where the force field leads a walker, and configurations from the way."""
        steps, seed = self.settings.start_steps, self._seed(0, k, "walk")
        walking.begin(state, walker.parameters, seed)
        if steps:
            walking.minimise()
            walking.begin(dataclasses.replace(walking.snapshot(), velocities=None), walker.parameters, seed)
        rng = np.random.default_rng(self._seed(0, k, "displace"))
        candidates: list[Job] = []
        now = state
        marks = np.linspace(0, steps, max(1, count) + 1).astype(int)
        for before, step in itertools.pairwise(marks):
            now = walking.plain(int(step - before))
            if len(candidates) < count:
                candidates.append(self._displaced_job(walking, now, k, int(step), rng))
        return now, candidates

    def _displaced_job(self, walking: Walking, now: Snapshot, k: int, step: int, rng: np.random.Generator) -> Job:
        for size in (1.0, 1.0, 1.0, 0.5, 0.25, 0.0):
            places = displaced(now.positions, self._term.region.atoms, size * self.settings.start_displacement, rng)
            if not self._guard.geometry_fault(places):
                break
        moved = Snapshot(places, now.box)
        return Job(0, "start", k, step, moved, variables=walking.values(moved))

    def _sample(self, store: LoopStore, number: int, shown: LoopProgress) -> None:
        """Run all walkers with the model of the round before."""
        done = store.walkers_done(number)
        if len(done) == len(self.walkers):
            return
        mixed, walking = self._put_in(number - 1)
        drawn = self._draw_fresh(number)
        for k, walker in enumerate(self.walkers):
            if k in done:
                continue
            state = store.walker_state(number - 1, k)
            shown.walker(k, 0, float("nan"))
            with self.book.booking(OPENMM):
                walking.begin(state, walker.parameters, self._seed(number, k, "walk"))
                ticking = functools.partial(shown.walker, k)
                walk = walking.learned(mixed, self._ml_name, number, k, drawn[k], ticking)
            store.add_walk(number, k, walk.state, walk.candidates, walk.trace, walk.event)
            shown.walker(k, walk.steps, float("nan"), walk.event)

    def _draw_fresh(self, number: int) -> list[list[int]]:
        """Return for each walker the looks whose configurations tell the error, drawn before the walk."""
        rng = np.random.default_rng(self._seed(number, 0, "fresh"))
        looks = self.settings.steps_per_round // self.settings.check_interval
        n = len(self.walkers)
        order = rng.permutation(n)
        drawn: list[list[int]] = [[] for _ in range(n)]
        for k in range(self.settings.fresh_labels):
            drawn[order[k % n]].append(0)
        # One look from each equal stretch, so that they are far apart in time.
        for k in range(n):
            edges = np.linspace(0, looks, len(drawn[k]) + 1)
            drawn[k] = sorted({int(rng.uniform(low, high)) for low, high in itertools.pairwise(edges)})
        return drawn

    def _choose(self, store: LoopStore, number: int) -> None:
        """Choose which candidates to label."""
        jobs = store.jobs(CANDIDATE, number=number)
        sure = [job for job in jobs if job.kind in ("start", "fresh", "runaway")]
        pool = [job for job in jobs if job.kind == "uncertain"]
        chosen = [job.id for job in sure]
        if pool and self._mixed is not None:
            with self.book.booking(ML):
                numbers = np.asarray(self._layout.specification.atomic_numbers)
                known = [describe_region(numbers, f.positions, f.potential) for _, f in store.labels()]
                known += [self._describe(job) for job in [*sure, *store.jobs(FAILED)] if job.snapshot is not None]
                found = choose_diverse(
                    np.array([self._describe(job) for job in pool]),
                    np.array([job.uncertainty for job in pool]),
                    np.array(known),
                    self.settings.labels_per_round,
                    len(numbers) * (len(numbers) - 1) // 2,
                )
            chosen += [pool[k].id for k in found]
        store.choose(number, chosen, LABEL)

    def _describe(self, job: Job) -> FloatArray:
        assert self._mixed is not None
        assert job.snapshot is not None
        sites, potential = self._mixed.committee(self._ml_name).environment(job.snapshot.positions, job.snapshot.box)
        return describe_region(np.asarray(self._layout.specification.atomic_numbers), sites, potential)

    # Labels and training.

    def _check_labels(self, store: LoopStore, number: int) -> None:
        jobs = store.jobs(number=number)
        failed = [job for job in jobs if job.status == FAILED]
        if failed and len(failed) == len(jobs):
            raise LoopError(
                f"none of the {len(jobs)} labels of round {number} could be made; the first reason: "
                f"{failed[0].reason}. Geometries and reasons are in the table jobs of {store.path}"
            )

    def _train(self, store: LoopStore, number: int, shown: LoopProgress) -> dict[str, Any]:
        """Tell the error of the model that ran, and train the next unless that was good enough."""
        result: dict[str, Any] = {}
        settings = self.settings
        if number > 0:
            result = self._judge(store, number)
            if result["passed"]:
                self._save_model(number - 1)
                result["network"] = checksum(self._network_path(number - 1).read_bytes())
                return result
        path = self._network_path(number)
        if number == 0 and self._given_model is not None:
            network = self._given_model
        else:
            frames = [frame for job, frame in store.labels() if job.round <= number]
            last = None
            if settings.retrain == "continue" and number > 0:
                last = self._load(store, number - 1)
            shown.training(len(frames))
            with self.book.booking(ML):
                trained = retrain(
                    frames, last, network=self._network, training=self._training, members=settings.members,
                    share=settings.validation, checkpoint=self.directory / "training.pt",
                )  # fmt: skip
            network = trained.model
            result["validation"] = asdict(trained.validation)
            result["frames"] = len(frames)
        save_network(network, path)
        result["network"] = checksum(path.read_bytes())
        (self.directory / "training.pt").unlink(missing_ok=True)
        self._save_model(number)
        return result

    def _judge(self, store: LoopStore, number: int) -> dict[str, Any]:
        """Return the errors of the model that ran in a round on its fresh configurations."""
        settings = self.settings
        fresh = [frame for job, frame in store.labels(number) if job.kind == "fresh"]
        network = self._load(store, number - 1)
        with self.book.booking(ML):
            bound, spread = judge(network, fresh, settings.confidence)
        stopped = store.events(number)
        result: dict[str, Any] = {
            "error": asdict(bound),
            "stopped": len(stopped),
        }
        result["passed"] = self._holds(result)
        if spread is not None:
            scale = float(network.uncertainty_scale)
            result["calibration"] = {
                "expected": np.round(scale * spread.atom_spread.ravel(), 3).tolist(),
                "true": np.round(spread.atom_error.ravel(), 3).tolist(),
            }
        return result

    def _holds(self, result: dict[str, Any]) -> bool:
        """Return whether the bounds hold, and no walker had to be stopped."""
        bound = ErrorBound(**result["error"])
        return bound.holds(self.settings.force_error, self.settings.energy_error) and not result["stopped"]

    def _network_path(self, number: int) -> Path:
        return self.directory / MODELS_NAME / f"network_{number:03d}.pt"

    def _load(self, store: LoopStore, number: int) -> ResponseNetwork:
        """Return the network after a round.

        Raises
        ------
        LoopError
            If its file was damaged.
        """
        path = self._network_path(number)
        wanted = next(result.get("network") for r, _, result in store.rounds() if r == number)
        try:
            if checksum(path.read_bytes()) == wanted:
                return load_network(path)
            raise PotentialError(f"{path} was changed")
        except (OSError, PotentialError) as error:
            raise LoopError(
                f"the model of round {number} is lost ({error}); copy it back, or start a loop in another directory "
                f"with the labels in {store.mirror.path}"
            ) from error

    def _potential_of(self, number: int) -> MLPotential:
        """Return the potential of the network after a round; the last one is kept."""
        if self._potential is None or self._potential[0] != number:
            with self.book.booking(ML):
                self._potential = number, region_potential(load_network(self._network_path(number)))
        return self._potential[1]

    def _save_model(self, number: int) -> None:
        potential = self._potential_of(number)
        try:
            potential.save(self.directory / MODEL_NAME)
        except RuntimeError as error:  # torch has an error of its own for a full disk
            raise full_disk(self.directory, error) from error

    def _put_in(self, number: int) -> tuple[MixedSystem, Walking]:
        """Let the Context run with the model after a round."""
        if self._mixed is not None and self._walking is not None and self._running_model == number:
            return self._mixed, self._walking
        potential = self._potential_of(number)
        if self._mixed is None or self._walking is None:
            term = replace(self._term, potential=potential, name=self._ml_name)
            self._mixed = create_mixed_system(
                self._topology, self._system, Hamiltonian([term]), ml_backend=self._backend
            )
            self._add_biases(self._mixed.system)
            # Once more, so that the forces are in the same order, and sums have the same last digit, whether the System
            # was built for this model or an earlier one.
            exchange_model(self._mixed, self._ml_name, potential)
            self._walking = self._walking_in(self._mixed.system)
        else:
            exchange_model(self._mixed, self._ml_name, potential, [self._walking.context])
        self._running_model = number
        if self._on_model is not None:
            self._on_model(self._mixed, number)
        return self._mixed, self._walking

    def _walking_in(self, system: openmm.System) -> Walking:
        return Walking(system, self._guard, self.settings, self._platform, self._properties, self.variables)

    def _add_biases(self, system: openmm.System) -> None:
        for xml in self._biases:
            system.addForce(openmm.XmlSerializer.deserialize(xml))

    # What stands around it.

    def _seed(self, number: int, walker: int, what: str) -> int:
        """Return a seed that OpenMM takes: 1 to 2^31 - 1."""
        word = int.from_bytes(what.encode(), "little") % (1 << 63)
        sequence = np.random.SeedSequence([self.settings.seed, number, walker, word])
        return int(sequence.generate_state(1)[0] % (2**31 - 1)) + 1

    def _label_size(self) -> int:
        """Return the bytes that a label may take, from above."""
        sites = len(self._layout.specification.atomic_numbers)
        near = min(self._layout.n_particles, 4000) if self._layout.surroundings is not None else 0
        return 4096 + 500 * sites + 90 * near

    def _check_same(self, store: LoopStore) -> None:
        """Compare with what the directory was made with."""
        mine = {
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
        }
        text = json.dumps(mine, sort_keys=True, default=str)
        known = store.get("loop")
        if known is None:
            store.put("loop", text)
            return
        if known != text:
            old, new = json.loads(known), json.loads(text)
            changed = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
            details = [
                f"{key} {name}: {old[key].get(name)} then, {new[key].get(name)} now" if isinstance(old.get(key), dict)
                else f"{key}: {str(old.get(key))[:60]} then, {str(new.get(key))[:60]} now"
                for key in changed
                for name in (sorted(n for n in new[key] if old[key].get(n) != new[key].get(n))
                             if isinstance(old.get(key), dict) else [""])
            ]  # fmt: skip
            raise LoopError(
                f"{self.directory} holds a loop with other settings ({listed(details)}); use the same, or another "
                "directory"
            )

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
