"""The free energy from a lower level to an upper one from equilibrium at several values of a parameter."""

from __future__ import annotations

import functools
import os
import pickle
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from openmm import unit

from qmmlmm.coupling.interpolation import interpolated_hamiltonian
from qmmlmm.coupling.potential import EMBEDDINGS
from qmmlmm.durable_files import replace_file
from qmmlmm.errors import QmmlmmWarning, RunDirectoryError, SettingError, listed
from qmmlmm.free_energy.correction_directory import (
    RECORD_FORMAT,
    Level,
    check_legs,
    check_level,
    check_record,
    held_directory,
    level_hamiltonian,
    level_names,
    stage_identity,
)
from qmmlmm.free_energy.correction_result import Cycle, LegFreeEnergy
from qmmlmm.free_energy.reweighting import multistate_free_energies
from qmmlmm.free_energy.switching_settings import DEFAULT_SETTINGS, SwitchingSettings
from qmmlmm.free_energy.task_order import Task, run_tasks
from qmmlmm.free_energy.trajectory_tasks import PARAMETER, Stage, forget_simulation, run_window, window_derivatives
from qmmlmm.free_energy.work_estimate import POOR_OVERLAP, work_estimate
from qmmlmm.sampling.leg import Leg
from qmmlmm.setting_checks import (
    LARGEST_COUNT,
    check_array,
    check_choice,
    check_instance,
    check_path,
    check_whole_number,
)
from qmmlmm.units import FloatArray, Vectors

RECORD_NAME, TABLE_NAME = "ladder.json", "ladder.csv"
FEWEST_FRAMES = 10
_KJ = unit.kilojoule_per_mole


@dataclass(frozen=True, eq=False)
class LadderLeg:
    """Free energies of one leg along the parameter.

    Parameters
    ----------
    values : (k,) float array
        Values of the parameter, from 0 to 1.
    free_energies, errors : (k,) Quantity, kJ/mol
        Free energies relative to the first value, and their standard errors.
    overlaps : (k - 1,) float array
        Overlap of each window with the next one, see `WorkEstimate`.
    """

    values: FloatArray
    free_energies: unit.Quantity
    errors: unit.Quantity
    overlaps: FloatArray

    @property
    def free_energy(self) -> unit.Quantity:
        """Free energy of the upper level less that of the lower one, kJ/mol."""
        return self.free_energies[-1]

    @property
    def error(self) -> unit.Quantity:
        """Its standard error, kJ/mol."""
        return self.errors[-1]


@dataclass(frozen=True, eq=False)
class LadderResult(Cycle):
    """Free energies of the upper level less those of the lower one, from equilibrium windows in each leg.

    Parameters
    ----------
    legs : mapping of str to LadderLeg
    """

    legs: Mapping[str, LadderLeg]

    @property
    def free_energies(self) -> Mapping[str, LegFreeEnergy]:
        """The legs by name."""
        return self.legs

    def warnings(self) -> tuple[str, ...]:
        """Return a sentence with advice for each pair of windows whose overlap is poor."""
        return tuple(
            f"leg {name!r}: the windows at {leg.values[k]:g} and {leg.values[k + 1]:g} hardly overlap ({overlap:.2g}, "
            f"{POOR_OVERLAP:g} or more is needed), and the free energy is not reliable; put a value between them"
            for name, leg in self.legs.items()
            for k, overlap in enumerate(leg.overlaps)
            if overlap < POOR_OVERLAP
        )


