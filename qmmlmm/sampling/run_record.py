"""What ``run.json`` says of a run, and whether a Simulation is the same run."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from openmm import app

from qmmlmm.sampling.errors import RunDirectoryError
from qmmlmm.sampling.provenance import (
    describe_integrator,
    describe_platform,
    hash_system,
    hash_topology,
    package_versions,
    random_seeds,
)
from qmmlmm.sampling.reporters import MixedSystemLike

RECORD_FORMAT = 1

# Of `MixedSystem.describe`: how an ML term runs on this machine does not change what it computes.
VOLATILE_KEYS = {"backend"}


def read_record(path: Path) -> dict[str, Any]:
    """Return the content of a ``run.json``, or raise RunDirectoryError if it cannot be used."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunDirectoryError(f"{path} is damaged: {error}") from error
    found = record.get("format") if isinstance(record, dict) else None
    if found != RECORD_FORMAT:
        raise RunDirectoryError(
            f"{path} has format {found!r}, this version of qmmlmm reads {RECORD_FORMAT}; use the version that wrote it"
        )
    return dict(record)


def identity(mixed: MixedSystemLike, simulation: app.Simulation) -> dict[str, Any]:
    """Return what must be the same when a run is resumed, as JSON values."""
    try:
        described = json.loads(json.dumps(mixed.describe()))
    except TypeError as error:
        raise RunDirectoryError(f"mixed.describe() holds what JSON cannot: {error}") from error
    integrator = describe_integrator(simulation.integrator)
    return {
        "mixed_system": described,
        "hashes": {"system": hash_system(simulation.system), "topology": hash_topology(mixed.topology)},
        "integrator": {key: value for key, value in integrator.items() if key != "settings"},
    }


def describe_session(simulation: app.Simulation, seed: int | None) -> dict[str, Any]:
    """Return what may differ each time a run is taken up again, as JSON values."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "step": simulation.currentStep,
        "versions": package_versions(),
        "platform": describe_platform(simulation.context),
        "integrator": describe_integrator(simulation.integrator)["settings"],
        "seeds": {"run": seed, **random_seeds(simulation)},
    }


def differences(recorded: Any, now: Any, where: str = "") -> list[str]:
    """Return, in words, where two descriptions of a run differ, apart from what may differ."""
    if isinstance(recorded, dict) and isinstance(now, dict):
        return [
            text
            for key in sorted((recorded.keys() | now.keys()) - VOLATILE_KEYS)
            for text in differences(recorded.get(key), now.get(key), f"{where}.{key}" if where else key)
        ]
    if isinstance(recorded, list) and isinstance(now, list) and len(recorded) == len(now):
        return [
            text
            for index, pair in enumerate(zip(recorded, now, strict=True))
            for text in differences(*pair, f"{where}[{index}]")
        ]
    if recorded == now:
        return []
    shown = [text if len(text := repr(value)) <= 40 else text[:37] + "..." for value in (recorded, now)]
    return [f"{where} was {shown[0]} and is {shown[1]}"]
