"""Umbrella sampling as a production run: windows that can be stopped and continued, by any executor."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from openmm import app, unit
from tqdm import tqdm

from qmmlmm.analysis.profile_figure import OTHER_COLOUR, plot_overlap, plot_profile, plot_windows
from qmmlmm.durable_files import replace_file
from qmmlmm.errors import EvaluationError, RunDirectoryError, SettingError, TerminatedError, listed, shown
from qmmlmm.free_energy.umbrella_exchange import check_sampler_is_there, run_exchange
from qmmlmm.free_energy.umbrella_profile import LEAST_OVERLAP, UmbrellaProfile, umbrella_profile
from qmmlmm.free_energy.umbrella_starts import PulledStarts
from qmmlmm.free_energy.umbrella_window import (
    CreateSimulation,
    Window,
    frame_energies,
    read_samples,
    run_window,
    simulation_of,
    steps_done,
)
from qmmlmm.mm.barostats import barostats_of
from qmmlmm.progress_display import progress_bar
from qmmlmm.runs.barostat_renewal import BarostatRenewal
from qmmlmm.sampling.variable import Variable
from qmmlmm.setting_checks import (
    LARGEST_COUNT,
    check_array,
    check_callable,
    check_flag,
    check_instance,
    check_path,
    check_quantity,
    check_seed,
    check_text,
    check_whole_number,
)
from qmmlmm.units import FloatArray, Scalar, Vectors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RECORD_NAME = "umbrella.json"
SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True)
class UmbrellaSampling:
    """Umbrella windows along a variable, each a run in a directory.

    Parameters
    ----------
    directory : path
        Directory, created if necessary, with a run directory for each window (``000``) and the profile.
    create : callable
        Function of the umbrella's Force that returns the mixed System, with the Force in it, and its Simulation. It is
        called for each window, twice if its System has no box: the umbrella is then made without one. Executors with
        worker processes need a function at the top of a module.
    variable : Variable
    centres : (k,) Quantity or sequence of float
        Centres of the umbrellas, in the variable's unit, nm or rad.
    force_constants : Quantity, float or a sequence of k
        Force constants, kJ/mol per square of the variable's unit: the energy is 0.5 k d^2.
    starts : (n, 3) or (k, n, 3) Quantity or float array, nm
        Positions from which each window starts, such as those of a scan, which `run` pulls to the centre if they are
        six standard deviations of the umbrella away or more; or one structure, which is pulled from the nearest window
        outwards, step by step.
    temperature : Quantity or float, K
        That of the integrator, and of a barostat; velocities are drawn at it.
    steps : int
        Number of steps of each window after equilibration.
    equilibration : int
        Number of steps at the beginning of each window that the profile leaves out.
    interval : int
        Number of steps between two samples of the variable.
    frame_interval : int
        Number of steps between two frames of the trajectory, a multiple of `interval`.
    checkpoint_interval : int
        Number of steps between two checkpoints, which is what a crash can cost. At constant pressure it is a multiple
        of the steps between two attempts of the barostat.
    pull_steps : int
        Number of steps from one window to the next while one start is pulled.
    seed : int
        Seed of velocities and thermostats; each window has its own.
    name : str
        Name of the variable in table and figure.
    exchange : bool
        Whether windows exchange their centres every `interval` steps, by OpenMM's ReplicaExchangeSampler (OpenMM 8.6
        or newer), so that what one window cannot cross, it goes around. All windows then run in this process, at
        constant volume, and leave no trajectories.
    box_vectors : (3, 3) or (k, 3, 3) Quantity or float array, nm, optional
        Box of all starts, or of each one; that of the Context which `create` makes if not given.

    Raises
    ------
    MissingDependencyError
        If `exchange` is set and OpenMM is older.
    SettingError
        If an argument is out of range or has another type, or the numbers of centres, constants and starts differ.

    Notes
    -----
    With a barostat in the System that `create` makes, all windows are at its pressure. The factors exp(-pV/kT) of the
    windows are the same, so that the profile is that of the Gibbs energy by the same equations.

    Examples
    --------
    ::

        def create(umbrella):
            mixed = create_mixed_system(topology, system, hamiltonian)
            mixed.system.addForce(umbrella)
            integrator = LangevinMiddleIntegrator(300, 1, 0.001)
            return mixed, app.Simulation(mixed.topology, mixed.system, integrator)

        sampling = UmbrellaSampling("umbrella", create, xi, numpy.linspace(-0.15, 0.15, 16), 5e4, positions,
                                    temperature=300, steps=20000, equilibration=2000)
        profile = sampling.run()
        print(profile.barrier())
    """

    directory: str | os.PathLike[str]
    create: CreateSimulation
    variable: Variable
    centres: Vectors
    force_constants: Vectors
    starts: Vectors
    temperature: Scalar
    steps: int
    equilibration: int = 0
    interval: int = 10
    frame_interval: int = 100
    checkpoint_interval: int = 1000
    pull_steps: int = 200
    seed: int = 0
    name: str = "variable"
    exchange: bool = False
    box_vectors: Vectors | None = None

    def __post_init__(self) -> None:
        check_path("directory", self.directory)
        check_callable("create", self.create, "a function of the umbrella's Force that returns (mixed, simulation)")
        if not isinstance(self.variable, Variable):
            raise SettingError(f"variable is a variable, such as Distance(0, 1), got {shown(self.variable)}")
        centres = np.atleast_1d(check_array("centres", self.centres, default=self.variable.unit))
        if centres.ndim != 1 or len(centres) < 2 or len(set(centres.tolist())) < len(centres):
            raise SettingError(f"centres are two or more different values, got {centres.tolist()[:5]}")
        per_square = unit.kilojoule_per_mole if self.variable.unit is None else _force_unit(self.variable.unit)
        constants = check_array("force_constants", self.force_constants, default=per_square)
        if constants.ndim > 1 or constants.size not in (1, len(centres)) or not (constants > 0.0).all():
            raise SettingError(
                f"force_constants are above zero, one or one for each of {len(centres)} centres, got {constants}"
            )
        starts = check_array("starts", self.starts, default=unit.nanometer)
        if starts.shape[-1:] != (3,) or starts.ndim not in (2, 3) or (starts.ndim == 3 and len(starts) != len(centres)):
            raise SettingError(
                f"starts have the shape (n, 3), or ({len(centres)}, n, 3) for {len(centres)} centres, got "
                f"{starts.shape}"
            )
        temperature = check_quantity("temperature", self.temperature, unit.kelvin, above=0.0)
        for name in ("steps", "interval", "frame_interval", "checkpoint_interval", "pull_steps"):
            check_whole_number(name, vars(self)[name], at_most=LARGEST_COUNT, what="a whole number of steps")
        check_whole_number(
            "equilibration", self.equilibration, at_least=0, at_most=LARGEST_COUNT, what="a whole number of steps"
        )
        if self.frame_interval % self.interval:
            raise SettingError(f"frame_interval is a multiple of interval, {self.interval}, got {self.frame_interval}")
        if self.steps < 10 * self.interval:
            raise SettingError(f"steps are ten intervals of {self.interval} or more, got {self.steps}")
        check_seed("seed", self.seed)
        check_text("name", self.name)
        if check_flag("exchange", self.exchange):
            check_sampler_is_there()
        values = {"centres": centres, "starts": starts, "temperature": temperature}
        if self.box_vectors is not None:
            boxes = check_array("box_vectors", self.box_vectors, default=unit.nanometer)
            if boxes.shape not in ((3, 3), (*starts.shape[:-2], 3, 3)):
                raise SettingError(
                    f"box_vectors have the shape (3, 3), or (k, 3, 3) with as many starts, got {boxes.shape}"
                )
            values["box_vectors"] = boxes
        for name, value in (values | {"force_constants": np.broadcast_to(constants, centres.shape).copy()}).items():
            object.__setattr__(self, name, value)

    @property
    def _umbrellas(self) -> tuple[FloatArray, FloatArray]:
        return np.asarray(self.centres, dtype=float), np.asarray(self.force_constants, dtype=float)

    @property
    def windows(self) -> tuple[Window, ...]:
        """The windows, in the order of the centres."""
        return tuple(
            Window(
                Path(self.directory) / f"{k:03d}", self.create, self.variable, float(centre), float(constant),
                float(self.temperature), self.equilibration + self.steps, self.interval, self.frame_interval,
                self.checkpoint_interval, self.seed + k,
            )
            for k, (centre, constant) in enumerate(zip(*self._umbrellas, strict=True))
        )  # fmt: skip

    def run(self, executor: Executor | None = None) -> UmbrellaProfile:
        """Run all windows that are not complete, and return the profile, which is also written to the directory.

        Parameters
        ----------
        executor : concurrent.futures.Executor, optional
            Executor that runs the windows; they run one after another in this process if not given. The processes of a
            pool are to be spawned: ``ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn"))``.

        Raises
        ------
        SettingError
            If it is no executor, or `create` returns something else.
        RunDirectoryError
            If the directory holds windows of other settings.
        EvaluationError
            If windows failed. All others are run first and kept.
        """
        if executor is not None:
            check_instance("executor", executor, Executor, "a concurrent.futures.Executor")
            if self.exchange:
                raise SettingError("windows that exchange run in one process, step by step; leave executor out")
        folder = Path(self.directory)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunDirectoryError(f"{folder} cannot be the directory of umbrella windows: {error}") from error
        self._check_record(folder)
        self._make_starts()
        remaining = [window for window in self.windows if steps_done(window.folder) < window.steps]
        failures: list[str] = []
        total = sum(window.steps - steps_done(window.folder) for window in remaining)
        with progress_bar(total, "umbrella windows", "step") as bar:
            if self.exchange and remaining:
                run_exchange(self.windows, folder, self.seed, bar.update)
                remaining = []
            for window, failure in _outcomes(remaining, executor, bar):
                if failure is not None:
                    failures.append(f"{window.folder.name} ({type(failure).__name__}: {failure})")
                    if isinstance(failure, BrokenExecutor):
                        failures[-1] += '; memory may be short, or the pool forks: give mp_context=get_context("spawn")'
        if failures:
            raise EvaluationError(
                f"{len(failures)} of {len(self.windows)} windows failed: {listed(failures)}. Run again to continue "
                "them from their last checkpoints"
            )
        return self.profile()

    def profile(self, *, bins: int = 40, edges: Sequence[float] | None = None) -> UmbrellaProfile:
        """Return the profile from the samples so far; write ``profile.csv``, ``overlap.csv`` and ``profile.png``.

        Parameters
        ----------
        bins : int
            Number of bins, if there are no edges.
        edges : sequence of float, optional
            Edges of the bins, in the variable's unit.

        Raises
        ------
        RunDirectoryError
            If a window has no samples yet.
        """
        samples = self.samples()
        symbol = None if self.variable.unit is None else self.variable.unit.get_symbol()
        name = self.name if symbol is None else f"{self.name} ({symbol})"
        found = umbrella_profile(
            samples, *self._umbrellas, self.temperature,
            bins=bins, edges=edges, period=self.variable.period, name=name,
        )  # fmt: skip
        folder = Path(self.directory)
        found.write_csv(folder / "profile.csv")
        found.write_overlap_csv(folder / "overlap.csv")
        profile_figure(found, samples).savefig(folder / "profile.png", dpi=200)
        return found

    def samples(self) -> list[FloatArray]:
        """Return the values of the variable in each window after equilibration, in its unit.

        Raises
        ------
        RunDirectoryError
            If a window has fewer than ten samples yet.
        """
        found = [read_samples(window, self.equilibration)[1] for window in self.windows]
        short = [window.folder.name for window, one in zip(self.windows, found, strict=True) if len(one) < 10]
        if short:
            raise RunDirectoryError(
                f"windows {listed(short)} of {self.directory} have fewer than ten samples after equilibration; call run"
            )
        return found

    def reweighted(
        self,
        name: str,
        create: CreateSimulation,
        *,
        every: int = 1,
        bins: int = 40,
        edges: Sequence[float] | None = None,
    ) -> UmbrellaProfile:
        """Return the profile of another Hamiltonian, from its energies in the stored frames.

        Energies are kept in the windows' directories (``energies_NAME.csv``): a call that was interrupted continues.

        Parameters
        ----------
        name : str
            Name of the Hamiltonian, for files.
        create : callable
            As the one of the sampling, for the other Hamiltonian.
        every : int
            Evaluates each frame whose number is a multiple of this.
        bins, edges
            As in `profile`.

        Raises
        ------
        SettingError
            If the name cannot be that of a file.
        RunDirectoryError
            If a window is not complete.
        """
        if self.exchange:
            raise SettingError(
                "windows that exchange leave no trajectories; sample without exchange for another Hamiltonian"
            )
        check_text("name", name)
        if not name.replace("-", "").replace("_", "").isalnum():
            raise SettingError(f"name has letters, digits, '-' and '_', because it is that of a file, got {name!r}")
        check_callable("create", create, "a function of the umbrella's Force that returns (mixed, simulation)")
        check_whole_number("every", every, what="a number of frames")
        incomplete = [window.folder.name for window in self.windows if steps_done(window.folder) < window.steps]
        if incomplete:
            raise RunDirectoryError(f"windows {listed(incomplete)} of {self.directory} are not complete; call run")
        sampled, target = (simulation_of(made, self.variable)[1] for made in (self.create, create))
        values, differences = [], []
        with progress_bar(len(self.windows), f"energies {name}", "window") as bar:
            for window in self.windows:
                one, other = frame_energies(window, name, sampled, target, self.equilibration, every)
                values.append(one)
                differences.append(other)
                bar.update()
        return self.profile(bins=bins, edges=edges).reweighted(values, differences)

    def _check_record(self, folder: Path) -> None:
        variable = asdict(self.variable) if is_dataclass(self.variable) else repr(self.variable)
        record = {
            "variable": type(self.variable).__name__,
            "settings of the variable": hashlib.sha256(json.dumps(variable, default=str).encode()).hexdigest(),
            "centres": np.asarray(self.centres).tolist(),
            "force_constants": np.asarray(self.force_constants).tolist(),
            "starts": hashlib.sha256(np.ascontiguousarray(self.starts).tobytes()).hexdigest(),
            "temperature": self.temperature,
            "interval": self.interval,
            "frame_interval": self.frame_interval,
            "seed": self.seed,
        } | ({"exchange": True} if self.exchange else {})
        if self.box_vectors is not None:
            record["box_vectors"] = hashlib.sha256(np.ascontiguousarray(self.box_vectors).tobytes()).hexdigest()
        path = folder / RECORD_NAME
        if path.exists():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
                different = [key for key in record if found.get(key) != record[key]]
                different += [key for key in ("exchange", "box_vectors") if key in found and key not in record]
            except (OSError, ValueError, AttributeError) as error:
                raise RunDirectoryError(f"{path} is damaged: {error}; use another directory") from error
            if different:
                raise RunDirectoryError(
                    f"{folder} holds windows with other settings: {listed(different)}; use another directory"
                )
            return
        replace_file(path, (json.dumps(record, indent=1) + "\n").encode())

    def _make_starts(self) -> None:
        """Write the start of each window that has none."""
        windows = self.windows
        for window in windows:
            window.folder.mkdir(exist_ok=True)
        if all(window.start_path.exists() for window in windows):
            return
        boxes = None if self.box_vectors is None else np.asarray(self.box_vectors)
        PulledStarts(windows, np.asarray(self.starts), boxes, self.pull_steps).write(self._checked_simulation())

    def _checked_simulation(self) -> app.Simulation:
        """Return a Simulation that `create` makes, whose barostats, if it has any, windows can have."""
        _, simulation = simulation_of(self.create, self.variable)
        barostats = barostats_of(simulation.system)
        if barostats and self.exchange:
            # It counts the steps of all windows together, and would change the box of some of them only.
            raise SettingError(
                f"windows that exchange have a constant volume, and the System has a {barostats[0].getName()}: leave "
                "it out, or exchange"
            )
        BarostatRenewal(simulation.system, self.checkpoint_interval)
        return simulation


def _outcomes(
    windows: Sequence[Window], executor: Executor | None, bar: tqdm
) -> Iterator[tuple[Window, BaseException | None]]:
    """Run windows, and yield each with its error, if it failed, as they end; the bar shows steps."""
    if executor is None:
        for window in windows:
            try:
                run_window(window, bar.update)
            except TerminatedError:
                raise  # what sent SIGTERM wants all windows to stop
            except Exception as error:  # noqa: BLE001 - reported together, and no other window is lost
                yield window, error
            else:
                yield window, None
        return
    begun = sum(steps_done(window.folder) for window in windows)
    futures: dict[Future[None], Window] = {executor.submit(run_window, window): window for window in windows}
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=SECONDS_BETWEEN_LOOKS, return_when=FIRST_COMPLETED)
        bar.update(sum(steps_done(window.folder) for window in windows) - begun - bar.n)
        for future in done:
            yield futures[future], future.exception()


def profile_figure(
    profile: UmbrellaProfile, samples: Sequence[FloatArray], others: Mapping[str, UmbrellaProfile] | None = None
) -> Figure:
    """Return a figure of a profile above the distributions of its windows, beside their overlap matrix.

    Parameters
    ----------
    profile : UmbrellaProfile
    samples : sequence of (n_k,) float arrays
        Values of the variable in each window.
    others : mapping of str to UmbrellaProfile, optional
        One profile with another level, by its name.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 4.6), layout="constrained")
    axes = figure.subplot_mosaic([["profile", "overlap"], ["windows", "overlap"]], width_ratios=(5, 3),
                                 height_ratios=(3, 1))  # fmt: skip
    axes["windows"].sharex(axes["profile"])
    plot_profile(profile.values, profile.free_energy, profile.error, profile.name, ax=axes["profile"],
                 label="sampled level" if others else None)  # fmt: skip
    for name, other in (others or {}).items():
        plot_profile(other.values, other.free_energy, other.error, other.name, ax=axes["profile"], label=name,
                     colour=OTHER_COLOUR)  # fmt: skip
    axes["profile"].set_xlabel("")
    plot_windows(samples, profile.name, ax=axes["windows"], period=profile.period)
    plot_overlap(profile.overlap, profile.centres, profile.name, ax=axes["overlap"], least=LEAST_OVERLAP)
    return figure


def _force_unit(of_variable: unit.Unit) -> unit.Unit:
    return unit.kilojoule_per_mole / of_variable**2
