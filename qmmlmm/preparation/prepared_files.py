"""Files of a preparation: what a run needs, a report for people, and what repeats it."""

from __future__ import annotations

import io
import json
import platform
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import openmm
from openmm import app, unit

from qmmlmm.durable_files import checksum, replace_file
from qmmlmm.errors import PreparationError, SettingError, listed, nearest
from qmmlmm.preparation import amber_tools, open_force_field, protonation, repair
from qmmlmm.preparation.ligand import Ligand
from qmmlmm.preparation.preparing import Prepared
from qmmlmm.preparation.settings import PreparationSettings
from qmmlmm.preparation.site import Site
from qmmlmm.setting_checks import check_path

FORMAT = 1
"""Version of prepare.json, decisions.toml and site.toml."""

_PACKAGES = (
    "qmmlmm", "openmm", "numpy", "rdkit", *repair.PACKAGES, *protonation.PACKAGES, *open_force_field.PACKAGES,
    *amber_tools.PACKAGES,
)  # fmt: skip
_DATE = re.compile(r", \d{4}-\d{2}-\d{2}")

RUN = '''"""QM/MM dynamics of the prepared System: python run.py [ligand or site] [steps]"""

import sys
import tomllib

from openmm import LangevinMiddleIntegrator, XmlSerializer, app
from openmm.unit import femtosecond, kelvin, picosecond
from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, create_mixed_system

name, steps = (sys.argv[1:] + ["{region}", "10"][len(sys.argv) - 1 :])[:2]
topology = app.PDBxFile("topology.cif").topology
system = XmlSerializer.deserialize(open("system.xml").read())
state = XmlSerializer.deserialize(open("state.xml").read())
region = Region(name, **tomllib.load(open("site.toml", "rb"))["regions"][name])
hamiltonian = Hamiltonian([Term(PySCFPotential("hf", "sto-3g"), region, embedding="electrostatic")])
mixed = create_mixed_system(topology, system, hamiltonian)
integrator = LangevinMiddleIntegrator(300 * kelvin, 1 / picosecond, 0.5 * femtosecond)
simulation = app.Simulation(mixed.topology, mixed.system, integrator)
simulation.context.setPeriodicBoxVectors(*state.getPeriodicBoxVectors())
simulation.context.setPositions(state.getPositions())
simulation.context.setVelocitiesToTemperature(300 * kelvin, 1)
simulation.reporters.append(app.StateDataReporter(sys.stdout, 1, step=True, potentialEnergy=True, temperature=True))
simulation.step(int(steps))
'''


RUN_TOML = """# Dynamics of the prepared System, which is minimised already. Run it, and continue it, with
#     qmmlmm run run.toml
# `qmmlmm run run.toml --check` shows what would run, `qmmlmm new FILE` writes a file with all keys.

[system]
prepared = "."
{terms}
[heat]
length = "1 ps"
start = 10.0                # K{heat}

[dynamics]
length = "1 ps"             # may be made longer later
step = "{step}"
temperature = 300.0         # K

[output]
trajectory = "20 fs"
energies = "10 fs"
"""
_TERMS = """
# Charge and multiplicity are in site.toml; [region.site] takes the active site in its place.
[region.{region}]
site = "site.toml"

[[term]]
region = "{region}"
{method}
"""
_METHODS = (
    'method = "gfn2-xtb"         # or of PySCF: method = "b3lyp" and basis = "6-31g*"',
    'method = "hf"               # or "gfn2-xtb" without a basis, with the extra xtb\nbasis = "sto-3g"',
)


def run_input_text(sites: Mapping[str, Site]) -> str:
    """Return an input file of ``qmmlmm run``: GFN2-xTB or QM on a region that is known, or the force field only."""
    known = [name for name in ("ligand", *sites) if name in sites and sites[name].multiplicity is not None]
    if not known:
        return RUN_TOML.format(terms="", heat="", step="1 fs")
    method = _METHODS[find_spec("tblite") is None]
    terms = _TERMS.format(region=known[0], method=method)
    heat = "\nforce_field_only = true     # the regions are at their own level from then on"
    return RUN_TOML.format(terms=terms, heat=heat, step="0.5 fs")


@dataclass(frozen=True)
class Decisions:
    """What repeats a preparation.

    Parameters
    ----------
    structure : Path
    ligands : tuple of Ligand
    settings : PreparationSettings
    ligand_xml : tuple of Path
    """

    structure: Path
    ligands: tuple[Ligand, ...]
    settings: PreparationSettings
    ligand_xml: tuple[Path, ...]


