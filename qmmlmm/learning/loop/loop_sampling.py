"""Sampling of a loop: walkers run, and some of their configurations are chosen for labels."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Sequence

import numpy as np
import openmm

from qmmlmm.errors import LoopError
from qmmlmm.geometry import Geometry
from qmmlmm.learning.labels.data_set import format_frame
from qmmlmm.learning.labels.label_job import CANDIDATE, FAILED
from qmmlmm.learning.labels.labelled_frame import LabelledFrame
from qmmlmm.learning.loop.draws import draw_fresh_checks, draw_seed
from qmmlmm.learning.loop.first_configurations import start_walker
from qmmlmm.learning.loop.loop_models import LoopModels
from qmmlmm.learning.loop.parallel_walkers import run_parallel
from qmmlmm.learning.loop.progress import LoopProgress
from qmmlmm.learning.loop.round_record import LABEL
from qmmlmm.learning.loop.running_model import RunningModel
from qmmlmm.learning.loop.selection import choose_diverse, describe_region
from qmmlmm.learning.loop.settings import LoopSettings, Walker
from qmmlmm.learning.loop.store import LoopStore
from qmmlmm.learning.loop.timer import ML, OPENMM, Timer
from qmmlmm.learning.loop.walker_simulation import WalkerResult, WalkerSimulation
from qmmlmm.learning.loop.walker_state import WalkerState
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.sampling.metadynamics import Hill, Metadynamics
from qmmlmm.units import IntArray


class LoopSampling:
    """The sampling phase of a loop.

    Parameters
    ----------
    settings : LoopSettings
    walkers : sequence of Walker
    starts : sequence of Geometry, nm
        Geometry of each walker at the start.
    atoms : sequence of int
        Atoms of the region.
    atomic_numbers : (n,) int array
        Atomic numbers of the region and its link atoms.
    running : sequence of RunningModel
        One for each walker that runs in parallel. The first is also used outside the walkers' threads.
    models : LoopModels
    timer : Timer
    metadynamics : Metadynamics, optional
    on_model : callable, optional
        Function that is called with the MixedSystem and the number of the round after each exchange of the model.
    """

    def __init__(
        self,
        settings: LoopSettings,
        walkers: Sequence[Walker],
        starts: Sequence[Geometry],
        atoms: Sequence[int],
        atomic_numbers: IntArray,
        running: Sequence[RunningModel],
        models: LoopModels,
        timer: Timer,
        metadynamics: Metadynamics | None = None,
        on_model: Callable[[MixedSystem, int], None] | None = None,
    ) -> None:
        self._settings = settings
        self._walkers, self._starts = walkers, starts
        self._atoms, self._numbers = atoms, atomic_numbers
        self._running = running
        self._models, self._timer = models, timer
        self._metadynamics = metadynamics
        self._on_model = on_model

    @property
    def mixed(self) -> MixedSystem | None:
        """The System with the learned potential; None before the first model."""
        return self._running[0].mixed

    def start(self, store: LoopStore, given_labels: Sequence[LabelledFrame]) -> None:
        """Run all walkers without a model for the first configurations.

        Parameters
        ----------
        store : LoopStore
        given_labels : sequence of LabelledFrame
            Labels to start from; there are no first configurations to label then.
        """
        settings, done = self._settings, store.walkers_done(0)
        n_walkers = len(self._walkers)
        if len(done) == n_walkers:
            return
        if given_labels and not store.counts()["labelled"]:
            store.add_given([format_frame(frame) for frame in given_labels])
        labels = 0 if given_labels or self._models.given is not None else settings.start_labels
        simulation, relaxation = self._running[0].without_model()
        for k, walker in enumerate(self._walkers):
            if k in done:
                continue
            count = labels // n_walkers + (k < labels % n_walkers)
            with self._timer.measure(OPENMM):
                state = WalkerState(self._starts[k])
                guard = self._running[0].guard
                try:
                    last, candidates = start_walker(
                        simulation, relaxation, guard, self._atoms, settings, k, walker, state, count
                    )
                except openmm.OpenMMException as error:
                    raise LoopError(
                        f"walker {k} cannot run before the first model: {str(error).splitlines()[0]}; take a smaller "
                        "time_step, fewer start_steps, or other positions"
                    ) from error
            # Without velocities: the learned potential has no constraints of the force field within the region.
            store.add_walker_result(0, k, WalkerState(last.geometry), candidates)

    def run_round(self, store: LoopStore, number: int, progress: LoopProgress) -> None:
        """Run all walkers with the model of the round before.

        Parameters
        ----------
        store : LoopStore
        number : int
            Number of the round.
        progress : LoopProgress
        """
        done = store.walkers_done(number)
        remaining = [k for k in range(len(self._walkers)) if k not in done]
        if not remaining:
            return
        fresh = draw_fresh_checks(self._settings, number, len(self._walkers))
        # This thread reads everything before, and writes results in the order of the walkers.
        tasks = [(k, store.walker_state(number - 1, k), self._hills(store, number, k)) for k in remaining]
        simulations = [self._use_model(number - 1, running) for running in self._running[: len(remaining)]]
        lock = threading.Lock()

        def work(
            simulation: tuple[MixedSystem, WalkerSimulation], task: tuple[int, WalkerState, list[Hill]]
        ) -> WalkerResult:
            (mixed, runner), (k, state, hills) = simulation, task

            def on_check(step: int, uncertainty: float) -> None:
                with lock:
                    progress.walker(k, step, uncertainty)

            on_check(0, float("nan"))
            runner.begin(state, self._walkers[k].parameters, draw_seed(self._settings, number, k, "walk"), hills)
            return runner.run_round(mixed, self._running[0].name, number, k, fresh[k], on_check)

        with contextlib.closing(run_parallel(simulations, tasks, work)) as results:
            for k in remaining:
                with self._timer.measure(OPENMM):
                    result = next(results)
                hills = None if self._metadynamics is None else result.hills
                store.add_walker_result(number, k, result.state, result.candidates, result.trace, result.event, hills)
                with lock:
                    progress.walker(k, result.steps, float("nan"), result.event)

    def choose(self, store: LoopStore, number: int) -> None:
        """Choose the candidates of a round that are labelled.

        Parameters
        ----------
        store : LoopStore
        number : int
            Number of the round.
        """
        jobs = store.jobs(CANDIDATE, number=number)
        certain = [job for job in jobs if job.kind in ("start", "fresh", "runaway")]
        uncertain = [job for job in jobs if job.kind == "uncertain"]
        chosen = [job.id for job in certain]
        if uncertain:
            running, numbers = self._running[0], self._numbers
            # After a resume the model is not in use yet.
            self._use_model(number - 1, running)
            with self._timer.measure(ML):
                known = [describe_region(numbers, f.positions, f.potential) for _, f in store.labels()]
                known += [
                    running.describe(job, numbers)
                    for job in [*certain, *store.jobs(FAILED)]
                    if job.geometry is not None
                ]
                found = choose_diverse(
                    np.array([running.describe(job, numbers) for job in uncertain]),
                    np.array([job.uncertainty for job in uncertain]),
                    np.array(known),
                    self._settings.labels_per_round,
                    len(numbers) * (len(numbers) - 1) // 2,
                )
            chosen += [uncertain[k].id for k in found]
        store.choose(number, chosen, LABEL)

    def _hills(self, store: LoopStore, number: int, walker: int) -> list[Hill]:
        """Return the hills with which a walker starts: none of the same round, so that the order has no effect."""
        if self._metadynamics is None:
            return []
        return store.hills(number, None if self._metadynamics.shared else walker)

    def _use_model(self, number: int, running: RunningModel) -> tuple[MixedSystem, WalkerSimulation]:
        if running is self._running[0]:
            return running.use_model(number, functools.partial(self._models.potential, number), self._on_model)
        return running.use_model(number, functools.partial(self._models.new_potential, number))
