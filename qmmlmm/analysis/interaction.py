"""Which residues hold a region: its interaction energy with protein, solvent and ions, one by one."""

from __future__ import annotations

import csv
import os
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from openmm import unit

from qmmlmm.analysis.tables import TableError
from qmmlmm.coupling.layout import TermLayout
from qmmlmm.coupling.potential import EvaluatedPotential, Evaluation, RegionPotential
from qmmlmm.embedding.interaction import evaluated_interaction
from qmmlmm.errors import HamiltonianError, nearest
from qmmlmm.ml.interaction import learned_interaction
from qmmlmm.ml.ml_potential import MLPotential
from qmmlmm.mm.boundary import boundary_bonded_energy, lennard_jones_energies
from qmmlmm.mm.electrostatics import force_field_charges
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.mm.term_layouts import ResolvedRegion, particle_labels
from qmmlmm.units import HARTREE_IN_KJ_PER_MOL, NM_IN_BOHR, IntArray, in_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STABILISING_COLOUR = "#0072b2"
DESTABILISING_COLOUR = "#d55e00"
WATER = ["H", "H", "O"]


@dataclass(frozen=True, eq=False)
class InteractionTable:
    """The interaction of a region with each residue around it, in the order of the Topology.

    Parameters
    ----------
    term : str
        Whose charge density it is.
    labels : tuple of str
        Such as ``"ASP40"``; ``"TYR16 outside the region"`` for the rest of a residue that is cut; ``"water"`` and
        ions of one kind, such as ``"Na+"``, taken together.
    residues : (n,) int array
        Number of residues behind each label: one, but for water and ions.
    electrostatic : (n,) Quantity, kJ/mol
    lennard_jones : (n,) Quantity or None, kJ/mol
    distance : (n,) Quantity or None, nm
        Between the closest atoms.
    images : Quantity, kJ/mol
        Interaction with the region's own periodic images.
    polarisation : Quantity, kJ/mol
        What it costs the region to polarise in the field: never negative for a variational method.
    bonded : Quantity, kJ/mol
        Bonded terms of the force field across the cut bonds.
    """

    term: str
    labels: tuple[str, ...]
    residues: IntArray
    electrostatic: unit.Quantity
    lennard_jones: unit.Quantity | None
    distance: unit.Quantity | None
    images: unit.Quantity
    polarisation: unit.Quantity
    bonded: unit.Quantity

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def total(self) -> unit.Quantity:
        """Electrostatic and, where it was asked for, Lennard-Jones interaction of each row, (n,) kJ/mol."""
        return self.electrostatic if self.lennard_jones is None else self.electrostatic + self.lennard_jones

    @property
    def interaction_energy(self) -> unit.Quantity:
        """Electrostatic interaction with all rows and images: the density's energy in the field minus that alone."""
        return self.electrostatic.sum() + self.images

    def strongest(self, count: int) -> list[int]:
        """Return the rows with the largest interactions of single residues, most stabilising first."""
        total = in_unit(self.total, unit.kilojoule_per_mole)
        single = [k for k in range(len(self)) if self.residues[k] == 1]
        chosen = sorted(single, key=lambda k: -abs(total[k]))[:count]
        return sorted(chosen, key=lambda k: total[k])

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the table with OpenMM's header style; energies that belong to no residue come last."""
        energy = unit.kilojoule_per_mole
        columns = [self.electrostatic.value_in_unit(energy)]
        if self.lennard_jones is not None:
            columns.append(self.lennard_jones.value_in_unit(energy))
            columns.append(self.total.value_in_unit(energy))
        if self.distance is not None:
            columns.append(self.distance.value_in_unit(unit.nanometer))
        names = ["Residue", "Number", "Electrostatic (kJ/mol)"]
        names += ["Lennard-Jones (kJ/mol)", "Total (kJ/mol)"] if self.lennard_jones is not None else []
        names += ["Closest Distance (nm)"] if self.distance is not None else []
        with open(path, "w", encoding="utf-8", newline="") as file:
            file.write("#" + ",".join(f'"{name}"' for name in names) + "\n")
            writer = csv.writer(file, lineterminator="\n")
            for k, label in enumerate(self.labels):
                writer.writerow([label, int(self.residues[k]), *(f"{column[k]:.6f}" for column in columns)])
            for label, value in (
                ("images of the region", self.images),
                ("polarisation of the region", self.polarisation),
                ("bonded terms across the cut", self.bonded),
            ):
                writer.writerow([label, "", f"{value.value_in_unit(energy):.6f}"])


