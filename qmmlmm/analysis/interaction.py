"""The interaction energy of a region with its surroundings, decomposed by residue."""

from __future__ import annotations

import csv
import html
import os
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from openmm import unit

from qmmlmm.analysis.model_quality import check_figure_path, checked_axes
from qmmlmm.coupling.layout import TermLayout
from qmmlmm.coupling.potential import RegionPotential
from qmmlmm.errors import HamiltonianError, SettingError, TableError, listed
from qmmlmm.geometry import Geometry
from qmmlmm.html_tables import html_table
from qmmlmm.mm.boundary import boundary_bonded_energy, lennard_jones_energies
from qmmlmm.mm.creation import create_region_term
from qmmlmm.mm.electrostatics import force_field_charges
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.mm.term_layouts import ResolvedRegion, particle_labels
from qmmlmm.setting_checks import check_flag, check_instance, check_path, check_whole_number
from qmmlmm.units import HARTREE_IN_KJ_PER_MOL, IntArray, in_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STABILISING_COLOUR = "#0072b2"
DESTABILISING_COLOUR = "#d55e00"
MOST_SHOWN = 20
"""Single residues in the table of a notebook."""
WATER = ["H", "H", "O"]


@dataclass(frozen=True, eq=False)
class InteractionTable:
    """The interaction of a region with each residue around it, in the order of the Topology.

    Parameters
    ----------
    term : str
        Name of the term of the region.
    labels : tuple of str
        Name of each row, such as ``"ASP40"``; ``"TYR16 outside the region"`` for the rest of a residue that is cut;
        ``"water"`` for all waters, and ``"Na+"`` for all ions of this kind.
    residues : (n,) int array
        Number of residues of each row: one, except for water and ions.
    electrostatic : (n,) Quantity, kJ/mol
    lennard_jones : (n,) Quantity or None, kJ/mol
    distance : (n,) Quantity or None, nm
        Distance of the closest atoms.
    images : Quantity, kJ/mol
        Interaction with the periodic images of the region.
    polarisation : Quantity, kJ/mol
        Energy of polarising the region in the field: never negative for a variational method.
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
        """Electrostatic and, if computed, Lennard-Jones interaction of each row, (n,) kJ/mol."""
        return self.electrostatic if self.lennard_jones is None else self.electrostatic + self.lennard_jones

    @property
    def interaction_energy(self) -> unit.Quantity:
        """Electrostatic interaction with all rows and images: energy of the density in the field less that without."""
        return self.electrostatic.sum() + self.images

    def strongest(self, count: int) -> list[int]:
        """Return the rows of the single residues with the largest interactions, the most stabilising one first."""
        check_whole_number("count", count)
        total = in_unit(self.total, unit.kilojoule_per_mole)
        single = [k for k in range(len(self)) if self.residues[k] == 1]
        chosen = sorted(single, key=lambda k: -abs(total[k]))[:count]
        return sorted(chosen, key=lambda k: total[k])

    def _repr_html_(self) -> str:
        """Return a table of the residues with the largest interactions and of solvent and ions, for notebooks."""
        total = in_unit(self.total, unit.kilojoule_per_mole)
        electrostatic = in_unit(self.electrostatic, unit.kilojoule_per_mole)
        several = [k for k in range(len(self)) if self.residues[k] != 1]
        rows = [
            (self.labels[k], int(self.residues[k]), f"{electrostatic[k]:.1f}", f"{total[k]:.1f}")
            for k in [*self.strongest(MOST_SHOWN), *several]
        ]
        energy = self.interaction_energy.value_in_unit(unit.kilojoule_per_mole)
        head = f"<p>{html.escape(self.term)}: electrostatic interaction with all rows {energy:.1f} kJ/mol</p>"
        return head + html_table(("residue", "number", "electrostatic (kJ/mol)", "total (kJ/mol)"), rows)

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the table with the header style of OpenMM; energies that belong to no residue come last."""
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
        with check_path("path", path).open("w", encoding="utf-8", newline="") as file:
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
    context: object,
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
        Context of `mixed.system` with positions and box. The term is evaluated there unless its result is known.
    term : str, optional
        Name of the term, for example ``"site/QM"``; may be left out if there is only one.
    potential : RegionPotential, optional
        Potential to use instead of that of the term, for example the same method with a larger basis set. The term is
        not evaluated.
    lennard_jones : bool
        Whether to compute Lennard-Jones energies and distances too.
    group_solvent : bool
        Whether all waters share one row, and all ions of one kind another.

    Raises
    ------
    HamiltonianError
        If there is no such term, it is embedded mechanically, or its region lies inside another one.
    PotentialError
        If the potential does not report its interaction with single charges.
    UnsupportedSystemError
        If Lennard-Jones energies are requested and are not all in one NonbondedForce.

    Notes
    -----
    The region's charge density rho (electrons and nuclei, polarised by the field) and the charges q_j of its
    surroundings interact by

        W = sum_j q_j Phi(r_j),        Phi(r) = integral rho(s) K(r - s) ds,

    where K is the Ewald kernel with its neutralising background, or 1/r without a box. W has one part for each charge,
    E_res = sum of q_j Phi(r_j) over the charges of a residue as the region feels them: the derived charges of a cut
    bond belong to the residue of its outside atom. The rest is the interaction with the images of the region. With
    E[rho] the energy of a density without a field,

        E_embedded = E[rho_vacuum] + (E[rho] - E[rho_vacuum]) + W,

    where the second part is the polarisation energy. The energy of a term in the Hamiltonian is E_embedded with half of
    the interaction with images.

    By the Hellmann-Feynman theorem, E_res is also dE/dx for charges of the residue that are multiplied by (1 + x): it
    includes the full response of the region to the residue. The polarisation energy, of opposite sign, belongs to all
    residues together.

    In a box the potential of a charge averages to zero over the cell, with 1/r - 2.84/L near it in a cube of edge L.
    This shifts the interaction of two charged groups, by -44 kJ/mol e^-2 for 8.9 nm, and not that of neutral residues;
    in a neutral system the shifts cancel in the sum. Energies of single residues are not screened: solvent and ions
    have their own rows, of opposite sign.
    """
    check_instance("mixed", mixed, MixedSystem)
    if potential is not None:
        check_instance("potential", potential, RegionPotential)  # type: ignore[type-abstract]
    check_flag("lennard_jones", lennard_jones)
    check_flag("group_solvent", group_solvent)
    name, resolved, own = _chosen_term(mixed, term)
    layout = mixed.term(name).layout
    chosen = potential if potential is not None else own
    if "electrostatic" not in chosen.capabilities.embeddings:
        raise HamiltonianError(
            f"the {chosen.level} potential given instead of that of {name!r} has no electrostatic embedding"
        )
    chosen.check(layout.specification)
    geometry = Geometry.from_context(context)
    if potential is not None:
        parts = create_region_term(layout, potential).interaction(geometry)
    else:
        # Evaluates the term at the present positions, unless its forces are known.
        mixed.term_energies(context)
        region_term = mixed.term(name).runner.region_term
        parts = region_term.interaction(geometry, region_term.last)

    labels, residues, row_of = _rows(mixed, resolved, group_solvent)
    energies = HARTREE_IN_KJ_PER_MOL * parts.source_energies
    by_row = np.bincount(_source_rows(layout, row_of), weights=energies, minlength=len(labels) + 1)
    energy = unit.kilojoule_per_mole
    dispersion = distance = None
    if lennard_jones:
        values, distances = lennard_jones_energies(mixed.system, resolved.particles, geometry)
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
        bonded=boundary_bonded_energy(mixed.system, resolved.particles, geometry) * energy,
    )


@dataclass(frozen=True)
class BoundaryCharge:
    """One charge at a cut bond, before and after redistribution.

    Parameters
    ----------
    label : str
        An atom, a point on a bond, or the region.
    before, after : float, e
        Charge in the force field, and charge that the region feels; for the region its charge in the force field, and
        its total charge.
    """

    label: str
    before: float
    after: float


def boundary_charges(mixed: MixedSystem, system: object, term: str | None = None) -> list[BoundaryCharge]:
    """Return the charge of a region, and all charges at its cut bonds before and after redistribution.

    Both columns add up to the same number.

    Parameters
    ----------
    mixed : MixedSystem
    system : openmm.System
        Force field from which `mixed` was created.
    term : str, optional
        Name of the term; may be left out if there is only one.

    Raises
    ------
    HamiltonianError
        If there is no such term, it is embedded mechanically, or its region lies inside another one.
    """
    check_instance("mixed", mixed, MixedSystem)
    name, resolved, _ = _chosen_term(mixed, term)
    layout = mixed.term(name).layout
    surroundings = layout.surroundings
    assert surroundings is not None
    labels = [label.partition(" (chain")[0] for label in particle_labels(mixed.topology)]
    before = force_field_charges(system)
    if len(before) != len(labels):
        raise SettingError(
            f"system has charges of {len(before)} particles and the mixed System {len(labels)}; give the force field "
            "from which it was created"
        )
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
                label = f"{labels[origin]} to {labels[towards]}, at {fraction:.2f}"
                rows.append(BoundaryCharge(label, 0.0, float(charge)))
    return rows


def plot_interactions(table: InteractionTable, ax: Axes | None = None, count: int = 18) -> Axes:
    """Plot the strongest interactions of single residues as bars, the most stabilising one on top.

    Parameters
    ----------
    table : InteractionTable
    ax : matplotlib Axes, optional
    count : int
        Largest number of bars.

    Returns
    -------
    Axes

    Raises
    ------
    TableError
        If the table has no single residue.
    """
    check_instance("table", table, InteractionTable)
    rows = table.strongest(count)
    if not rows:
        raise TableError(
            "this table has no single residue, only water and ions; compute it with group_solvent=False for a row each"
        )
    if ax is not None:
        checked_axes(ax)
    else:
        from matplotlib.figure import Figure

        ax = Figure(figsize=(8.0, 1.6 + 0.27 * len(rows)), layout="constrained").subplots()
    total = in_unit(table.total, unit.kilojoule_per_mole)
    values = np.array([total[k] for k in rows])
    heights = np.arange(len(rows))
    colours = [STABILISING_COLOUR if value < 0 else DESTABILISING_COLOUR for value in values]
    ax.barh(heights, values, color=colours, height=0.72)
    ax.axvline(0.0, color="#404040", linewidth=0.8)
    reach = float(np.abs(values).max())
    for height, value in zip(heights, values, strict=True):
        ax.annotate(
            f"{value:+.0f}",
            (value, height),
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
    ax.set_yticks(heights, labels)
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
    """Save the figure of `plot_interactions` with the energies of other rows written below.

    Parameters
    ----------
    table : InteractionTable
    path : str or path
        Path of the file; its ending selects the format: png, pdf, svg.
    count : int
        Largest number of bars.
    """
    path = check_figure_path(path)
    figure = plot_interactions(table, count=count).get_figure(root=True)
    assert figure is not None
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
    names = list(mixed.terms)
    if term is None and len(names) > 1:
        raise HamiltonianError(f"this system has several terms; name one of {listed(names)}")
    name = names[0] if term is None else term
    found = mixed.term(name)
    chosen = found.term
    if found.layout.surroundings is None:
        raise HamiltonianError(
            f"term {name!r} has mechanical embedding: its charge density does not interact with the surroundings"
        )
    parent = mixed.hamiltonian.parent(chosen.region)
    if parent is not None:
        raise HamiltonianError(
            f"the region of term {name!r} lies inside region {parent.name!r}, and interacts with the rest as a part of "
            "it; choose a term of the outer region"
        )
    resolved = next(known for known in mixed.regions if known.region == chosen.region)
    return name, resolved, chosen.potential


def _rows(mixed: MixedSystem, resolved: ResolvedRegion, group_solvent: bool) -> tuple[list[str], IntArray, IntArray]:
    """Return labels and numbers of residues of the rows, and the row of each particle; the region has the last row."""
    inside = frozenset(resolved.particles)
    # Kind and label of each row.
    keys: list[tuple[str, str]] = []
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
    """Return the row of each particle and of each derived charge, which belongs to the residue of its outside atom."""
    surroundings = layout.surroundings
    assert surroundings is not None
    hosts = set(layout.link_bonds[:, 1].tolist())
    owners = [origin if int(origin) in hosts else towards for origin, towards in surroundings.derived_bonds]
    return np.concatenate([row_of, row_of[np.array(owners, dtype=np.int64)]])


def _readable(label: str) -> str:
    """Return Tyr16 for TYR16, and other names unchanged."""
    head = label[:3]
    return head.capitalize() + label[3:] if head.isalpha() and label[3:4].isdigit() else label