@dataclass(frozen=True, eq=False)
class EquilibriumLadder:
    """Equilibrium sampling at several values of the parameter between two levels, in each leg of a cycle.

    Its result is that of `EndStateCorrection` with the same two levels, by other means: each checks the other.

    Parameters
    ----------
    directory : path
        Directory of all files, created if necessary.
    legs : mapping of str to Leg
    lower, upper : RegionPotential, or function of a Region that returns a Hamiltonian
    values : sequence of float
        Values of the parameter, ascending from 0, the lower level, to 1, the upper one.
    frames : int
        Number of frames of each window.
    embedding : {"electrostatic", "mechanical"}
        Embedding of levels that are given as a potential.
    settings : SwitchingSettings
        Settings of the windows; those of switching are not used.

    Raises
    ------
    SettingError
        If an argument has another type or is out of range, or the legs have different molecules.
    HamiltonianError
        If the levels do not fit together.

    Notes
    -----
    The energy is linear in the parameter, so that its derivative at a frame gives the energies of that frame in all
    windows, for MBAR.
    """

    directory: str | os.PathLike[str]
    legs: Mapping[str, Leg]
    lower: Level
    upper: Level
    values: Vectors = (0.0, 0.25, 0.5, 0.75, 1.0)
    frames: int = 200
    embedding: str = "electrostatic"
    settings: SwitchingSettings = DEFAULT_SETTINGS

    def __post_init__(self) -> None:
        check_path("directory", self.directory)
        object.__setattr__(self, "legs", check_legs(self.legs))
        for name, level in (("lower", self.lower), ("upper", self.upper)):
            check_level(name, level)
        values = check_array("values", self.values, (None,))
        if len(values) < 2 or values[0] != 0.0 or values[-1] != 1.0 or not (np.diff(values) > 0.0).all():
            raise SettingError(f"values ascend from 0 to 1, got {listed(values.tolist())}")
        object.__setattr__(self, "values", values)
        check_whole_number("frames", self.frames, at_least=FEWEST_FRAMES, at_most=LARGEST_COUNT)
        check_choice("embedding", self.embedding, EMBEDDINGS)
        check_instance("settings", self.settings, SwitchingSettings)
        object.__setattr__(self, "_stages", tuple(self._made_stages()))

    @property
    def stages(self) -> tuple[Stage, ...]:
        """One stage for each leg."""
        found: tuple[Stage, ...] = vars(self)["_stages"]
        return found

    def run(self, executor: Executor | None = None) -> LadderResult:
        """Run all windows that are not complete, write ``ladder.csv``, and return the free energies.

        Parameters
        ----------
        executor : concurrent.futures.Executor, optional
            See `EndStateCorrection.run`.

        Raises
        ------
        SettingError
            If it is no executor.
        RunDirectoryError
            If the directory holds another ladder, or is in use, or a file in it is damaged.
        EvaluationError
            If windows failed. All others are run first and kept.

        Warns
        -----
        QmmlmmWarning
            If neighbouring windows do not overlap.
        """
        with held_directory(self.directory, executor) as folder:
            record = {"format": RECORD_FORMAT, "stages": [stage_identity(stage) for stage in self.stages]}
            check_record(folder / RECORD_NAME, record)
            try:
                run_tasks([task for stage in self.stages for task in self._tasks(stage)], executor, "window")
            finally:
                forget_simulation()
            found = self.result()
            replace_file(folder / TABLE_NAME, _table(found).encode())
        for text in found.warnings():
            warnings.warn(text, QmmlmmWarning, stacklevel=2)
        return found

    def result(self) -> LadderResult:
        """Return the free energies of windows that are complete.

        Raises
        ------
        RunDirectoryError
            If a window is not complete, or a file is damaged.
        """
        return LadderResult({stage.leg_name: self._leg_result(stage) for stage in self.stages})

    def _made_stages(self) -> Iterator[Stage]:
        names = level_names([self.lower, self.upper])
        for leg_name, leg in self.legs.items():
            lower, upper = (level_hamiltonian(level, leg.region, self.embedding) for level in (self.lower, self.upper))
            hamiltonian = interpolated_hamiltonian(lower, upper, PARAMETER)
            yield Stage(leg_name, "-".join(names), leg, hamiltonian, self.settings)

    def _window(self, stage: Stage, value: float, replica: int) -> Path:
        # Workers may have another working directory.
        folder = Path(self.directory).absolute() / stage.leg_name / stage.name
        return folder / f"window-{value:.6g}" / f"replica{replica}"

    def _windows(self, stage: Stage) -> Iterator[tuple[float, int, Path]]:
        for value in np.asarray(self.values).tolist():
            for replica in range(self.settings.replicas):
                yield value, replica, self._window(stage, value, replica)

    @property
    def _frames_each(self) -> int:
        return -(-self.frames // self.settings.replicas)

    def _tasks(self, stage: Stage) -> Iterator[Task]:
        payload = pickle.dumps(stage)
        for value, replica, folder in self._windows(stage):
            if window_derivatives(folder, self._frames_each) is None:
                call = functools.partial(
                    run_window, folder, payload, value, replica, self._frames_each, with_derivatives=True
                )
                yield Task(f"{stage.leg_name}/{stage.name}/{value:.6g}/{replica}", call)

    def _leg_result(self, stage: Stage) -> LadderLeg:
        values = np.asarray(self.values)
        series: list[FloatArray] = []
        for value in values.tolist():
            parts = []
            for replica in range(self.settings.replicas):
                folder = self._window(stage, value, replica)
                found = window_derivatives(folder, self._frames_each)
                if found is None:
                    raise RunDirectoryError(f"{folder} is missing or not complete; call run")
                parts.append(found)
            series.append(np.concatenate(parts))
        # Levels have different zeros of energy: numbers near zero lose no digits.
        zero = float(np.mean([one.mean() for one in series]))
        energies = [(one - zero)[:, None] * values for one in series]
        with warnings.catch_warnings():
            # The ladder names the windows, and what to do.
            warnings.filterwarnings("ignore", "states .* hardly overlap", QmmlmmWarning)
            free_energies, errors = multistate_free_energies(energies, self.settings.temperature)
        steps = np.diff(values)
        overlaps = [
            work_estimate(
                step * (series[k] - zero), -step * (series[k + 1] - zero), self.settings.temperature, resamples=10
            ).overlap
            for k, step in enumerate(steps)
        ]
        return LadderLeg(values, free_energies + zero * values * _KJ, errors, np.array(overlaps))


def _table(found: LadderResult) -> str:
    lines = ['#"Leg","Parameter","Free Energy (kJ/mol)","Error (kJ/mol)","Overlap With Next"']
    for name, leg in found.legs.items():
        energies, errors = (x.value_in_unit(_KJ) for x in (leg.free_energies, leg.errors))
        overlaps = [*leg.overlaps, np.nan]
        for value, energy, error, overlap in zip(leg.values, energies, errors, overlaps, strict=True):
            lines.append(f'"{name}",{value:.10g},{energy:.10g},{error:.10g},{overlap:.10g}')
    return "\n".join(lines) + "\n"
