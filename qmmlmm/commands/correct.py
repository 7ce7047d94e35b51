"""The command ``qmmlmm correct``: free energies of the legs of a cycle, from a lower level to an upper one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from openmm import unit

from qmmlmm.commands.hamiltonian_input import read_region
from qmmlmm.commands.input_file import Table, read_toml, reading
from qmmlmm.commands.potential_input import read_level
from qmmlmm.commands.system_input import read_system
from qmmlmm.commands.worker_pool import worker_pool
from qmmlmm.errors import InputFileError, listed
from qmmlmm.free_energy import Correction, EndStateCorrection, Leg, SwitchingSettings
from qmmlmm.free_energy.correction_report import REPORT_NAME, sampling_notes
from qmmlmm.setting_checks import check_count, check_quantity, check_text

TOP = ("directory", "embedding", "workers", "leg", "level", "switching", "lower")


@dataclass(frozen=True)
class LowerSettings:
    """The table [lower]: a free energy of the lower level that is corrected.

    Parameters
    ----------
    free_energy : number, kJ/mol
        Binding free energy, or that of another cycle.
    error : number, kJ/mol
        Its standard error.
    first, second : text
        Legs whose difference corrects it: the complex and the ligand in solvent.
    """

    free_energy: float
    error: float = 0.0
    first: str = "complex"
    second: str = "solvent"

    def __post_init__(self) -> None:
        for name, limit in (("free_energy", None), ("error", 0.0)):
            value = check_quantity(name, vars(self)[name], unit.kilojoule_per_mole, at_least=limit)
            object.__setattr__(self, name, value)
        for name in ("first", "second"):
            check_text(name, vars(self)[name])


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], parents: Sequence[argparse.ArgumentParser]
) -> None:
    """Add ``correct`` to the command ``qmmlmm``."""
    parser = commands.add_parser(
        "correct",
        help="correct a binding free energy from a force field to ML/MM, xTB/MM or QM/MM",
        epilog="example: qmmlmm correct binding.toml --check",
        parents=parents,
    )
    parser.set_defaults(run=_run)
    parser.add_argument("file", type=Path, help="description, TOML; continues a correction that was stopped")
    parser.add_argument("--check", action="store_true", help="check everything, and end")


def _run(options: argparse.Namespace) -> int:
    with reading(options.file):
        content = read_toml(options.file, TOP)
        workers = check_count("workers", content.whole_number("workers", 1), error=InputFileError)
        lower = content.table("lower").build(LowerSettings) if "lower" in content else None
        correction = read_correction(content, options.file)
        if lower is not None:
            _check_legs(lower, correction)
    for stage in correction.stages:
        stage.create()
        sys.stdout.write(f"{stage.leg_name}: {stage.name}, region of {len(stage.leg.region)} atoms\n")
    for note in sampling_notes([stage.settings for stage in correction.stages]):
        sys.stdout.write(f"note: {note}\n")
    if options.check:
        sys.stdout.write(f"{options.file} can run: qmmlmm correct {options.file}\n")
        return 0
    with worker_pool(workers) as executor:
        found = correction.run(executor)
    sys.stdout.write(f"{found}\n{_corrected(lower, found)}report: {Path(correction.directory) / REPORT_NAME}\n")
    return 0


def read_correction(content: Table, file: Path) -> EndStateCorrection:
    """Return the correction that a file describes; paths in it are relative to the file.

    Parameters
    ----------
    content : Table
        The file.
    file : Path

    Raises
    ------
    InputFileError
        If a key is unknown or missing, or a value is invalid.
    """
    folder = file.parent
    directory = folder / content.text("directory", file.stem + "_run")
    embedding = content.text("embedding", "electrostatic")
    levels = content.tables("level")
    if len(levels) < 2:
        raise InputFileError(
            f"[[level]] comes twice or more, from the lower level to the upper one, got {len(levels)}: for example "
            'method = "force field" in the first and method = "gfn2-xtb" in the second'
        )
    settings = content.optional_table("switching").build(SwitchingSettings)
    potentials = [read_level(level, folder, embedding) for level in levels]
    legs = content.table("leg")
    found = {name: _read_leg(legs.table(name), folder) for name in legs}
    with content.place():
        return EndStateCorrection(
            directory, found, potentials[0], potentials[-1], potentials[1:-1], embedding=embedding, settings=settings
        )


def _read_leg(table: Table, folder: Path) -> Leg:
    table.check_keys(("system", "region"))
    start = read_system(table.table("system"), folder)
    region = read_region(table.table("region"), start, folder)
    with table.place():
        return Leg(start.topology, start.system, start.positions, region)


def _check_legs(lower: LowerSettings, correction: EndStateCorrection) -> None:
    for name in (lower.first, lower.second):
        if name not in correction.legs:
            raise InputFileError(f"[lower] names the leg {name!r}; there are {listed(correction.legs)}")


def _corrected(lower: LowerSettings | None, found: Correction) -> str:
    if lower is None:
        return ""
    value, error = found.corrected(lower.free_energy, lower.error, lower.first, lower.second)
    numbers = [x.value_in_unit(unit.kilojoule_per_mole) for x in (value, error)]
    return f"corrected: {numbers[0]:.3f} +- {numbers[1]:.3f} kJ/mol\n"
