"""Valid arguments of public callables, from which each test changes one, and the objects that they need."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
import openmm
from openmm import app, unit

import qmmlmm
from qmmlmm import (
    ForceFieldSystem,
    Hamiltonian,
    OpenMMPotential,
    PySCFPotential,
    Region,
    Term,
    XTBPotential,
    create_mixed_system,
    hold,
)
from qmmlmm.analysis import hopping_figure, interaction, loop_figures, model_quality, plots, region_view, tables
from qmmlmm.coupling import Capabilities, Difference, ExternalField, LevelOfTheory, RegionSpecification
from qmmlmm.coupling.coefficient import parse_coefficient
from qmmlmm.free_energy import (
    Correction,
    EndStateCorrection,
    EquilibriumLadder,
    Leg,
    LegResult,
    Reweighting,
    StageResult,
    SwitchingSettings,
    UmbrellaProfile,
    UmbrellaSampling,
    bennett_acceptance_ratio,
    multistate_free_energies,
    reweight,
    umbrella_profile,
    work_estimate,
)
from qmmlmm.geometry import Geometry
from qmmlmm.learning import response_from_qm
from qmmlmm.ml import FixedResponse, GeneralResponse, ResponseModel, ResponseNetwork, ResponseSettings
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.nonadiabatic import (
    CoefficientSurfaces,
    Ensemble,
    FewestSwitches,
    InitialCondition,
    NormalModes,
    Populations,
    SurfaceHopping,
    TermSurfaces,
    TrajectoryRecord,
    VelocityVerletIntegrator,
    crossing_point,
    normal_modes,
)
from qmmlmm.nonadiabatic.populations import populations
from qmmlmm.nonadiabatic.spin_crossing import landau_zener_flip
from qmmlmm.qm import CASSCF, TDA, TDDFT, DeltaSCF
from qmmlmm.qm.exchange_coupling import exchange_coupling
from qmmlmm.qm.spin_orbit import spin_orbit_coupling
from qmmlmm.reactions import (
    EnergySurface,
    Thresholds,
    eyring_rate,
    frequencies,
    optimise,
    saddle_point,
    scan,
    vibrational_thermochemistry,
)
from qmmlmm.sampling import (
    RMSD,
    AdaptiveCorrection,
    Angle,
    Combination,
    CoordinationNumber,
    Distance,
    DistanceDifference,
    Heating,
    HillVariable,
    Metadynamics,
    MultipleTimeStepIntegrator,
    PathDistance,
    PathProgress,
    Torsion,
    hold_positions,
    set_temperature,
    switching_work,
)
from qmmlmm.sampling.metadynamics import HillForce, mean_profile
from qmmlmm.spectra import Transitions, absorption, compute_transitions, read_snapshots, write_spectrum_report
from tests.free_energy.spring_legs import leg, quick, spring
from tests.free_energy.wells import GAP, create_pair, pair_at
from tests.nonadiabatic.vibronic import VibronicPotential, create_hopping, molecule, simulation_of, vibronic_system
from tests.sampling.mixed_springs import MixedSprings
from tests.sampling.named_forces import mixed_of_forces
from tests.toy_potentials import EvaluatedSprings, SettingsOnly, fixed_in_openmm
from tests.toy_systems import molecule_among_ions

CO = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.12]])


class Springs(MixedSprings):
    """With an uncertainty, as a committee has."""

    def force_uncertainty(self, context, name):
        return np.array([1.0]) * unit.kilojoule_per_mole / unit.nanometer


class Objects:
    """Objects that arguments need, each made at its first use, with their files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def response(self) -> ResponseModel:
        settings = ResponseSettings(features=4, layers=1, near_features=2, tensor_features=2)
        return ResponseModel(ResponseNetwork([8, 1, 1], [(0, 1), (0, 2)], settings, response_only=True))

    @cached_property
    def general_response(self) -> GeneralResponse:
        settings = ResponseSettings(features=4, layers=1, near_features=2, tensor_features=2)
        return GeneralResponse(ResponseNetwork([8], (), settings, response_only=True, elements=[1, 6, 8]))

    def saved_general_response(self) -> Path:
        self.general_response.save(self.folder / "saved_general.pt")
        return self.folder / "saved_general.pt"

    def saved_response(self) -> Path:
        self.response.save(self.folder / "saved.pt")
        return self.folder / "saved.pt"

    @cached_property
    def case(self):
        return molecule_among_ions(periodic=True)

    @cached_property
    def region(self):
        return Region("mol", [0, 1, 2])

    @cached_property
    def hamiltonian(self):
        return Hamiltonian([Term(fixed_in_openmm([0.3, -0.6, 0.3]), self.region, embedding="electrostatic")])

    @cached_property
    def mixed(self):
        return create_mixed_system(self.case.topology, self.case.system, self.hamiltonian)

    @cached_property
    def geometries(self):
        rng = np.random.default_rng(2)
        moves = 0.004 * rng.normal(size=(6, *self.case.positions.shape))
        return [Geometry(self.case.positions + move, self.case.box) for move in moves]

    @cached_property
    def context(self):
        context = openmm.Context(
            self.mixed.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference")
        )
        context.setPositions(self.case.positions)
        return context

    @cached_property
    def springs(self):
        return Springs(400.0, 700.0, 0.04)

    @cached_property
    def springs_simulation(self):
        return self.springs.simulation(openmm.VerletIntegrator(0.0005))

    @cached_property
    def langevin_simulation(self):
        return self.springs.simulation(openmm.LangevinMiddleIntegrator(300, 1, 0.0005))

    @cached_property
    def forces(self):
        """A MixedSystem with a fast and a slow Force on three particles."""
        system = openmm.System()
        for group, name in enumerate(("fast", "slow")):
            force = openmm.CustomExternalForce("100*(x^2+y^2+z^2)")
            force.setName(name)
            force.setForceGroup(group)
            for k in range(3):
                if not group:
                    system.addParticle(12.0)
                force.addParticle(k)
            system.addForce(force)
        return mixed_of_forces(system, ["fast", "slow"])

    @cached_property
    def vibronic(self):
        return vibronic_system()

    def vibronic_simulation(self, mixed=None):
        simulation = simulation_of(mixed or self.vibronic)
        simulation.context.setPositions(CO)
        simulation.context.setVelocities(np.zeros((2, 3)))
        return simulation

    @cached_property
    def surfaces(self):
        return TermSurfaces(self.vibronic, "co/QM")

    @cached_property
    def hopping(self):
        return SurfaceHopping(self.vibronic_simulation(), self.surfaces, 1)

    @cached_property
    def two_terms(self):
        topology, system = molecule()
        region = Region("co", (0, 1))
        terms = [
            Term(VibronicPotential(0), region, embedding="mechanical", coefficient="1-s1", name="co/S0"),
            Term(VibronicPotential(1), region, embedding="mechanical", coefficient="s1", name="co/S1", multiplicity=3),
        ]
        return create_mixed_system(topology, system, Hamiltonian(terms, parameters={"s1": 1.0}))

    @cached_property
    def modes(self):
        return normal_modes(self.vibronic_simulation().context, [0, 1])

    @cached_property
    def weights(self):
        return reweight(np.random.default_rng(1).normal(size=400), 300.0)

    @cached_property
    def profile(self):
        return umbrella_profile(**_two_windows())

    @cached_property
    def correction(self):
        """A result with two legs."""
        works = np.random.default_rng(3).normal(size=(2, 20))
        stage = StageResult("FF-XTB", work_estimate(*works, 300.0, resamples=10), *works)
        return Correction({"complex": LegResult((stage,)), "solvent": LegResult((stage,))})

    def correction_run(self):
        return EndStateCorrection(
            self.folder / "correction", {"solvent": leg()}, spring(1.0), spring(2.0), embedding="mechanical"
        )

    def ladder_run(self):
        return EquilibriumLadder(
            self.folder / "ladder", {"solvent": leg()}, spring(1.0), spring(2.0), embedding="mechanical"
        )

    @cached_property
    def condition(self):
        return InitialCondition(CO, np.zeros((2, 3)), 1, 5)

    @cached_property
    def ensemble(self):
        found = Ensemble(self.folder / "ensemble", create_hopping, [self.condition], steps=2)
        found.run()
        return found

    @cached_property
    def trajectory(self):
        states = np.array([1, 1, 0])
        energies = np.array([[0.0, 2.0], [0.1, 1.5], [0.2, 1.0]])
        return TrajectoryRecord(0.001 * np.arange(3), states, np.eye(2)[states], energies, np.full(3, -7.0))

    @cached_property
    def populations(self):
        record = self.trajectory
        return populations(record.times, record.states[None], record.squares[None])

    @cached_property
    def transitions(self):
        energies = 3.0 + 0.1 * np.random.default_rng(1).normal(size=(20, 2))
        return Transitions(energies, np.full((20, 2), 0.1), energies + 0.1, np.full((20, 2), 0.1))

    @cached_property
    def energies(self):
        header = (
            '#"Step","Time (ps)","MM (kJ/mol)","site/ML (kJ/mol)","site/QM (kJ/mol)","site/-ML (kJ/mol)",'
            '"Potential Energy (kJ/mol)","Kinetic Energy (kJ/mol)","Temperature (K)"\n'
        )
        rows = "10,0.01,-300.5,-80.25,-81.5,80.25,-382,50,300\n20,0.02,-301,-80,-81,80,-382,51,301\n"
        path = self.folder / "energies.csv"
        path.write_text(header + rows, encoding="utf-8")
        return tables.read_energies(path)

    @cached_property
    def energies_path(self):
        assert len(self.energies)
        return self.folder / "energies.csv"

    @cached_property
    def interactions(self):
        return interaction.residue_interactions(self.mixed, self.context, group_solvent=False)

    @cached_property
    def trajectory_path(self):
        path = self.folder / "trajectory.dcd"
        with path.open("wb") as file:
            dcd = app.DCDFile(file, self.vibronic.topology, 0.001)
            for _ in range(3):
                dcd.writeModel(CO * unit.nanometer)
        return path

    @cached_property
    def specification(self):
        return RegionSpecification("water", np.array([8, 1, 1]), 0, 1)

    @cached_property
    def region_system(self):
        return fixed_in_openmm([0.3, -0.6, 0.3]).system


