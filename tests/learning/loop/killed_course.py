"""Runs a loop undisturbed, and again while it is killed at random moments; writes down both courses.

Usage: killed_course.py DIRECTORY KILLS SEED SHARE ROUNDS WALKERS [AT_ONCE [SIGNAL]]

SIGNAL is KILL or TERM; a loop that gets TERM handles it as the command ``qmmlmm learn`` does.

Kills come after a random time, up to a share of what the undisturbed loop takes. With more than one walker at once both
are on the CPU platform, and the undisturbed loop runs its walkers one after the other.

Each loop runs in a forked child of this process, so that what takes long, the imports, is done once; also of what the
package imports late.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import random
import signal
import sqlite3
import sys
import time
from hashlib import sha256
from pathlib import Path

from qmmlmm.errors import TerminatedError
from qmmlmm.learning.labels.label_file import LabelFile
from qmmlmm.ml.network_file import load_network
from qmmlmm.runs.termination import raise_terminated
from tests.learning.loop import water_case
from tests.quick_torch import quick_torch

for _name in ("openmmtorch", "torch._dynamo", "torch._inductor", "matplotlib.backends.backend_agg"):
    with contextlib.suppress(ImportError):  # openmmtorch is an extra
        importlib.import_module(_name)

_write = LabelFile.write


def course(directory: Path) -> dict:
    """Return all that a loop did, as text."""
    database = sqlite3.connect(directory / "loop.sqlite")

    def rows(query):
        return [[sha256(v).hexdigest() if isinstance(v, bytes) else v for v in row] for row in database.execute(query)]

    weights = {
        path.name: [sha256(v.numpy().tobytes()).hexdigest() for v in load_network(path).state_dict().values()]
        for path in sorted((directory / "models").glob("network_*.pt"))
    }
    return {
        "jobs": rows("SELECT id, round, kind, walker, step, geometry, uncertainty, status FROM jobs ORDER BY id"),
        "labels": rows("SELECT id, label FROM jobs ORDER BY id"),
        "walkers": rows("SELECT round, walker, state, event FROM walkers ORDER BY round, walker"),
        "hills": rows("SELECT * FROM hills ORDER BY round, walker"),
        "trace": rows("SELECT * FROM trace ORDER BY round, walker, step"),
        "rounds": rows("SELECT * FROM rounds ORDER BY round"),
        "weights": weights,
    }


def child(directory: Path, rounds: int, walkers: int, at_once: int, platform: dict) -> int:
    """Run the loop in a child; return its process id."""
    process = os.fork()
    if process:
        return process
    try:
        log = directory.with_suffix(".log")
        signal.signal(signal.SIGTERM, raise_terminated)

        def write(descriptor: int, label: str, seconds: float) -> None:
            _write(descriptor, label, seconds)
            name = next(word for word in label.split() if word.startswith("name="))
            with open(log, "a") as file:
                file.write(f"{name[5:]}\n")

        LabelFile.write = staticmethod(write)
        settings = dataclasses.replace(water_case.SETTINGS, max_rounds=rounds, walkers_at_once=at_once)
        loop = water_case.make_loop(
            directory,
            settings=settings,
            walkers=water_case.WALKERS[:walkers],
            metadynamics=water_case.HILLS,
            **platform,
        )
        loop.run()
        os._exit(0)
    except TerminatedError:
        os._exit(1)
    except BaseException as error:  # noqa: BLE001  (the parent looks at the status)
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def ended(process: int) -> int | None:
    """Return the exit status of a child, None while it runs."""
    found, status = os.waitpid(process, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def main() -> None:
    directory, share = Path(sys.argv[1]), float(sys.argv[4])
    kills, seed, rounds, walkers = (int(sys.argv[k]) for k in (2, 3, 5, 6))
    at_once = int(sys.argv[7]) if len(sys.argv) > 7 else 1
    kind = getattr(signal, f"SIG{sys.argv[8] if len(sys.argv) > 8 else 'KILL'}")
    platform = {"platform": "CPU", "platform_properties": {"Threads": "1"}} if at_once > 1 else {}
    draw = random.Random(seed)
    begun = time.monotonic()
    _, status = os.waitpid(child(directory / "undisturbed", rounds, walkers, 1, platform), 0)
    assert status == 0
    longest = share * (time.monotonic() - begun)
    moments, failures = [], []
    while True:
        process = child(directory / "killed", rounds, walkers, at_once, platform)
        limit = draw.uniform(0.0, longest) if len(moments) < kills else float("inf")
        start = time.monotonic()
        while (status := ended(process)) is None and time.monotonic() - start < limit:
            time.sleep(0.002)
        if status is None:
            os.kill(process, kind)
            os.waitpid(process, 0)
            moments.append(limit)
        else:
            if status != 0:
                failures.append(status)
            if len(moments) >= kills or status != 0:
                break
            # It was through before it was killed often enough: kill a new one in another directory from now on.
            directory.joinpath("killed").rename(directory / f"killed-{len(moments)}")
            directory.joinpath("killed.log").rename(directory / f"killed-{len(moments)}.log")
    folders = sorted(path for path in directory.iterdir() if path.is_dir() and path.name.startswith("killed"))
    wanted = course(directory / "undisturbed")
    different = {}
    for folder in folders:
        found = course(folder)
        different[folder.name] = [key for key in wanted if found[key] != wanted[key]]
    print(
        json.dumps(
            {
                "kills": len(moments),
                "failures": failures,
                "different": different,
                "finished": {folder.name: folder.with_suffix(".log").read_text().split() for folder in folders},
                "names": [f"{row[2]}-{row[0]:06d}" for row in wanted["jobs"]],
                "stopped": [row[3] for row in wanted["walkers"] if row[3]],
                "seconds": sum(os.times()[2:4]),
            }
        )
    )


if __name__ == "__main__":
    with quick_torch():
        main()
