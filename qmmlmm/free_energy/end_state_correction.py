"""Corrections of free energies from one level to another, by switching at both ends of a cycle."""

from __future__ import annotations

import functools
import os
import pickle
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qmmlmm.coupling.interpolation import interpolated_hamiltonian
from qmmlmm.coupling.potential import EMBEDDINGS, RegionPotential
from qmmlmm.errors import QmmlmmWarning, RunDirectoryError, SettingError, listed, shown
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
from qmmlmm.free_energy.correction_report import write_correction_report
from qmmlmm.free_energy.correction_result import Correction, LegResult, StageResult
from qmmlmm.free_energy.switching_settings import DEFAULT_SETTINGS, SwitchingSettings
from qmmlmm.free_energy.task_order import Task, run_tasks
from qmmlmm.free_energy.trajectory_tasks import (
    PARAMETER,
    Stage,
    forget_simulation,
    frames_complete,
    run_switch,
    run_window,
    switch_work,
)
from qmmlmm.free_energy.work_estimate import work_estimate
from qmmlmm.sampling.leg import Leg
from qmmlmm.setting_checks import check_choice, check_items, check_path
from qmmlmm.units import FloatArray

RECORD_NAME = "correction.json"
ENDS = (("lower", "forward", 0.0), ("upper", "reverse", 1.0))


