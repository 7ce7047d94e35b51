"""The tables [system], [region.NAME] and [[term]] of an input file: a mixed System."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from openmm import unit

from qmmlmm.commands.input_file import Table
from qmmlmm.commands.measures import check_measure
from qmmlmm.commands.potential_input import read_level
from qmmlmm.commands.system_input import Start
from qmmlmm.coupling.hamiltonian import Hamiltonian, Term
from qmmlmm.coupling.potential import EMBEDDINGS
from qmmlmm.coupling.region import LinkRule, Region
from qmmlmm.errors import InputFileError, QmmlmmError, SettingError, listed, nearest, signed
from qmmlmm.mm.creation import create_mixed_system
from qmmlmm.mm.electrostatics import suggest_charge
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.mm.selection import select
from qmmlmm.setting_checks import (
    check_atoms,
    check_choice,
    check_finite_number,
    check_mapping,
    check_text,
    check_whole_number,
)
from qmmlmm.units import Scalar

AUTO = "auto"


@dataclass(frozen=True)
class RegionSettings:
    """A region, the table [region.NAME]; bonds between its atoms and others are cut.

    Parameters
    ----------
    select : text, optional
        Atoms of the region as a selection, such as "resname LIG" or "resSeq 102 and sidechain".
    site : path, optional
        File site.toml of qmmlmm prepare. It contains atoms, charge and multiplicity under the name of the region.
    atoms : list of whole numbers, optional
        Indices of the atoms of the region, from zero. Give exactly one of `select`, `site` and `atoms`.
    charge : whole number or "auto", optional
        Total charge; "auto" uses that of the force field. Required without `site`.
    multiplicity : whole number, optional
        2S + 1. If it is not given, it is that of the site, or 1.
    link_rule : {"ratio", "distance"}
        Rule for the positions of link hydrogens: at a fraction of the cut bond, or at a fixed distance.
    """

    select: str | None = None
    site: str | None = None
    atoms: tuple[int, ...] | None = None
    charge: int | str | None = None
    multiplicity: int | None = None
    link_rule: LinkRule = "ratio"

    def __post_init__(self) -> None:
        for name in ("select", "site"):
            if vars(self)[name] is not None:
                check_text(name, vars(self)[name])
        if self.atoms is not None:
            object.__setattr__(self, "atoms", check_atoms("atoms", self.atoms))
        if self.charge is not None and self.charge != AUTO:
            check_whole_number("charge", self.charge, at_least=-(10**9))
        if self.multiplicity is not None:
            check_whole_number("multiplicity", self.multiplicity)
        check_choice("link_rule", self.link_rule, ("ratio", "distance"))
        given = [name for name in ("select", "site", "atoms") if vars(self)[name] is not None]
        if len(given) != 1:
            what = (
                f"has {' and '.join(given)}, of which one is enough"
                if given
                else "lacks 'select', or 'site' or 'atoms'"
            )
            raise SettingError(what)
        if self.site is not None and self.charge is not None:
            raise SettingError("charge is in the site already; leave it out, or change it there")


@dataclass(frozen=True)
class TermSettings:
    """A term of the Hamiltonian, [[term]]: a level, which stands beside these keys, on a region.

    Parameters
    ----------
    region : text, optional
        Name of the region; not needed if there is only one region.
    correct : table, optional
        Another level with its settings, which corrects this level. It adds two terms: the other level with the
        coefficient +1, and this level with -1. With `region`, both are on a region inside the region of this term;
        without it, on the same region.
    coefficient : number or text
        Weight in the Hamiltonian: a number, or a sum of names in [parameters], such as "1-lambda_qm".
    embedding : {"electrostatic", "mechanical"}
        Whether the region feels the charges around it (electrostatic) or not (mechanical).
    boundary_charges : {"rcd", "rc", "shift", "zero"}
        Scheme for the charge of the outside atom of a cut bond.
    smeared_charges : number, nm, optional
        Width of the Gaussian distributions that replace the point charges around the region.
    name : text, optional
        Name in the table of energies, such as "ligand/XTB"; made of region and level if not given.
    spin_multiplicity : whole number, optional
        2S + 1 of this term, if it differs from that of its region.
    """

    region: str | None = None
    correct: Mapping[str, object] | None = None
    coefficient: float | str = 1.0
    embedding: str = "electrostatic"
    boundary_charges: str = "rcd"
    smeared_charges: Scalar | None = None
    name: str | None = None
    spin_multiplicity: int | None = None

    def __post_init__(self) -> None:
        for key in ("region", "name"):
            if vars(self)[key] is not None:
                check_text(key, vars(self)[key])
        if self.correct is not None:
            check_mapping("correct", self.correct)
        if not isinstance(self.coefficient, str):
            check_finite_number("coefficient", self.coefficient)
        check_choice("embedding", self.embedding, EMBEDDINGS)
        check_choice("boundary_charges", self.boundary_charges, ("rcd", "rc", "shift", "zero"))
        if self.smeared_charges is not None:
            width = check_measure("smeared_charges", self.smeared_charges, unit.nanometer, above=0.0)
            object.__setattr__(self, "smeared_charges", width)
        if self.spin_multiplicity is not None:
            check_whole_number("spin_multiplicity", self.spin_multiplicity)
        if self.correct is not None and self.coefficient != 1.0:
            raise SettingError(
                f"correct goes with the coefficient 1, got {self.coefficient!r}; write the three terms one by one"
            )


TERM_KEYS = tuple(field.name for field in fields(TermSettings))


def read_hamiltonian(content: Table, start: Start, folder: Path) -> MixedSystem | None:
    """Return the mixed System that the tables [region.NAME], [[term]] and [parameters] describe.

    Parameters
    ----------
    content : Table
        The file.
    start : Start
        What [system] describes.
    folder : Path
        Folder to which paths are relative.

    Returns
    -------
    MixedSystem or None
        None without [[term]]: the force field only.

    Raises
    ------
    InputFileError
        If a key is unknown or missing, or a value is invalid, also if terms do not add up to one energy.
    """
    tables = content.tables("term")
    for table in tables:  # before regions and potentials, which take longer
        table.part(*TERM_KEYS).build(TermSettings)
    regions = _read_regions(content, start, folder)
    if not tables:
        for key in ("region", "parameters"):
            if key in content:
                raise InputFileError(f"the file has [{key}] and no [[term]], which says what is computed with it")
        return None
    if not regions:
        raise InputFileError("[[term]] needs a region: write [region.NAME] with select = ... or site = ...")
    terms = [term for table in tables for term in _read_term(table, regions, folder)]
    used = {term.region.name for term in terms}
    unused = [name for name in regions if name not in used]
    if unused:
        raise InputFileError(f"[region.{unused[0]}] is in no [[term]]; add one, or leave the region out")
    given = content.optional_table("parameters")
    with content.place():
        hamiltonian = Hamiltonian(terms, parameters={name: given.number(name) for name in given})
        return create_mixed_system(start.topology, start.system, hamiltonian)


def read_region(table: Table, start: Start, folder: Path) -> Region:
    """Return the region that a table [region] with a ``name`` describes, or a table [region.NAME].

    Parameters
    ----------
    table : Table
    start : Start
    folder : Path
        Folder to which paths are relative.

    Raises
    ------
    InputFileError
        If a key is unknown, missing or has a wrong value.
    """
    table.check_keys(("name", *(field.name for field in fields(RegionSettings))))
    return _region(table.text("name", "region"), table.without("name"), start, folder)


def _read_regions(content: Table, start: Start, folder: Path) -> dict[str, Region]:
    """Return the regions by name; one region may also stand in [region] with its name."""
    if "region" not in content:
        return {}
    table = content.table("region")
    inner = table.content()
    if inner and not any(isinstance(value, dict) for value in inner.values()):
        region = read_region(table, start, folder)
        return {region.name: region}
    return {name: _region(name, table.table(name), start, folder) for name in table}


def _region(name: str, table: Table, start: Start, folder: Path) -> Region:
    settings = table.build(RegionSettings)
    with table.place():
        if settings.site is not None:
            settings = _with_site(name, settings, folder / settings.site)
        if settings.select is not None:
            atoms = select(start.topology, settings.select, positions=start.positions)
        else:
            assert settings.atoms is not None
            atoms = check_atoms("atoms", settings.atoms, start.topology.getNumAtoms())
        charge = settings.charge
        if not isinstance(charge, int):
            charge = _charge(table, start, atoms, automatic=charge == AUTO)
        multiplicity = 1 if settings.multiplicity is None else settings.multiplicity
        return Region(name, atoms, charge, multiplicity, link_rule=settings.link_rule)


def _with_site(name: str, settings: RegionSettings, path: Path) -> RegionSettings:
    """Return the settings with atoms, charge and multiplicity of a site.toml."""
    if not path.is_file():
        raise SettingError(f"site: there is no file {str(path)!r}")
    try:
        regions = tomllib.loads(path.read_text(encoding="utf-8")).get("regions", {})
    except ValueError as error:
        raise SettingError(f"site: {path} is not valid TOML: {error}") from error
    if not isinstance(regions, dict) or name not in regions:
        names = list(regions) if isinstance(regions, dict) else []
        raise SettingError(
            f"site: {path} has no region {name!r}; it has {listed(names) or 'none'}.{nearest(name, names)}"
        )
    found = Table(f"regions.{name}", check_mapping("site", regions[name])).build(_SiteRegion)
    multiplicity = found.multiplicity if settings.multiplicity is None else settings.multiplicity
    if multiplicity is None:
        raise SettingError(
            f"site: the multiplicity of {name!r} cannot be known; write multiplicity = 2S + 1 here or in {path}"
        )
    return replace(settings, site=None, atoms=found.atoms, charge=found.charge, multiplicity=multiplicity)


@dataclass(frozen=True)
class _SiteRegion:
    """A region of a site.toml."""

    atoms: tuple[int, ...]
    charge: int
    multiplicity: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "atoms", check_atoms("atoms", self.atoms))
        check_whole_number("charge", self.charge, at_least=-(10**9))
        if self.multiplicity is not None:
            check_whole_number("multiplicity", self.multiplicity)


def _charge(table: Table, start: Start, atoms: tuple[int, ...], *, automatic: bool) -> int:
    """Return the charge of a region by the force field, or raise with the advice to write it."""
    try:
        charge = suggest_charge(start.system, atoms, start.topology)
    except QmmlmmError as error:
        raise InputFileError(f"{table.where} charge: {error}") from error
    if not automatic:
        raise InputFileError(
            f"{table.where} lacks 'charge'; the force field gives these {len(atoms)} atoms the charge {signed(charge)}"
            f': write charge = {charge} if that is right, or charge = "auto"'
        )
    return charge


def _read_term(table: Table, regions: Mapping[str, Region], folder: Path) -> list[Term]:
    """Return a term, with those of its correction."""
    settings = table.part(*TERM_KEYS).build(TermSettings)
    region = _region_of(table, settings.region, regions)
    potential = read_level(table.without(*TERM_KEYS), folder, settings.embedding)
    with table.place():
        term = Term(
            potential,
            region,
            coefficient=settings.coefficient,
            embedding=settings.embedding,
            boundary_charges=settings.boundary_charges,
            smeared_charges=None if settings.smeared_charges is None else settings.smeared_charges * unit.nanometer,
            name=settings.name,
            multiplicity=settings.spin_multiplicity,
        )
        if settings.correct is None:
            return [term]
        correct = table.table("correct")
        if "region" in correct:
            region = _region_of(correct, correct.text("region"), regions)
        better = read_level(correct.without("region"), folder, settings.embedding)
        return [
            term,
            replace(term, potential=better, region=region, name=None),
            replace(term, region=region, coefficient=-1.0, name=None),
        ]


def _region_of(table: Table, name: str | None, regions: Mapping[str, Region]) -> Region:
    if name is None and len(regions) == 1:
        return next(iter(regions.values()))
    if name is None or name not in regions:
        given = "lacks 'region'" if name is None else f"has the region {name!r}"
        raise InputFileError(f"{table.where} {given}; there are {listed(regions)}.{nearest(name or '', list(regions))}")
    return regions[name]
