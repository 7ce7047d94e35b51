"""Inputs that once ended in an error from deep inside, in a crash or in nothing at all: each has a clear error."""

from __future__ import annotations

import copy
import math

import numpy as np
import openmm
import pytest
from openmm import unit

from qmmlmm import Hamiltonian, OpenMMPotential, Region, Term, create_mixed_system
from qmmlmm.errors import QmmlmmError
from qmmlmm.geometry import Geometry
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.mm.model_exchange import exchange_model
from qmmlmm.nonadiabatic import Ensemble, normal_modes
from qmmlmm.sampling import Distance, HillVariable, Torsion
from tests.bad_inputs.valid_arguments import CO, ENTRIES, Objects, create_hopping
from tests.nonadiabatic.vibronic import simulation_of, vibronic_system
from tests.toy_potentials import fixed_in_openmm


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    return Objects(tmp_path_factory.mktemp("objects"))


def changed(name: str, /, **change: object):
    """Return a call of a public callable with valid arguments, some of them changed."""

    def call(objects: Objects) -> object:
        entry = ENTRIES[name]
        arguments = entry.valid(objects) | change
        return entry.target(**arguments) if entry.owner is None else entry.target(entry.owner(objects), **arguments)

    return call


def mixed_with(change):
    """Return a call that makes a mixed System of a periodic System whose NonbondedForce was changed."""

    def call(objects: Objects) -> MixedSystem:
        system = copy.deepcopy(objects.case.system)
        change(system.getForce(0))
        return create_mixed_system(objects.case.topology, system, objects.hamiltonian)

    return call


def with_tolerance(tolerance: float):
    def change(force: openmm.NonbondedForce) -> None:
        force.setPMEParameters(0.0, 0, 0, 0)
        force.setEwaldErrorTolerance(tolerance)

    return mixed_with(change)


def without_cutoff(force: openmm.NonbondedForce) -> None:
    force.setPMEParameters(0.0, 0, 0, 0)
    force.setCutoffDistance(0.0)


def dispersion_mesh(objects: Objects) -> MixedSystem:
    def change(force: openmm.NonbondedForce) -> None:
        force.setNonbondedMethod(openmm.NonbondedForce.LJPME)
        force.setLJPMEParameters(3.0, 24, 24, 2)

    return mixed_with(change)(objects)


def exchanged(objects: Objects) -> MixedSystem:
    return create_mixed_system(objects.case.system, objects.case.topology, objects.hamiltonian)


def charge_of_minus_a_million(objects: Objects) -> MixedSystem:
    region = Region("mol", [0, 1, 2], charge=-(10**6))
    terms = [Term(fixed_in_openmm([0.3, -0.6, 0.3]), region, embedding="electrostatic")]
    return create_mixed_system(objects.case.topology, objects.case.system, Hamiltonian(terms))


def broken_ensemble(name: str, content: bytes):
    """Return a call that runs an ensemble in whose directory a file was damaged."""

    def call(objects: Objects) -> object:
        folder = objects.folder / f"broken {name} {len(content)}"
        ensemble = Ensemble(folder, create_hopping, [objects.condition], steps=2, checkpoint_interval=1)
        ensemble.run()
        (folder / name).write_bytes(content)
        return Ensemble(folder, create_hopping, [objects.condition], steps=4).run()

    return call


def context_without_positions(objects: Objects) -> object:
    return normal_modes(simulation_of(vibronic_system()).context, [0, 1])


def crossing_without_positions(objects: Objects) -> object:
    return changed("crossing_point", first=simulation_of(vibronic_system()).context)(objects)


def crossing_of_other_size(objects: Objects) -> object:
    return changed("crossing_point", second=objects.context)(objects)


