"""How close xTB in the charges of a force field is to B3LYP/6-31G* in the same charges, and to B3LYP of all atoms.

    python tests/benchmarks/xtb_accuracy.py [--json docs/results/data/xtb_accuracy.json] [--smoke]

Three tables, in kJ/mol and kJ/(mol nm):

1. Dimers of a molecule with a water of TIP3P or a sodium ion, at and beyond the hydrogen bond. The molecule is the
   region, the partner a force field; the interaction energy is that of the region in the charges less that in vacuum,
   plus Lennard-Jones of Amber. B3LYP in the same charges and counterpoise-corrected B3LYP of both are beside it.
2. Solutes among the charges of water: energy in the field less that in vacuum, and the forces that the field makes on
   the region and on the charges, compared with B3LYP in the same charges.
3. A charge above the ring of benzene, which only polarises it.

Ten minutes on a busy core.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
from openmm import unit
from pyscf import dft, gto

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from record import Table, add_option, print_tables, write_record

from qmmlmm import PySCFPotential, XTBPotential
from qmmlmm.coupling.potential import EvaluatedPotential, Evaluation, ExternalField, RegionSpecification
from qmmlmm.geometry import Geometry
from qmmlmm.units import ANGSTROM_IN_BOHR, FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL, FloatArray
from systems import water

BASIS = "6-31g*"
REFERENCE = "B3LYP/MM"
LEVELS: dict[str, EvaluatedPotential] = {
    "GFN1 q": XTBPotential("gfn1-xtb", multipoles=0),
    "GFN1 q,d": XTBPotential("gfn1-xtb", multipoles=1),
    "GFN2 q": XTBPotential("gfn2-xtb", multipoles=0),
    "GFN2 q,d": XTBPotential("gfn2-xtb", multipoles=1),
    "GFN2 q,d,Theta": XTBPotential("gfn2-xtb", multipoles=2),
    REFERENCE: PySCFPotential("b3lyp", BASIS),
}
CLUSTER = 9.0
"""Radius of the waters around a solute, angstrom."""

ARRANGEMENTS = 5
SYMBOLS = {1: "H", 6: "C", 7: "N", 8: "O", 11: "Na"}


@dataclass(frozen=True)
class Molecule:
    """A rigid molecule.

    Parameters
    ----------
    numbers : sequence of int
    positions : (n, 3) float array, angstrom
    charge : int
    lennard_jones : sequence of (float, float)
        sigma, angstrom, and epsilon, kJ/mol, of each atom. Source: Amber ff14SB and GAFF; TIP3P; Joung and Cheatham.
    """

    numbers: Sequence[int]
    positions: FloatArray
    charge: int
    lennard_jones: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Partner:
    """A molecule of the force field: a molecule with partial charges, e."""

    molecule: Molecule
    charges: FloatArray


O_WATER, O_CARBONYL, O_CARBOXYLATE = (3.15075, 0.635968), (2.95992, 0.87864), (2.95992, 0.87864)
CARBON, NITROGEN, H_AMMONIUM, H_ALDEHYDE = (
    (3.39967, 0.359824),
    (3.25, 0.71128),
    (1.06908, 0.0656888),
    (2.42146, 0.06276),
)
NONE = (1.0, 0.0)
WATER = Molecule(
    [8, 1, 1], np.array([[0.0, 0.0, 0.0], [0.9572, 0.0, 0.0], [-0.239988, 0.926627, 0.0]]), 0, [O_WATER, NONE, NONE]
)
FORMATE = Molecule(
    [6, 8, 8, 1],
    np.array([[0.0, 0.0, 0.0], [0.5325, 1.1419, 0.0], [0.5325, -1.1419, 0.0], [-1.12, 0.0, 0.0]]),
    -1,
    [CARBON, O_CARBOXYLATE, O_CARBOXYLATE, H_ALDEHYDE],
)
AMMONIUM = Molecule(
    [7, 1, 1, 1, 1],
    np.array([[0.0, 0.0, 0.0], *(1.03 / 3**0.5 * np.array([[1, 1, 1], [-1, -1, 1], [1, -1, -1], [-1, 1, -1]]))]),
    1,
    [NITROGEN, *[H_AMMONIUM] * 4],
)
FORMALDEHYDE = Molecule(
    [6, 8, 1, 1],
    np.array([[0.0, 0.0, 0.0], [1.21, 0.0, 0.0], [-0.5882, 0.9413, 0.0], [-0.5882, -0.9413, 0.0]]),
    0,
    [CARBON, O_CARBONYL, H_ALDEHYDE, H_ALDEHYDE],
)
RING = np.array([[np.cos(k * np.pi / 3.0), np.sin(k * np.pi / 3.0), 0.0] for k in range(6)])
BENZENE = Molecule([6] * 6 + [1] * 6, np.concatenate([1.395 * RING, 2.48 * RING]), 0, [NONE] * 12)
TIP3P = Partner(WATER, np.array([-0.834, 0.417, 0.417]))
SODIUM = Partner(Molecule([11], np.zeros((1, 3)), 1, [(2.439281, 0.365846)]), np.array([1.0]))


def placed(molecule: Molecule, atom: int, at: FloatArray, along: FloatArray, tail: int | None) -> FloatArray:
    """Return positions with an atom at a point and atom `tail`, or the centre of the others, behind it."""
    positions = molecule.positions - molecule.positions[atom]
    if len(positions) == 1:
        return positions + at
    away = (
        positions[tail] if tail is not None else positions[[k for k in range(len(positions)) if k != atom]].mean(axis=0)
    )
    return positions @ rotation(away / np.linalg.norm(away), along / np.linalg.norm(along)).T + at


def rotation(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the matrix that turns one unit vector into another."""
    cross, cosine = np.cross(first, second), float(first @ second)
    skew = np.array([[0, -cross[2], cross[1]], [cross[2], 0, -cross[0]], [-cross[1], cross[0], 0]])
    if cosine < -1.0 + 1e-12:
        axis = np.cross(first, [1.0, 0.0, 0.0] if abs(first[0]) < 0.9 else [0.0, 1.0, 0.0])
        axis /= np.linalg.norm(axis)
        return 2.0 * np.outer(axis, axis) - np.eye(3)
    return np.eye(3) + skew + skew @ skew / (1.0 + cosine)


