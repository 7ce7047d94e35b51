"""The record of a run, ``run.json``, and the comparison of a Simulation with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

from openmm import app

from qmmlmm.durable_files import checksum, replace_file
from qmmlmm.errors import RunDirectoryError
from qmmlmm.runs.provenance import (
    describe_integrator,
    describe_platform,
    hash_system,
    hash_topology,
    package_versions,
    random_seeds,
)
from qmmlmm.runs.reporters import MixedSystemLike

RECORD_FORMAT = 2
CHECKSUM_KEY = "checksum"

IDENTITY_KEYS = ("mixed_system", "hashes", "integrator")
"""Parts of the record that are the same when a run is resumed."""

# Keys of `MixedSystem.describe` that may differ: the Force of an ML term, and what of it is compiled, do not change its
# energy but for round-off.
VOLATILE_KEYS = {"backend", "compiled"}


class RunOutput(TypedDict):
    """File name and interval of the trajectory."""

    trajectory: str
    trajectory_interval: int


@dataclass(frozen=True)
class RunRecord:
    """The content of ``run.json``.

    Parameters
    ----------
    first_step : int
        Step at which the run began.
    first_time : float, ps
        Time at which the run began.
    output : RunOutput
    identity : mapping of str to object
        Result of `run_identity`.
    sessions : tuple of mapping of str to object
        Results of `describe_session`, with the counts of the terms.
    """

    first_step: int
    first_time: float
    output: RunOutput
    identity: Mapping[str, object]
    sessions: tuple[Mapping[str, object], ...]

    @classmethod
    def read(cls, path: Path) -> RunRecord:
        """Read a file.

        Raises
        ------
        RunDirectoryError
            If it is damaged or of another format version.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunDirectoryError(f"{path} is damaged: {error}") from error
        found = content.get("format") if isinstance(content, dict) else None
        if found != RECORD_FORMAT:
            raise RunDirectoryError(
                f"{path} has format {found!r}, this version of qmmlmm reads {RECORD_FORMAT}; use the version that "
                "wrote it"
            )
        expected = content.pop(CHECKSUM_KEY, None)
        if expected != checksum(json.dumps(content)):
            raise RunDirectoryError(f"{path} is damaged or was edited: its content has another checksum; restore it")
        try:
            return cls(
                int(content["first_step"]),
                float(content["first_time (ps)"]),
                {
                    "trajectory": str(content["output"]["trajectory"]),
                    "trajectory_interval": int(content["output"]["trajectory_interval"]),
                },
                {key: content[key] for key in IDENTITY_KEYS},
                tuple(content["sessions"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RunDirectoryError(f"{path} is damaged: {type(error).__name__}: {error}") from error

    def write(self, path: Path) -> None:
        """Write a file, which at any moment is the old or the new one as a whole."""
        content = {
            "format": RECORD_FORMAT,
            "first_step": self.first_step,
            "first_time (ps)": self.first_time,
            "output": self.output,
            **self.identity,
            "sessions": self.sessions,
        }
        content[CHECKSUM_KEY] = checksum(json.dumps(content))
        replace_file(path, (json.dumps(content, indent=1) + "\n").encode("utf-8"))

    def with_session(self, session: Mapping[str, object]) -> RunRecord:
        """Return a record with another session."""
        return replace(self, sessions=(*self.sessions, session))

    def with_counts(self, last_step: int, terms: Mapping[str, Mapping[str, object]]) -> RunRecord:
        """Return a record whose last session has its last step and the counts of its terms."""
        *before, session = self.sessions
        return replace(self, sessions=(*before, {**session, "last_step": last_step, "terms": terms}))


def run_identity(mixed: MixedSystemLike, simulation: app.Simulation) -> dict[str, object]:
    """Return what must be the same when a run is resumed, as JSON values."""
    try:
        described = json.loads(json.dumps(mixed.describe()))
    except TypeError as error:
        raise RunDirectoryError(f"mixed.describe() has values that JSON cannot represent: {error}") from error
    integrator = describe_integrator(simulation.integrator)
    return {
        "mixed_system": described,
        "hashes": {"system": hash_system(simulation.system), "topology": hash_topology(mixed.topology)},
        "integrator": {key: value for key, value in integrator.items() if key != "settings"},
    }


def describe_session(simulation: app.Simulation, seed: int | None) -> dict[str, object]:
    """Return what may differ between the sessions of a run, as JSON values."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "step": simulation.currentStep,
        "versions": package_versions(),
        "platform": describe_platform(simulation.context),
        "integrator": describe_integrator(simulation.integrator)["settings"],
        "seeds": {"run": seed, **random_seeds(simulation)},
    }


def differences(recorded: object, present: object, where: str = "") -> list[str]:
    """Return, in words, the differences between two descriptions of a run, without those that are allowed."""
    if isinstance(recorded, Mapping) and isinstance(present, Mapping):
        return [
            text
            for key in sorted((recorded.keys() | present.keys()) - VOLATILE_KEYS)
            for text in differences(recorded.get(key), present.get(key), f"{where}.{key}" if where else key)
        ]
    if isinstance(recorded, list) and isinstance(present, list) and len(recorded) == len(present):
        return [
            text
            for index, pair in enumerate(zip(recorded, present, strict=True))
            for text in differences(*pair, f"{where}[{index}]")
        ]
    if recorded == present:
        return []
    shown = [text if len(text := repr(value)) <= 40 else text[:37] + "..." for value in (recorded, present)]
    return [f"{where} was {shown[0]} and is {shown[1]}"]
