"""Where singlet and triplet of methylene cross, in vacuum and in water: the numbers of `examples/spin_crossing.py`.

    python tests/benchmarks/methylene_crossing.py [--directory spin_run] [--method b3lyp] [--json FILE]

It takes the other options of the example too, and a minute of processor time.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "examples"), str(Path(__file__).parent)]

from record import Table, add_option, print_tables, write_record
from spin_crossing import AngleScan, parse_options, run


def column(scan: AngleScan) -> list[float]:
    """Return the numbers of a crossing point in the order of the rows."""
    lowest = [float(scan.energies[spin].min()) for spin in ("singlet", "triplet")]
    found = [scan.angle, round(100.0 * scan.length, 1), float(scan.point.projection), int(scan.point.evaluations)]
    return [*found, *lowest, scan.spin_orbit, scan.flip]


ROWS = (
    "angle, degrees",
    "C-H, pm",
    "gradient along the seam, hartree/bohr",
    "QM evaluations",
    "lowest singlet on the bend, from the crossing, kJ/mol",
    "lowest triplet on the bend, from the crossing, kJ/mol",
    "spin-orbit coupling, 1/cm",
    "probability of a spin flip at one passage, 300 K",
)


def main() -> None:
    """Run the example and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_option(parser)
    options, others = parser.parse_known_args()
    settings = parse_options(others)
    scans = run(settings)
    rows = tuple(zip(ROWS, *map(column, scans), strict=True))
    names = ["one arrangement of " + s.surroundings if "waters" in s.surroundings else s.surroundings for s in scans]
    table = Table("", ("", *names), rows)
    print_tables([table])
    write_record(options.json, [table], f"Methylene, {settings.method}/{settings.basis}.")


if __name__ == "__main__":
    main()