def dimers() -> list[tuple[str, Molecule, Partner, FloatArray]]:
    """Return name, region, partner and positions of the partner, angstrom."""
    found = []

    def add(name: str, region: Molecule, atom: int, along: FloatArray, partner: Partner, contact: int, tail: int | None,
            distances: Sequence[float]) -> None:  # fmt: skip
        along = along / np.linalg.norm(along)
        for distance in distances:
            at = region.positions[atom] + distance * along
            where = placed(partner.molecule, contact, at, along, tail)
            found.append((f"{name} {distance:g}", region, partner, where))

    bisector = -(WATER.positions[1] + WATER.positions[2])
    lone_pair = bisector + np.linalg.norm(bisector) * np.array([0.0, 0.0, 1.0])
    add("water O <- H (water)", WATER, 0, lone_pair, TIP3P, 1, 0, (1.75, 1.9, 2.2))
    add("water H -> O (water)", WATER, 1, WATER.positions[1], TIP3P, 0, None, (1.75, 1.9, 2.2))
    bond = FORMATE.positions[1] - FORMATE.positions[0]
    side = rotate_in_plane(bond, -60.0)
    add("formate O <- H (water)", FORMATE, 1, side, TIP3P, 1, 0, (1.6, 1.75, 2.0))
    add("ammonium H -> O (water)", AMMONIUM, 1, AMMONIUM.positions[1], TIP3P, 0, None, (1.6, 1.75, 2.0))
    side = rotate_in_plane(FORMALDEHYDE.positions[1], 60.0)
    add("formaldehyde O <- H (water)", FORMALDEHYDE, 1, side, TIP3P, 1, 0, (1.8, 2.0, 2.3))
    add("formaldehyde O ... sodium", FORMALDEHYDE, 1, FORMALDEHYDE.positions[1], SODIUM, 0, None, (2.1, 2.2, 2.5))
    return found