def residue_interactions(
    mixed: MixedSystem,
    context: Any,
    term: str | None = None,
    *,
    potential: RegionPotential | None = None,
    lennard_jones: bool = True,
    group_solvent: bool = True,
) -> InteractionTable:
    """Return the interaction energy of an electrostatically embedded region, decomposed by residue.

    Parameters
    ----------
    mixed : MixedSystem
    context : openmm.Context
        Of `mixed.system`: its present positions and box. The term's own result there is used if it is known, and is
        computed and kept for the next step if not.
    term : str, optional
        Name of the term, for example ``"site/QM"``; may be left out if there is only one.
    potential : RegionPotential, optional
        In place of the term's own, for example the same method with a larger basis set. The term is not evaluated.
    lennard_jones : bool
        Whether Lennard-Jones energies, and with them the distances, are computed too.
    group_solvent : bool
        Whether all waters share one row, and all ions of one kind another.

    Raises
    ------
    HamiltonianError
        If there is no such term, it is embedded mechanically, or its region lies inside another one.
    PotentialError
        If the potential cannot tell its interaction with single charges.
    UnsupportedSystemError
        If Lennard-Jones energies are asked for and not all in one NonbondedForce.

    Notes
    -----
    The region's charge density rho (electrons and nuclei, polarised by the field) and the charges q_j of its
    surroundings interact by

        W = sum_j q_j Phi(r_j),        Phi(r) = integral rho(s) K(r - s) ds,

    K being the Ewald kernel with its neutralising background, or 1/r without a box. So W falls into one part for each
    charge, E_res = sum of q_j Phi(r_j) over the charges of a residue, as the region feels them: the derived charges
    of a cut bond belong to the residue of its outside atom. What is left is the interaction with the region's own
    images. With E[rho] the energy of a density without a field,

        E_embedded = E[rho_vacuum] + (E[rho] - E[rho_vacuum]) + W,

    the second part being the polarisation energy. A term's energy in the Hamiltonian is E_embedded with the images
    counted half.

    E_res is also dE/dx for charges of the residue that are multiplied by (1 + x), by the theorem of Hellmann and
    Feynman: it holds the response of the region to the residue in full, and the polarisation energy, of opposite sign,
    belongs to all residues together.

    In a box the potential of a charge averages to zero over the cell, with 1/r - 2.84/L near it in a cube of edge L. So
    the interaction of two charged groups is shifted, by -44 kJ/mol e^-2 for 8.9 nm, and that of neutral residues is
    not; in a neutral system these shifts cancel in the sum. No screening is in the numbers of single residues: solvent
    and ions have theirs, of opposite sign.
    """
    name, resolved, own = _chosen_term(mixed, term)
    layout = mixed.layouts[name]
    chosen = potential if potential is not None else own
    if "electrostatic" not in chosen.embeddings:
        raise HamiltonianError(f"the {chosen.level} potential that is to take the place of {name!r} feels no field")
    chosen.check(layout.specification)
    state = context.getState(positions=True)
    positions = np.array(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
    box = np.eye(3)
    if layout.periodic:
        box = np.array(state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer))
    in_bohr = (positions * NM_IN_BOHR, box * NM_IN_BOHR)
    if isinstance(chosen, MLPotential):
        parts = learned_interaction(layout, chosen, *in_bohr)
    else:
        evaluation = _present_evaluation(mixed, context, name) if potential is None else None
        parts = evaluated_interaction(layout, cast(EvaluatedPotential, chosen), *in_bohr, evaluation)

    labels, residues, row_of = _rows(mixed, resolved, group_solvent)
    energies = HARTREE_IN_KJ_PER_MOL * parts.source_energies
    by_row = np.bincount(_source_rows(layout, row_of), weights=energies, minlength=len(labels) + 1)
    energy = unit.kilojoule_per_mole
    dispersion = distance = None
    if lennard_jones:
        values, distances = lennard_jones_energies(mixed.system, resolved.particles, positions, box)
        dispersion = np.bincount(row_of, weights=values, minlength=len(labels) + 1)[:-1] * energy
        closest = np.full(len(labels) + 1, np.inf)
        np.minimum.at(closest, row_of, distances)
        distance = closest[:-1] * unit.nanometer
    return InteractionTable(
        term=name,
        labels=tuple(labels),
        residues=residues,
        electrostatic=by_row[:-1] * energy,
        lennard_jones=dispersion,
        distance=distance,
        images=float(by_row[-1]) * energy,
        polarisation=HARTREE_IN_KJ_PER_MOL * parts.polarisation_energy * energy,
        bonded=boundary_bonded_energy(mixed.system, resolved.particles, positions, box) * energy,
    )


