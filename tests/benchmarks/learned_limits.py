"""What a learned potential with charges, conditions and states must be able to do, on small molecules in a vacuum.

    python tests/benchmarks/learned_limits.py fragments   # an ion pair pulled apart, with and without long range
    python tests/benchmarks/learned_limits.py charges     # one molecule with two charges, with and without conditioning
    python tests/benchmarks/learned_limits.py spin        # singlet and triplet of methylene along the bending angle
    python tests/benchmarks/learned_limits.py fragments charges spin --json FILE

Labels come from PySCF and are kept in extended XYZ files in the output folder, so that a run that was stopped goes on.
Prints one table for each check.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).parent)]

from record import Table, add_option, print_tables, write_record

from qmmlmm import PySCFPotential
from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.geometry import Geometry
from qmmlmm.learning import LabelledFrame, ResponseSettings, TrainingSettings, append_frames, read_frames, train
from qmmlmm.learning.training.frame_tensors import frame_tensors
from qmmlmm.learning.training.prediction import predict
from qmmlmm.units import ANGSTROM_IN_BOHR, HARTREE_IN_KJ_PER_MOL

HARTREE_FOCK = PySCFPotential("hf", "6-31g*")
DENSITY_FUNCTIONAL = PySCFPotential("b3lyp", "6-31g*")

FORMATE = np.array([[0.0, 0.0, 0.0], [1.13, 0.53, 0.0], [-1.13, 0.53, 0.0], [0.0, -1.13, 0.0]])
AMMONIUM = np.vstack([np.zeros(3), 1.02 / np.sqrt(3) * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])])
PAIR = np.array([6, 8, 8, 1, 7, 1, 1, 1, 1])
BORYL = np.array([5, 1, 1])
METHYLENE = np.array([6, 1, 1])

NamedPositions = tuple[str, np.ndarray]


def label(
    path: Path,
    geometries: list[NamedPositions],
    numbers: np.ndarray,
    potential: PySCFPotential,
    conditions: list[tuple[int, int]],
) -> list[LabelledFrame]:
    """Label geometries (angstrom) for each charge and multiplicity; what the file holds already is not done again."""
    done = {frame.name for frame in read_frames(path)} if path.exists() else set()
    for charge, multiplicity in conditions:
        evaluator = potential.create_evaluator(RegionSpecification("region", numbers, charge, multiplicity))
        for name, positions in geometries:
            frame_name = f"{name}/{charge}/{multiplicity}"
            if frame_name in done:
                continue
            evaluation = evaluator.evaluate(Geometry(positions * ANGSTROM_IN_BOHR), None)
            frame = LabelledFrame(
                atomic_numbers=numbers,
                positions=positions * ANGSTROM_IN_BOHR,
                energy=evaluation.energy,
                forces=-evaluation.gradient,
                method=f"{potential.method}/{potential.basis}",
                charge=charge,
                multiplicity=multiplicity,
                dipole=np.asarray(evaluation.results["dipole"]),
                name=frame_name,
            )
            append_frames(path, [frame])
    return read_frames(path)


def rotation(rng: np.random.Generator) -> np.ndarray:
    """Return a random rotation matrix."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def ion_pairs(count: int, low: float, high: float, rng: np.random.Generator, prefix: str) -> list[NamedPositions]:
    """Return formate and ammonium, turned and distorted at random, at distances of carbon and nitrogen in angstrom."""
    found: list[NamedPositions] = []
    while len(found) < count:
        distance = rng.uniform(low, high)
        parts = [part + 0.04 * rng.normal(size=part.shape) for part in (FORMATE, AMMONIUM)]
        first, second = (part @ rotation(rng).T for part in parts)
        second = second + np.array([0.0, 0.0, distance]) - second[0] + first[0]
        contact = np.linalg.norm(first[:, None] - second[None], axis=-1).min()
        if contact > 1.5:  # else a proton goes over
            found.append((f"{prefix}-{len(found)}", np.vstack([first, second])))
    return found


def bent(bonds: np.ndarray, degrees: float) -> np.ndarray:
    """Return a triatomic with the first atom in the middle, in angstrom."""
    half = np.radians(degrees) / 2
    ends = [[s * b * np.sin(half), b * np.cos(half), 0.0] for s, b in zip((1, -1), bonds, strict=True)]
    return np.array([[0.0, 0.0, 0.0], *ends])


def bent_set(
    count: int, length: float, low: float, high: float, rng: np.random.Generator, prefix: str
) -> list[NamedPositions]:
    """Return distorted triatomics with angles between two bounds."""
    return [(f"{prefix}-{k}", bent(length + 0.05 * rng.normal(size=2), rng.uniform(low, high))) for k in range(count)]


def energies(model, frames: list[LabelledFrame]) -> np.ndarray:
    """Return predicted minus computed energies, kJ/mol; nothing is shifted."""
    data = frame_tensors(frames, model.known_conditions())
    error = predict(model, data).energy.detach().mean(0) - data.energy
    return error.numpy() * HARTREE_IN_KJ_PER_MOL