def rotate_in_plane(vector: FloatArray, degrees: float) -> FloatArray:
    """Return a vector turned about z."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]) @ vector


def specification(molecule: Molecule) -> RegionSpecification:
    return RegionSpecification("region", np.array(molecule.numbers), molecule.charge, 1)


def evaluate(
    potential: EvaluatedPotential,
    molecule: Molecule,
    places: FloatArray | None = None,
    charges: FloatArray | None = None,
) -> Evaluation:
    """Evaluate a molecule in vacuum or among charges at places in angstrom."""
    evaluator = potential.create_evaluator(specification(molecule))
    field = None
    if places is not None and charges is not None:
        field = ExternalField(places * ANGSTROM_IN_BOHR, charges, np.zeros(len(charges)))
    return evaluator.evaluate(Geometry(molecule.positions * ANGSTROM_IN_BOHR), field)


def lennard_jones(region: Molecule, partner: Molecule, where: FloatArray) -> float:
    """Return the Lennard-Jones energy of two molecules by Lorentz and Berthelot, kJ/mol."""
    energy = 0.0
    for place, (sigma, epsilon) in zip(region.positions, region.lennard_jones, strict=True):
        for other, (sigma_2, epsilon_2) in zip(where, partner.lennard_jones, strict=True):
            x = (0.5 * (sigma + sigma_2) / np.linalg.norm(place - other)) ** 6
            energy += 4.0 * np.sqrt(epsilon * epsilon_2) * (x * x - x)
    return energy


def full_interaction(region: Molecule, partner: Molecule, where: FloatArray) -> float:
    """Return the interaction energy of both molecules by B3LYP with counterpoise correction, kJ/mol."""

    def energy(ghosts: Sequence[str], charge: int) -> float:
        atoms: list[tuple[str, tuple[float, ...]]] = []
        for name, numbers, positions in (
            ("region", region.numbers, region.positions),
            ("partner", partner.numbers, where),
        ):
            prefix = "ghost-" if name in ghosts else ""
            atoms += [(prefix + SYMBOLS[z], tuple(x)) for z, x in zip(numbers, positions, strict=True)]
        molecule = gto.M(atom=atoms, basis=BASIS, charge=charge, verbose=0)
        calculation = dft.RKS(molecule, xc="b3lyp").density_fit()
        found = float(calculation.kernel())
        assert calculation.converged
        return found

    both = energy([], region.charge + partner.charge)
    return (both - energy(["partner"], region.charge) - energy(["region"], partner.charge)) * HARTREE_IN_KJ_PER_MOL


def dimer_table(few: bool) -> Table:
    """Return the first table."""
    cases = dimers()[::6] if few else dimers()
    vacuum: dict[tuple[str, int], float] = {}
    rows: list[tuple[str | float, ...]] = []
    values = []
    for name, region, partner, where in cases:
        row = {"full B3LYP": full_interaction(region, partner.molecule, where)}
        rest = lennard_jones(region, partner.molecule, where)
        for level, potential in LEVELS.items():
            key = level, id(region)
            if key not in vacuum:
                vacuum[key] = evaluate(potential, region).energy
            energy = evaluate(potential, region, where, partner.charges).energy
            row[level] = (energy - vacuum[key]) * HARTREE_IN_KJ_PER_MOL + rest
        values.append(row)
        rows.append((name, *(round(row[column], 1) for column in columns())))
        progress(str(rows[-1]))
    for title, reference in (("rms to B3LYP/MM", REFERENCE), ("rms to full B3LYP", "full B3LYP")):
        errors = [rms([row[column] - row[reference] for row in values]) for column in columns()]
        rows.append((f"**{title}**", *(round(error, 1) for error in errors)))
    title = "Dimers, interaction energy with Lennard-Jones, kJ/mol; distance of the contact in angstrom"
    return Table(title, ("region, contact, (partner)", *columns()), tuple(rows))


def columns() -> list[str]:
    return [*LEVELS, "full B3LYP"]


def rms(values: Sequence[float] | FloatArray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def among_water(molecule: Molecule, random: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Return places, angstrom, and charges of the waters around a molecule at a random place of a box of water."""
    made = water.build()
    positions = np.array(made.positions.value_in_unit(unit.angstrom)).reshape(-1, 3, 3)
    box = np.diag(made.topology.getPeriodicBoxVectors().value_in_unit(unit.angstrom))
    turn = np.linalg.qr(random.normal(size=(3, 3)))[0]
    positions = positions - positions[random.integers(len(positions)), 0]
    positions = positions - box * np.round(positions[:, :1] / box)
    positions = positions @ turn.T
    oxygens = np.linalg.norm(positions[:, :1] - molecule.positions, axis=2)
    hydrogens = np.linalg.norm(positions[:, 1:, None] - molecule.positions, axis=3).min(axis=1)
    heavy = np.array(molecule.numbers) > 1
    limits = np.where(heavy, 2.65, 1.75), np.where(heavy, 1.75, 1.6)
    clear = (oxygens > limits[0]).all(axis=1) & (hydrogens > limits[1]).all(axis=1)
    kept = positions[clear & (np.linalg.norm(positions[:, 0], axis=1) < CLUSTER)]
    return kept.reshape(-1, 3), np.tile(TIP3P.charges, len(kept))


