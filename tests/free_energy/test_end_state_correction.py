"""Corrections of springs, which are known; directories that are interrupted; legs and levels that do not fit."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from openmm import unit

from qmmlmm import ForceFieldPotential, Hamiltonian, Region, Term, XTBPotential
from qmmlmm.errors import (
    EvaluationError,
    HamiltonianError,
    QmmlmmWarning,
    RunDirectoryError,
    SettingError,
)
from qmmlmm.free_energy import EndStateCorrection, Leg, SwitchingSettings, correction_report
from qmmlmm.free_energy.trajectory_tasks import switch_work
from qmmlmm.sampling.segments import SegmentSimulation
from tests.free_energy.spring_legs import CHEAP, FORCE_FIELD, POCKET, UPPER, exact, leg, quick, spring

INDEPENDENT = {"equilibration_steps": 100, "steps_between_frames": 40}
"""Steps after which the springs have forgotten: 0.2 ps, their relaxation time."""

SPRINGS = "springs with known free energies"
STANDARD_ERRORS = "standard errors"
SAME_MODEL = 1e-6
"""kJ/mol, of a correction from a model to itself."""


def correction(folder, *, legs=None, lower=None, upper=None, settings=None, **more):
    return EndStateCorrection(
        folder,
        {"solvent": leg()} if legs is None else legs,
        lower or ForceFieldPotential(),
        upper or spring(UPPER),
        embedding="mechanical",
        settings=settings or quick(),
        **more,
    )


def kj(quantity):
    return quantity.value_in_unit(unit.kilojoule_per_mole)


def works(found, name="solvent"):
    stages = found.legs[name].stages
    return np.concatenate([np.concatenate([stage.forward, stage.reverse]) for stage in stages])


@pytest.fixture(autouse=True)
def without_figures(monkeypatch):
    """Let runs save empty figures: real ones take longer than the springs. The fixture `cycle` comes before this."""
    monkeypatch.setattr(correction_report, "_save_figure", lambda path, found: path.write_bytes(b""))


@pytest.fixture(scope="module")
def cycle(tmp_path_factory):
    """A complete cycle, with its directory."""
    folder = tmp_path_factory.mktemp("cycle") / "run"
    given = correction(
        folder,
        legs={"complex": leg(POCKET), "solvent": leg()},
        upper=spring(UPPER, 20.0),
        settings=quick(trajectories=20, switch_steps=20, **INDEPENDENT),
    )
    return folder, given.run()


def test_each_leg_and_their_difference_are_exact(truth, cycle):
    _, found = cycle
    exacts = {"complex": exact(FORCE_FIELD, UPPER, POCKET, 20.0), "solvent": exact(FORCE_FIELD, UPPER, 0.0, 20.0)}
    for name, value in exacts.items():
        error = kj(found.legs[name].free_energy) - value
        truth.below(f"{SPRINGS}: each leg", error / kj(found.legs[name].error), 2.0, STANDARD_ERRORS)
    difference, error = found.difference("complex", "solvent")
    away = kj(difference) - (exacts["complex"] - exacts["solvent"])
    truth.below(f"{SPRINGS}: difference of the legs", away / kj(error), 2.0, STANDARD_ERRORS)
    assert kj(error) == pytest.approx(np.hypot(*(kj(one.error) for one in found.legs.values())))
    assert kj(error) < 1.0
    value, total = found.corrected(-30.0, 0.5 * unit.kilocalorie_per_mole, "complex", "solvent")
    assert kj(value) == pytest.approx(-30.0 + kj(difference))
    assert kj(total) == pytest.approx(np.hypot(kj(error), 0.5 * 4.184))


def test_report_and_tables_say_what_was_found(cycle):
    folder, found = cycle
    report = (folder / "report.md").read_text(encoding="utf-8")
    value, error = found.difference("complex", "solvent")
    assert f"complex less solvent: {kj(value):.2f} ± {kj(error):.2f} kJ/mol" in report
    assert "| solvent, FF-XTB | 2 x 20 | 0.1 | 0.2 | 0.5 | 1 |" in report
    assert "Warning" not in report
    assert "Note" not in report
    assert (folder / "works.png").stat().st_size > 10_000
    rows = (folder / "works.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == '#"Leg","Stage","Direction","Trajectory","Work (kJ/mol)"'
    assert len(rows) == 1 + 2 * 2 * 20
    stages = (folder / "stages.csv").read_text(encoding="utf-8").splitlines()
    assert len(stages) == 3
    assert float(stages[2].split(",")[2]) == pytest.approx(kj(found.legs["solvent"].free_energy), rel=1e-8)
    assert "complex - solvent" in str(found)


@pytest.mark.parametrize("level", [ForceFieldPotential(), spring(UPPER, 20.0)], ids=["force field", "springs"])
def test_a_correction_from_a_model_to_itself_is_zero(truth, tmp_path, level):
    found = correction(tmp_path, lower=level, upper=level, settings=quick(trajectories=4)).run().legs["solvent"]
    truth.below("force field and springs to themselves: free energy", kj(found.free_energy), SAME_MODEL, "kJ/mol")
    assert kj(found.error) == pytest.approx(0.0, abs=SAME_MODEL)


def test_stages_through_a_level_add_up(tmp_path):
    settings = [quick(trajectories=n, switch_steps=20, **INDEPENDENT) for n in (16, 12)]
    found = correction(tmp_path, through=[spring(CHEAP, 5.0)], upper=spring(UPPER, 20.0, "QM"), settings=settings).run()
    stages = found.legs["solvent"].stages
    assert [stage.name for stage in stages] == ["FF-XTB", "XTB-QM"]
    assert [len(stage.forward) for stage in stages] == [16, 12]
    exacts = [exact(FORCE_FIELD, CHEAP, offset=5.0), exact(CHEAP, UPPER, offset=15.0)]
    for stage, value in zip(stages, exacts, strict=True):
        assert kj(stage.estimate.free_energy) == pytest.approx(value, abs=2.0 * kj(stage.estimate.error))
    leg_ = found.legs["solvent"]
    assert kj(leg_.free_energy) == pytest.approx(sum(kj(stage.estimate.free_energy) for stage in stages))
    assert kj(leg_.error) == pytest.approx(np.hypot(*(kj(stage.estimate.error) for stage in stages)))


def test_works_without_overlap_are_a_warning_with_advice(tmp_path):
    far = correction(tmp_path, upper=spring(1e6), settings=quick(step_size=0.0005, switch_steps=1))
    with pytest.warns(QmmlmmWarning, match=r"leg 'solvent', stage FF-XTB: .*larger switch_steps.*put a level between"):
        found = far.run()
    assert "**Warning.** Leg 'solvent'" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert np.isfinite([kj(found.legs["solvent"].free_energy), kj(found.legs["solvent"].error)]).all()


class Interrupted(BaseException):
    """Stands for a signal: no handler of ordinary errors may catch it."""


def interrupt_after(monkeypatch, calls):
    """Let the process end within a segment, after so many of them."""
    left = [calls]

    def counted(original):
        def call(self, *arguments):
            left[0] -= 1
            if left[0] < 0:
                raise Interrupted
            return original(self, *arguments)

        return call

    for name in ("sample", "switch"):
        monkeypatch.setattr(SegmentSimulation, name, counted(getattr(SegmentSimulation, name)))


def test_an_interrupted_directory_continues_with_the_same_numbers(tmp_path, monkeypatch):
    settings = quick(trajectories=4, checkpoint_steps=7)
    whole = correction(tmp_path / "whole", settings=settings).run()
    n_segments = 2 * (3 + 4 * 3) + 2 * 4 * 2
    computed = []
    original = SegmentSimulation.switch
    monkeypatch.setattr(
        SegmentSimulation, "switch", lambda self, *given: computed.append(given[1]) or original(self, *given)
    )
    for calls in range(1, n_segments, 5):
        with monkeypatch.context() as patch:
            interrupt_after(patch, 5)
            with pytest.raises(Interrupted):
                correction(tmp_path / "cut", settings=settings).run()
        assert calls  # each attempt gets five segments further
    found = correction(tmp_path / "cut", settings=settings).run()
    assert np.array_equal(works(found), works(whole))
    # No segment of a switching trajectory was computed twice: each has a seed of its own.
    assert len(computed) == len(set(computed)) == 2 * 4 * 2


def test_a_directory_that_is_complete_is_not_computed_again(cycle, monkeypatch):
    folder, before = cycle
    interrupt_after(monkeypatch, 0)
    again = correction(
        folder,
        legs={"complex": leg(POCKET), "solvent": leg()},
        upper=spring(UPPER, 20.0),
        settings=quick(trajectories=20, switch_steps=20, **INDEPENDENT),
    ).run()
    assert np.array_equal(works(again), works(before))


def test_more_trajectories_and_longer_switches_use_what_is_there(tmp_path):
    first = correction(tmp_path, settings=quick(trajectories=4)).run()
    frames = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("replica0/0*.npz")}
    more = correction(tmp_path, settings=quick(trajectories=6)).run()
    assert np.array_equal(more.legs["solvent"].stages[0].forward[:4], first.legs["solvent"].stages[0].forward)
    longer = correction(tmp_path, settings=quick(trajectories=4, switch_steps=40)).run()
    assert longer.legs["solvent"].stages[0].estimate.n_forward == 4
    assert {path: path.stat().st_mtime_ns for path in frames} == frames


def test_frames_of_replicas_are_independent_and_divided(tmp_path):
    found = correction(tmp_path, settings=quick(trajectories=5, replicas=2)).run()
    assert len(found.legs["solvent"].stages[0].forward) == 5
    lower = tmp_path / "solvent" / "FF-XTB" / "lower"
    assert sorted(path.relative_to(lower).as_posix() for path in lower.rglob("0*.npz")) == [
        f"replica{replica}/{k:04d}.npz" for replica in (0, 1) for k in range(3)
    ]
    assert len(set(works(found).tolist())) == 10


def test_any_executor_runs_it_and_the_numbers_are_the_same(tmp_path):
    alone = correction(tmp_path / "alone", settings=quick(trajectories=4)).run()
    # One thread: those of a process share the random numbers of the Reference platform.
    with ThreadPoolExecutor(1) as executor:
        found = correction(tmp_path / "threads", settings=quick(trajectories=4)).run(executor)
    assert np.array_equal(works(found), works(alone))


def test_a_failed_trajectory_is_named_and_all_others_are_run(tmp_path, monkeypatch):
    settings = quick(trajectories=4)
    original = SegmentSimulation.switch

    def fails(self, frame, seed, start, *more):
        if start == 1.0:
            raise EvaluationError("the model was asked for something that it cannot do")
        return original(self, frame, seed, start, *more)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentSimulation, "switch", fails)
        with pytest.raises(EvaluationError, match=r"4 of 10 tasks failed: solvent/FF-XTB/reverse/0 \(EvaluationError"):
            correction(tmp_path, settings=settings).run()
    forward = tmp_path / "solvent" / "FF-XTB" / "forward-10"
    assert all(switch_work(forward / f"{k:04d}.npz") is not None for k in range(4))
    assert len(works(correction(tmp_path, settings=settings).run())) == 8


def test_a_damaged_file_is_named(tmp_path):
    given = correction(tmp_path, settings=quick(trajectories=4))
    given.run()
    path = tmp_path / "solvent" / "FF-XTB" / "forward-10" / "0002.npz"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(RunDirectoryError, match=r"0002\.npz is damaged.*delete it to compute this trajectory again"):
        given.run()
    path.unlink()
    given.run()


def test_results_of_an_incomplete_directory_name_what_is_missing(tmp_path):
    with pytest.raises(RunDirectoryError, match=r"forward-10.0000\.npz is missing or not complete; call run"):
        correction(tmp_path).result()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"upper": spring(UPPER, 1.0)}, "other terms"),
        ({"settings": quick(trajectories=4, temperature=310.0)}, r"other temperature \(K\)"),
        ({"settings": quick(trajectories=4, seed=2)}, "other seed"),
        ({"legs": {"solvent": leg(POCKET)}}, "other system"),
        ({"legs": {"water": leg()}}, "other leg"),
        ({"through": [spring(CHEAP)]}, "other legs or levels"),
    ],
)
def test_another_correction_in_the_same_directory_is_refused(tmp_path, change, text):
    correction(tmp_path, settings=quick(trajectories=4))._check_record(tmp_path)
    with pytest.raises(RunDirectoryError, match=text):
        correction(tmp_path, **{"settings": quick(trajectories=4), **change}).run()


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "correction.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunDirectoryError, match=r"correction\.json is damaged"):
        correction(tmp_path).run()


def test_the_record_says_what_was_run(cycle):
    folder, _ = cycle
    record = json.loads((folder / "correction.json").read_text(encoding="utf-8"))
    assert [stage["leg"] for stage in record["stages"]] == ["complex", "solvent"]
    assert record["stages"][0]["temperature (K)"] == 300.0


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"legs": {}}, SettingError, "legs has one Leg or more"),
        ({"legs": {"a/b": leg()}}, SettingError, "legs: each name is also a folder"),
        (
            {"legs": {"complex": leg(), "solvent": leg(elements=("He", "Ne"))}},
            SettingError,
            "elements are He2 and He1 Ne1",
        ),
        ({"legs": {"a": leg(), "b": leg(bond=False)}}, SettingError, "the bonds are 1 He-He and none"),
        ({"lower": XTBPotential}, SettingError, "lower is a potential such as XTBPotential, or a function"),
        ({"through": spring(CHEAP)}, SettingError, "through is a list of levels"),
        ({"settings": [quick(), quick()]}, SettingError, "one for all stages or one for each of 1, got 2"),
        (
            {"settings": [quick(), quick(temperature=310.0)], "through": [spring(CHEAP)]},
            SettingError,
            "settings have one temperature, got 300.0, 310.0 K",
        ),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, error, text):
    with pytest.raises(error, match=text):
        correction(tmp_path, **change)


def hamiltonian_of(region, **more):
    return Hamiltonian([Term(spring(UPPER), region, embedding="mechanical", **more)])


def test_a_level_may_be_a_function_of_the_region(tmp_path):
    given = correction(tmp_path, upper=hamiltonian_of, settings=quick(trajectories=4))
    assert [stage.name for stage in given.stages] == ["FF-level1"]
    given.run()


def with_parameter(region):
    terms = [
        Term(spring(k), region, embedding="mechanical", coefficient=text)
        for k, text in ((UPPER, "1-lambda_qm"), (CHEAP, "lambda_qm"))
    ]
    return Hamiltonian(terms, parameters={"lambda_qm": 0.0})


@pytest.mark.parametrize(
    ("upper", "text"),
    [
        (with_parameter, "the upper level has the parameters lambda_qm"),
        (
            lambda region: hamiltonian_of(Region("pair", region.atoms, charge=1, multiplicity=2)),
            "the net charge changes between the levels: region 'pair' has the charge 0 in the lower and 1",
        ),
        (lambda region: hamiltonian_of(Region("one", [0])), "different outermost regions"),
    ],
)
def test_levels_that_do_not_fit_are_refused(tmp_path, upper, text):
    with pytest.raises(HamiltonianError, match=text):
        correction(tmp_path, upper=upper)


def test_a_charge_that_is_not_that_of_the_force_field_is_refused():
    with pytest.raises(SettingError, match="the net charge would change between the levels"):
        leg(charge=1)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"positions": np.zeros((3, 3))}, r"positions has the shape \(2, 3\)"),
        ({"region": Region("pair", [0, 7])}, "has atom 7 of a system with 2 particles"),
        ({"system": leg().topology}, "system is an openmm.System"),
    ],
)
def test_a_leg_that_does_not_fit_together_is_refused(change, text):
    given = leg()
    arguments = {name: getattr(given, name) for name in ("topology", "system", "positions", "region")}
    with pytest.raises(SettingError, match=text):
        Leg(**{**arguments, **change})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"trajectories": 3}, "trajectories is a whole number of 4 or more, got 3"),
        ({"step_size": 1.0}, "step_size is at most 0.1 picosecond"),
        ({"temperature": 1.0 * unit.meter}, "temperature has a unit like kelvin"),
        ({"platform": ""}, "platform is a text"),
    ],
)
def test_wrong_settings_are_refused(change, text):
    with pytest.raises(SettingError, match=text):
        SwitchingSettings(**change)