@dataclass(frozen=True)
class Entry:
    """A public callable.

    Parameters
    ----------
    target : callable
        Its signature is what cases are generated from; of a method the first parameter is left out.
    valid : callable
        Valid arguments, from the objects.
    owner : callable, optional
        The object whose method it is.
    accepts : mapping
        Labels of values that are right for a parameter after all.
    says : mapping
        What a message may call a parameter besides its name: another word, or the other of a pair that does not fit.
    runs : bool
        Whether the valid arguments are tried too; not where that takes seconds.
    """

    target: Callable[..., object]
    valid: Callable[[Objects], dict[str, object]]
    owner: Callable[[Objects], object] | None = None
    accepts: Mapping[str, set[str]] = field(default_factory=lambda: MappingProxyType({}))
    says: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    runs: bool = True


SIGNED = {"zero", "minus one"}
NOT_NEGATIVE = {"zero"}
STEPS = {"steps": {"zero"}}


def _two_windows() -> dict[str, object]:
    rng = np.random.default_rng(3)
    centres = [0.0, 0.5]
    return {
        "samples": [centre + 0.3 * rng.normal(size=400) for centre in centres],
        "centres": centres,
        "force_constants": [20.0, 20.0],
        "temperature": 300.0,
        "bins": 5,
        "edges": [-0.4, 0.0, 0.4, 0.8],
        "period": 30.0,
        "name": "gap (nm)",
    }


EMPTY = {"hold": {"empty"}}
BOX = {"box_vectors": "box", "atoms": "atom", "positions": "positions"}


def _start(o: Objects) -> dict[str, object]:
    """Return where and on which surface a calculation of a reaction starts."""
    return {
        "mixed": o.mixed,
        "positions": o.case.positions,
        "atoms": [0, 1, 2],
        "hold": [5, 6],
        "box_vectors": o.case.box,
        "platform": "Reference",
    }


def _walk() -> dict[str, object]:
    """Return how a calculation of a reaction moves."""
    return {"relax": True, "thresholds": Thresholds(), "coordinates": "tric", "max_steps": 5, "tolerance": 1.0}


def _two_states(o: Objects) -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    return [rng.normal(size=(50, 2)), rng.normal(size=(50, 2))]


