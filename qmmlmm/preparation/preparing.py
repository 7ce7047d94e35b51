"""From a structure file and ligands to a solvated System."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import openmm
from openmm import app, unit

from qmmlmm.errors import PreparationError
from qmmlmm.preparation.amber_tools import gaff_system
from qmmlmm.preparation.findings import Report
from qmmlmm.preparation.inspection import Examination, examine
from qmmlmm.preparation.ligand import Ligand
from qmmlmm.preparation.ligand_xml import system_as_xml
from qmmlmm.preparation.open_force_field import sage_system
from qmmlmm.preparation.protonation import PkaValue
from qmmlmm.preparation.settings import PreparationSettings
from qmmlmm.preparation.solvated_system import SolvatedSystem, force_field, solvate
from qmmlmm.preparation.structure_file import StructureFile


@dataclass(frozen=True)
class Prepared:
    """A solvated System, and everything that was decided on the way.

    Parameters
    ----------
    structure : StructureFile
    settings : PreparationSettings
    ligands : tuple of Ligand
    ligand_xml : mapping of str to str
        Force field XML of each ligand, by the name of its residue; plain OpenMM reads it.
    solvated : SolvatedSystem
    report : Report
    pka : tuple of PkaValue
    places : mapping of str to str
        Where the structure file has each ligand, ion and crystal water, by its label in the Topology.
    alternates : tuple of (str, str, float)
        Residue, letter and occupancy of alternate locations.
    """

    structure: StructureFile
    settings: PreparationSettings
    ligands: tuple[Ligand, ...]
    ligand_xml: Mapping[str, str]
    solvated: SolvatedSystem
    report: Report
    pka: tuple[PkaValue, ...]
    places: Mapping[str, str]
    alternates: tuple[tuple[str, str, float], ...]

    @property
    def topology(self) -> app.Topology:
        """Topology with all bonds and the box."""
        return self.solvated.topology

    @property
    def system(self) -> openmm.System:
        """System of the force field."""
        return self.solvated.system

    @property
    def positions(self) -> unit.Quantity:
        """Minimised positions."""
        return self.solvated.positions * unit.nanometer


def prepare(
    structure: str | Path,
    ligands: Iterable[Ligand] = (),
    settings: PreparationSettings | None = None,
    *,
    smiles: Mapping[str, str] | None = None,
    ligand_xml: Sequence[str | Path] = (),
) -> Prepared:
    """Return a solvated System of a structure and its ligands.

    Parameters
    ----------
    structure : path
        PDB or mmCIF file.
    ligands : iterable of Ligand
    settings : PreparationSettings, optional
    smiles : mapping of str to str, optional
        SMILES of groups that stand in the structure, by the names of their residues, such as ``{"TES": "..."}``.
    ligand_xml : sequence of path, optional
        Force field XMLs of your own, for ligands or groups with the names of their residues.

    Raises
    ------
    PreparationError
        If `inspect` refuses anything, or the System cannot be built.
    MissingDependencyError
        If a package of the extra ``prepare`` is missing.

    Notes
    -----
    The same input gives the same numbers bit by bit on the same machine with the same packages.
    """
    return prepare_examined(examine(structure, ligands, settings, smiles or {}, ligand_xml))


def prepare_examined(found: Examination) -> Prepared:
    """Return the System of a structure that was inspected before."""
    found.report.check()
    assert found.structure is not None
    assert found.model is not None
    texts = ligand_force_fields(found.ligands, found.settings)
    # What cannot be read fails here, before anything slow.
    force_field(found.settings, list(dict.fromkeys(texts.values())))
    solvated = solvate(found.model, found.states, found.ligands, texts, found.settings)
    return Prepared(
        found.structure,
        found.settings,
        tuple(found.ligands),
        texts,
        solvated,
        found.report,
        found.pka,
        found.model.places,
        tuple(found.alternates),
    )


def ligand_force_fields(ligands: Sequence[Ligand], settings: PreparationSettings) -> dict[str, str]:
    """Return the force field XML of each ligand, by name; copies of one molecule share it.

    Raises
    ------
    PreparationError
        If two different molecules have one name.
    """
    first: dict[str, Ligand] = {}
    texts: dict[str, str] = {}
    for ligand in ligands:
        known = first.setdefault(ligand.name, ligand)
        if known is not ligand:
            same = (known.elements, known.bonds, known.charge) == (ligand.elements, ligand.bonds, ligand.charge)
            if not same or known.smiles != ligand.smiles or known.parameters != ligand.parameters:
                raise PreparationError(
                    f"two different molecules have the name {ligand.name}: {known.smiles} and {ligand.smiles}; give "
                    "each its own"
                )
            continue
        if ligand.parameters:
            texts[ligand.name] = ligand.parameters
        else:
            make = sage_system if settings.ligand_force_field == "sage" else gaff_system
            texts[ligand.name] = system_as_xml(ligand, make(ligand))
    return texts