@dataclass(frozen=True)
class BoundaryCharge:
    """One charge at a cut bond, before and after redistribution.

    Parameters
    ----------
    place : str
        An atom, a point on a bond, or the region itself.
    before, after : float, e
        In the force field, and as the region feels it; of the region its charge in the force field and its own.
    """

    place: str
    before: float
    after: float


def boundary_charges(mixed: MixedSystem, system: Any, term: str | None = None) -> list[BoundaryCharge]:
    """Return all charges that differ between the force field and what a region feels, and the region's own.

    Both columns add up to the same number.

    Parameters
    ----------
    mixed : MixedSystem
    system : openmm.System
        The force field from which `mixed` was made.
    term : str, optional
        Name of the term; may be left out if there is only one.

    Raises
    ------
    HamiltonianError
        If there is no such term, it is embedded mechanically, or its region lies inside another one.
    """
    name, resolved, _ = _chosen_term(mixed, term)
    layout = mixed.layouts[name]
    surroundings = layout.surroundings
    assert surroundings is not None
    labels = [label.partition(" (index")[0] for label in particle_labels(mixed.topology)]
    before = force_field_charges(system)
    n = layout.n_particles
    after, derived = surroundings.source_charges[:n], surroundings.source_charges[n:]
    region = list(resolved.particles)
    rows = [BoundaryCharge(f"region {resolved.region.name!r}", float(before[region].sum()), float(after[region].sum()))]
    for bond in resolved.link_bonds:
        rows += [BoundaryCharge(labels[k], float(before[k]), float(after[k])) for k in (bond.m1, *bond.m2)]
        for (origin, towards), fraction, charge in zip(
            surroundings.derived_bonds, surroundings.derived_fractions, derived, strict=True
        ):
            if bond.m1 in (origin, towards):
                place = f"{labels[origin]} to {labels[towards]}, at {fraction:.2f}"
                rows.append(BoundaryCharge(place, 0.0, float(charge)))
    return rows