FOUR = np.random.default_rng(1).normal(size=(4, 3))
VARIABLES = (
    Distance(0, 1),
    DistanceDifference(0, 1, 2),
    Angle(0, 1, 2),
    Torsion(0, 1, 2, 3),
    Combination([(1.0, Distance(0, 1)), (2.0, Distance(1, 2))]),
    CoordinationNumber([0], [1, 2], 0.3),
    RMSD([0, 1, 2], FOUR[:3]),
    PathProgress([0, 1, 2], [FOUR[:3], FOUR[1:]]),
    PathDistance([0, 1, 2], [FOUR[:3], FOUR[1:]]),
)

ENTRIES: dict[str, Entry] = {
    # --- coupling ---
    "Region": Entry(
        Region,
        lambda o: {
            "name": "mol",
            "atoms": [0, 1, 2],
            "charge": 0,
            "multiplicity": 1,
            "link_rule": "ratio",
            "link_ratios": {(0, 5): 0.7},
            "link_distances": {(1, 6): 0.109},
        },
        accepts={"atoms": {"beyond the last"}, "charge": SIGNED},
        says={"atoms": "atom"},
    ),
    "Term": Entry(
        Term,
        lambda o: {
            "potential": fixed_in_openmm([0.3, -0.6, 0.3]),
            "region": o.region,
            "coefficient": 1.0,
            "embedding": "electrostatic",
            "boundary_charges": "rcd",
            "smeared_charges": 0.05,
            "force_group": 3,
            "name": "mol/FIX",
            "multiplicity": 1,
            "correction": False,
        },
        accepts={"force_group": {"zero"}, "coefficient": {"minus one", "text"}},
    ),
    "Hamiltonian": Entry(
        Hamiltonian,
        lambda o: {
            "terms": [
                Term(SettingsOnly("FF"), o.region, embedding="mechanical", coefficient="1-l"),
                Term(SettingsOnly("QM"), o.region, embedding="mechanical", coefficient="l"),
            ],
            "parameters": {"l": 0.0},
        },
        says={"terms": "Term"},
    ),
    "Hamiltonian.parent": Entry(Hamiltonian.parent, lambda o: {"region": o.region}, lambda o: o.hamiltonian),
    "Hamiltonian.embedding": Entry(Hamiltonian.embedding, lambda o: {"region": o.region}, lambda o: o.hamiltonian),
    "Hamiltonian.long_range": Entry(Hamiltonian.long_range, lambda o: {"region": o.region}, lambda o: o.hamiltonian),
    "parse_coefficient": Entry(
        parse_coefficient,
        lambda o: {"given": 1.0},
        accepts={"given": {"minus one", "text"}},
        says={"given": "coefficient"},
    ),
    "Capabilities": Entry(
        Capabilities,
        lambda o: {
            "embeddings": frozenset({"mechanical"}),
            "n_states": 2,
            "state": 0,
            "follows_state": False,
            "long_range": False,
            "smeared_charges": False,
            "couplings": False,
            "charge_energies": False,
            "splitting": 0.3,
            "mesh_order": 5,
        },
        accepts={"state": NOT_NEGATIVE},
    ),
    "LevelOfTheory": Entry(
        LevelOfTheory,
        lambda o: {"method": "gfn2-xtb", "settings": {"multipoles": 1}},
        accepts={"settings": {"mapping"}},
    ),
    "Difference": Entry(Difference, lambda o: {"target": LevelOfTheory("qm"), "base": LevelOfTheory("xtb")}),
    "RegionSpecification": Entry(
        RegionSpecification,
        lambda o: {"name": "water", "atomic_numbers": np.array([8, 1, 1]), "charge": 0, "multiplicity": 1},
        # Whether a potential can treat a charge, a multiplicity or no atoms is said by its check.
        accepts={"charge": {*SIGNED, "huge"}, "multiplicity": {*SIGNED, "huge"}, "atomic_numbers": {"empty"}},
    ),
    "check_potential": Entry(
        qmmlmm.check_potential,
        lambda o: {
            "potential": EvaluatedSprings(np.zeros(3)),
            "atomic_numbers": [8, 1, 1],
            "positions": np.array([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.1, 0.02]]),
            "charge": 0,
            "multiplicity": 1,
            "tolerance": 1e-5,
            "stream": io.StringIO(),
        },
        accepts={"charge": SIGNED, "atomic_numbers": {"None"}},
        runs=False,
    ),
    # --- mm ---
    "create_mixed_system": Entry(
        create_mixed_system,
        lambda o: {
            "topology": o.case.topology,
            "system": o.case.system,
            "hamiltonian": o.hamiltonian,
            "remove_constraints": True,
            "ml_backend": "auto",
            "ml_precision": "double",
            "ml_step": "default",
            "ml_compiled": True,
        },
    ),
    "select": Entry(
        qmmlmm.select,
        lambda o: {
            "topology": o.case.topology,
            "selection": "within 0.3 nm of resname MOL",
            "positions": o.case.positions,
            "box_vectors": o.case.box,
            "whole_residues": False,
        },
    ),
    "suggest_charge": Entry(
        qmmlmm.suggest_charge,
        lambda o: {"system": o.case.system, "atoms": [0, 1, 2], "topology": o.case.topology},
        accepts={"topology": {"None"}},
    ),
    "OpenMMPotential": Entry(
        OpenMMPotential,
        lambda o: {"system": o.region_system, "level": "MM", "platform": "Reference"},
    ),
    "MixedSystem.term": Entry(MixedSystem.term, lambda o: {"name": "mol/MM"}, lambda o: o.mixed, says={"name": "term"}),
    "MixedSystem.force": Entry(
        MixedSystem.force, lambda o: {"name": "mol/MM"}, lambda o: o.mixed, says={"name": "term"}
    ),
    "MixedSystem.force_group": Entry(
        MixedSystem.force_group, lambda o: {"name": "mol/MM"}, lambda o: o.mixed, says={"name": "term"}
    ),
    "MixedSystem.evaluated_term": Entry(
        MixedSystem.evaluated_term, lambda o: {"name": "mol/MM"}, lambda o: o.mixed, says={"name": "term"}
    ),
    "MixedSystem.results": Entry(
        MixedSystem.results, lambda o: {"name": "mol/MM"}, lambda o: o.mixed, says={"name": "term"}
    ),
    "MixedSystem.term_energies": Entry(
        MixedSystem.term_energies, lambda o: {"context": o.context, "check_charges": True}, lambda o: o.mixed
    ),
    "MixedSystem.parameter_derivatives": Entry(
        MixedSystem.parameter_derivatives, lambda o: {"context": o.context}, lambda o: o.mixed
    ),
    "MixedSystem.evaluation_times": Entry(
        MixedSystem.evaluation_times, lambda o: {"context": o.context, "repeats": 1}, lambda o: o.mixed
    ),
    "MixedSystem.select_state": Entry(
        MixedSystem.select_state,
        lambda o: {"context": o.vibronic_simulation().context, "name": "co/QM", "state": 0},
        lambda o: o.vibronic,
        accepts={"state": NOT_NEGATIVE},
        says={"name": "term"},
    ),
    "MixedSystem.recall": Entry(
        MixedSystem.recall,
        lambda o: {"name": "co/QM", "memory": {}},
        lambda o: o.vibronic,
        accepts={"memory": {"mapping"}},
        says={"name": "term"},
    ),
    # --- ml ---
    "EmbeddedPotential": Entry(
        qmmlmm.EmbeddedPotential,
        lambda o: {
            "base": fixed_in_openmm([0.3, -0.6, 0.3]),
            "response": FixedResponse([8, 1, 1], [(0, 1), (0, 2)]),
        },
    ),
    "ResponseModel": Entry(ResponseModel, lambda o: {"network": o.response.network}),
    "ResponseModel.save": Entry(ResponseModel.save, lambda o: {"path": o.folder / "response.pt"}, lambda o: o.response),
    "ResponseModel.load": Entry(ResponseModel.load, lambda o: {"path": o.saved_response()}),
    "GeneralResponse": Entry(GeneralResponse, lambda o: {"network": o.general_response.network}),
    "GeneralResponse.of_molecule": Entry(
        GeneralResponse.of_molecule, lambda o: {"atomic_numbers": [8, 1, 1]}, lambda o: o.general_response
    ),
    "GeneralResponse.save": Entry(
        GeneralResponse.save, lambda o: {"path": o.folder / "response.pt"}, lambda o: o.general_response
    ),
    "GeneralResponse.load": Entry(GeneralResponse.load, lambda o: {"path": o.saved_general_response()}),
    "response_from_qm": Entry(
        response_from_qm,
        lambda o: {
            "topology": o.case.topology,
            "system": o.case.system,
            "region": o.region,
            "qm": fixed_in_openmm([0.3, -0.6, 0.3]),
            "positions": o.geometries,
            "base": fixed_in_openmm([0.3, -0.6, 0.3]),
            "n_labels": 6,
            "steps": 1,
            "temperature": 300.0,
            "step_size": 0.0005,
            "seed": 1,
            "platform": "Reference",
            "path": o.folder / "response.xyz",
            "progress": False,
        },
        accepts={"seed": NOT_NEGATIVE},
    ),
    # --- xtb ---
    "XTBPotential": Entry(
        XTBPotential,
        lambda o: {
            "method": "gfn2-xtb",
            "multipoles": 1,
            "accuracy": 0.01,
            "electronic_temperature": 300.0,
            "damping": 0.4,
            "threads": 1,
        },
        accepts={"multipoles": {"zero"}},
    ),
    # --- qm ---
    "PySCFPotential": Entry(
        PySCFPotential,
        lambda o: {
            "method": "hf",
            "basis": "sto-3g",
            "density_fit": False,
            "auxiliary_basis": None,
            "grid_level": 3,
            "embedding_grid_level": 2,
            "conv_tol": 1e-9,
            "max_cycle": 100,
            "guess": "fresh",
            "unrestricted": False,
            "excited": TDA(3),
            "state": 1,
            "follow_state": False,
            "accelerated": True,
            "max_memory": 2000,
            "failure_directory": o.folder,
        },
        accepts={
            "grid_level": NOT_NEGATIVE,
            "embedding_grid_level": NOT_NEGATIVE,
            "state": NOT_NEGATIVE,
            "max_memory": {"huge"},
        },
    ),
    **{
        kind.__name__: Entry(
            kind,
            lambda o: {"n_states": 3, "spin": "singlet", "conv_tol": 1e-6, "max_cycle": 50},
            accepts={"n_states": {"huge"}, "max_cycle": {"huge"}},
        )
        for kind in (TDA, TDDFT)
    },
    "DeltaSCF": Entry(
        DeltaSCF,
        lambda o: {"hole": 0, "particle": 0, "spin": "up", "conv_tol": 1e-6},
        accepts={"hole": {"zero", "huge"}, "particle": {"zero", "huge"}},
    ),
    "CASSCF": Entry(
        CASSCF,
        lambda o: {
            "n_states": 2,
            "n_electrons": 2,
            "n_orbitals": 2,
            "active": "frontier",
            "conv_tol": 1e-6,
            "max_cycle": 50,
        },
        accepts={"n_states": {"huge"}, "n_orbitals": {"huge"}, "max_cycle": {"huge"}},
        says={"n_electrons": "electrons"},
    ),
    "exchange_coupling": Entry(
        exchange_coupling,
        lambda o: {
            "potential": PySCFPotential("hf", "sto-3g"),
            "specification": RegionSpecification("O and He", np.array([8, 2]), 0, 3),
            "flipped_atoms": [0],
            "positions": np.array([[0.0, 0.0, 0.0], [4.0, 0.0, 0.0]]),
            "external_field": ExternalField(np.zeros((1, 3)) + 9.0, np.ones(1), np.zeros(1)),
        },
        runs=False,
    ),
    "spin_orbit_coupling": Entry(
        spin_orbit_coupling,
        lambda o: {
            "potential": PySCFPotential("hf", "sto-3g", excited=CASSCF(2, 2, 2)),
            "specification": RegionSpecification("pair", np.array([1, 1]), 0, 1),
            "positions": np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]]),
            "external_field": ExternalField(np.zeros((1, 3)) + 9.0, np.ones(1), np.zeros(1)),
            "n_singlets": 1,
            "n_triplets": 1,
        },
        runs=False,
    ),
    "hold": Entry(
        hold,
        lambda o: {
            "system": openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(o.case.system)),
            "topology": o.case.topology,
            "atoms": [10, 11],
            "positions": o.case.positions,
            "box_vectors": o.case.box,
        },
    ),
    "ForceFieldSystem": Entry(
        ForceFieldSystem,
        lambda o: {"topology": o.case.topology, "system": o.case.system},
        says={"topology": "Topology"},
    ),
    "umbrella_profile": Entry(umbrella_profile, lambda o: _two_windows()),
    "UmbrellaProfile.barrier": Entry(
        UmbrellaProfile.barrier,
        lambda o: {"reactant": -0.2, "product": 0.6},
        lambda o: o.profile,
        runs=False,
        accepts={"reactant": SIGNED, "product": SIGNED},
    ),
    "UmbrellaProfile.reweighted": Entry(
        UmbrellaProfile.reweighted,
        lambda o: {"values": _two_windows()["samples"], "differences": [np.zeros(400), np.zeros(400)]},
        lambda o: o.profile,
    ),
    "UmbrellaProfile.write_csv": Entry(
        UmbrellaProfile.write_csv, lambda o: {"path": o.folder / "profile.csv"}, lambda o: o.profile
    ),
    "UmbrellaProfile.write_overlap_csv": Entry(
        UmbrellaProfile.write_overlap_csv, lambda o: {"path": o.folder / "overlap.csv"}, lambda o: o.profile
    ),
    "UmbrellaSampling": Entry(
        UmbrellaSampling,
        lambda o: {
            "directory": o.folder / "umbrella",
            "create": create_pair,
            "variable": GAP,
            "centres": [0.2, 0.3],
            "force_constants": [1e4, 1e4],
            "starts": pair_at(0.2),
            "temperature": 300.0,
            "steps": 1000,
            "equilibration": 10,
            "interval": 10,
            "frame_interval": 100,
            "checkpoint_interval": 100,
            "pull_steps": 10,
            "seed": 1,
            "name": "gap",
            "exchange": False,
            "box_vectors": np.eye(3),
        },
        accepts={
            "equilibration": NOT_NEGATIVE,
            "seed": NOT_NEGATIVE,
            "force_constants": {"number"},
            "create": {"class"},
        },
    ),
    # --- sampling ---
    **{
        kind.__name__: Entry(
            kind,
            lambda o, names=names: {name: k for k, name in enumerate(names, start=1)},
            accepts=dict.fromkeys(names, NOT_NEGATIVE),
        )
        for kind, names in (
            (Distance, ("first", "second")),
            (DistanceDifference, ("donor", "proton", "acceptor")),
            (Angle, ("first", "second", "third")),
            (Torsion, ("first", "second", "third", "fourth")),
        )
    },
    **{
        f"{type(variable).__name__}.{method}": Entry(
            getattr(type(variable), method),
            lambda o, arguments=arguments: dict(arguments),
            lambda o, variable=variable: variable,
        )
        for variable in VARIABLES
        for method, arguments in (
            ("umbrella", {"name": "bias", "periodic": False}),
            ("value_force", {"periodic": True}),
            ("__call__", {"geometry": Geometry(FOUR)}),
            ("value_and_gradient", {"geometry": Geometry(FOUR)}),
        )
    },
    "Combination": Entry(Combination, lambda o: {"terms": [(1.0, Distance(0, 1)), (-1.0, Angle(0, 1, 2))]}),
    "CoordinationNumber": Entry(
        CoordinationNumber,
        lambda o: {"first": [0], "second": [1, 2], "distance": 0.3, "exponent": 6},
        accepts={"first": {"beyond the last"}, "second": {"beyond the last"}},
    ),
    "RMSD": Entry(RMSD, lambda o: {"atoms": [0, 1, 2], "reference": FOUR[:3]}, accepts={"atoms": {"beyond the last"}}),
    **{
        kind.__name__: Entry(
            kind,
            lambda o: {"atoms": [0, 1, 2], "images": [FOUR[:3], FOUR[1:]], "sharpness": 20.0},
            accepts={"atoms": {"beyond the last"}},
        )
        for kind in (PathProgress, PathDistance)
    },
    "HillVariable": Entry(
        HillVariable,
        lambda o: {"variable": Distance(0, 1), "width": 0.01, "low": 0.1, "high": 0.4},
        accepts={"low": SIGNED},
    ),
    "Metadynamics": Entry(
        Metadynamics,
        lambda o: {
            "variables": [HillVariable(Torsion(0, 1, 2, 3), 0.3)],
            "height": 1.0,
            "bias_factor": 5.0,
            "interval": 10,
            "shared": False,
        },
        accepts={"variables": {"one object"}},
    ),
    "HillForce": Entry(
        HillForce,
        lambda o: {
            "settings": Metadynamics(HillVariable(Distance(0, 1), 0.01, 0.1, 0.4), 1.0, 5.0, 10),
            "temperature": 300.0,
            "system": openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(o.forces.system)),
        },
    ),
    "mean_profile": Entry(
        mean_profile,
        lambda o: {"profiles": [np.arange(4.0), np.arange(4.0)], "temperature": 300.0},
        accepts={"profiles": {"one object"}},
    ),
    "MultipleTimeStepIntegrator": Entry(
        MultipleTimeStepIntegrator,
        lambda o: {
            "mixed": o.forces,
            "temperature": 300.0,
            "friction": 1.0,
            "step_size": 0.004,
            "inner_steps": 2,
            "slow": ["slow"],
            "isokinetic": [0],
        },
        accepts={"friction": NOT_NEGATIVE},
        says={"slow": "term"},
    ),
    "MultipleTimeStepIntegrator.step": Entry(
        MultipleTimeStepIntegrator.step,
        lambda o: {"steps": 1},
        lambda o: MultipleTimeStepIntegrator(o.forces, 300.0, 1.0, 0.004, 2, slow=["slow"]),
        accepts=STEPS,
        runs=False,
    ),
    "MultipleTimeStepIntegrator.kinetic_energy": Entry(
        MultipleTimeStepIntegrator.kinetic_energy,
        lambda o: {"context": o.context},
        lambda o: MultipleTimeStepIntegrator(o.forces, 300.0, 1.0, 0.004, 2, slow=["slow"]),
        runs=False,
    ),
    "Heating": Entry(
        Heating,
        lambda o: {"simulation": o.langevin_simulation, "start": 10.0, "end": 300.0, "steps": 50},
    ),
    "Heating.step": Entry(
        Heating.step,
        lambda o: {"steps": 1},
        lambda o: Heating(o.langevin_simulation, 10.0, 300.0, 50),
        accepts=STEPS,
    ),
    "set_temperature": Entry(
        set_temperature, lambda o: {"integrator": openmm.LangevinMiddleIntegrator(10, 1, 0.001), "temperature": 300.0}
    ),
    "hold_positions": Entry(
        hold_positions,
        lambda o: {"name": "core", "atoms": [0, 1], "positions": o.case.positions, "periodic": True},
    ),
    "AdaptiveCorrection": Entry(
        AdaptiveCorrection,
        lambda o: {
            "mixed": o.springs,
            "simulation": o.springs_simulation,
            "term": "site/ML",
            "upper": 60.0,
            "lower": 40.0,
            "parameter": "lambda_qm",
            "check_interval": 10,
            "ramp_steps": 20,
            "calm_steps": 100,
            "record": o.folder / "levels.csv",
        },
    ),
    "AdaptiveCorrection.step": Entry(
        AdaptiveCorrection.step,
        lambda o: {"steps": 2},
        lambda o: AdaptiveCorrection(o.springs, o.springs_simulation, "site/ML", upper=60.0, lower=40.0),
        accepts=STEPS,
    ),
    "AdaptiveCorrection.recall": Entry(
        AdaptiveCorrection.recall,
        lambda o: {"memory": {"counts": np.zeros(6)}},
        lambda o: AdaptiveCorrection(o.springs, o.springs_simulation, "site/ML", upper=60.0, lower=40.0),
    ),
    "switching_work": Entry(
        switching_work,
        lambda o: {
            "mixed": o.springs,
            "simulation": o.springs_simulation,
            "parameter": "lambda_qm",
            "start": 0.0,
            "end": 1.0,
            "steps": 2,
            "steps_between": 1,
        },
        accepts={"start": SIGNED, "end": SIGNED},
    ),
    # --- reactions ---
    "Thresholds": Entry(
        Thresholds,
        lambda o: {
            "energy": 1e-6,
            "rms_gradient": 3e-4,
            "largest_gradient": 4.5e-4,
            "rms_step": 1.2e-3,
            "largest_step": 1.8e-3,
        },
    ),
    "eyring_rate": Entry(
        eyring_rate,
        lambda o: {"barrier": 50.0, "temperature": 300.0, "negative_wave_number": -500.0},
        accepts={"barrier": SIGNED, "negative_wave_number": {"minus one"}},
    ),
    "vibrational_thermochemistry": Entry(
        vibrational_thermochemistry,
        lambda o: {"wave_numbers": [100.0, 1000.0], "temperature": 300.0, "quasi_harmonic": True},
        accepts={"wave_numbers": {"empty"}},
    ),
    "EnergySurface": Entry(
        EnergySurface,
        lambda o: _start(o) | {"relax": True, "tolerance": 1.0},
        accepts=EMPTY,
        says=BOX,
    ),
    "optimise": Entry(optimise, lambda o: _start(o) | _walk(), accepts=EMPTY, says=BOX, runs=False),
    "saddle_point": Entry(
        saddle_point,
        lambda o: _start(o) | _walk() | {"executor": None, "directory": o.folder / "saddle"},
        accepts=EMPTY,
        says=BOX,
        runs=False,
    ),
    "frequencies": Entry(
        frequencies,
        lambda o: _start(o) | {"step": 0.0005, "executor": None, "directory": o.folder / "hessian"},
        accepts=EMPTY,
        says=BOX,
        runs=False,
    ),
    "scan": Entry(
        scan,
        lambda o: (
            _start(o)
            | _walk()
            | {
                "variable": (Distance(0, 1),),
                "centres": [0.1, 0.11],
                "force_constant": [1000.0],
                "both_ways": False,
                "directory": o.folder / "scan",
            }
        ),
        accepts=EMPTY | {"variable": {"one object"}, "force_constant": {"number", "None in it", "one object"}},
        says=BOX,
        runs=False,
    ),
    # --- nonadiabatic ---
    "FewestSwitches": Entry(
        FewestSwitches,
        lambda o: {"propagation": "couplings", "substeps": 20, "decoherence": "none"},
    ),
    "VelocityVerletIntegrator": Entry(VelocityVerletIntegrator, lambda o: {"step_size": 0.0005}),
    "VelocityVerletIntegrator.step": Entry(
        VelocityVerletIntegrator.step,
        lambda o: {"steps": 1},
        lambda o: VelocityVerletIntegrator(0.0005),
        accepts=STEPS,
        runs=False,
    ),
    "TermSurfaces": Entry(TermSurfaces, lambda o: {"mixed": o.vibronic, "term": "co/QM", "couplings": False}),
    "CoefficientSurfaces": Entry(
        CoefficientSurfaces,
        lambda o: {"mixed": o.two_terms, "parameters": ["s1"], "spin_orbit": 1.0},
        accepts={"spin_orbit": {"number", "class"}},
        says={"spin_orbit": "spin-orbit"},
    ),
    "landau_zener_flip": Entry(
        landau_zener_flip,
        lambda o: {"coupling": 1.0, "rate": 100.0},
        accepts={"coupling": {*SIGNED, "array", "list"}, "rate": {"number", "empty"}},
    ),
    "SurfaceHopping": Entry(
        SurfaceHopping,
        lambda o: {
            "simulation": o.vibronic_simulation(),
            "surfaces": o.surfaces,
            "state": 1,
            "method": FewestSwitches(),
            "rescale_along": "velocity",
            "frustrated": "keep",
            "seed": 3,
        },
        accepts={"state": NOT_NEGATIVE, "seed": {"zero", "huge"}},
    ),
    "SurfaceHopping.reset": Entry(
        SurfaceHopping.reset,
        lambda o: {"state": 1, "seed": 3},
        lambda o: o.hopping,
        accepts={"state": NOT_NEGATIVE, "seed": {"zero", "huge"}},
    ),
    "SurfaceHopping.step": Entry(SurfaceHopping.step, lambda o: {"steps": 1}, lambda o: o.hopping, accepts=STEPS),
    "SurfaceHopping.recall": Entry(
        SurfaceHopping.recall, lambda o: {"memory": o.hopping.memory()}, lambda o: o.hopping
    ),
    "SurfaceHopping.save_checkpoint": Entry(
        SurfaceHopping.save_checkpoint, lambda o: {"path": o.folder / "saved.chk"}, lambda o: o.hopping
    ),
    "SurfaceHopping.load_checkpoint": Entry(
        SurfaceHopping.load_checkpoint,
        lambda o: {"path": o.folder / "saved.chk"},
        lambda o: o.hopping,
        runs=False,
    ),
    "InitialCondition": Entry(
        InitialCondition,
        lambda o: {
            "positions": CO,
            "velocities": np.zeros((2, 3)),
            "state": 1,
            "seed": 5,
            "box_vectors": np.eye(3),
        },
        accepts={"state": {"zero", "huge"}, "seed": {"zero", "huge"}},
    ),
    "Ensemble": Entry(
        Ensemble,
        lambda o: {
            "directory": o.folder / "ensemble",
            "create": create_hopping,
            "conditions": [o.condition],
            "steps": 2,
            "checkpoint_interval": 1,
        },
    ),
    "Ensemble.run": Entry(
        Ensemble.run, lambda o: {"executor": ThreadPoolExecutor(1)}, lambda o: o.ensemble, runs=False
    ),
    "Ensemble.trajectory_record": Entry(
        Ensemble.trajectory_record, lambda o: {"index": 0}, lambda o: o.ensemble, accepts={"index": NOT_NEGATIVE}
    ),
    "normal_modes": Entry(
        normal_modes,
        lambda o: {"context": o.vibronic_simulation().context, "atoms": [0, 1], "step": 0.0005},
    ),
    "NormalModes.wigner_sample": Entry(
        NormalModes.wigner_sample,
        lambda o: {"random": np.random.default_rng(1), "temperature": 300.0, "lowest": 100.0},
        lambda o: o.modes,
        accepts={"temperature": NOT_NEGATIVE, "lowest": NOT_NEGATIVE},
    ),
    "crossing_point": Entry(
        crossing_point,
        lambda o: {
            "first": o.vibronic_simulation().context,
            "second": o.vibronic_simulation().context,
            "atoms": [0, 1],
            "projection": 1e-3,
            "gap": 1e-4,
            "max_iterations": 5,
        },
        runs=False,
    ),
    "Populations.write_csv": Entry(
        Populations.write_csv, lambda o: {"path": o.folder / "shares.csv"}, lambda o: o.populations
    ),
    "TrajectoryRecord.write_csv": Entry(
        TrajectoryRecord.write_csv, lambda o: {"path": o.folder / "record.csv"}, lambda o: o.trajectory
    ),
    # --- free_energy ---
    "reweight": Entry(
        reweight,
        lambda o: {"differences": np.random.default_rng(1).normal(size=400), "temperature": 300.0},
    ),
    "Reweighting.mean": Entry(Reweighting.mean, lambda o: {"values": np.arange(400.0)}, lambda o: o.weights),
    "Reweighting.histogram": Entry(
        Reweighting.histogram,
        lambda o: {"values": np.arange(400.0), "edges": np.array([0.0, 200.0, 400.0])},
        lambda o: o.weights,
    ),
    "bennett_acceptance_ratio": Entry(
        bennett_acceptance_ratio,
        lambda o: {
            "forward": np.random.default_rng(1).normal(size=100),
            "reverse": np.random.default_rng(2).normal(size=100),
            "temperature": 300.0,
        },
    ),
    "multistate_free_energies": Entry(
        multistate_free_energies, lambda o: {"energies": _two_states(o), "temperature": 300.0}
    ),
    "work_estimate": Entry(
        work_estimate,
        lambda o: {
            "forward": np.random.default_rng(1).normal(size=40),
            "reverse": np.random.default_rng(2).normal(size=40),
            "temperature": 300.0,
            "seed": 1,
            "resamples": 20,
        },
        accepts={"seed": NOT_NEGATIVE},
    ),
    "SwitchingSettings": Entry(
        SwitchingSettings,
        lambda o: {
            "temperature": 300.0,
            "trajectories": 10,
            "switch_steps": 10,
            "equilibration_steps": 10,
            "steps_between_frames": 10,
            "replicas": 1,
            "step_size": 0.001,
            "friction": 1.0,
            "checkpoint_steps": 10,
            "seed": 1,
            "platform": "CPU",
        },
        accepts={"seed": NOT_NEGATIVE},
    ),
    "Leg": Entry(
        Leg,
        lambda o: {
            "topology": leg().topology,
            "system": leg().system,
            "positions": leg().positions,
            "region": leg().region,
            "box_vectors": np.eye(3),
        },
    ),
    "EndStateCorrection": Entry(
        EndStateCorrection,
        lambda o: {
            "directory": o.folder / "correction",
            "legs": {"solvent": leg()},
            "lower": spring(1.0),
            "upper": spring(2.0),
            "through": [spring(1.5)],
            "embedding": "mechanical",
            "settings": [quick(), quick()],
        },
        accepts={"through": {"empty"}, "settings": {"one object"}},
    ),
    "EndStateCorrection.run": Entry(
        EndStateCorrection.run, lambda o: {"executor": ThreadPoolExecutor(1)}, lambda o: o.correction_run(), runs=False
    ),
    "Correction.difference": Entry(
        Correction.difference, lambda o: {"first": "complex", "second": "solvent"}, lambda o: o.correction
    ),
    "Correction.corrected": Entry(
        Correction.corrected,
        lambda o: {"free_energy": -30.0, "error": 0.5, "first": "complex", "second": "solvent"},
        lambda o: o.correction,
        accepts={"free_energy": SIGNED, "error": NOT_NEGATIVE},
    ),
    "EquilibriumLadder": Entry(
        EquilibriumLadder,
        lambda o: {
            "directory": o.folder / "ladder",
            "legs": {"solvent": leg()},
            "lower": spring(1.0),
            "upper": spring(2.0),
            "values": [0.0, 0.5, 1.0],
            "frames": 20,
            "embedding": "mechanical",
            "settings": quick(),
        },
    ),
    "EquilibriumLadder.run": Entry(
        EquilibriumLadder.run, lambda o: {"executor": ThreadPoolExecutor(1)}, lambda o: o.ladder_run(), runs=False
    ),
    # --- spectra ---
    "Transitions": Entry(
        Transitions,
        lambda o: {
            "energies": np.full((3, 2), 3.0),
            "strengths": np.full((3, 2), 0.1),
            "vacuum_energies": np.full((3, 2), 3.0),
            "vacuum_strengths": np.full((3, 2), 0.1),
        },
    ),
    "compute_transitions": Entry(
        compute_transitions,
        lambda o: {
            "term": o.vibronic.evaluated_term("co/QM"),
            "frames": [Geometry(CO)],
            "vacuum": True,
            "executor": ThreadPoolExecutor(1),
            "record": o.folder / "transitions.csv",
            "progress": print,
        },
        runs=False,
    ),
    "read_snapshots": Entry(
        read_snapshots,
        lambda o: {"path": o.trajectory_path, "topology": o.vibronic.topology, "n": 2, "first": 0},
        accepts={"first": NOT_NEGATIVE},
    ),
    "write_spectrum_report": Entry(
        write_spectrum_report,
        lambda o: {"folder": o.folder / "report", "transitions": o.transitions, "title": "Dye", "full_width": 0.3},
    ),
    "mean_of": Entry(absorption.mean_of, lambda o: {"series": np.arange(5.0)}),
    **{
        function.__name__: Entry(
            function,
            lambda o: {
                "energies": o.transitions.energies,
                "strengths": o.transitions.strengths,
                "grid": np.linspace(2.0, 4.0, 9),
                "full_width": 0.3,
                "shape": "gaussian",
            },
        )
        for function in (absorption.broadened, absorption.spectrum_of)
    },
    "usual_grid": Entry(
        absorption.usual_grid, lambda o: {"transitions": o.transitions, "full_width": 0.3, "points": 50}
    ),
    "plot_spectra": Entry(
        absorption.plot_spectra, lambda o: {"transitions": o.transitions, "full_width": 0.3, "ax": _axes()}
    ),
    "transition_table": Entry(absorption.transition_table, lambda o: {"transitions": o.transitions}),
    # --- analysis ---
    "read_energies": Entry(tables.read_energies, lambda o: {"path": o.energies_path}),
    "EnergyTable.difference": Entry(tables.EnergyTable.difference, lambda o: {"region": "site"}, lambda o: o.energies),
    "view": Entry(
        region_view.view,
        lambda o: {
            "mixed": o.mixed,
            "positions": o.case.positions,
            "box_vectors": None,
            "within": 0.4,
            "charges": True,
        },
    ),
    "plot_term_energies": Entry(plots.plot_term_energies, lambda o: {"table": o.energies, "ax": _axes()}),
    "plot_difference": Entry(
        plots.plot_difference,
        lambda o: {"time": np.arange(5.0), "difference": np.arange(5.0), "ax": _axes()},
    ),
    "save_run_figure": Entry(
        plots.save_run_figure, lambda o: {"table": o.energies, "path": o.folder / "run.png"}, runs=False
    ),
    "plot_states": Entry(hopping_figure.plot_states, lambda o: {"record": o.trajectory, "ax": _axes()}),
    "plot_total_energy": Entry(hopping_figure.plot_total_energy, lambda o: {"records": [o.trajectory], "ax": _axes()}),
    "plot_state_populations": Entry(
        hopping_figure.plot_state_populations,
        lambda o: {"populations": o.populations, "ax": _axes(), "dashed": False, "label": "both"},
        accepts={"label": {"empty"}},
    ),
    "energy_drift": Entry(hopping_figure.energy_drift, lambda o: {"record": o.trajectory}),
    "save_hopping_figure": Entry(
        hopping_figure.save_hopping_figure,
        lambda o: {
            "records": [o.trajectory],
            "populations": o.populations,
            "path": o.folder / "hopping.png",
            "title": "CO",
            "shown": 0,
        },
        accepts={"shown": NOT_NEGATIVE},
        runs=False,
    ),
    "residue_interactions": Entry(
        interaction.residue_interactions,
        lambda o: {
            "mixed": o.mixed,
            "context": o.context,
            "term": "mol/MM",
            "potential": fixed_in_openmm([0.3, -0.6, 0.3]),
            "lennard_jones": True,
            "group_solvent": True,
        },
    ),
    "boundary_charges": Entry(
        interaction.boundary_charges, lambda o: {"mixed": o.mixed, "system": o.case.system, "term": "mol/MM"}
    ),
    "plot_interactions": Entry(
        interaction.plot_interactions,
        lambda o: {"table": o.interactions, "ax": _axes(), "count": 5},
        accepts={"count": {"huge"}},
    ),
    "save_interaction_figure": Entry(
        interaction.save_interaction_figure,
        lambda o: {"table": o.interactions, "path": o.folder / "residues.png", "count": 5},
        accepts={"count": {"huge"}},
        runs=False,
    ),
    "InteractionTable.strongest": Entry(
        interaction.InteractionTable.strongest,
        lambda o: {"count": 2},
        lambda o: o.interactions,
        accepts={"count": {"huge"}},
    ),
    "InteractionTable.write_csv": Entry(
        interaction.InteractionTable.write_csv, lambda o: {"path": o.folder / "table.csv"}, lambda o: o.interactions
    ),
    "plot_parity": Entry(
        model_quality.plot_parity,
        lambda o: {"computed": np.arange(4.0), "predicted": np.arange(4.0), "label": "energy", "ax": _axes()},
        accepts={"computed": {"number"}},
        says={"computed": "predicted"},
    ),
    "plot_calibration": Entry(
        model_quality.plot_calibration,
        lambda o: {"spread": 1.0 + np.arange(9.0), "error": np.arange(9.0) ** 2 + 1.0, "scale": 1.5, "ax": _axes()},
        says={"spread": "error"},
    ),
    "plot_learning_curve": Entry(
        model_quality.plot_learning_curve,
        lambda o: {"sizes": [10, 20], "errors": np.array([3.0, 2.0]), "label": "error", "ax": _axes()},
        accepts={"sizes": {"beyond the last", "twice"}},
        says={"sizes": "errors"},
    ),
    "report_figure": Entry(model_quality.report_figure, lambda o: {"columns": 2}),
    "plot_error_against_labels": Entry(
        loop_figures.plot_error_against_labels,
        lambda o: {"labels": [10, 20], "errors": [3.0, 2.0], "limits": [4.0, 3.0], "bound": 2.5, "ax": _axes()},
        # A limit is infinite where too few labels say nothing.
        accepts={"limits": {"nan", "infinity"}, "labels": {"twice", "fraction", "negative", "beyond the last"}},
        says={"labels": "errors"},
    ),
    "plot_uncertainty_along": Entry(
        loop_figures.plot_uncertainty_along,
        lambda o: {
            "times": np.arange(4.0),
            "uncertainties": np.arange(4.0) + 1.0,
            "walkers": [0, 0, 1, 1],
            "threshold": 2.0,
            "ax": _axes(),
        },
        accepts={"uncertainties": {"nan", "infinity"}},
        says={"times": "uncertainties"},
    ),
    "plot_labels_along": Entry(
        loop_figures.plot_labels_along,
        lambda o: {"rounds": {"start": [1, 2]}, "values": {"start": [0.1, 0.2]}, "name": "r, nm", "ax": _axes()},
    ),
}


def _axes():
    from matplotlib.figure import Figure

    return Figure().subplots()
