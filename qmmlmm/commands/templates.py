"""Input files to start from, with every key, its default and its meaning."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from qmmlmm.commands.correct import LowerSettings
from qmmlmm.commands.hamiltonian_input import RegionSettings
from qmmlmm.commands.key_reference import Key, keys_of, toml_value
from qmmlmm.commands.reaction_input import (
    FrequenciesSettings,
    MovingSettings,
    PathSettings,
    ReactionPlatform,
)
from qmmlmm.commands.run_keys import RESPONSE, VARIABLE, run_keys
from qmmlmm.commands.run_settings import DynamicsSettings
from qmmlmm.commands.scan_input import AxisSettings, ScanSettings
from qmmlmm.commands.spectrum import SpectrumSettings
from qmmlmm.commands.system_input import SystemSettings
from qmmlmm.commands.umbrella_settings import ProfileSettings, UmbrellaSettings
from qmmlmm.free_energy import SwitchingSettings
from qmmlmm.learning.labels.label_queue import LabelSettings
from qmmlmm.learning.labels.label_task import JobLimits
from qmmlmm.learning.loop.settings import LoopSettings
from qmmlmm.learning.training.training_settings import TrainingSettings
from qmmlmm.ml.response_settings import ResponseSettings
from qmmlmm.qm import TDA, PySCFPotential
from qmmlmm.reactions import Thresholds
from qmmlmm.sampling.metadynamics import HillVariable, Metadynamics

WIDTH = 110


@dataclass(frozen=True)
class Section:
    """A table of a template.

    Parameters
    ----------
    header : str
        Such as ``"[system]"`` or ``"[[hold]]"``; empty for the top of the file.
    text : str
        What the table is for.
    keys : tuple of Key
    values : mapping of str to object
        Values of the keys that are set; others are comments with their defaults.
    examples : mapping of str to object
        Values of comments for keys without a default.
    optional : bool
        Whether the whole table is a comment.
    """

    header: str
    text: str
    keys: tuple[Key, ...]
    values: Mapping[str, object] = field(default_factory=dict)
    examples: Mapping[str, object] = field(default_factory=dict)
    optional: bool = False

    def lines(self) -> list[str]:
        """Return the table as lines of TOML."""
        mark = "#" if self.optional else ""
        lines = ["", *_comment(self.text, "# ")] if self.text else [""]
        if self.header:
            lines.append(mark + self.header)
        for key in self.keys:
            lines += _comment(f"{key.name}: {key.type}. {key.text}".replace("`", ""), "#   ")
            if key.name in self.values:
                lines.append(f"{mark}{key.name} = {toml_value(self.values[key.name])}")
            elif key.name in self.examples:
                lines.append(f"#{key.name} = {toml_value(self.examples[key.name])}")
            elif key.default:
                lines.append(f"#{key.name} = {key.default}")
        return lines


def _comment(text: str, start: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), WIDTH, initial_indent=start, subsequent_indent=start)


def template(kind: str, name: str) -> str:
    """Return an input file.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    name : str
        Name of the file, for the command in its first lines.
    """
    title, sections = _TITLES[kind], _SECTIONS[kind]()
    head = [
        f"# {title} Run it with: qmmlmm {first_command(kind)} {name}",
        "# Lines that begin with # and a key show its default, or an example: take the # away to change it.",
    ]
    return "\n".join([*head, *(line for section in sections for line in section.lines())]) + "\n"


_TITLES = {
    "run": "Dynamics in stages.",
    "learn": "A learning loop: walkers, labels by QM, training.",
    "spectrum": "An absorption spectrum from snapshots of a trajectory.",
    "correct": "The correction of a binding free energy from a force field to a higher level.",
    "reaction": "A reaction, for qmmlmm optimise, scan, path, saddle, frequencies, umbrella and profile.",
}
KINDS = tuple(_TITLES)
"""Kinds of input files: the commands that take them, and ``"reaction"``, which several take."""


def first_command(kind: str) -> str:
    """Return the command that takes a kind of file first."""
    return "optimise" if kind == "reaction" else kind


_SYSTEM_EXAMPLES = {
    "hydrogen_mass": 1.5,
    "prmtop": "complex.prmtop",
    "psf": "complex.psf",
    "top": "complex.top",
    "xml": "system.xml",
    "pdb": "complex.pdb",
    "coordinates": "complex.rst7",
    "topology": "topology.cif",
    "parameters": ["par_all36_prot.prm"],
    "force_field": ["amber14-all.xml", "amber14/tip3p.xml"],
    "include": "/usr/share/gromacs/top",
    "box": [6.0, 6.0, 6.0],
}


def _system() -> Section:
    return Section(
        "[system]",
        "The files: one of prepared, prmtop, psf, top, xml and pdb, with what it needs. Paths are relative to this "
        "file.",
        keys_of(SystemSettings),
        {"prepared": "prepared"},
        _SYSTEM_EXAMPLES,
    )


def _hamiltonian(without: str = "") -> list[Section]:
    """Return [region.NAME] and [[term]]; `without` says what happens without them."""
    keys = run_keys()
    method = Key(
        "method", "text", True, "",
        'Level of the region: "gfn2-xtb", a method of PySCF such as "b3lyp" with its basis, or "force field". Instead '
        'of method: model = "ligand.pt", a file of qmmlmm train; pretrained = "mace-off23-small", a name of openmm-ml, '
        'with embedding = "mechanical" or a response; pretrained = "so3lr". Settings of each level: docs/run.md.',
    )  # fmt: skip
    basis = Key("basis", "text", False, "", "Basis set of a method of PySCF.")
    return [
        Section(
            "[region.ligand]",
            "A region: the atoms that a [[term]] computes. The file may have several, [region.NAME].",
            keys["region"],
            {"site": "prepared/site.toml"},
            {"select": "resname LIG", "atoms": [0, 1, 2], "charge": "auto", "multiplicity": 1},
        ),
        Section(
            "[[term]]",
            f"A level on a region. {without}Coefficients of a region add up to 1, those of a region inside another to "
            "0.",
            (method, basis, *keys["term"]),
            {"region": "ligand", "method": "gfn2-xtb"},
            {"basis": "6-31g*", "response": "response.pt", "correct": {"method": "b3lyp", "basis": "6-31g*"},
             "smeared_charges": 0.05, "name": "ligand/XTB", "spin_multiplicity": 1},
        ),
    ]  # fmt: skip


def run_sections() -> list[Section]:
    """Return the tables of a file of ``qmmlmm run``."""
    keys = run_keys()
    return [
        Section("", "", keys["top"], examples={"directory": "run"}),
        _system(),
        *_hamiltonian("Without [[term]] and [region] the force field runs. "),
        Section("[minimise]", _first_line("minimise"), keys["minimise"]),
        Section("[heat]", _first_line("heat"), keys["heat"]),
        Section("[equilibrate]", _first_line("equilibrate"), keys["equilibrate"], examples={"pressure": 1.0}),
        Section(
            "[dynamics]",
            _first_line("dynamics"),
            keys["dynamics"],
            {"length": "10 ps"},
            {"correct_every": 4, "pressure": 1.0},
        ),
        Section(
            "[[hold]]",
            _first_line("hold"),
            keys["hold"],
            {"select": "protein and backbone"},
            {"atoms": [0, 1, 2]},
            optional=True,
        ),
        Section(
            "[[variable]]",
            "A variable whose values are written: a name and one kind. An atom is its index from zero, or a "
            "selection of one atom.",
            VARIABLE,
            {"name": "contact", "distance": ["resname LIG and name C1", 1200]},
            {"difference": [10, 11, 25], "torsion": [4, 6, 8, 14]},
            optional=True,
        ),
        Section(
            "[[restraint]]",
            _first_line("restraint"),
            keys["restraint"],
            {"variable": "contact", "centre": 0.4, "force_constant": 1000.0},
            optional=True,
        ),
        Section(
            "[metadynamics]",
            "Hills along variables in production; their free energy is written to free_energy.csv.",
            keys_of(Metadynamics, without=["variables", "shared"]),
            {"height": 1.0, "bias_factor": 10.0, "interval": 100},
            optional=True,
        ),
        Section(
            "[[metadynamics.along]]",
            "",
            keys_of(HillVariable),
            {"variable": "contact", "width": 0.02, "low": 0.2, "high": 1.0},
            optional=True,
        ),
        Section("[output]", _first_line("output"), keys["output"], examples={"variables": 100}),
        Section(
            "[platform]",
            _first_line("platform"),
            keys["platform"],
            examples={"name": "CPU", "precision": "mixed", "device": 0, "threads": 2},
        ),
    ]  # fmt: skip


_RECORD_TEXTS = {
    "minimise": "Stage one: minimisation of the energy. Remove the table to skip this stage, or one of the next two.",
    "heat": "Stage two: the temperature rises to that of [dynamics], at constant volume.",
    "equilibrate": "Stage three: dynamics before that of production.",
    "dynamics": "Production, and settings that the stages before it share.",
    "hold": "Atoms that are held at their initial positions.",
    "restraint": "A variable that is held at a value.",
    "output": "Output files and how often they are written.",
    "platform": "Where the run is computed; everything here may change when a run is continued.",
}


def _first_line(name: str) -> str:
    return _RECORD_TEXTS[name]


_EMBEDDING = Key(
    "embedding", '"electrostatic", "mechanical"', False, '"electrostatic"', "Whether the region feels its surroundings."
)


def _region() -> Section:
    name = Key("name", "text", False, '"region"', "Name in files and messages.")
    return Section(
        "[region]",
        "The region that QM computes.",
        (name, *keys_of(RegionSettings)),
        {"select": "resname LIG", "charge": "auto"},
        {"atoms": [0, 1, 2], "multiplicity": 1},
    )


def _qm(without: tuple[str, ...]) -> Section:
    examples = {"auxiliary_basis": "def2-universal-jkfit", "max_memory": 4000, "failure_directory": "failed"}
    return Section(
        "[qm]",
        'The level of the region: a method of PySCF, or "gfn2-xtb" without a basis.',
        keys_of(PySCFPotential, without=without),
        {"method": "b3lyp", "basis": "6-31g*"},
        {name: value for name, value in examples.items() if name not in without},
    )


def learn_sections() -> list[Section]:
    """Return the tables of a file of ``qmmlmm learn``."""
    top = (
        Key("directory", "path", False, "", "Folder of the loop; the name of the file with _run if not given."),
        _EMBEDDING,
        Key("platform", "text", False, '"CPU"', "OpenMM's platform of the walkers."),
        Key("method", "text", False, "", "Name of the method in the labels, if not that of [qm]."),
        Key("model", "path", False, "", "Model to begin with."),
        Key("data", "list of paths", False, "", "Labels to begin with, extended XYZ."),
    )
    dask = Key("dask", "text", False, "", "Address of a scheduler of Dask that computes the labels.")
    labels = (*keys_of(LabelSettings, without=["limits", "isolated"]), *keys_of(JobLimits), dask)
    umbrella = (
        Key("variable", "text", True, "", "Name of a [[variable]]."),
        Key("force_constant", "number, kJ/mol/nm^2 or kJ/mol/rad^2", True, "", ""),
        Key("centres", "list of numbers, nm or rad", True, "", "A walker for each."),
        Key(
            "starts",
            "path",
            False,
            "",
            "Structures of the whole System, such as `scan/scan.pdb` of a scan: each walker starts at the one that is "
            "nearest to its centre.",
        ),
    )
    walker = (
        Key("parameters", "table", False, "", "Global parameters of the Context of a walker."),
        Key("positions", "path", False, "", "Coordinates at which it starts; those of [system] if not given."),
    )
    return [
        Section("", "", top, examples={"directory": "loop_run", "model": "model.pt", "data": ["labels.xyz"]}),
        _system(),
        _region(),
        _qm(("excited", "state", "follow_state")),
        Section(
            "[loop]",
            "Sampling, labels, and when it ends.",
            keys_of(LoopSettings),
            examples={"energy_error": 4.0, "uncertain_above": 60.0, "stop_above": 600.0},
        ),
        Section(
            "[base]",
            "A level that is nearly right: walkers run with it and the learned difference to [qm].",
            (
                Key("method", "text", False, "", '"gfn2-xtb" or "gfn1-xtb"; other keys as in [qm].'),
                Key("model", "path", False, "", "Instead of method, a model file."),
                Key(
                    "pretrained",
                    "text",
                    False,
                    "",
                    'Instead of method, "so3lr" or a name of openmm-ml, see docs/run.md.',
                ),
                Key("trust_code", "true or false", False, "false", "Whether a model that has code may be read."),
                RESPONSE,
            ),
            {"method": "gfn2-xtb"},
            {"model": "pretrained.pt", "response": "response.pt"},
            optional=True,
        ),
        Section("[network]", "The network.", keys_of(ResponseSettings), examples={"dispersion": "b3lyp-d3bj"}),
        Section("[training]", "Each training of the loop.", keys_of(TrainingSettings), {"steps": 2000}),
        Section("[labels]", "The workers that compute labels.", labels, examples={"memory": 4000.0}),
        Section(
            "[[variable]]",
            "A variable for an umbrella or hills: a name and one kind. An atom is its index from zero, or a selection "
            "of one atom.",
            VARIABLE,
            {"name": "torsion", "torsion": [4, 6, 8, 14]},
            {"distance": [4, 14], "difference": [10, 11, 25]},
            optional=True,
        ),
        Section(
            "[umbrella]",
            "A walker for each centre. Instead of it: [[walker]] with parameters, or [metadynamics].",
            umbrella,
            {"variable": "torsion", "force_constant": 80.0, "centres": [-2.0, 0.0, 2.0]},
            {"starts": "reaction_run/scan/scan.pdb"},
            optional=True,
        ),
        Section(
            "[metadynamics]",
            "Hills along variables, which all walkers have.",
            keys_of(Metadynamics, without=["variables"]),
            {"height": 1.0, "bias_factor": 10.0, "interval": 100},
            optional=True,
        ),
        Section(
            "[[metadynamics.along]]",
            "",
            keys_of(HillVariable),
            {"variable": "torsion", "width": 0.3},
            optional=True,
        ),
        Section(
            "[[walker]]",
            "A walker; one without parameters if there is none.",
            walker,
            optional=True,
            examples={"positions": "product.pdb"},
        ),
    ]


def spectrum_sections() -> list[Section]:
    """Return the tables of a file of ``qmmlmm spectrum``."""
    top = (
        Key("trajectory", "path", True, "", "Trajectory of which frames are snapshots, DCD or XTC."),
        Key("directory", "path", False, "", "Folder of the results; the name of the file with _run if not given."),
        _EMBEDDING,
    )
    kind = Key("kind", '"TDA", "TDDFT"', False, '"TDA"', "Method for the excited states.")
    return [
        Section("", "", top, {"trajectory": "run/production/trajectory.dcd"}, {"directory": "spectrum_run"}),
        _system(),
        _region(),
        _qm(("excited", "state", "follow_state", "density_fit", "auxiliary_basis", "guess", "unrestricted",
             "failure_directory")),
        Section("[states]", "The excited states.", (kind, *keys_of(TDA)), {"n_states": 4}, {"spin": "singlet"}),
        Section("[spectrum]", "Snapshots and lines.", keys_of(SpectrumSettings)),
    ]  # fmt: skip


_LEVEL = (
    Key("method", "text", False, "", 'As in [[term]] of a run: "force field", "gfn2-xtb" or a method of PySCF.'),
    Key("basis", "text", False, "", "Basis set of a method of PySCF."),
    Key("model", "path", False, "", "Instead of method, a model file."),
    Key("pretrained", "text", False, "", "Instead of method, a name of openmm-ml."),
    RESPONSE,
)


def correct_sections() -> list[Section]:
    """Return the tables of a file of ``qmmlmm correct``."""
    top = (
        Key("directory", "path", False, "", "Folder of the results; the name of the file with _run if not given."),
        _EMBEDDING,
        Key("workers", "whole number", False, "1", "Processes that run trajectories."),
    )
    legs = [
        section
        for leg in ("complex", "solvent")
        for section in (
            replace(
                _system(),
                header=f"[leg.{leg}.system]",
                text=f"The files of the {leg}, as [system] of a run; the ligand's bonds have no constraints.",
                values={"prmtop": f"{leg}.prmtop", "coordinates": f"{leg}.rst7", "constraints": "none"},
            ),
            replace(_region(), header=f"[leg.{leg}.region]", text="The ligand, which the levels compute."),
        )
    ]
    return [
        Section("", "", top, examples={"directory": "binding_run"}),
        *legs,
        Section("[[level]]", "Levels from the lower to the upper one; more between them if overlaps are poor.", _LEVEL,
                {"method": "force field"}),
        Section("[[level]]", "", _LEVEL, {"method": "gfn2-xtb"}),
        Section("[switching]", "Trajectories.", keys_of(SwitchingSettings)),
        Section("[lower]", "A free energy of the lower level that is corrected.", keys_of(LowerSettings),
                {"free_energy": -20.0}, optional=True),
    ]  # fmt: skip


def reaction_sections() -> list[Section]:
    """Return the tables of a file of a reaction."""
    top = (
        Key("directory", "path", False, "", "Folder of the results; the name of the file with _run if not given."),
        Key(
            "workers",
            "whole number",
            False,
            "1",
            "Processes that compute a Hessian, a path and windows.",
        ),
    )
    term = Key("term", "text", False, "", "Name of the term whose level is replaced, if there are several.")
    return [
        Section("", "", top, examples={"directory": "reaction_run"}),
        _system(),
        *_hamiltonian(),
        Section(
            "[[variable]]",
            "A variable of scan or windows: a name and one kind. An atom is its index from zero, or a selection of one "
            "atom.",
            VARIABLE,
            {"name": "xi", "combination": [[1.0, 0, 1], [-1.0, 0, 2]]},
            {"distance": [0, 1], "difference": [1, 0, 2], "angle": [1, 0, 2], "torsion": [4, 6, 8, 14]},
        ),
        Section("[moving]", "What moves.", keys_of(MovingSettings), examples={
            "atoms": "resname LIG", "hold": "not within 8 angstrom of resname LIG"}),
        Section("[moving.thresholds]", "What a converged geometry fulfils.", keys_of(Thresholds)),
        Section(
            "[scan]",
            "For qmmlmm scan: restrained values of a variable, one after another.",
            keys_of(ScanSettings),
            {"variable": "xi", "start": -0.05, "stop": 0.05, "steps": 10, "both_ways": True},
            {"centres": [-0.05, 0.0, 0.05], "force_constant": 400000.0},
        ),
        Section(
            "[scan.second]",
            "A second variable, which makes a grid. The centres of both go from the reactant to the product.",
            keys_of(AxisSettings),
            {"variable": "bond", "start": 0.25, "stop": 0.15, "steps": 5},
            {"centres": [0.25, 0.2, 0.15], "force_constant": 400000.0},
            optional=True,
        ),
        Section(
            "[path]",
            "For qmmlmm path: a nudged elastic band, from the scan or between two structures.",
            keys_of(PathSettings),
            examples={"reactant": "reactant.pdb", "product": "product.pdb"},
        ),
        Section("[frequencies]", "For qmmlmm frequencies.", keys_of(FrequenciesSettings)),
        Section(
            "[umbrella]",
            "For qmmlmm umbrella and qmmlmm profile: windows along a variable.",
            keys_of(UmbrellaSettings),
            {"variable": "xi", "force_constant": 50000.0},
            {"centres": [-0.05, 0.0, 0.05], "start": -0.05, "stop": 0.05, "windows": 11, "starts": "scan"},
            optional=True,
        ),
        Section(
            "[dynamics]",
            "Of each window; its length is that after equilibration.",
            keys_of(DynamicsSettings),
            {"length": "10 ps"},
            {"correct_every": 4, "pressure": 1.0},
            optional=True,
        ),
        Section("[profile]", "For qmmlmm profile.", keys_of(ProfileSettings), examples={
            "reactant": -0.05, "product": 0.05, "reweight_every": 5}),
        Section(
            "[single_points]",
            "Another level, whose energies are computed at the structures of the scan and of the path.",
            (*_LEVEL, term),
            {"method": "b3lyp", "basis": "6-31g*"},
            {"term": "ligand/XTB"},
            optional=True,
        ),
        Section("[platform]", "Where it runs.", keys_of(ReactionPlatform), examples={"name": "CPU"}),
    ]  # fmt: skip


_SECTIONS = {
    "run": run_sections,
    "learn": learn_sections,
    "spectrum": spectrum_sections,
    "correct": correct_sections,
    "reaction": reaction_sections,
}