def write_files(folder: Path, prepared: Prepared, sites: Mapping[str, Site] | None = None) -> tuple[str, ...]:
    """Write all files of a preparation into a folder; return their names.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    prepared : Prepared
    sites : mapping of str to Site, optional
        Regions for site.toml, such as ``{"ligand": ..., "site": ...}``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = prepared.solvated.state
    texts = {
        "topology.cif": topology_text(prepared.topology, state, app.PDBxFile),
        "topology.pdb": topology_text(prepared.topology, state, app.PDBFile),
        "system.xml": openmm.XmlSerializer.serialize(prepared.system),
        "state.xml": openmm.XmlSerializer.serialize(state),
        "report.md": report_text(prepared, sites or {}),
        "prepare.json": json.dumps(_record(prepared, sites or {}), indent=1, ensure_ascii=False) + "\n",
        "decisions.toml": _decisions_text(prepared),
        "run.toml": run_input_text(sites or {}),
    }
    for name, text in prepared.ligand_xml.items():
        texts[f"ligand_{name}.xml"] = text
    for number, ligand in enumerate(prepared.ligands, start=1):
        if ligand.sdf:
            texts[_sdf_name(ligand, number, prepared.ligands)] = ligand.sdf + _sdf_charges(ligand, prepared) + "$$$$\n"
    if sites:
        texts["site.toml"] = site_text(sites)
        texts["run.py"] = RUN.replace("{region}", "ligand" if "ligand" in sites else "site")
    for name, text in texts.items():
        replace_file(folder / name, text.encode())
    copy = _structure_name(prepared)
    replace_file(folder / copy, prepared.structure.content)
    return (copy, *texts)


def topology_text(topology: app.Topology, state: openmm.State, kind: type) -> str:
    """Return a Topology as mmCIF or PDB, without the date that OpenMM writes."""
    file = io.StringIO()
    kind.writeFile(topology, state.getPositions(), file, keepIds=True)  # type: ignore[attr-defined]
    first, _, rest = file.getvalue().partition("\n")
    return _DATE.sub("", first) + "\n" + rest


def site_text(sites: Mapping[str, Site]) -> str:
    """Return regions as TOML: atoms, charge and multiplicity of each, and how they were chosen as comments."""
    return "\n".join([f"format = {FORMAT}", *(region_text(name, site) for name, site in sites.items())])


def region_text(name: str, site: Site) -> str:
    """Return one region as a table of site.toml."""
    lines = ["", *(f"# {line}".rstrip() for line in site.text().splitlines()), f"[regions.{name}]"]
    lines += [f"atoms = {list(site.atoms)}", f"charge = {site.charge}"]
    if site.multiplicity is None:
        lines.append("# multiplicity = ...  give 2S + 1: it cannot be known")
    else:
        lines.append(f"multiplicity = {site.multiplicity}")
    return "\n".join(lines) + "\n"


def read_regions(path: Path) -> dict[str, str]:
    """Return the text of each region of a site.toml, by name.

    Raises
    ------
    PreparationError
        If it is no valid file.
    """
    try:
        text = path.read_text(encoding="utf-8")
        tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PreparationError(f"{path} cannot be read: {error}") from error
    # Comments of a region stand above it, behind an empty line.
    blocks = [block for block in re.split(r"\n(?=\n#|\n\[)", text) if "[regions." in block]
    return {re.search(r"\[regions\.([^\]]+)\]", block)[1]: block.rstrip() + "\n" for block in blocks}  # type: ignore[index]


def report_text(prepared: Prepared, sites: Mapping[str, Site]) -> str:
    """Return the report for people, in Markdown."""
    solvated = prepared.solvated
    counts = ", ".join(f"{count} {name}" for name, count in solvated.counts.items())
    lines = [
        f"# {prepared.structure.path.name}",
        "",
        f"{prepared.topology.getNumAtoms()} particles; added {counts}. Protein {_protein(prepared)}, water "
        f"{prepared.settings.water}, ligands {_ligand_force_field(prepared)}.",
        "",
        "## Findings",
        "",
        "```",
        prepared.report.text().rstrip(),
        "```",
        "",
        "## States",
        "",
        "| residue | state | pKa |",
        "|---|---|---|",
    ]
    pka = {value.residue: value.value for value in prepared.pka if value.group == value.name}
    for label, state in solvated.states.items():
        shown = f"{pka[label]:.1f}" if label in pka and pka[label] < 90.0 else ""
        lines.append(f"| {label} | {state} | {shown} |")
    lines += ["", "## Charges and checks", ""]
    lines += [f"- charge of {key}: {value:+.4f} e" for key, value in solvated.charges.items()]
    lines += [f"- energy, {key}: {value:.1f} kJ/mol" for key, value in solvated.energies.items()]
    lines += [f"- {key}: {value}" for key, value in solvated.checks.items()]
    for name, site in sites.items():
        lines += ["", f"## Region {name}", "", "```", site.text().rstrip(), "```"]
    return "\n".join(lines) + "\n"


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that a preparation uses."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _protein(prepared: Prepared) -> str:
    return {"amber14": "ff14SB", "amber19": "ff19SB"}[prepared.settings.force_field]


def _ligand_force_field(prepared: Prepared) -> str:
    return {"sage": "OpenFF Sage 2.3.0 with NAGL charges", "gaff2": "GAFF2 with AM1-BCC charges"}[
        prepared.settings.ligand_force_field
    ]


def _record(prepared: Prepared, sites: Mapping[str, Site]) -> dict[str, object]:
    solvated = prepared.solvated
    settings = {f.name: _plain(vars(prepared.settings)[f.name]) for f in fields(PreparationSettings)}
    return {
        "format": FORMAT,
        "versions": versions(),
        "structure": {"name": prepared.structure.path.name, "sha256": prepared.structure.sha256},
        "settings": settings,
        "findings": [finding.as_dict() for finding in prepared.report],
        "alternates": [list(item) for item in prepared.alternates],
        "pka": [asdict(value) for value in prepared.pka],
        "states": dict(solvated.states),
        "ligands": [
            {"name": ligand.name, "smiles": ligand.smiles, "charge": ligand.charge, "source": ligand.source,
             "sdf_sha256": checksum(ligand.sdf), "xml_sha256": checksum(prepared.ligand_xml[ligand.name])}
            for ligand in prepared.ligands
        ],
        "places": dict(prepared.places),
        "particles": prepared.topology.getNumAtoms(),
        "added": dict(solvated.counts),
        "charges": dict(solvated.charges),
        "energies_kj_per_mol": dict(solvated.energies),
        "checks": dict(solvated.checks),
        "regions": {name: asdict(site) for name, site in sites.items()},
    }  # fmt: skip


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def _structure_name(prepared: Prepared) -> str:
    return "structure" + (prepared.structure.path.suffix.lower() or ".pdb")


def _sdf_name(ligand: Ligand, number: int, ligands: Sequence[Ligand]) -> str:
    several = sum(other.name == ligand.name for other in ligands) > 1
    return f"ligand_{ligand.name}_{number}.sdf" if several else f"ligand_{ligand.name}.sdf"


def _sdf_charges(ligand: Ligand, prepared: Prepared) -> str:
    """Return the partial charges of the force field as a field of an SDF, as OpenFF writes it."""
    found = re.findall(r'<Atom [^>]*?charge="([^"]+)"', prepared.ligand_xml[ligand.name].split("</Residue>")[0])
    if len(found) != len(ligand.elements):
        return ""
    values = " ".join(f"{float(value):.6f}" for value in found)
    return f">  <atom.dprop.PartialCharge>\n{values}\n\n"


def _decisions_text(prepared: Prepared) -> str:
    """Return TOML that repeats the preparation with the files beside it."""
    settings = prepared.settings
    lines = [
        "# Repeats this preparation: qmmlmm prepare --decisions decisions.toml --out again",
        f"format = {FORMAT}",
        f"structure = {_quoted(_structure_name(prepared))}",
        f"sha256 = {_quoted(prepared.structure.sha256)}",
        "",
        "[settings]",
    ]
    for item in fields(PreparationSettings):
        value = vars(settings)[item.name]
        if value is None or item.name == "states":
            continue
        lines.append(f"{item.name} = {_toml(value)}")
    lines += ["", "[states]  # all states that were taken; change those that you know better"]
    bridged = {label for label, state in prepared.solvated.states.items() if state == "CYX"}
    for label, state in prepared.solvated.states.items():
        if label not in bridged:
            lines.append(f"{_quoted(label)} = {_quoted(state)}")
    for number, ligand in enumerate(prepared.ligands, start=1):
        lines += ["", "[[ligand]]", f"name = {_quoted(ligand.name)}"]
        if ligand.sdf:
            lines.append(f"file = {_quoted(_sdf_name(ligand, number, prepared.ligands))}")
        lines += [f"parameters = {_quoted(f'ligand_{ligand.name}.xml')}", f"residue = {_quoted(ligand.residue)}"]
        lines.append(f"atoms = {_toml(ligand.atom_names)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _toml(value: object) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return repr(value)


def read_decisions(path: Path) -> Decisions:
    """Return what a file decisions.toml repeats; paths in it are relative to it.

    Raises
    ------
    PreparationError
        If the file or one that it names is missing, changed, or has unknown keys.
    """
    path = check_path("the decisions", path, PreparationError)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PreparationError(f"the decisions {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PreparationError(f"{path} is not valid TOML: {error}") from error
    _check_keys(content, ("format", "structure", "sha256", "settings", "states", "ligand"), str(path))
    if content.get("format") != FORMAT:
        raise PreparationError(f"{path} has the format {content.get('format')!r}; this version reads {FORMAT}")
    structure = path.parent / str(content.get("structure", ""))
    if not structure.is_file():
        raise PreparationError(f"{path} names the structure {structure.name!r}, which is not beside it")
    if checksum(structure.read_bytes()) != content.get("sha256"):
        raise PreparationError(f"{structure} is not the file from which {path} was made: its checksum differs")
    settings: dict[str, Any] = content.get("settings", {})
    _check_keys(settings, [f.name for f in fields(PreparationSettings) if f.name != "states"], f"[settings] of {path}")
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()
    }
    values["states"] = content.get("states", {})
    try:
        read = PreparationSettings(**values)
    except (SettingError, TypeError) as error:
        raise PreparationError(f"{path}: {error}") from error
    ligands, own = [], []
    for table in content.get("ligand", []):
        _check_keys(table, ("name", "file", "parameters", "residue", "atoms"), f"[[ligand]] of {path}")
        if "file" in table:
            ligands.append(_read_ligand(table, path.parent))
        else:
            own.append(path.parent / str(table.get("parameters", "")))
    return Decisions(structure, tuple(ligands), read, tuple(dict.fromkeys(own)))


def _read_ligand(table: Mapping[str, object], folder: Path) -> Ligand:
    ligand = Ligand.from_file(
        folder / str(table["file"]), str(table.get("name", "LIG")), parameters=folder / str(table.get("parameters", ""))
    )
    names = tuple(str(name) for name in table.get("atoms", ligand.atom_names))  # type: ignore[attr-defined]
    if len(names) != len(ligand.elements) or len(set(names)) != len(names):
        raise PreparationError(
            f"ligand {ligand.name} has {len(ligand.elements)} atoms, and decisions.toml names {len(names)}"
        )
    return replace(ligand, residue=str(table.get("residue", "")), atom_names=names)


def _check_keys(table: object, known: Sequence[str], where: str) -> None:
    if not isinstance(table, dict):
        raise PreparationError(f"{where} is a table")
    for key in table:
        if key not in known:
            raise PreparationError(
                f"{where} has the unknown key {key!r}; known are {listed(known, 40)}.{nearest(key, known)}"
            )


def read_prepared(folder: Path) -> tuple[app.Topology, openmm.System, unit.Quantity]:
    """Return Topology, System and positions of a prepared folder.

    Raises
    ------
    PreparationError
        If a file is missing or cannot be read.
    """
    folder = check_path("the prepared folder", folder, PreparationError)
    for name in ("topology.cif", "system.xml", "state.xml"):
        if not (folder / name).is_file():
            raise PreparationError(f"{folder} has no {name}; it is no folder that qmmlmm prepare wrote")
    try:
        topology = app.PDBxFile(str(folder / "topology.cif")).topology
        system = openmm.XmlSerializer.deserialize((folder / "system.xml").read_text(encoding="utf-8"))
        state = openmm.XmlSerializer.deserialize((folder / "state.xml").read_text(encoding="utf-8"))
    # OpenMM raises plain exceptions of several classes here.
    except Exception as error:
        raise PreparationError(f"the files in {folder} cannot be read: {error}") from error
    if not topology.getNumAtoms() == system.getNumParticles() == len(state.getPositions()):
        raise PreparationError(f"topology.cif, system.xml and state.xml in {folder} have different numbers of atoms")
    return topology, system, state.getPositions(asNumpy=True)
