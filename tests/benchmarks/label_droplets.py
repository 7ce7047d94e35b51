"""Label many small molecules in droplets of water with GFN2-xTB, so that a response has something to begin with.

    python tests/benchmarks/label_droplets.py --molecules 1000 --labels 6 --output droplet_labels

The molecules are those of `systems.small_molecules` to learn from, and those with one hydrogen replaced by a group,
without the functional groups that are kept for a test. Each label has a new conformation, with atoms displaced at
random, and water of another place and orientation, without what overlaps. No dynamics: a label takes a fifth of a
second. A run that was stopped goes on: OUTPUT/NAME.xyz of each molecule. Needs the extras prepare and xtb.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
import openmm
from openmm import app, unit
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from label_molecules import name_of, seed_of

from qmmlmm import XTBPotential
from qmmlmm.coupling import Evaluator, ExternalField, RegionSpecification
from qmmlmm.errors import QmmlmmError
from qmmlmm.geometry import Geometry
from qmmlmm.learning import LabelledFrame, NearCharges, append_frames, read_frames
from qmmlmm.units import ANGSTROM_IN_BOHR
from systems import small_molecules

METHOD = "gfn2-xtb in a droplet"
GROUPS = (
    *("C", "O", "N", "F", "Cl", "S", "C#N", "C=O", "C(=O)O", "C(=O)N", "C(=O)C", "OC", "SC", "NC", "C=C"),
    "C(F)(F)F",
)
LARGEST = 9  # heavy atoms
KEPT_FOR_A_TEST = ("[C]=[N][OX2]", "[NX3;!$(N=*)]C(=O)[OX2]", "[SX3]=O", "[NX4,nX3+][O-]", "C1OC1", "[n+]1ccsc1")
TIP3P = (-0.834, 0.417, 0.417)  # e, of O, H, H
EDGE, RADIUS, REACH = 24.0, 11.0, 6.5  # angstrom
SHAKE = 0.045  # angstrom
# Smallest distances, angstrom, of water's O and H from H at N, O or S, from other H, and from all other atoms.
CLOSEST = {"polar": (1.65, 1.7), "H": (2.2, 1.9), "acceptor": (2.55, 1.65), "other": (3.0, 2.4)}


def grown(count: int) -> list[str]:
    """Return molecules to learn from, and derivatives of them until there are enough, in random order."""
    from rdkit import Chem, RDLogger

    RDLogger.DisableLog("rdApp.*")
    kept = set(small_molecules.unseen())
    patterns = [Chem.MolFromSmarts(text) for text in KEPT_FOR_A_TEST]
    found = list(small_molecules.learned_from())
    rng = np.random.default_rng(5)
    known, parents = set(found), list(found)
    for _ in range(50 * count):
        if len(found) >= count:
            break
        parent = Chem.AddHs(Chem.MolFromSmiles(parents[rng.integers(len(parents))]))
        hydrogens = [atom.GetIdx() for atom in parent.GetAtoms() if atom.GetSymbol() == "H"]
        if not hydrogens:
            continue
        group = Chem.MolFromSmiles(GROUPS[rng.integers(len(GROUPS))])
        hydrogen = int(hydrogens[rng.integers(len(hydrogens))])
        made = Chem.RWMol(Chem.CombineMols(parent, group))
        neighbour = parent.GetAtomWithIdx(hydrogen).GetNeighbors()[0].GetIdx()
        made.AddBond(neighbour, parent.GetNumAtoms(), Chem.BondType.SINGLE)
        made.RemoveAtom(hydrogen)
        try:
            Chem.SanitizeMol(made)
            smiles = Chem.CanonSmiles(Chem.MolToSmiles(Chem.RemoveHs(made)))
        except (Chem.MolSanitizeException, ValueError):
            continue
        molecule = Chem.MolFromSmiles(smiles)
        if molecule is None or molecule.GetNumHeavyAtoms() > LARGEST or smiles in known or smiles in kept:
            continue
        if any(molecule.HasSubstructMatch(pattern) for pattern in patterns):
            continue
        known.add(smiles)
        found.append(smiles)
    return [found[k] for k in rng.permutation(len(found))]


def water_box() -> np.ndarray:
    """Return waters of a periodic box of the edge, (m, 3, 3) angstrom, after a short dynamics."""
    modeller = app.Modeller(app.Topology(), [])
    force_field = app.ForceField("amber14/tip3p.xml")
    modeller.addSolvent(force_field, boxSize=[0.1 * EDGE] * 3 * unit.nanometer)
    system = force_field.createSystem(modeller.topology, nonbondedMethod=app.PME, nonbondedCutoff=1.0)
    integrator = openmm.LangevinMiddleIntegrator(330.0, 5.0, 0.002)
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(system, integrator)
    context.setPositions(modeller.positions)
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=100)
    integrator.step(5000)
    positions = context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    waters = np.array(positions).reshape(-1, 3, 3)
    return waters - EDGE * np.floor(waters[:, :1] / EDGE)


def droplet(waters: np.ndarray, molecule: small_molecules.Molecule, positions: np.ndarray, rng) -> np.ndarray:
    """Return waters around a molecule, (m, 3, 3) angstrom, from a random place and direction of the box."""
    shifted = waters - rng.uniform(0.0, EDGE, 3)
    shifted = shifted - EDGE * np.round(shifted[:, :1] / EDGE)
    images = np.array([[i, j, k] for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)]) * EDGE
    all_waters = (shifted[None] + images[:, None, None]).reshape(-1, 3, 3)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    all_waters = all_waters @ (turn * np.sign(np.linalg.det(turn)))
    distances = np.linalg.norm(all_waters[:, :, None] - positions, axis=-1)  # (m, 3, n)
    partners = dict(pair for i, j in molecule.bonds for pair in ((i, j), (j, i)))
    closest = np.empty((2, len(positions)))
    for k, symbol in enumerate(molecule.symbols):
        polar = symbol == "H" and molecule.symbols[partners.get(k, k)] in ("N", "O", "S")
        kind = "polar" if polar else "H" if symbol == "H" else "acceptor" if symbol in ("N", "O", "F") else "other"
        closest[:, k] = CLOSEST[kind]
    free = (distances > closest[[0, 1, 1]]).all((1, 2)) & (distances[:, 0].min(-1) < RADIUS)
    return all_waters[free]


def frame_of(
    evaluator: Evaluator, numbers: np.ndarray, charge: int, positions: np.ndarray, waters: np.ndarray, name: str
) -> LabelledFrame:
    """Return a label: positions in angstrom, waters (m, 3, 3) angstrom."""
    x, sites = positions * ANGSTROM_IN_BOHR, waters.reshape(-1, 3) * ANGSTROM_IN_BOHR
    charges = np.tile(TIP3P, len(waters))
    inside = evaluator.evaluate(Geometry(x), ExternalField(sites, charges, np.zeros_like(charges)))
    alone = evaluator.evaluate(Geometry(x), None)
    delta = x[:, None] - sites
    r = np.linalg.norm(delta, axis=-1)
    near = r.min(0) < REACH * ANGSTROM_IN_BOHR
    return LabelledFrame(
        numbers,
        x,
        inside.energy,
        -inside.gradient,
        METHOD,
        charge,
        potential=(charges / r).sum(-1),
        field=(delta * (charges / r**3)[..., None]).sum(1),
        vacuum_energy=alone.energy,
        vacuum_forces=-alone.gradient,
        near=NearCharges(sites[near], charges[near], -inside.charge_gradient[near]),
        name=name,
    )


def main() -> None:
    """Label what is missing."""
    from ase.data import atomic_numbers

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--molecules", type=int, default=1000)
    parser.add_argument("--labels", type=int, default=6, help="labels of each molecule")
    parser.add_argument("--output", type=Path, default=Path("droplet_labels_run"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    waters = water_box()
    for smiles in tqdm(grown(options.molecules), mininterval=30):
        path = options.output / f"{name_of(smiles)}.xyz"
        have = {frame.name for frame in read_frames(path)} if path.exists() else set()
        names = [f"{name_of(smiles)}-{number}" for number in range(options.labels)]
        frames = []
        for number, name in enumerate(names):
            if name in have:
                continue
            rng = np.random.default_rng(seed_of(smiles, number, 0))
            try:
                molecule = small_molecules.build_molecule(smiles, seed_of(smiles, number, 0))
                numbers = np.array([atomic_numbers[symbol] for symbol in molecule.symbols])
                evaluator = XTBPotential("gfn2-xtb").create_evaluator(
                    RegionSpecification("molecule", numbers, molecule.charge, 1)
                )
                positions = molecule.positions + rng.normal(scale=SHAKE, size=molecule.positions.shape)
                around = droplet(waters, molecule, positions, rng)
                frames.append(frame_of(evaluator, numbers, molecule.charge, positions, around, name))
            except (QmmlmmError, ValueError) as error:
                tqdm.write(f"{smiles}: {error}")
                break
        if frames:
            append_frames(path, frames)


if __name__ == "__main__":
    main()
