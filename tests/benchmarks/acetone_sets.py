"""Labels of acetone to learn from and to test with, in water, among ions and in liquid acetone."""

from __future__ import annotations

from pathlib import Path

from qmmlmm.learning import LabelledFrame, read_frames

DATA = Path(__file__).parent / "data"
SETS = {"water": "acetone_water", "among ions": "acetone_ions", "liquid acetone": "acetone_liquid"}
"""Files of the test frames."""

TEST_FRAMES, SECOND_TRAJECTORY = 40, 50
"""Frames of water for tests, and the first frame of the trajectory to learn from."""


def test_sets() -> tuple[dict[str, list[LabelledFrame]], list[LabelledFrame]]:
    """Return the test frames of each set, and the frames to learn from, which are in water."""
    found = {name: read_frames(DATA / f"{file}.xyz.gz") for name, file in SETS.items()}
    learned = found["water"][SECOND_TRAJECTORY:]
    return found | {"water": found["water"][:TEST_FRAMES]}, learned
