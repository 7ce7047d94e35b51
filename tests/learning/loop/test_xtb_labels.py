"""A learning loop whose labels are computed by GFN2-xTB."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest

from qmmlmm import MLPotential, Region, Term, XTBPotential
from qmmlmm.learning.loop import Distance, LabelSettings, LearningLoop
from tests.learning.loop.water_case import NETWORK, SETTINGS, TRAINING, WALKERS, umbrella, waters
from tests.quick_torch import quick_torch


@pytest.mark.slow
def test_a_loop_learns_from_labels_by_xtb(tmp_path):
    topology, system, positions = waters()
    term = Term(XTBPotential(), Region("water", [0, 1, 2]), embedding="electrostatic")
    with quick_torch():
        loop = LearningLoop(
            tmp_path / "loop",
            topology,
            system,
            term,
            positions,
            settings=dataclasses.replace(SETTINGS, max_rounds=1),
            walkers=WALKERS,
            biases=[umbrella()],
            variables={"H-H, nm": Distance(1, 2)},
            network=NETWORK,
            training=TRAINING,
            labelling=LabelSettings(workers=1, isolated=False),
            executor=lambda: ThreadPoolExecutor(1),
            platform="Reference",
        )
        result = loop.run(progress=False)
    assert result.failed == 0
    assert result.labels >= SETTINGS.start_labels
    assert MLPotential.load(result.model).atomic_numbers == (8, 1, 1)
    assert "gfn2-xtb" in next(tmp_path.rglob("*.xyz")).read_text(encoding="utf-8")