FOUND = {
    "Region": {
        "atoms None": changed("Region", atoms=None),
        "name with newline": changed("Region", name="a\nb"),
        "link_ratios text": changed("Region", link_ratios={(0, 5): "x"}),
        "link_ratios number as text": changed("Region", link_ratios={(0, 5): "0.7"}),
        "link_distances key of three": changed("Region", link_distances={(0, 5, 6): 0.109}),
        "link_distances number as text": changed("Region", link_distances={(1, 6): "0.109"}),
    },
    "Term": {
        "potential a class": changed("Term", potential=OpenMMPotential),
        "name list": changed("Term", name=["x"]),
        "name with a bell": changed("Term", name="a\x07"),
        "force group True": changed("Term", force_group=True),
    },
    "Hamiltonian": {
        "None": changed("Hamiltonian", terms=None),
        "parameters a list": changed("Hamiltonian", parameters=["l"]),
        "coefficient beyond floats": changed("Term", coefficient="1e999*x"),
        "coefficient that Python does not write": changed("Term", coefficient=10**5000),
    },
    "create_mixed_system": {
        "System None": changed("create_mixed_system", system=None),
        "System and Topology exchanged": exchanged,
        "charge -10**6": charge_of_minus_a_million,
        "cutoff 0": mixed_with(without_cutoff),
        "Ewald tolerance 0.6": with_tolerance(0.6),
        "Ewald tolerance NaN": with_tolerance(math.nan),
        "PME mesh of 1 point": mixed_with(lambda force: force.setPMEParameters(3.0, 1, 1, 1)),
        "LJPME mesh of 2 points": dispersion_mesh,
        "alpha NaN": mixed_with(lambda force: force.setPMEParameters(math.nan, 24, 24, 24)),
    },
    "select": {
        "two thousand parentheses": changed("select", selection="(" * 2000 + "water" + ")" * 2000),
        "two thousand times not": changed("select", selection="not " * 2000 + "water"),
        "positions Quantities of another unit": changed("select", positions=[1.0 * unit.kelvin] * 23),
        "System for Topology": changed("select", topology=openmm.System()),
        "an infinite distance": changed("select", selection="within 1e400 nm of resname MOL"),
    },
    "suggest_charge": {
        "atoms empty": changed("suggest_charge", atoms=[]),
        "atoms out of range": changed("suggest_charge", atoms=[99999]),
        "atoms text": changed("suggest_charge", atoms="ab"),
        "atoms twice": changed("suggest_charge", atoms=[0, 1, 1, 2]),
    },
    "PySCFPotential": {
        "conv_tol='1e-9'": changed("PySCFPotential", conv_tol="1e-9"),
        "conv_tol=1e-09 Ha": changed("PySCFPotential", conv_tol=1e-9 * unit.hartree),
        "failure_directory=5": changed("PySCFPotential", failure_directory=5),
        "failure_directory=b'x'": changed("PySCFPotential", failure_directory=b"x"),
        "max_memory infinite": changed("PySCFPotential", max_memory=math.inf),
    },
    "exchange_model": {
        "mixed None": lambda o: exchange_model(None, "mol/MM", None),
        "potential text": lambda o: exchange_model(o.mixed, "mol/MM", "model.pt"),
    },
    "OpenMMPotential": {
        "level slash": changed("OpenMMPotential", level="a/b"),
    },
    "MultipleTimeStepIntegrator": {
        "friction='1'": changed("MultipleTimeStepIntegrator", friction="1"),
        "step_size=4 (fs meant)": changed("MultipleTimeStepIntegrator", step_size=4),
        "isokinetic='yes'": changed("MultipleTimeStepIntegrator", isokinetic="yes"),
        "mixed None": changed("MultipleTimeStepIntegrator", mixed=None),
        "a billion inner steps": changed("MultipleTimeStepIntegrator", inner_steps=10**9),
    },
    "AdaptiveCorrection": {
        "lower None": changed("AdaptiveCorrection", lower=None),
        "steps 1.5": changed("AdaptiveCorrection.step", steps=1.5),
        "steps -5": changed("AdaptiveCorrection.step", steps=-5),
    },
    "switching_work": {
        "parameter None": changed("switching_work", parameter=None),
    },
    "reweight": {
        "differences text": changed("reweight", differences=["a"] * 20),
        "differences dict": changed("reweight", differences={}),
        "temperature=None": changed("reweight", temperature=None),
        "temperature=True": changed("reweight", temperature=True),
        "mean of a number": changed("Reweighting.mean", values=1.0),
        "histogram edges descending": changed("Reweighting.histogram", edges=[400.0, 200.0, 0.0]),
        "histogram edges NaN": changed("Reweighting.histogram", edges=[0.0, math.nan, 400.0]),
        "multistate empty": changed("multistate_free_energies", energies=[]),
        "multistate text": changed("multistate_free_energies", energies=[[["a", "b"]], [["a", "b"]]]),
    },
    "SurfaceHopping": {
        "seed -1": changed("SurfaceHopping", seed=-1),
        "seed 1.5": changed("SurfaceHopping", seed=1.5),
        "steps -1": changed("SurfaceHopping.step", steps=-1),
        "checkpoint in a folder that is not there": changed(
            "SurfaceHopping.save_checkpoint", path="no/such/folder.chk"
        ),
        "table in a folder that is not there": changed("Populations.write_csv", path="no/such/folder.csv"),
        "TermSurfaces, mixed None": changed("TermSurfaces", mixed=None),
        "VelocityVerletIntegrator(None)": changed("VelocityVerletIntegrator", step_size=None),
        "memory of something else": changed("SurfaceHopping.recall", memory={"counts": np.zeros(6)}),
    },
    "Ensemble": {
        "conditions a number": changed("Ensemble", conditions=5),
        "checkpoint_interval 0": changed("Ensemble", checkpoint_interval=0),
        "executor text": changed("Ensemble.run", executor="x"),
        "ensemble.json broken": broken_ensemble("ensemble.json", b"{ broken"),
        "ensemble.json no text": broken_ensemble("ensemble.json", b"\xff\xfe{"),
        "record cut": broken_ensemble("0000.npz", b"PK\x03\x04"),
        "record empty": broken_ensemble("0000.npz", b""),
        "checkpoint cut": broken_ensemble("0000.chk", b"PK\x03\x04"),
    },
    "normal_modes": {
        "atoms text": changed("normal_modes", atoms="ab"),
        "atoms floats": changed("normal_modes", atoms=[0.0, 1.0]),
        "atoms one number": changed("normal_modes", atoms=1),
        "step=0": changed("normal_modes", step=0),
        "step=inf": changed("normal_modes", step=math.inf),
        "step=None": changed("normal_modes", step=None),
        "step=True": changed("normal_modes", step=True),
        "context without positions": context_without_positions,
        "wigner_sample lowest NaN": changed("NormalModes.wigner_sample", lowest=math.nan),
        "wigner_sample lowest text": changed("NormalModes.wigner_sample", lowest="x"),
        "wigner_sample random a seed": changed("NormalModes.wigner_sample", random=5),
    },
    "crossing_point": {
        "atoms text": changed("crossing_point", atoms="ab"),
        "max_iterations 1.5": changed("crossing_point", max_iterations=1.5),
        "gap text": changed("crossing_point", gap="x"),
        "Systems of other size": crossing_of_other_size,
        "first without positions": crossing_without_positions,
    },
    "Metadynamics": {
        "height text": changed("Metadynamics", height="x"),
        "width 1e-9": lambda o: HillVariable(Torsion(0, 1, 2, 3), 1e-9),
    },
    "collective variables": {
        "Distance(-1, 0)": lambda o: Distance(-1, 0),
        "Distance text": lambda o: Distance("a", "b"),
        "Distance beyond the last particle": lambda o: Distance(0, 99999)(Geometry(CO)),
        "umbrella name with blank": lambda o: Distance(0, 1).umbrella("a b"),
    },
}