def plot_interactions(table: InteractionTable, ax: Axes | None = None, count: int = 18) -> Axes:
    """Plot the strongest interactions of single residues as bars, most stabilising on top.

    Parameters
    ----------
    table : InteractionTable
    ax : matplotlib Axes, optional
    count : int
        Of bars.

    Returns
    -------
    Axes
    """
    rows = table.strongest(count)
    if not rows:
        raise TableError("there is no single residue in this table, only water and ions")
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(figsize=(8.0, 1.6 + 0.27 * len(rows)), layout="constrained").subplots()
    total = in_unit(table.total, unit.kilojoule_per_mole)
    values = np.array([total[k] for k in rows])
    places = np.arange(len(rows))
    colours = [STABILISING_COLOUR if value < 0 else DESTABILISING_COLOUR for value in values]
    ax.barh(places, values, color=colours, height=0.72)
    ax.axvline(0.0, color="#404040", linewidth=0.8)
    reach = float(np.abs(values).max())
    for place, value in zip(places, values, strict=True):
        ax.annotate(
            f"{value:+.0f}",
            (value, place),
            xytext=(4 if value > 0 else -4, 0),
            textcoords="offset points",
            ha="left" if value > 0 else "right",
            va="center",
            fontsize=8,
        )
    labels = [_readable(table.labels[k]) for k in rows]
    if table.distance is not None:
        distances = in_unit(table.distance, unit.nanometer)
        labels = [f"{label}  ({distances[k]:.2f} nm)" for label, k in zip(labels, rows, strict=True)]
    ax.set_yticks(places, labels)
    ax.invert_yaxis()
    ax.set_ylim(len(rows) - 0.4, -0.6)
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    ax.set_xlim(low - 0.1 * reach, high + 0.1 * reach)
    ax.grid(axis="x", color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.tick_params(axis="y", length=0)
    what = "electrostatic" if table.lennard_jones is None else "electrostatic and Lennard-Jones"
    ax.set_xlabel(f"interaction with the region (kJ/mol), {what}")
    ax.set_title(f"{table.term}: the residues that act most on the region", loc="left")
    return ax


def save_interaction_figure(table: InteractionTable, path: str | os.PathLike[str], count: int = 18) -> None:
    """Save the figure of `plot_interactions` with what belongs to no single residue written below.

    Parameters
    ----------
    table : InteractionTable
    path : str or path
        Its ending chooses the format: png, pdf, svg.
    count : int
        Of bars.
    """
    axes = plot_interactions(table, count=count)
    figure = cast(Any, axes.figure)
    total = in_unit(table.total, unit.kilojoule_per_mole)
    shown = set(table.strongest(count))
    single = [k for k in range(len(table)) if table.residues[k] == 1]
    others = sum(total[k] for k in single if k not in shown)
    groups = [
        f"{table.labels[k]} ({table.residues[k]}) {total[k]:+.0f}" for k in range(len(table)) if table.residues[k] != 1
    ]
    rest = [f"{len(single) - len(shown)} other residues {others:+.0f}", *groups]
    figure.supxlabel(
        f"not shown (kJ/mol): {', '.join(rest)};\n"
        f"polarisation of the region {in_unit(table.polarisation, unit.kilojoule_per_mole):+.0f}; "
        "blue stabilises the region, orange destabilises it; distances are to its closest atom",
        fontsize=8,
        color="#404040",
        x=0.02,
        ha="left",
    )
    figure.savefig(path, dpi=130)


def _chosen_term(mixed: MixedSystem, term: str | None) -> tuple[str, ResolvedRegion, RegionPotential]:
    names = list(mixed.layouts)
    if term is None and len(names) > 1:
        raise HamiltonianError(f"say which term is meant: {', '.join(names)}")
    name = names[0] if term is None else term
    if name not in mixed.layouts:
        raise HamiltonianError(f"there is no term {name!r}; terms are: {', '.join(names)}.{nearest(name, names)}")
    chosen = mixed.hamiltonian.terms[names.index(name)]
    if mixed.layouts[name].surroundings is None:
        raise HamiltonianError(
            f"term {name!r} has mechanical embedding: its charge density does not interact with the surroundings"
        )
    parent = mixed.hamiltonian.parent(chosen.region)
    if parent is not None:
        raise HamiltonianError(
            f"the region of term {name!r} lies inside region {parent.name!r}, and interacts with the rest as a part of "
            "it; choose a term of the outer region"
        )
    resolved = next(found for found in mixed.regions if found.region == chosen.region)
    return name, resolved, chosen.potential


def _present_evaluation(mixed: MixedSystem, context: Any, name: str) -> Evaluation | None:
    """Return the result of a term at the present positions, which is there already if its forces are known."""
    mixed.term_energies(context)
    return mixed.evaluated_term(name).last


def _rows(mixed: MixedSystem, resolved: ResolvedRegion, group_solvent: bool) -> tuple[list[str], IntArray, IntArray]:
    """Return labels and numbers of residues of the rows, and the row of each particle; the last is the region's."""
    inside = frozenset(resolved.particles)
    keys: list[tuple[str, str]] = []  # of the rows: kind and label
    counts: Counter[tuple[str, str]] = Counter()
    row_of = np.zeros(mixed.topology.getNumAtoms(), dtype=np.int64)
    index: dict[tuple[str, str], int] = {}
    names = Counter(f"{residue.name}{residue.id}" for residue in mixed.topology.residues())
    for residue in mixed.topology.residues():
        atoms = [atom for atom in residue.atoms() if atom.index not in inside]
        if not atoms:
            continue
        elements = sorted(atom.element.symbol for atom in residue.atoms() if atom.element is not None)
        label = f"{residue.name}{residue.id}"
        if names[label] > 1:
            label = f"{residue.chain.id}:{label}"
        key = (str(residue.index), label)
        if len(atoms) < len(list(residue.atoms())):
            key = (str(residue.index), f"{label} outside the region")
        elif group_solvent and elements == WATER:
            key = ("group", "water")
        elif group_solvent and len(elements) == 1:
            key = ("group", residue.name)
        if key not in index:
            index[key] = len(keys)
            keys.append(key)
        counts[key] += 1
        row_of[[atom.index for atom in atoms]] = index[key]
    row_of[list(inside)] = len(keys)
    return [label for _, label in keys], np.array([counts[key] for key in keys]), row_of


def _source_rows(layout: TermLayout, row_of: IntArray) -> IntArray:
    """Return the row of each particle and derived charge, which goes to the residue of its outside atom."""
    surroundings = layout.surroundings
    assert surroundings is not None
    hosts = set(layout.link_bonds[:, 1].tolist())
    owners = [origin if int(origin) in hosts else towards for origin, towards in surroundings.derived_bonds]
    return np.concatenate([row_of, row_of[np.array(owners, dtype=np.int64)]])


def _readable(label: str) -> str:
    """Return Tyr16 for TYR16; other names stay."""
    head = label[:3]
    return head.capitalize() + label[3:] if head.isalpha() and label[3:4].isdigit() else label
