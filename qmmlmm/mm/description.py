"""Description of a mixed System for reports: its regions and terms, as JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from openmm import app

from qmmlmm.errors import signed
from qmmlmm.html_tables import html_table
from qmmlmm.mm.mixed_term import MixedTerm
from qmmlmm.mm.term_layouts import ResolvedRegion, particle_labels
from qmmlmm.units import ANGSTROM_IN_BOHR, BOHR_IN_NM


class RegionDescription(TypedDict):
    """A region."""

    name: str
    atoms: list[int]
    charge: int
    multiplicity: int
    link_bonds: list[dict[str, str | float]]


class TermDescription(TypedDict):
    """A term: its settings, and the Force that runs it."""

    name: str
    region: str
    level: str
    potential: str
    correction: str | None
    coefficient: float | str
    multiplicity: int
    embedding: str
    boundary_charges: str
    smeared_charges_nm: float | dict[str, float] | None
    force_group: int
    backend: str
    compiled: dict[str, str]
    atoms: int
    link_atoms: int


class SystemDescription(TypedDict):
    """A mixed System."""

    particles: int
    regions: list[RegionDescription]
    terms: list[TermDescription]


def describe(
    topology: app.Topology,
    regions: Sequence[ResolvedRegion],
    terms: Mapping[str, MixedTerm],
    force_groups: Mapping[str, int],
) -> SystemDescription:
    """Return the description of a mixed System.

    Parameters
    ----------
    topology : openmm.app.Topology
    regions : sequence of ResolvedRegion
    terms : mapping of str to MixedTerm
    force_groups : mapping of str to int
        Force group of each term.
    """
    labels = particle_labels(topology)
    return {
        "particles": topology.getNumAtoms(),
        "regions": [_region(found, labels) for found in regions],
        "terms": [_term(mixed, force_groups[name]) for name, mixed in terms.items()],
    }


def description_html(description: SystemDescription) -> str:
    """Return tables of the terms and cut bonds of a mixed System in HTML, for notebooks.

    Parameters
    ----------
    description : SystemDescription
    """
    regions = {region["name"]: region for region in description["regions"]}
    rows = [
        (
            term["name"], term["potential"], term["coefficient"], term["embedding"],
            f"{term['atoms']} and {term['link_atoms']} link atoms" if term["link_atoms"] else term["atoms"],
            signed(regions[term["region"]]["charge"]), term["multiplicity"], term["backend"],
        )
        for term in description["terms"]
    ]  # fmt: skip
    head = ("term", "potential", "coefficient", "embedding", "atoms", "charge", "multiplicity", "runs through")
    cuts = [
        (name, bond["region_atom"], bond["outside_atom"])
        for name, region in regions.items()
        for bond in region["link_bonds"]
    ]
    text = f"<p>MixedSystem, {description['particles']} particles</p>{html_table(head, rows)}"
    return text + (html_table(("region", "cut bond from", "to"), cuts) if cuts else "")


def _region(found: ResolvedRegion, labels: Sequence[str]) -> RegionDescription:
    return {
        "name": found.region.name,
        "atoms": [int(a) for a in found.atoms],
        "charge": found.region.charge,
        "multiplicity": found.region.multiplicity,
        "link_bonds": [
            {
                "region_atom": labels[b.q1],
                "outside_atom": labels[b.m1],
                **(
                    {"distance_angstrom": round(b.distance / ANGSTROM_IN_BOHR, 6)}
                    if b.distance
                    else {"ratio": round(b.ratio, 6)}
                ),
            }
            for b in found.link_bonds
        ],
    }


def _term(mixed: MixedTerm, force_group: int) -> TermDescription:
    term = mixed.term
    return {
        "name": mixed.name,
        "region": term.region.name,
        "level": term.potential.level,
        "potential": repr(term.potential),
        "correction": str(term.potential.difference) if term.correction else None,
        "coefficient": term.coefficient,
        "multiplicity": term.spin_multiplicity,
        "embedding": term.embedding,
        "boundary_charges": term.boundary_charges,
        "smeared_charges_nm": _in_nm(term.widths),
        "force_group": force_group,
        "backend": mixed.runner.backend,
        "compiled": mixed.runner.compiled(),
        "atoms": len(mixed.layout.atoms),
        "link_atoms": len(mixed.layout.link_bonds),
    }


def _in_nm(widths: float | dict[int, float] | None) -> float | dict[str, float] | None:
    if isinstance(widths, dict):
        return {str(atom): round(width * BOHR_IN_NM, 9) for atom, width in widths.items()}
    return None if widths is None else round(widths * BOHR_IN_NM, 9)