@pytest.mark.parametrize(
    "call",
    [pytest.param(call, id=f"{section}: {name}") for section, calls in FOUND.items() for name, call in calls.items()],
)
def test_a_bad_input_that_was_found_is_refused(objects, call):
    with pytest.raises(QmmlmmError, match=r"\w{3}"):
        call(objects)


@pytest.mark.parametrize("name", ["ensemble.json", "0000.npz", "0000.chk"])
def test_a_damaged_file_of_an_ensemble_is_named(objects, name):
    with pytest.raises(QmmlmmError, match=name.replace(".", r"\.")):
        broken_ensemble(name, b"damaged")(objects)


def test_a_record_that_is_shorter_than_its_checkpoint_is_named(objects):
    folder = objects.folder / "shorter"
    arguments = {"create": create_hopping, "conditions": [objects.condition], "checkpoint_interval": 1}
    Ensemble(folder, steps=1, **arguments).run()
    early = (folder / "0000.npz").read_bytes()
    Ensemble(folder, steps=3, **arguments).run()
    (folder / "0000.npz").write_bytes(early)
    with pytest.raises(QmmlmmError, match=r"0000\.npz has 2 rows and its checkpoint is after step 3; delete both"):
        Ensemble(folder, steps=4, **arguments).run()


def test_zero_steps_are_none(objects):
    before = objects.hopping.simulation.currentStep
    objects.hopping.step(0)
    assert objects.hopping.simulation.currentStep == before


def test_a_cube_of_one_nanometre_is_a_box():
    positions = np.array([[0.05, 0.0, 0.0], [0.95, 0.0, 0.0]])
    assert Distance(0, 1)(Geometry(positions, np.eye(3))) == pytest.approx(0.1)


def test_positions_in_a_list_of_quantities_are_read(objects):
    positions = [row * unit.nanometer for row in objects.case.positions]
    found = changed("select", positions=positions)(objects)
    assert found == changed("select")(objects)


def test_a_distance_beyond_the_box_reaches_every_atom(objects):
    found = changed("select", selection="within 1e12 nm of resname MOL")(objects)
    assert found == tuple(range(objects.case.topology.getNumAtoms()))
