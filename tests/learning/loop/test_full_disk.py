"""A loop whose disk becomes full stops with a message, and with more room takes the course of one that had enough."""

from __future__ import annotations

import dataclasses
import subprocess

import pytest

from qmmlmm.errors import LoopStoreError, TrainingError
from tests.learning.loop import water_case
from tests.learning.loop.killed_course import course
from tests.quick_torch import quick_torch

SETTINGS = dataclasses.replace(water_case.SETTINGS, max_rounds=1)


def run(directory):
    with quick_torch():
        water_case.make_loop(directory, settings=SETTINGS, walkers=water_case.WALKERS[:1]).run()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The course of a loop with enough room."""
    directory = tmp_path_factory.mktemp("enough") / "loop"
    run(directory)
    return course(directory)


@pytest.fixture
def mounted(tmp_path):
    """Return a function that mounts a folder of some size, or gives it another size."""
    place = tmp_path / "small"
    place.mkdir()

    def resize(size):
        options = f"remount,size={size}" if place.is_mount() else f"size={size}"
        found = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=False)
        if found.returncode:
            pytest.skip("only root can mount a small disk")
        return place

    yield resize
    if place.is_mount():
        subprocess.run(["umount", "-l", str(place)], check=True)


# The whole loop takes about 0.5 MB: the disk is full while it samples, labels, trains and writes its report.
@pytest.mark.parametrize(
    "first", ["100k", *(pytest.param(size, marks=pytest.mark.slow) for size in ("40k", "180k", "260k", "340k", "420k"))]
)
def test_a_disk_that_becomes_full_costs_nothing_but_time(undisturbed, mounted, first):
    place = mounted(first)
    with pytest.raises((LoopStoreError, TrainingError), match=r"full|No space left on device") as caught:
        run(place / "loop")
    assert "make room" in str(caught.value)
    mounted("20m")
    run(place / "loop")
    assert course(place / "loop") == undisturbed