@dataclass(frozen=True, eq=False)
class EndStateCorrection:
    """The free energy from a lower level to an upper one in each leg of a cycle.

    In each leg there is equilibrium sampling at both levels, and from its frames switching to the other level, of which
    the work gives the free energy. With intermediate levels there are several stages, whose free energies add up.

    Parameters
    ----------
    directory : path
        Directory of all files, created if necessary.
    legs : mapping of str to Leg
        Legs of the cycle, such as the complex and the ligand in solvent. All have the same molecule as region.
    lower, upper : RegionPotential, or function of a Region that returns a Hamiltonian
        Levels, such as ``ForceFieldPotential()`` and ``XTBPotential("gfn2-xtb")``. A function is for QM/ML/MM, with a
        core inside the region.
    through : sequence of levels
        Levels between the two, in order. They guide from one to the other: overlap between neighbours is larger.
    embedding : {"electrostatic", "mechanical"}
        Embedding of levels that are given as a potential.
    settings : SwitchingSettings or sequence of SwitchingSettings
        Settings of all stages, or one for each stage.

    Raises
    ------
    SettingError
        If an argument has another type, the legs have different molecules, or there are not as many settings as stages.
    HamiltonianError
        If two levels do not fit together.

    Notes
    -----
    Free energies of several levels have different zeros of energy: only differences of legs have a meaning.

    Examples
    --------
    ::

        correction = EndStateCorrection(
            "correction_run",
            legs={
                "complex": Leg(complex_topology, complex_system, complex_positions, Region("ligand", complex_atoms)),
                "solvent": Leg(topology, system, positions, Region("ligand", atoms)),
            },
            lower=ForceFieldPotential(),
            through=[XTBPotential("gfn2-xtb")],
            upper=PySCFPotential("b3lyp-d3bj", "def2-svp"),
        )
        if __name__ == "__main__":
            with ProcessPoolExecutor(8, mp_context=multiprocessing.get_context("spawn")) as executor:
                found = correction.run(executor)
            print(found)
            print(found.corrected(-31.2, 0.8, "complex", "solvent"))
    """

    directory: str | os.PathLike[str]
    legs: Mapping[str, Leg]
    lower: Level
    upper: Level
    through: Sequence[Level] = ()
    embedding: str = "electrostatic"
    settings: SwitchingSettings | Sequence[SwitchingSettings] = DEFAULT_SETTINGS

    def __post_init__(self) -> None:
        check_path("directory", self.directory)
        object.__setattr__(self, "legs", check_legs(self.legs))
        check_choice("embedding", self.embedding, EMBEDDINGS)
        if isinstance(self.through, str | bytes | Mapping | RegionPotential) or not isinstance(self.through, Sequence):
            raise SettingError(f"through is a list of levels, got {shown(self.through)}")
        for name, level in (("lower", self.lower), ("upper", self.upper), *(("through", x) for x in self.through)):
            check_level(name, level)
        count = len(self.through) + 1
        if isinstance(self.settings, SwitchingSettings):
            given: tuple[SwitchingSettings, ...] = (self.settings,) * count
        else:
            given = check_items("settings", self.settings, SwitchingSettings)
        if len(given) != count:
            raise SettingError(f"settings are one for all stages or one for each of {count}, got {len(given)}")
        if len({one.temperature for one in given}) > 1:
            raise SettingError(f"settings have one temperature, got {listed(one.temperature for one in given)} K")
        object.__setattr__(self, "settings", given)
        object.__setattr__(self, "_stages", tuple(self._made_stages(given)))

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages of all legs."""
        found: tuple[Stage, ...] = vars(self)["_stages"]
        return found

    def run(self, executor: Executor | None = None) -> Correction:
        """Run all trajectories that are not complete, write the report, and return the free energies.

        Parameters
        ----------
        executor : concurrent.futures.Executor, optional
            Executor that runs the trajectories; they run one after another in this process if not given. The processes
            of a pool are to be spawned: forked ones inherit OpenMM's threads half and can die of it.

        Raises
        ------
        SettingError
            If it is no executor.
        RunDirectoryError
            If the directory holds another correction, or is in use, or a file in it is damaged.
        EvaluationError
            If trajectories failed. All others are run first and kept.

        Warns
        -----
        QmmlmmWarning
            If the works of a stage do not overlap, with what to do about it.
        """
        with held_directory(self.directory, executor) as folder:
            self._check_record(folder)
            try:
                run_tasks([task for stage in self.stages for task in self._tasks(stage)], executor, "trajectory")
            finally:
                forget_simulation()
            found = self.result()
            write_correction_report(folder, found, [stage.settings for stage in self.stages])
        for text in found.warnings():
            warnings.warn(text, QmmlmmWarning, stacklevel=2)
        return found

    def result(self) -> Correction:
        """Return the free energies of the trajectories that are complete.

        Raises
        ------
        RunDirectoryError
            If a trajectory is missing, or a file is damaged.
        """
        legs: dict[str, list[StageResult]] = {}
        for stage in self.stages:
            works = {direction: self._works(stage, direction) for _, direction, _ in ENDS}
            estimate = work_estimate(works["forward"], works["reverse"], stage.settings.temperature)
            legs.setdefault(stage.leg_name, []).append(StageResult(stage.name, estimate, **works))
        return Correction({name: LegResult(tuple(stages)) for name, stages in legs.items()})

    def _made_stages(self, settings: Sequence[SwitchingSettings]) -> Iterator[Stage]:
        levels = [self.lower, *self.through, self.upper]
        names = level_names(levels)
        for leg_name, leg in self.legs.items():
            hamiltonians = [level_hamiltonian(level, leg.region, self.embedding) for level in levels]
            for k, one in enumerate(settings):
                hamiltonian = interpolated_hamiltonian(hamiltonians[k], hamiltonians[k + 1], PARAMETER)
                yield Stage(leg_name, f"{names[k]}-{names[k + 1]}", leg, hamiltonian, one)

    def _folder(self, stage: Stage) -> Path:
        # Workers may have another working directory.
        return Path(self.directory).absolute() / stage.leg_name / stage.name

    def _switch_path(self, stage: Stage, direction: str, index: int) -> Path:
        # Longer switches start from the frames that exist.
        return self._folder(stage) / f"{direction}-{stage.settings.switch_steps}" / f"{index:04d}.npz"

    def _works(self, stage: Stage, direction: str) -> FloatArray:
        found, order = [], _order(stage.settings)
        for index in order:
            work = switch_work(self._switch_path(stage, direction, index))
            if work is None:
                raise RunDirectoryError(
                    f"{self._switch_path(stage, direction, index)} is missing or not complete; call run"
                )
            found.append(work)
        return np.array(found)

    def _tasks(self, stage: Stage) -> Iterator[Task]:
        """Yield the tasks of a stage that are not complete."""
        settings, payload = stage.settings, pickle.dumps(stage)
        frames = -(-settings.trajectories // settings.replicas)
        for end, direction, value in ENDS:
            for replica in range(settings.replicas):
                window = self._folder(stage) / end / f"replica{replica}"
                name = f"{stage.leg_name}/{stage.name}/{end}/{replica}"
                if not frames_complete(window, frames):
                    call = functools.partial(
                        run_window, window, payload, value, replica, frames, with_derivatives=False
                    )
                    yield Task(name, call)
                for index in range(replica, settings.trajectories, settings.replicas):
                    path = self._switch_path(stage, direction, index)
                    if switch_work(path) is None:
                        frame = window / f"{index // settings.replicas:04d}.npz"
                        call = functools.partial(run_switch, path, payload, value, index, frame)
                        yield Task(f"{stage.leg_name}/{stage.name}/{direction}/{index}", call, after=name)

    def _check_record(self, folder: Path) -> None:
        record = {"format": RECORD_FORMAT, "stages": [stage_identity(stage) for stage in self.stages]}
        check_record(folder / RECORD_NAME, record)


def _order(settings: SwitchingSettings) -> list[int]:
    """Return the trajectories of each replica in the order of time, one replica after the other."""
    return [
        index
        for replica in range(settings.replicas)
        for index in range(replica, settings.trajectories, settings.replicas)
    ]
