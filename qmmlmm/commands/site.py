"""The command ``qmmlmm site``: choose the active site of a prepared System."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from qmmlmm.durable_files import replace_file
from qmmlmm.errors import PreparationError, SettingError
from qmmlmm.preparation.prepared_files import read_prepared, read_regions, region_text
from qmmlmm.preparation.site_choice import pick_site
from qmmlmm.preparation.site_picture import save_site_picture

_UNITS = {"a": 0.1, "angstrom": 0.1, "å": 0.1, "": 0.1, "nm": 1.0}


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], parents: Sequence[argparse.ArgumentParser]
) -> None:
    """Add ``site`` to the command ``qmmlmm``."""
    parser = commands.add_parser(
        "site",
        help="choose the active site of a prepared System",
        description="Choose the active site of a prepared System.",
        epilog="example: qmmlmm site prepared --around 'resname LIG' --within '4 A' --take A:50",
        parents=parents,
    )
    parser.set_defaults(run=_run)
    parser.add_argument("folder", type=Path, help="folder that qmmlmm prepare wrote")
    parser.add_argument("--around", required=True, metavar="SELECTION", help="such as 'resname LIG'")
    parser.add_argument("--within", default="4 A", metavar="DISTANCE", help="distance between heavy atoms")
    parser.add_argument("--name", default="site", help="name of the region in site.toml")
    parser.add_argument("--multiplicity", type=int, help="2S + 1")
    add_site_options(parser)


def add_site_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what belongs to a site."""
    label = "CHAIN:NUMBER"
    parser.add_argument("--take", type=_labels, default=[], metavar=label, help="residues to take, with commas")
    parser.add_argument("--leave", type=_labels, default=[], metavar=label, help="residues to leave out")
    parser.add_argument(
        "--backbone", type=_labels, default=[], metavar=label, help="residues whose carbonyl group is taken"
    )
    parser.add_argument(
        "--cut", type=_labels, default=[], metavar="CHAIN:NUMBER:ATOM-ATOM",
        help="bonds of ligands and cofactors that are cut; the part with the first atom is taken",
    )  # fmt: skip
    parser.add_argument("--waters", type=int, default=0, metavar="NUMBER", help="nearest waters to take")


def parse_distance(option: str, text: str) -> float:
    """Return a distance in nm; without a unit it is in angstrom.

    Raises
    ------
    SettingError
        If it is no positive length.
    """
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(\w*)\s*", text)
    if found is None or found[2].lower() not in _UNITS or float(found[1]) == 0.0:
        raise SettingError(f"{option} is a distance such as '4 A' or '0.4 nm', got {text!r}")
    return float(found[1]) * _UNITS[found[2].lower()]


def _run(options: argparse.Namespace) -> int:
    within = parse_distance("--within", options.within)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", options.name) or options.name == "MM":
        raise SettingError(f"--name is letters, digits, '-' and '_', and not 'MM', got {options.name!r}")
    topology, system, positions = read_prepared(options.folder)
    site = pick_site(
        topology, system, positions, options.around, within,
        take=options.take, leave=options.leave, backbone=options.backbone, cut=options.cut, waters=options.waters,
    )  # fmt: skip
    if options.multiplicity is not None:
        site = replace(site, multiplicity=site.region(multiplicity=options.multiplicity).multiplicity)
    path = options.folder / "site.toml"
    others = read_regions(path) if path.is_file() else {}
    others[options.name] = region_text(options.name, site)
    replace_file(path, ("\n".join(["format = 1", *others.values()])).encode())
    picture = options.folder / f"{options.name}.png"
    save_site_picture(str(picture), topology, positions, site)
    sys.stdout.write(site.text())
    sys.stdout.write(f"{options.name} is in {path}, its picture in {picture}\n")
    return 0


def _labels(text: str) -> list[str]:
    labels = [label.strip() for label in text.split(",") if label.strip()]
    if not labels:
        raise PreparationError(f"residues or bonds are a list with commas between them, got {text!r}")
    return labels
