"""The command ``qmmlmm prepare``: from a structure file and ligands to a solvated System."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from qmmlmm.commands.site import add_site_options, parse_distance
from qmmlmm.errors import PreparationError, SettingError
from qmmlmm.preparation.inspection import Examination, examine
from qmmlmm.preparation.ligand import Ligand
from qmmlmm.preparation.prepared_files import read_decisions, write_files
from qmmlmm.preparation.preparing import Prepared, prepare_examined
from qmmlmm.preparation.settings import (
    BOXES,
    FORCE_FIELDS,
    LIGAND_FORCE_FIELDS,
    MISSING,
    WATERS,
    PreparationSettings,
)
from qmmlmm.preparation.site import Site
from qmmlmm.preparation.site_choice import pick_site
from qmmlmm.preparation.site_picture import save_site_picture

_FILE = re.compile(r"(?P<path>.+\.(?:sdf|sd|mol|mol2))(?::(?P<molecule>.+))?", re.IGNORECASE)


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], parents: Sequence[argparse.ArgumentParser]
) -> None:
    """Add ``prepare`` to the command ``qmmlmm``."""
    parser = commands.add_parser(
        "prepare",
        help="make a solvated System of a structure file and ligands",
        description=(
            "Make a solvated System of a structure file and ligands. With --check the exit status is 1 if something "
            "is refused."
        ),
        epilog="example: qmmlmm prepare protein.pdb --ligand ligand.sdf --state A:31=HIE --out prepared",
        parents=parents,
    )
    parser.set_defaults(run=_run)
    defaults = PreparationSettings()
    parser.add_argument("structure", type=Path, nargs="?", help="PDB or mmCIF file")
    parser.add_argument(
        "--ligand", action="append", default=[], metavar="FILE or NAME=FILE or NAME=SMILES",
        help="SDF, MOL or MOL2 file (FILE:TITLE chooses a molecule), or the SMILES of a group in the structure",
    )  # fmt: skip
    parser.add_argument(
        "--ligand-xml", type=Path, action="append", default=[], metavar="FILE",
        help="OpenMM force field XML of your own, for the ligands with the names of its residues",
    )  # fmt: skip
    parser.add_argument(
        "--ligand-hydrogens", choices=("refuse", "add"), default="refuse", help="what to do if a file lacks hydrogens"
    )
    parser.add_argument("--ph", type=float, default=defaults.ph, help="pH for the estimated states")
    parser.add_argument(
        "--state", action="append", default=[], metavar="CHAIN:NUMBER=STATE",
        help="state of a residue, such as A:25=ASH; wins over the estimated pKa",
    )  # fmt: skip
    parser.add_argument("--force-field", choices=FORCE_FIELDS, default=defaults.force_field, help="of the protein")
    parser.add_argument("--water", choices=WATERS, help="tip3p with amber14 and opc with amber19 if not given")
    parser.add_argument(
        "--ligand-force-field", choices=LIGAND_FORCE_FIELDS, default=defaults.ligand_force_field, help="of the ligands"
    )
    parser.add_argument("--chains", default="", metavar="A,B", help="chains to keep; all if not given")
    parser.add_argument("--keep", metavar="HOH,CA", help="waters and ions to keep; waters and metal ions if not given")
    parser.add_argument("--remove", default="", metavar="NAME,NAME", help="other groups to leave out")
    parser.add_argument(
        "--replace", default="", metavar="SEP", help="phosphorylated residues that lose their phosphate"
    )
    parser.add_argument("--model", type=int, help="model of a file with several")
    parser.add_argument("--missing", choices=MISSING, default=defaults.missing, help="what to do at gaps in a chain")
    parser.add_argument(
        "--hydrogens", choices=("keep", "ignore"), default=defaults.hydrogens,
        help="whether hydrogens in the file say what the states are",
    )  # fmt: skip
    parser.add_argument("--padding", type=float, default=defaults.padding, help="between the solute and its images, nm")
    parser.add_argument("--box", choices=BOXES, default=defaults.box, help="shape of the box")
    parser.add_argument("--salt", type=float, default=defaults.salt, help="sodium chloride, mol/l")
    parser.add_argument("--cutoff", type=float, default=defaults.cutoff, help="cutoff of PME, nm")
    parser.add_argument("--hydrogen-mass", type=float, help="mass of hydrogens, dalton")
    parser.add_argument("--minimise", type=int, default=defaults.minimise, help="iterations of each of two stages")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="seed of all random numbers")
    parser.add_argument("--site", default="4 A", metavar="DISTANCE", help="distance of the site around the ligands")
    add_site_options(parser)
    parser.add_argument("--out", type=Path, default=Path("prepared"), help="folder for the files")
    parser.add_argument("--force", action="store_true", help="write into a folder that has files")
    parser.add_argument("--decisions", type=Path, metavar="decisions.toml", help="repeat a preparation")
    parser.add_argument("--check", action="store_true", help="inspect and report, and build nothing")


def _run(options: argparse.Namespace) -> int:
    within = parse_distance("--site", options.site)
    found = _examined(options)
    sys.stdout.write(found.report.text())
    if options.check:
        return 1 if found.report.refused else 0
    if (
        options.out.exists()
        and any(options.out.iterdir() if options.out.is_dir() else [options.out])
        and not options.force
    ):
        raise PreparationError(f"{options.out} exists already; name another folder (--out), or overwrite it (--force)")
    prepared = prepare_examined(found)
    sites = _sites(prepared, within, options)
    names = write_files(options.out, prepared, sites)
    if "site" in sites:
        save_site_picture(str(options.out / "site.png"), prepared.topology, prepared.positions, sites["site"])
        names = (*names, "site.png")
    for name, site in sites.items():
        sys.stdout.write(f"\nRegion {name}: {site.text()}")
    total = prepared.topology.getNumAtoms()
    sys.stdout.write(f"\n{total} particles in {options.out}: {', '.join(names)}\n")
    return 0


def _examined(options: argparse.Namespace) -> Examination:
    if options.decisions is not None:
        if options.structure is not None or options.ligand or options.ligand_xml or options.state:
            raise SettingError("--decisions has the structure, the ligands and the states; give no others")
        given = read_decisions(options.decisions)
        return examine(given.structure, given.ligands, given.settings, {}, given.ligand_xml)
    if options.structure is None:
        raise SettingError("a structure file is needed: qmmlmm prepare protein.pdb --ligand ligand.sdf")
    ligands, smiles = read_ligands(options.ligand, options.ligand_hydrogens)
    return examine(options.structure, ligands, _settings(options), smiles, options.ligand_xml)


def _settings(options: argparse.Namespace) -> PreparationSettings:
    return PreparationSettings(
        ph=options.ph,
        states=_states(options.state),
        force_field=options.force_field,
        water=options.water,
        ligand_force_field=options.ligand_force_field,
        chains=_names(options.chains),
        keep=None if options.keep is None else _names(options.keep),
        remove=_names(options.remove),
        replace=_names(options.replace),
        model=options.model,
        missing=options.missing,
        hydrogens=options.hydrogens,
        padding=options.padding,
        box=options.box,
        salt=options.salt,
        cutoff=options.cutoff,
        hydrogen_mass=options.hydrogen_mass,
        minimise=options.minimise,
        seed=options.seed,
    )


def read_ligands(given: Sequence[str], hydrogens: str) -> tuple[list[Ligand], dict[str, str]]:
    """Return the ligands of files, and SMILES by the names of residues.

    Parameters
    ----------
    given : sequence of str
        Each a file, a file with the title of a molecule behind a colon, NAME=file, or NAME=SMILES.
    hydrogens : {"refuse", "add"}
    """
    ligands: list[Ligand] = []
    smiles: dict[str, str] = {}
    for text in given:
        name, equals, rest = text.partition("=")
        # SMILES have = too: a name is short and has letters and digits only.
        named = bool(equals) and re.fullmatch(r"\w{1,4}", name) is not None
        found = _FILE.fullmatch(rest if named else text)
        if found is None and not named:
            raise PreparationError(
                "--ligand is a file .sdf, .mol or .mol2, NAME=file, or NAME=SMILES with the name of the residue in "
                "the "
                f"structure, got {text!r}"
            )
        if found is None:
            if name in smiles:
                raise PreparationError(f"--ligand gives two SMILES of {name}")
            smiles[name] = rest
            continue
        taken = {ligand.name for ligand in ligands}
        default = next(
            f"LI{k}" if k > 1 else "LIG" for k in range(1, 10) if (f"LI{k}" if k > 1 else "LIG") not in taken
        )
        ligand_name = name if named else default
        ligands.append(Ligand.from_file(found["path"], ligand_name, molecule=found["molecule"], hydrogens=hydrogens))
    return ligands, smiles


def _states(given: Sequence[str]) -> dict[str, str]:
    states: dict[str, str] = {}
    for text in given:
        label, equals, state = text.partition("=")
        if not equals:
            raise SettingError(f"--state is CHAIN:NUMBER=STATE, such as A:25=ASH, got {text!r}")
        if states.setdefault(label, state) != state:
            raise SettingError(f"--state gives two states of {label}")
    return states


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _sites(prepared: Prepared, within: float, options: argparse.Namespace) -> dict[str, Site]:
    """Return the ligands as a region, and the site around them."""
    names = sorted({ligand.name for ligand in prepared.ligands})
    if not names:
        return {}
    atoms = [atom.index for atom in prepared.topology.atoms() if atom.residue.name in names]
    topology, system, positions = prepared.topology, prepared.system, prepared.positions
    others = [atom.residue for atom in topology.atoms() if atom.index in set(atoms)]
    first = min(others, key=lambda residue: residue.index)
    ligand = [atom.index for atom in first.atoms()]
    site = pick_site(
        topology, system, positions, atoms, within,
        take=options.take, leave=options.leave, backbone=options.backbone, cut=options.cut, waters=options.waters,
    )  # fmt: skip
    return {"ligand": pick_site(topology, system, positions, ligand, 1e-6), "site": site}
