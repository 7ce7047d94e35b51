"""Hills in a learning loop, which keeps them and goes on from them."""

from __future__ import annotations

import contextlib
import json
import sqlite3

import numpy as np
import pytest

from qmmlmm.errors import LoopError
from qmmlmm.learning import TrainingSettings
from qmmlmm.learning.loop.store import LoopStore
from qmmlmm.sampling.collective_variables import Distance
from qmmlmm.sampling.metadynamics import HillVariable, Metadynamics
from tests.learning.loop import water_case
from tests.learning.loop.killed_course import course
from tests.quick_torch import quick_torch


@pytest.fixture(scope="module", autouse=True)
def _quick():
    with quick_torch():
        yield


def test_hills_come_between_looks_only(tmp_path):
    settings = Metadynamics(HillVariable(Distance(1, 2), 0.01, 0.1, 0.2), 1.0, 5.0, 15)
    with pytest.raises(LoopError, match="multiple of check_interval, got 15 and 10"):
        water_case.make_loop(tmp_path, metadynamics=settings)


FEW_LABELS = {"start_labels": 8, "fresh_labels": 2, "labels_per_round": 2}
ONE_THREAD = {"platform": "CPU", "platform_properties": {"Threads": "1"}}
SHORT = TrainingSettings(steps=4, batch_size=8, validations=1, learning_rate=1e-2)


class Stopped(BaseException):
    """The end of a process at an unlucky moment."""


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
def test_a_loop_with_hills_that_was_stopped_takes_the_same_course(tmp_path, shared, monkeypatch):
    """Stopped between the walkers of the second round, where the hills of the first are all that can be known.

    Undisturbed one walker runs after the other, and in the loop that is stopped both side by side.
    """
    hills = Metadynamics(
        HillVariable(Distance(1, 2), 0.005, 0.1, 0.25), height=0.5, bias_factor=5.0, interval=20, shared=shared
    )
    changes = {"metadynamics": hills, "settings": FEW_LABELS, "training": SHORT, "workers": 1, **ONE_THREAD}

    def loop_in(folder, at_once):
        settings = {**changes["settings"], "walkers_at_once": at_once}
        return water_case.make_loop(tmp_path / folder, **{**changes, "settings": settings})

    loop_in("undisturbed", 1).run()
    keep = LoopStore.add_walker_result

    def stop(self, number, walker, *arguments):
        if (number, walker) == (2, 1):
            raise Stopped
        keep(self, number, walker, *arguments)

    monkeypatch.setattr(LoopStore, "add_walker_result", stop)
    with pytest.raises(Stopped):
        loop_in("stopped", 2).run()
    monkeypatch.undo()
    with contextlib.closing(LoopStore(tmp_path / "stopped", 12)) as store:
        assert store.walkers_done(2) == {0}
    loop_in("stopped", 2).run()
    wanted = course(tmp_path / "undisturbed")
    assert course(tmp_path / "stopped") == wanted
    assert [row[:2] for row in wanted["hills"]] == [[1, 0], [1, 1], [2, 0], [2, 1]]
    heights = heights_of(wanted["hills"])
    assert sum(map(len, heights)) >= 9
    # Hills of the first round make those of the second lower.
    assert heights[2][0] < 0.5
    assert_reported(tmp_path / "undisturbed", heights, shared)


def heights_of(rows):
    """Return the heights of the hills of each walk; the first of all in the first round have the full height."""
    heights = [[height for _, _, height in json.loads(row[2])] for row in rows]
    # Three looks at multiples of twenty in sixty steps, unless a walker was set back.
    assert all(len(one) <= 3 for one in heights)
    assert heights[0][0] == heights[1][0] == 0.5
    return heights


def assert_reported(folder, heights, shared):
    """Assert that the report and the table of the free energy are those of all hills."""
    assert f"free energy from {sum(map(len, heights))} hills" in (folder / "report.md").read_text()
    table = np.genfromtxt(folder / "free_energy.csv", delimiter=",", names=True)
    assert table.dtype.names[0].startswith("HH")
    profile = table["free_energy_kJmol"]
    assert profile.min() == 0.0
    assert profile.max() > 0.2
    assert np.isnan(table["standard_error_kJmol"]).all() == shared


def test_walkers_side_by_side_are_refused_where_they_would_share_random_numbers(tmp_path):
    with pytest.raises(LoopError, match="walkers_at_once=2 on the Reference platform"):
        water_case.make_loop(tmp_path, settings={"walkers_at_once": 2})


def test_damaged_hills_are_no_hills_to_go_on_with(tmp_path):
    hills = Metadynamics(HillVariable(Distance(1, 2), 0.005, 0.1, 0.25), height=0.5, bias_factor=5.0, interval=20)
    changes = {"metadynamics": hills, "settings": {**FEW_LABELS, "max_rounds": 1}, "training": SHORT}
    water_case.make_loop(tmp_path, **changes).run()
    assert_reported(tmp_path, heights_of(course(tmp_path)["hills"]), shared=False)
    with sqlite3.connect(tmp_path / "loop.sqlite") as database:
        database.execute("UPDATE hills SET hills='[]' WHERE walker=1")
    changes["settings"]["max_rounds"] = 2
    with pytest.raises(LoopError, match="hills of walker 1 in round 1 are damaged"):
        water_case.make_loop(tmp_path, **changes).run()
    with pytest.raises(LoopError, match="metadynamics height: 0.5 then, 0.7 now"):
        water_case.make_loop(tmp_path, **{**changes, "metadynamics": Metadynamics(hills.variables, 0.7, 5.0, 20)}).run()
