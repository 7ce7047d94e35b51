"""Energy of a neutral molecule in the uniform background of a charged box: acetone among ions.

    python tests/benchmarks/background_shift.py [--data FRAMES.xyz.gz] [--frames 4] [--json FILE]

Ewald sums of a box with the net charge Q are those with a uniform background of the density -Q/V. Its potential has
the Laplacian 4 pi Q/V, which a neutral molecule of charges feels through the second moment of its charge density alone,

    E = 1/6 (d2 phi/dx2 + d2 phi/dy2 + d2 phi/dz2) * integral of rho r^2,

a number that hardly depends on its geometry; the mean of the potential over the box, which Ewald sums set to zero,
does not matter to what has no charge. The electrons of QM have that moment, a model of charges and dipoles has only
that of its charges: against labels from a charged box its energies are all too high by the same amount. Prints the
trace of the field's gradient in the labels, the second moment of the charge density in a vacuum, that of the Mulliken
charges, and the energies of both in the background.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from pyscf import dft, gto

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from record import Table, add_option, print_tables, write_record

from qmmlmm.learning import LabelledFrame, read_frames
from qmmlmm.units import HARTREE_IN_KJ_PER_MOL

DATA = Path(__file__).parent / "data" / "acetone_ions.xyz.gz"


def second_moments(frame: LabelledFrame) -> tuple[float, float]:
    """Return the integral of rho r^2 about the centre of the nuclear charges, of B3LYP/6-31G* and of its charges."""
    numbers, positions = np.asarray(frame.atomic_numbers), np.asarray(frame.positions)
    molecule = gto.M(atom=list(zip(numbers.tolist(), positions, strict=True)), unit="bohr", basis="6-31g*", verbose=0)
    scf = dft.RKS(molecule, xc="b3lyp").density_fit().run()
    if not scf.converged:
        raise SystemExit(f"the SCF of frame {frame.name!r} did not converge")
    charges = molecule.atom_charges()
    origin = charges @ positions / charges.sum()
    squares = ((positions - origin) ** 2).sum(1)
    with molecule.with_common_orig(origin):
        electrons = np.einsum("ij,ji->", scf.make_rdm1(), molecule.intor("int1e_r2"))
    _, mulliken = scf.mulliken_pop(verbose=0)
    return float(charges @ squares - electrons), float(mulliken @ squares)


def main() -> None:
    """Compute and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--frames", type=int, default=4)
    add_option(parser)
    options = parser.parse_args()
    frames = read_frames(options.data)
    rows = []
    for frame in frames[:: max(1, len(frames) // options.frames)]:
        if frame.field_gradient is None:
            raise SystemExit(f"frame {frame.name!r} has no field gradient")
        trace = float(np.trace(frame.field_gradient, axis1=1, axis2=2).mean())  # minus the Laplacian of the potential
        density, charges = second_moments(frame)
        energies = [-trace / 6.0 * moment * HARTREE_IN_KJ_PER_MOL for moment in (density, charges)]
        rows.append((frame.name, trace, density, charges, *energies))
        print(*rows[-1], flush=True)
    columns = (
        "frame",
        "trace of the field's gradient, hartree/(e bohr²)",
        "second moment of the density, e bohr²",
        "of the charges, e bohr²",
        "energy of the density, kJ/mol",
        "of the charges, kJ/mol",
    )
    table = Table("", columns, tuple(rows))
    print_tables([table])
    notes = (
        "Acetone in the uniform background of a box with the charge +1; density and Mulliken charges of B3LYP/6-31G*."
    )
    write_record(options.json, [table], notes)


if __name__ == "__main__":
    main()