def fragments(directory: Path, training: TrainingSettings, scale: float) -> Table:
    """Train below 8 angstrom, test from 3 to 20."""
    rng = np.random.default_rng(5)
    near = ion_pairs(round(120 * scale), 3.0, 8.0, rng, "near")
    far = [
        item
        for low in (3, 8, 12, 15)
        for item in ion_pairs(8, low, {3: 8, 8: 12, 12: 15, 15: 20}[low], rng, f"test{low}")
    ]
    trained_on = label(directory / "pair_train.xyz", near, PAIR, HARTREE_FOCK, [(0, 1)])
    test = label(directory / "pair_test.xyz", far, PAIR, HARTREE_FOCK, [(0, 1)])
    rows = []
    for name, long_range in (("with long range", True), ("without", False)):
        # Without surroundings the dipole is the only label of charges.
        model = train(trained_on, network=ResponseSettings(long_range=long_range), training=training).model
        error = np.abs(energies(model, test))
        groups = [error[[f.name.startswith(f"test{low}-") for f in test]] for low in (3, 8, 12, 15)]
        rows.append((name, *(float(np.mean(group)) for group in groups), float(max(map(np.max, groups)))))
    title = (
        f"Formate and ammonium, {len(trained_on)} labels of HF/6-31G* below 8 angstrom: mean absolute error of the "
        "energy, kJ/mol, at distances of carbon and nitrogen"
    )
    columns = ("network", "3 to 8 angstrom", "8 to 12", "12 to 15", "15 to 20", "the largest of all")
    return Table(title, columns, tuple(rows))


def charges(directory: Path, training: TrainingSettings, scale: float) -> Table:
    """Train one network on both charges of the same geometries."""
    rng = np.random.default_rng(6)
    both = [(1, 1), (-1, 1)]
    trained_on = label(
        directory / "boryl_train.xyz", bent_set(round(60 * scale), 1.2, 95, 150, rng, "a"), BORYL, HARTREE_FOCK, both
    )
    test = label(directory / "boryl_test.xyz", bent_set(20, 1.2, 95, 150, rng, "b"), BORYL, HARTREE_FOCK, both)
    rows = []
    for name, change in (
        ("with the charge as input", lambda frame: frame),
        # A charge of zero would be an odd number of electrons.
        ("without", lambda frame: replace(frame, charge=1)),
    ):
        model = train([change(f) for f in trained_on], training=training).model
        error = np.abs(energies(model, [change(f) for f in test]))
        cation = np.array([frame.charge > 0 for frame in test])
        rows.append((name, float(error[cation].mean()), float(error[~cation].mean())))
    gap = next(f.energy for f in test if f.charge > 0) - next(f.energy for f in test if f.charge < 0)
    title = (
        f"BH2+ and BH2-, {len(trained_on)} labels of HF/6-31G*, {gap * HARTREE_IN_KJ_PER_MOL:.0f} kJ/mol apart: mean "
        "absolute error of the energy, kJ/mol"
    )
    return Table(title, ("network", "cation", "anion"), tuple(rows))


def spin(directory: Path, training: TrainingSettings, scale: float) -> Table:
    """Train on distorted geometries, test along the bending angle with bonds of 1.10 angstrom."""
    rng = np.random.default_rng(7)
    states = [(0, 1), (0, 3)]
    angles = np.arange(75.0, 161.0, 5.0)
    cut = [(f"c-{angle:.0f}", bent(np.array([1.1, 1.1]), angle)) for angle in angles]
    trained_on = label(
        directory / "methylene_train.xyz", bent_set(round(60 * scale), 1.1, 70, 165, rng, "a"), METHYLENE,
        DENSITY_FUNCTIONAL, states,
    )  # fmt: skip
    test = label(directory / "methylene_test.xyz", cut, METHYLENE, DENSITY_FUNCTIONAL, states)
    model = train(trained_on, training=training).model
    error = energies(model, test)
    singlet = np.array([frame.multiplicity == 1 for frame in test])
    computed = np.array([frame.energy for frame in test]) * HARTREE_IN_KJ_PER_MOL
    gap = computed[singlet] - computed[~singlet]
    predicted = gap + error[singlet] - error[~singlet]
    worst = [float(np.abs(error[of_spin]).max()) for of_spin in (singlet, ~singlet)]
    title = f"CH2 along the bend, {len(trained_on)} labels of B3LYP/6-31G*: largest error of the energy, kJ/mol"
    columns = ("", "singlet", "triplet", "both cross at, degrees")
    rows = (
        ("network", *worst, round(crossing(angles, predicted), 1)),
        ("B3LYP/6-31G*", None, None, round(crossing(angles, gap), 1)),
    )
    return Table(title, columns, rows)


def crossing(angles: np.ndarray, gap: np.ndarray) -> float:
    """Return the angle at which the gap changes its sign, NaN if it does not."""
    change = np.flatnonzero(np.sign(gap[1:]) != np.sign(gap[:-1]))
    if not len(change):
        return float("nan")
    k = int(change[0])
    return float(angles[k] + (angles[k + 1] - angles[k]) * gap[k] / (gap[k] - gap[k + 1]))


CHECKS: dict[str, Callable[[Path, TrainingSettings, float], Table]] = {
    "fragments": fragments,
    "charges": charges,
    "spin": spin,
}


def main() -> None:
    """Run checks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checks", nargs="+", choices=sorted(CHECKS))
    parser.add_argument("--output", type=Path, default=Path("learned_limits_run"))
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--scale", type=float, default=1.0, help="factor of the number of training frames")
    parser.add_argument("--seed", type=int, default=1)
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    # Few frames, and energies that matter as such: the energy counts as much as the forces.
    training = TrainingSettings(steps=options.steps, batch_size=8, energy_weight=1.0, seed=options.seed)
    tables = []
    for check in options.checks:
        tables.append(CHECKS[check](options.output, training, options.scale))
        print_tables(tables[-1:])
    write_record(options.json, tables, "Networks of `qmmlmm train`, without surroundings; single runs.")


if __name__ == "__main__":
    main()
