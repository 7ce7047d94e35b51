"""The commands ``qmmlmm umbrella`` and ``qmmlmm profile``: windows along a variable, and their free energy."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.commands.reaction_input import ReactionInput, UmbrellaPlan
from qmmlmm.commands.reaction_results import ENERGY, ResultFolder, Results, level_name
from qmmlmm.commands.run_input import make_barostat, make_integrator
from qmmlmm.commands.run_settings import DynamicsSettings
from qmmlmm.commands.worker_pool import worker_pool
from qmmlmm.coupling.hamiltonian import Hamiltonian
from qmmlmm.errors import InputFileError, ReweightingError, SettingError
from qmmlmm.free_energy import UmbrellaProfile, UmbrellaSampling
from qmmlmm.free_energy.umbrella_profile import umbrella_profile
from qmmlmm.free_energy.umbrella_sampling import profile_figure
from qmmlmm.geometry import Geometry
from qmmlmm.mm.creation import create_mixed_system
from qmmlmm.mm.held_atoms import hold
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.reactions import Structure
from qmmlmm.reactions.structure import xyz_text
from qmmlmm.runs.checkpoint import load_state
from qmmlmm.units import FloatArray


@dataclass(frozen=True)
class WindowSimulation:
    """Makes the Simulation of a window, in this process or in a worker.

    Parameters
    ----------
    mixed : MixedSystem
        With its held atoms and without an umbrella.
    dynamics : DynamicsSettings
    platform : str or None
    """

    mixed: MixedSystem
    dynamics: DynamicsSettings
    platform: str | None

    def __call__(self, umbrella: openmm.Force) -> tuple[MixedSystem, app.Simulation]:
        """Return a mixed System of its own with an umbrella, and its Simulation."""
        mixed = _copied(self.mixed)
        mixed.system.addForce(umbrella)
        dynamics = self.dynamics
        if dynamics.pressure is not None:
            mixed.system.addForce(make_barostat(dynamics, float(dynamics.pressure)))
        integrator = make_integrator(dynamics, mixed, dynamics.inner_steps, float(dynamics.friction))
        if self.platform is None:
            return mixed, app.Simulation(mixed.topology, mixed.system, integrator)
        platform = openmm.Platform.getPlatform(self.platform)
        return mixed, app.Simulation(mixed.topology, mixed.system, integrator, platform)


@dataclass(frozen=True)
class WindowStarts:
    """Positions at which windows start.

    Parameters
    ----------
    place : str
        Where they come from, for people.
    positions : (n, 3) or (k, n, 3) float array, nm
    hold : tuple of int
        Atoms that are held.
    """

    place: str
    positions: FloatArray
    hold: tuple[int, ...]


def run_windows(given: ReactionInput, starts: WindowStarts) -> Results:
    """Run what is left of all windows; return the results, which are in the folder then.

    Parameters
    ----------
    given : ReactionInput
    starts : WindowStarts
    """
    plan = plan_of(given)
    folder = ResultFolder(given, "umbrella")
    sampling = _sampling(given, plan, starts)
    with worker_pool(given.workers) as executor:
        profile = sampling.run(executor)
    _write_last_structures(given, sampling, folder.path)
    results: Results = {**_of_windows(profile), "start": starts.place, **_of_barrier(given, plan, profile)}
    folder.keep_results(results, None, _identity(plan))
    return results


def window_starts(given: ReactionInput, scanned: Sequence[Structure] | None, minimum: Structure | None) -> WindowStarts:
    """Return where windows start: at structures of a scan, or from one structure.

    Parameters
    ----------
    given : ReactionInput
    scanned : sequence of Structure or None
        Structures of the scan.
    minimum : Structure or None
        Minimum of ``qmmlmm optimise``.
    """
    plan = plan_of(given)
    if scanned is None:
        if plan.starts == "scan":
            raise InputFileError(
                f"{given.path}: [umbrella] starts from the scan, and there is none: run qmmlmm scan {given.path} first"
            )
        if minimum is None:
            return WindowStarts("the coordinates of [system]", given.start.positions, given.hold)
        return WindowStarts("the minimum of qmmlmm optimise", _positions(minimum), minimum.hold)
    values = np.array([plan.variable(Geometry.from_quantities(s.positions, s.box_vectors)) for s in scanned])
    away = np.abs(plan.variable.difference(np.array(plan.centres)[:, None], values[None, :]))
    nearest = away.argmin(axis=1)
    return WindowStarts("the scan", np.array([_positions(scanned[k]) for k in nearest]), scanned[0].hold)


def make_profile(given: ReactionInput) -> Results:
    """Write the profile of the samples so far, and that of another level if asked for; return the results."""
    plan = plan_of(given)
    folder = ResultFolder(given, "profile")
    sampling = _sampling(given, plan, WindowStarts("", given.start.positions, given.hold))
    samples = sampling.samples()
    symbol = None if plan.variable.unit is None else plan.variable.unit.get_symbol()
    profile = umbrella_profile(
        samples,
        plan.centres,
        plan.force_constants,
        plan.dynamics.temperature,
        bins=given.profile.bins,
        period=plan.variable.period,
        name=plan.name if symbol is None else f"{plan.name} ({symbol})",
    )
    results: Results = {**_of_windows(profile), **_of_barrier(given, plan, profile)}
    others: dict[str, UmbrellaProfile] = {}
    every = given.profile.reweight_every
    if every is not None:
        if given.upper is None:
            raise InputFileError(f"{given.path}: [profile] reweight_every needs [single_points], the other level")
        name = given.upper.potential.method_name
        label = level_name(given.upper.potential)
        better = sampling.reweighted(label, _upper_simulation(given), every=every, bins=given.profile.bins)
        others[name] = better
        results |= _of_barrier(given, plan, better, f" with {name}")
        results[f"fewest effective samples of a bin with {name}"] = float(better.samples.min())
    folder.path.mkdir(parents=True, exist_ok=True)
    profile.write_csv(folder.path / "profile.csv")
    profile.write_overlap_csv(folder.path / "overlap.csv")
    for better in others.values():
        better.write_csv(folder.path / "reweighted.csv")
    profile_figure(profile, samples, others).savefig(folder.path / "profile.png", dpi=200)
    folder.keep_results(results, None, _identity(plan) | {"profile": asdict(given.profile)})
    return results


def plan_of(given: ReactionInput) -> UmbrellaPlan:
    """Return the windows.

    Raises
    ------
    InputFileError
        If the file has none.
    """
    if given.umbrella is None:
        raise InputFileError(
            f"{given.path}: the file lacks [umbrella]: variable = the name of a [[variable]], force_constant, and "
            "centres = [...] or start, stop and windows; and [dynamics]"
        )
    return given.umbrella


def describe_windows(plan: UmbrellaPlan) -> str:
    """Return the number and length of windows for people."""
    dynamics = plan.dynamics
    step = float(dynamics.step) * dynamics.inner_steps
    total = (plan.steps + plan.equilibration) * len(plan.centres)
    return (
        f"{len(plan.centres)} windows of {plan.steps * step:g} ps after {plan.equilibration * step:g} ps, {total:,} "
        f"steps of {1000.0 * step:g} fs in all, {dynamics.temperature:g} K, "
        + ("constant volume" if dynamics.pressure is None else f"{dynamics.pressure:g} bar")
    )


def _sampling(given: ReactionInput, plan: UmbrellaPlan, starts: WindowStarts) -> UmbrellaSampling:
    return UmbrellaSampling(
        given.directory / "umbrella",
        WindowSimulation(_with_held_atoms(given, given.mixed, starts), plan.dynamics, given.platform),
        plan.variable,
        plan.centres,
        plan.force_constants,
        starts.positions,
        temperature=plan.dynamics.temperature,
        steps=plan.steps,
        equilibration=plan.equilibration,
        interval=plan.sample,
        frame_interval=plan.frames,
        checkpoint_interval=plan.checkpoint,
        pull_steps=plan.pull,
        seed=plan.dynamics.seed,
        name=plan.name,
        exchange=plan.exchange,
    )


def _with_held_atoms(given: ReactionInput, mixed: MixedSystem, starts: WindowStarts) -> MixedSystem:
    """Return a copy whose held atoms have no mass; all but the reacting ones with relax = false."""
    copied = _copied(mixed)
    held = set(starts.hold)
    if not given.moving.relax:
        held |= set(range(given.start.topology.getNumAtoms())) - set(given.atoms)
    held -= {k for k in range(copied.system.getNumParticles()) if copied.system.isVirtualSite(k)}
    if held:
        hold(copied, given.start.topology, sorted(held))
    return copied


def _copied(mixed: MixedSystem) -> MixedSystem:
    copied: MixedSystem = pickle.loads(pickle.dumps(mixed))
    copied.forget()
    return copied


def _upper_simulation(given: ReactionInput) -> WindowSimulation:
    """Return what makes Simulations with the level of [single_points]."""
    upper, plan = given.upper, plan_of(given)
    assert upper is not None
    old = given.mixed.hamiltonian
    terms = [
        replace(term, potential=upper.potential, name=None) if name == upper.term else term
        for name, term in zip(old.term_names(), old.terms, strict=True)
    ]
    hamiltonian = Hamiltonian(terms, parameters=dict(old.parameters))
    mixed = create_mixed_system(given.start.topology, given.start.system, hamiltonian)
    # Energies only, for which no atom needs to be held, and there is no multiple time step and no barostat.
    dynamics = replace(plan.dynamics, integrator="langevin", correct_every=None, isokinetic=False, pressure=None)
    return WindowSimulation(mixed, dynamics, given.platform)


def _of_windows(profile: UmbrellaProfile) -> Results:
    return {
        "converged": profile.is_reliable,
        "smallest overlap of neighbours": float(profile.smallest_overlap),
        "fewest independent samples of a window": float(profile.independent_samples.min()),
    }


def _of_barrier(given: ReactionInput, plan: UmbrellaPlan, profile: UmbrellaProfile, of: str = "") -> Results:
    """Return the barrier of a profile with its error, or why there is none."""
    try:
        found = profile.barrier(*given.profile.ends_of(plan.variable))
    except (ReweightingError, SettingError) as error:
        return {f"barrier{of}": f"none: {error}"}
    return {
        f"free energy barrier{of} (kJ/mol)": float(found.height.value_in_unit(ENERGY)),
        f"standard error{of} (kJ/mol)": float(found.error.value_in_unit(ENERGY)),
        f"reverse barrier{of} (kJ/mol)": float(found.reverse_height.value_in_unit(ENERGY)),
        f"standard error of the reverse barrier{of} (kJ/mol)": float(found.reverse_error.value_in_unit(ENERGY)),
        f"reactant, top and product{of}": [found.reactant, found.top, found.product],
    }


def _identity(plan: UmbrellaPlan) -> dict[str, object]:
    return {"umbrella": repr(plan)}


def _write_last_structures(given: ReactionInput, sampling: UmbrellaSampling, folder: Path) -> None:
    """Write the last positions of all windows: models of one PDB file, and of the reacting atoms extended XYZ."""
    topology, frames = given.start.topology, []
    with (folder / "windows.pdb").open("w", encoding="utf-8") as file:
        app.PDBFile.writeHeader(topology, file)
        for number, window in enumerate(sampling.windows, start=1):
            state = load_state(window.folder)
            positions = state.getPositions(asNumpy=True)
            app.PDBFile.writeModel(topology, positions, file, number, keepIds=True)
            periodic = given.mixed.system.usesPeriodicBoundaryConditions()
            box = state.getPeriodicBoxVectors(asNumpy=True) if periodic else None
            facts = {"window": str(number - 1), "centre": f"{window.centre:.8g}"}
            frames.append(xyz_text(topology, positions, box, given.atoms, facts))
        app.PDBFile.writeFooter(topology, file)
    (folder / "windows.xyz").write_text("".join(frames), encoding="utf-8")


def _positions(structure: Structure) -> FloatArray:
    return np.asarray(structure.positions.value_in_unit(unit.nanometer))
