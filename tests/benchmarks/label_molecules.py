"""Label small molecules in water with B3LYP/6-31G*, in the field of the water and in a vacuum.

    python tests/benchmarks/label_molecules.py --set learned --labels 2 --output molecule_labels
    python tests/benchmarks/label_molecules.py --set unseen --labels 4 --output molecule_labels

Each label has a new conformation, which moved for 0.13 ps with GFN2-xTB in a vacuum at 400 K, and new water, which
moved for 1 ps around it. In every fourth there are ions. A run that was stopped goes on, and one with more labels adds
to what is there: OUTPUT/SET/NAME.xyz of each molecule. Several processes share the molecules: --share 1/4 to --share
4/4. Needs the extras prepare and xtb.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
import openmm
import torch
from openmm import unit
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, XTBPotential, create_mixed_system
from qmmlmm.errors import QmmlmmError
from qmmlmm.geometry import Geometry
from qmmlmm.learning import LabelledFrame, Labeller, append_frames, read_frames
from systems import small_molecules, solute_in_water
from systems.structure import Structure

QM = PySCFPotential("b3lyp", "6-31g*", grid_level=2, conv_tol=1e-8, guess="fresh")
METHOD = "b3lyp/6-31g*, density fitting, grid level 2"
SMALL, BOXES = 6, ((2.0, 225), (2.2, 290))  # heavy atoms; nm and number of waters
SPLITTING = 5.2  # 1/nm; a QM term needs no finer mesh of its own
TEMPERATURE, STEPS = 400.0, 250  # K, 0.5 fs
PICOSECONDS = 1.0
ION_PAIRS_EVERY = 4
ATTEMPTS = 5


def name_of(smiles: str) -> str:
    """Return the name of a molecule in data sets, where a SMILES cannot stand."""
    return hashlib.sha256(smiles.encode()).hexdigest()[:12]


def seed_of(smiles: str, label: int, attempt: int) -> int:
    """Return a seed that depends on nothing else."""
    return int(hashlib.sha256(f"{smiles} {label} {attempt}".encode()).hexdigest()[:7], 16)


def term_in(structure: Structure, atoms: list[int], charge: int, potential: object, embedding: str) -> object:
    """Return the mixed System of the molecule at one level."""
    region = Region("molecule", atoms, charge=charge)
    hamiltonian = Hamiltonian([Term(potential, region, embedding=embedding)])
    return create_mixed_system(structure.topology, structure.system, hamiltonian)


def moved(molecule: small_molecules.Molecule, seed: int) -> np.ndarray:
    """Return the positions, (n, 3) angstrom, after dynamics with GFN2-xTB in a vacuum."""
    n = len(molecule.symbols)
    solute = solute_in_water.Solute("MOL", molecule.symbols, molecule.positions, (molecule.charge / n,) * n)
    alone = solute_in_water.build(solute, n_water=0)
    mixed = term_in(alone, list(range(n)), molecule.charge, XTBPotential("gfn2-xtb"), "mechanical")
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 20, 0.0005)
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(mixed.system, integrator, openmm.Platform.getPlatform("Reference"))
    context.setPositions(alone.positions)
    context.setVelocitiesToTemperature(TEMPERATURE, seed)
    integrator.step(STEPS)
    positions = context.getState(positions=True).getPositions(asNumpy=True)
    return np.array(positions.value_in_unit(unit.angstrom))


def label(smiles: str, number: int) -> LabelledFrame:
    """Return one label of a molecule.

    Raises
    ------
    ValueError
        If the molecule does not stay whole.
    """
    for attempt in range(ATTEMPTS):
        seed = seed_of(smiles, number, attempt)
        molecule = small_molecules.build_molecule(smiles, seed)
        positions = moved(molecule, seed)
        if not molecule.is_whole(positions):
            continue
        solute = small_molecules.solute_of(molecule, positions)
        n, pairs = len(solute), int(number % ION_PAIRS_EVERY == ION_PAIRS_EVERY - 1)
        edge, waters = BOXES[sum(symbol != "H" for symbol in solute.symbols) > SMALL]
        box = {"edge": edge, "n_water": waters - 2 * pairs, "seed": seed, "ion_pairs": pairs}
        # The fine splitting makes QM labels cheaper, and the dynamics of water slower.
        coarse = solute_in_water.build(solute, **box)
        placed = solute_in_water.relaxed(coarse, n, picoseconds=PICOSECONDS, minimise=False, seed=seed)
        structure = solute_in_water.build(solute, **box, splitting=SPLITTING)
        mixed = term_in(structure, list(range(n)), molecule.charge, QM, "electrostatic")
        labeller = Labeller(mixed.evaluated_term("molecule/QM"), METHOD)
        return labeller.label(Geometry(placed, np.eye(3) * edge), f"{name_of(smiles)}-{number}")
    raise ValueError(f"{smiles!r} does not stay whole in {ATTEMPTS} attempts; leave it out")


def main() -> None:
    """Add labels until each molecule has the number asked for, all with one before any has two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=("learned", "unseen"), default="learned")
    parser.add_argument("--labels", type=int, default=2, help="labels of each molecule")
    parser.add_argument("--share", default="1/1", metavar="K/N", help="the K-th of N parts of the molecules")
    parser.add_argument("--output", type=Path, default=Path("molecule_labels_run"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    groups = small_molecules.learned_from() if options.set == "learned" else small_molecules.unseen()
    folder = options.output / options.set
    folder.mkdir(parents=True, exist_ok=True)
    # Not group after group: what is there at any time is of all groups.
    molecules = [list(groups)[k] for k in np.random.default_rng(1).permutation(len(groups))]
    part, parts = map(int, options.share.split("/"))
    molecules = molecules[part - 1 :: parts]
    work = [(smiles, number) for number in range(options.labels) for smiles in molecules]
    for smiles, number in tqdm(work, mininterval=30):
        path = folder / f"{name_of(smiles)}.xyz"
        have = {frame.name for frame in read_frames(path)} if path.exists() else set()
        if f"{name_of(smiles)}-{number}" in have:
            continue
        try:
            frame = label(smiles, number)
        except (QmmlmmError, ValueError) as error:
            tqdm.write(f"{smiles}: {error}")
            continue
        append_frames(path, [frame])


if __name__ == "__main__":
    main()