def solute_table(few: bool) -> Table:
    """Return the second table."""
    solutes = {"water": WATER, "formaldehyde": FORMALDEHYDE, "formate": FORMATE, "ammonium": AMMONIUM}
    random = np.random.default_rng(1)
    errors: dict[str, list[tuple[float, FloatArray, FloatArray]]] = {level: [] for level in LEVELS}
    sizes: list[tuple[float, FloatArray, FloatArray]] = []
    for name, molecule in solutes.items():
        alone = {level: evaluate(potential, molecule) for level, potential in LEVELS.items()}
        for _ in range(1 if few else ARRANGEMENTS):
            places, charges = among_water(molecule, random)
            found = {}
            for level, potential in LEVELS.items():
                inside = evaluate(potential, molecule, places, charges)
                found[level] = (
                    (inside.energy - alone[level].energy) * HARTREE_IN_KJ_PER_MOL,
                    (inside.gradient - alone[level].gradient) * FORCE_AU_IN_OPENMM,
                    inside.charge_gradient * FORCE_AU_IN_OPENMM,
                )
            reference = found[REFERENCE]
            sizes.append(reference)
            for level in LEVELS:
                energy, on_region, on_charges = (a - b for a, b in zip(found[level], reference, strict=True))
                errors[level].append((energy, on_region, on_charges))
            progress(f"{name}, {len(charges) // 3} waters: " + ", ".join(f"{x} {found[x][0]:.1f}" for x in LEVELS))
    rows = []
    others = [level for level in LEVELS if level != REFERENCE]
    titles = (
        "energy in the field, kJ/mol",
        "force on the region, kJ/(mol nm)",
        "force on the charges within 9 angstrom, kJ/(mol nm)",
    )
    for part, title in enumerate(titles):
        size = of_part(sizes, part)
        rows.append((title, *(of_part(errors[level], part) for level in others), size))
    title = (
        f"Water, formaldehyde, formate and ammonium in {1 if few else ARRANGEMENTS} arrangements of water each, root "
        "mean square difference to B3LYP/MM; the last column is that of B3LYP/MM itself"
    )
    return Table(title, ("quantity", *others, "size"), tuple(rows))


def of_part(found: Sequence[tuple[float, FloatArray, FloatArray]], part: int) -> float:
    """Return the root mean square of one part of all entries: of energies, or of the lengths of forces."""
    if part == 0:
        return rms([entry[0] for entry in found])
    return rms(np.concatenate([np.linalg.norm(entry[part], axis=1) for entry in found]))


def ring_table() -> Table:
    """Return the third table."""
    cells = []
    for level, potential in LEVELS.items():
        place = np.array([[0.0, 0.0, 3.0]])
        inside = evaluate(potential, BENZENE, place, np.array([0.417])).energy
        cells.append(round((inside - evaluate(potential, BENZENE).energy) * HARTREE_IN_KJ_PER_MOL, 1))
        progress(f"benzene, {level}: {cells[-1]:.1f}")
    row = ("benzene, +0.417 e at 3 angstrom above the ring", *cells)
    return Table("Polarisation alone, kJ/mol", ("", *LEVELS), (row,))


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Compute and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="as little as shows that it runs")
    add_option(parser)
    options = parser.parse_args()
    tables = [dimer_table(options.smoke), solute_table(options.smoke), ring_table()]
    print_tables(tables)
    write_record(options.json, tables)


if __name__ == "__main__":
    main()
