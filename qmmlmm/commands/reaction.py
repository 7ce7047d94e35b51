"""The commands of a reaction, from ``qmmlmm optimise`` to ``qmmlmm profile``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from openmm import unit

from qmmlmm.analysis.path_figure import save_path_figure
from qmmlmm.commands.reaction_input import ReactionInput, read_reaction
from qmmlmm.commands.reaction_results import ENERGY, ResultFolder, Results, level_name
from qmmlmm.commands.reaction_windows import describe_windows, make_profile, plan_of, run_windows, window_starts
from qmmlmm.commands.worker_pool import worker_pool
from qmmlmm.errors import InputFileError, RunDirectoryError
from qmmlmm.reactions import (
    GridScan,
    Optimum,
    ReactionPath,
    SaddlePoint,
    Scan,
    Structure,
    Thermochemistry,
    eyring_rate,
    frequencies,
    optimise,
    reaction_path,
    saddle_point,
    scan,
    vibrational_thermochemistry,
)
from qmmlmm.reactions.frequencies import NEGATIVE
from qmmlmm.reactions.path import write_table
from qmmlmm.units import FloatArray

FORCE = unit.kilojoule_per_mole / unit.nanometer
COORDINATES = "the coordinates of [system]"
MINIMUM = "the minimum of qmmlmm optimise"
NOT_CONVERGED = 1
"""Exit status; the warning says what to do."""


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], parents: Sequence[argparse.ArgumentParser]
) -> None:
    """Add the commands of a reaction to the command ``qmmlmm``."""
    for name, (run, text) in _COMMANDS.items():
        parser = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=f"example: qmmlmm {name} reaction.toml --check",
            parents=parents,
        )
        parser.set_defaults(run=_command(name, run))
        parser.add_argument("file", type=Path, help="description of the reaction, TOML; of all its commands")
        parser.add_argument("--check", action="store_true", help="check everything, show what would run, and end")


def _command(name: str, run: Callable[[ReactionInput], bool]) -> Callable[[argparse.Namespace], int]:
    def command(options: argparse.Namespace) -> int:
        given = read_reaction(options.file)
        _say(_summary(given))
        if options.check:
            _say(f"{options.file} can run: qmmlmm {name} {options.file}")
            return 0
        return 0 if run(given) else NOT_CONVERGED

    return command


def _summary(given: ReactionInput) -> str:
    counts = given.counts
    rest = counts["all"] - counts["moving"] - counts["held"]
    lines = [
        f"{'system':<12} {counts['all']:,} particles: {counts['moving']:,} move in internal coordinates, "
        f"{counts['held']:,} are held, {rest:,} {'are relaxed' if given.moving.relax else 'stay where they are'}"
    ]
    lines += [f"{'term':<12} {name}: {term.term.potential!r}" for name, term in given.mixed.terms.items()]
    if given.scan is not None:
        ways = ", both ways" if given.scan.both_ways else ""
        grid = " x ".join(str(len(axis.centres)) for axis in given.scan.axes)
        lines.append(f"{'scan':<12} {grid} points{ways}")
    if given.umbrella is not None:
        lines.append(f"{'umbrella':<12} {describe_windows(given.umbrella)}")
    return "\n".join([*lines, f"{'directory':<12} {given.directory}"])


def _optimise(given: ReactionInput) -> bool:
    folder = ResultFolder(given, "optimise")
    start, settings = given.start.positions, _walk_settings(given)
    results = folder.kept(start, settings)
    if results is None:
        _say(f"start: {COORDINATES}")
        found = optimise(given.mixed, start, **given.surface(continued=False), **given.walk())
        results = _of_optimum(found)
        folder.path.mkdir(parents=True, exist_ok=True)
        _write_structure(found, folder.path, "optimum")
        _write_steps(found, folder.path / "optimise.csv")
        folder.keep(found, results, start, settings)
    return _shown(folder, results)


def _scan(given: ReactionInput) -> bool:
    folder = ResultFolder(given, "scan")
    start = _start_of_scan(given)
    _say(f"start: {COORDINATES if start is None else MINIMUM}")
    found = _scanned(given)
    way = _way(found)
    results: Results = {
        "converged": all(point.converged for point in found.all_points),
        **_of_path(way, "the scan"),
        "evaluations": found.evaluations,
        "start": COORDINATES if start is None else MINIMUM,
    }
    if found.hysteresis is not None:
        results["hysteresis (kJ/mol)"] = found.hysteresis.value_in_unit(ENERGY)
    results |= _single_points(given, way, folder.path)
    top = _top(way)
    _write_structure(top, folder.path, "highest")
    folder.keep(top, results, given.start.positions if start is None else start, {})
    return _shown(folder, results)


def _way(found: Scan | GridScan) -> ReactionPath:
    """Return the path of a scan: of a grid its lowest pass between two minima, else between its ends."""
    if isinstance(found, Scan):
        return found
    first, last = found.minima()
    return found.path(first, last) if first != last else found.path((0, 0), found.last_place)


def _scanned(given: ReactionInput) -> Scan | GridScan:
    """Return the scan, of which nothing is computed that is in its folder."""
    plan = given.scan
    if plan is None:
        raise InputFileError(
            f"{given.path}: the file lacks [scan]: variable = the name of a [[variable]], and centres = [...] or "
            "start, stop and steps"
        )
    start = _start_of_scan(given)
    alone = len(plan.axes) == 1
    variables, centres, constants = zip(*((a.variable, a.centres, a.force_constant) for a in plan.axes), strict=True)
    return scan(
        given.mixed,
        variables[0] if alone else variables,
        given.start.positions if start is None else start,
        centres=centres[0] if alone else centres,
        force_constant=constants[0] if alone else constants,
        both_ways=plan.both_ways,
        directory=given.directory / "scan",
        **given.surface(continued=start is not None),
        **given.walk(),
    )


def _start_of_scan(given: ReactionInput) -> Structure | None:
    """Return the minimum; None if there is none, or the scan was made without it."""
    made = ResultFolder(given, "scan").results()
    if made is not None and made["start"] == COORDINATES:
        return None
    return ResultFolder(given, "optimise").structure()


def _path(given: ReactionInput) -> bool:
    folder = ResultFolder(given, "path")
    ends = _band_ends(given)
    _say(f"start: {'the scan' if ends is None else 'two minima'}")
    settings = given.band
    first, last = (_way(_scanned(given)), None) if ends is None else ends
    with worker_pool(given.workers) as executor:
        found = reaction_path(
            given.mixed,
            first,
            last,
            images=settings.images,
            climb=settings.climb,
            largest_force=settings.largest_force,
            max_cycles=settings.max_cycles,
            executor=executor,
            directory=folder.path,
            **given.surface(continued=True),
        )
    _say(str(found))
    results: Results = {
        "converged": found.converged,
        **_of_path(found, "the path"),
        "largest force across the path (eV/angstrom)": float(found.perpendicular_forces[1:-1].max()),
        **_single_points(given, found, folder.path),
    }
    top = _top(found)
    _write_structure(top, folder.path, "highest")
    folder.keep(top, results, None, asdict(settings))
    return _shown(folder, results)


def _band_ends(given: ReactionInput) -> tuple[Structure, Structure] | None:
    """Return reactant and product, which are optimised once; None if the band starts from the scan."""
    if given.ends is None:
        if ResultFolder(given, "scan").structure() is None:
            raise InputFileError(
                f"{given.path}: a path starts from a scan or two structures: run qmmlmm scan {given.path} first, or "
                "give reactant and product in [path]"
            )
        return None
    found = []
    for name, positions in zip(("reactant", "product"), given.ends, strict=True):
        folder, settings = ResultFolder(given, name), _walk_settings(given)
        if folder.kept(positions, settings) is None:
            _say(f"optimisation of the {name}")
            end = optimise(given.mixed, positions, **given.surface(continued=False), **given.walk())
            folder.path.mkdir(parents=True, exist_ok=True)
            _write_structure(end, folder.path, name)
            folder.keep(end, _of_optimum(end), positions, settings)
        structure = folder.structure()
        assert structure is not None
        found.append(structure)
    return found[0], found[1]


def _saddle(given: ReactionInput) -> bool:
    folder = ResultFolder(given, "saddle")
    path, scanned = (ResultFolder(given, name).structure() for name in ("path", "scan"))
    structure = scanned if path is None else path
    place = COORDINATES if structure is None else "the top of the scan" if path is None else "the top of the path"
    start = given.start.positions if structure is None else structure
    settings = _walk_settings(given)
    results = folder.kept(start, settings)
    if results is None:
        _say(f"start: {place}")
        with worker_pool(given.workers) as executor:
            found = saddle_point(
                given.mixed,
                start,
                executor=executor,
                directory=_made(folder.path),
                **given.surface(continued=structure is not None),
                **given.walk(),
            )
        results = {**_of_saddle(found), "start": place}
        minimum = ResultFolder(given, "optimise").structure()
        if minimum is not None:
            results["energy above the minimum (kJ/mol)"] = (found.energy - minimum.energy).value_in_unit(ENERGY)
        _write_structure(found, folder.path, "saddle")
        _write_steps(found, folder.path / "saddle.csv")
        _write_modes(found.wave_numbers, folder.path / "frequencies.csv")
        found.frequencies.write_mode(folder.path / "mode.pdb")
        folder.keep(found, results, start, settings, {"wave_numbers": found.wave_numbers})
    return _shown(folder, results) and results["negative modes"] == 1


def _frequencies(given: ReactionInput) -> bool:
    folder = ResultFolder(given, "frequencies")
    minimum, saddle = (ResultFolder(given, name).structure() for name in ("optimise", "saddle"))
    if minimum is None and saddle is None:
        raise InputFileError(
            f"{given.path}: frequencies are those of a minimum or a saddle point: run qmmlmm optimise {given.path} or "
            f"qmmlmm saddle {given.path} first"
        )
    if minimum is not None and saddle is not None:
        _check_same_atoms(minimum, saddle)
    _made(folder.path)
    results: Results = {"converged": True}
    thermo: dict[str, Thermochemistry] = {}
    temperature = given.frequencies.temperature
    if minimum is not None:
        with worker_pool(given.workers) as executor:
            found = frequencies(
                given.mixed, minimum, executor=executor, directory=folder.path / "hessian", platform=given.platform
            )
        found.write_mode(folder.path / "minimum_lowest_mode.pdb")
        _write_modes(found.wave_numbers, folder.path / "minimum.csv")
        thermo["minimum"] = found.thermochemistry(temperature)
        results |= _of_thermochemistry("minimum", found.n_negative, thermo["minimum"])
    if saddle is not None:
        # With the surroundings held, as the search has computed them.
        wave_numbers = ResultFolder(given, "saddle").arrays()["wave_numbers"]
        _write_modes(wave_numbers, folder.path / "saddle.csv")
        thermo["saddle"] = vibrational_thermochemistry(wave_numbers, temperature)
        results["saddle: lowest mode (1/cm)"] = float(wave_numbers[0])
        results |= _of_thermochemistry("saddle", int((wave_numbers < NEGATIVE).sum()), thermo["saddle"])
        if minimum is not None:
            results |= _of_barrier(minimum, saddle, thermo, float(wave_numbers[0]))
    for thermochemistry in thermo.values():
        _say(str(thermochemistry))
    structure = minimum if saddle is None else saddle
    assert structure is not None
    folder.keep(structure, results, structure, asdict(given.frequencies))
    return _shown(folder, results)


def _umbrella(given: ReactionInput) -> bool:
    plan = plan_of(given)
    scanned = None
    if plan.starts != "positions" and ResultFolder(given, "scan").structure() is not None:
        scanned = _way(_scanned(given)).structures
    starts = window_starts(given, scanned, ResultFolder(given, "optimise").structure())
    _say(f"start: {starts.place}")
    return _shown(ResultFolder(given, "umbrella"), run_windows(given, starts))


def _profile(given: ReactionInput) -> bool:
    return _shown(ResultFolder(given, "profile"), make_profile(given))


def _check_same_atoms(minimum: Structure, saddle: Structure) -> None:
    if (minimum.atoms, minimum.hold) != (saddle.atoms, saddle.hold):
        raise RunDirectoryError(
            "other atoms move or are held at the saddle point than at the minimum, so that their free energies cannot "
            "be compared: run qmmlmm optimise, scan and saddle in this order in one directory"
        )


def _of_optimum(found: Optimum) -> Results:
    return {
        "converged": found.converged,
        "energy (kJ/mol)": found.energy.value_in_unit(ENERGY),
        "largest force on a moving atom (kJ/(mol nm))": found.largest_force.value_in_unit(FORCE),
        "evaluations": found.evaluations,
    }


def _of_saddle(found: SaddlePoint) -> Results:
    return {
        **_of_optimum(found),
        "negative modes": found.n_negative,
        "lowest modes (1/cm)": [float(x) for x in found.wave_numbers[:3]],
    }


def _of_path(found: ReactionPath, name: str) -> Results:
    if len(found) < 3:
        return {}
    results: Results = {
        "barrier (kJ/mol)": found.barrier.value_in_unit(ENERGY),
        "reverse barrier (kJ/mol)": found.reverse_barrier.value_in_unit(ENERGY),
        "reaction energy (kJ/mol)": found.reaction_energy.value_in_unit(ENERGY),
    }
    if int(np.argmax(found.relative_energies)) in (0, len(found) - 1):
        results["note"] = f"the energy is highest at an end of {name}: go on beyond it before you trust the barrier"
    return results


def _top(found: ReactionPath) -> Structure:
    return found.highest if len(found) > 2 else found.structures[int(np.argmax(found.relative_energies))]


def _single_points(given: ReactionInput, found: ReactionPath, folder: Path) -> Results:
    """Return the barrier with another level, with a table and a figure of both; nothing without [single_points]."""
    if given.upper is None or len(found) < 3:
        return {}
    own = folder / "single_points" / level_name(given.upper.potential)
    levels = found.single_points(given.upper.potential, given.upper.term, directory=own)
    levels.write_csv(folder / "single_points.csv")
    energies = {"this path": found.relative_energies, levels.method: levels.relative_energies}
    save_path_figure(found.progress, energies, found.progress_label, folder / "single_points.png")
    return {f"barrier with {levels.method} (kJ/mol)": levels.barrier.value_in_unit(ENERGY)}


def _of_thermochemistry(name: str, n_negative: int, found: Thermochemistry) -> Results:
    return {
        f"{name}: negative modes": n_negative,
        f"{name}: zero-point energy (kJ/mol)": found.zero_point_energy.value_in_unit(ENERGY),
        f"{name}: free energy of vibration (kJ/mol)": found.free_energy.value_in_unit(ENERGY),
    }


def _of_barrier(minimum: Structure, saddle: Structure, thermo: dict[str, Thermochemistry], lowest: float) -> Results:
    """Return differences between saddle point and minimum, and the rate over this barrier."""
    first, last = thermo["minimum"], thermo["saddle"]
    potential = saddle.energy - minimum.energy
    free = potential + last.free_energy - first.free_energy
    results: Results = {
        "barrier (kJ/mol)": potential.value_in_unit(ENERGY),
        "barrier with zero-point energy (kJ/mol)": (
            potential + last.zero_point_energy - first.zero_point_energy
        ).value_in_unit(ENERGY),
        "free energy of activation, harmonic (kJ/mol)": free.value_in_unit(ENERGY),
    }
    if lowest < 0.0:
        rate = eyring_rate(free, first.temperature, negative_wave_number=lowest)
        results["rate with tunnelling (1/s)"] = rate.value_in_unit(unit.second**-1)
    return results


def _walk_settings(given: ReactionInput) -> dict[str, object]:
    moving = given.moving
    return {
        "thresholds": vars(given.thresholds),
        "coordinates": moving.coordinates,
        "max_steps": moving.max_steps,
        "tolerance": moving.tolerance,
    }


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_structure(structure: Structure, folder: Path, name: str) -> None:
    structure.write_pdb(folder / f"{name}.pdb")
    structure.write_xyz(folder / f"{name}.xyz")


def _write_steps(found: Optimum, path: Path) -> None:
    energies = np.asarray(found.energies.value_in_unit(ENERGY))
    write_table(path, {"Step": np.arange(len(energies), dtype=float), "Potential Energy (kJ/mol)": energies})


def _write_modes(wave_numbers: FloatArray, path: Path) -> None:
    write_table(path, {"Mode": np.arange(len(wave_numbers), dtype=float), "Wave Number (1/cm)": wave_numbers})


def _shown(folder: ResultFolder, results: Results) -> bool:
    """Print results; return whether they are converged."""
    for name, value in results.items():
        _say(f"{name:<46} {_text(value)}")
    _say(f"{'files':<46} {folder.path}")
    return bool(results["converged"])


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_text(each) for each in value)
    return f"{value:.8g}" if isinstance(value, float) else str(value)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


_COMMANDS: dict[str, tuple[Callable[[ReactionInput], bool], str]] = {
    "optimise": (_optimise, "the nearest minimum of the reacting atoms, with their surroundings relaxed"),
    "scan": (_scan, "optimise at restrained values of a variable, forth and back"),
    "path": (_path, "a path of lowest energy: a nudged elastic band from a scan or between two structures"),
    "saddle": (_saddle, "search the saddle point, from the top of the path or of the scan"),
    "frequencies": (_frequencies, "frequencies at minimum and saddle point, free energies and the rate"),
    "umbrella": (_umbrella, "umbrella windows along a variable, from the scan or from one structure"),
    "profile": (_profile, "the free energy along the variable from the windows so far, also of another level"),
}
