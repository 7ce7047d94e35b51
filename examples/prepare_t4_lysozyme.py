"""From a raw PDB file and a SMILES to xTB/MM dynamics corrected by B3LYP: T4 lysozyme L99A with p-xylene.

The PDB file is 4W51 as deposited: 9 residues lack atoms, 13 have alternate locations, and a buffer is in it.
The pose of p-xylene comes from another complex, superposed; its bonds and hydrogens come from the SMILES. The script
prints what was found and decided, writes the folder with all files and the picture of the site (site.png), and runs
GFN2-xTB/MM dynamics of the ligand that B3LYP/6-31G* corrects every 2 fs, as `qmmlmm run corrected.toml` does.

    pip install "qmmlmm[prepare,xtb]"
    python examples/prepare_t4_lysozyme.py
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from openmm import unit

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qmmlmm.commands.main import main
from systems.raw_structures import raw_structure
from systems.t4_lysozyme import builder

RUN = """# GFN2-xTB/MM of the ligand, corrected by B3LYP every 2 fs. Continue it with: qmmlmm run corrected.toml
[system]
prepared = "."

[region.ligand]
site = "site.toml"

[[term]]
region = "ligand"
method = "gfn2-xtb"
correct = {{method = "b3lyp", basis = "6-31g*"}}

[heat]
length = "{heat} fs"
start = 10.0
force_field_only = true

[dynamics]
length = {steps}               # of 2 fs
integrator = "multiple-time-step"
step = "0.5 fs"
correct_every = 4
temperature = 300.0

[output]
trajectory = 1
energies = 1
"""


def alpha_carbons(lines: list[str]) -> dict[int, np.ndarray]:
    """Positions of alpha carbons by the number of their residue, angstrom; of alternates the first."""
    found: dict[int, np.ndarray] = {}
    for line in lines:
        if line.startswith("ATOM") and line[12:16] == " CA ":
            found.setdefault(int(line[22:26]), np.array([float(line[k : k + 8]) for k in (30, 38, 46)]))
    return found


def superposed_ligand(lines: list[str]) -> np.ndarray:
    """The carbons of p-xylene of openmmtools' complex, moved onto the raw structure, angstrom."""
    prmtop, quantity = builder.load_solute()
    positions = quantity.value_in_unit(unit.angstrom)
    raw = alpha_carbons(lines)
    pairs = [
        (positions[atom.index], raw[int(atom.residue.id)]) for atom in prmtop.topology.atoms() if atom.name == "CA"
    ]
    mobile, target = (np.array(points) for points in zip(*pairs, strict=True))
    left, _, right = np.linalg.svd((mobile - mobile.mean(0)).T @ (target - target.mean(0)))
    rotation = left @ np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))]) @ right
    carbons = positions[list(builder.LIGAND)[:8]]
    return (carbons - mobile.mean(0)) @ rotation + target.mean(0)


def write_complex(path: Path) -> None:
    """Write the raw file with the carbons of p-xylene as a residue PXY."""
    lines = raw_structure("4W51.pdb").read_text(encoding="utf-8").splitlines()
    carbons = [
        f"HETATM{9000 + k:5d}  C{k:<2d} PXY A 300    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00           C"
        for k, (x, y, z) in enumerate(superposed_ligand(lines), start=1)
    ]
    end = next(k for k, line in enumerate(lines) if line.startswith(("CONECT", "MASTER", "END")))
    path.write_text("\n".join([*lines[:end], *carbons, *lines[end:]]) + "\n", encoding="utf-8")


def run() -> int:
    """Prepare, and run what was prepared."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("t4_lysozyme_prepared"))
    parser.add_argument("--steps", type=int, default=3, help="steps of 2 fs with one B3LYP calculation each")
    parser.add_argument("--heat", type=float, default=100.0, help="length of the heating by the force field, fs")
    parser.add_argument("--minimise", default="150", help="iterations of each stage of minimisation")
    parser.add_argument("--structure-only", action="store_true", help="write 4w51_xylene.pdb and prepare nothing")
    options = parser.parse_args()
    raw = Path("4w51_xylene.pdb")
    write_complex(raw)
    if options.structure_only:
        return 0
    command = ["prepare", str(raw), "--ligand", "PXY=Cc1ccc(C)cc1", "--state", "A:31=HIE", "--out", str(options.out)]
    status = main([*command, "--minimise", options.minimise])
    if status == 0 and options.steps:
        path = options.out / "corrected.toml"
        path.write_text(RUN.format(heat=options.heat, steps=options.steps), encoding="utf-8")
        status = main(["run", str(path)])
    return status


if __name__ == "__main__":
    sys.exit(run())
