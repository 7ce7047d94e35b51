"""Surface hopping in Tully's three models against exactly propagated wave packets.

    python tests/benchmarks/tully_models.py [--trajectories 2000] [--models simple dual extended]
        [--momenta K ...] [--decoherence none|energy] [--json FILE]

Packets of width 20/k on the lower state. Fewest switches by local diabatisation: without decoherence in the first two
models, where the packets on both states go on together, and with it and without in the third, where they part. Prints
shares reflected and transmitted on both states, and the largest deviation in standard errors.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from record import Table, add_option, print_tables, write_record

from qmmlmm.nonadiabatic import FewestSwitches
from tests.nonadiabatic.tully import DUAL, EXTENDED, SIMPLE, Packet, exact, surface_hopping

MODELS = {"simple": SIMPLE, "dual": DUAL, "extended": EXTENDED}
CASES = (
    ("simple", "none", (10, 20, 30, 40)),
    ("dual", "none", (20, 25, 30, 35, 40, 50)),
    ("extended", "energy", (8, 10, 12, 15, 20, 30, 40)),
    ("extended", "none", (10, 20, 30, 40)),
)
"""Model, decoherence and momenta of the table."""

NAMES = {"simple": "simple crossing", "dual": "dual crossing", "extended": "extended coupling"}
COLUMNS = (
    "model",
    "decoherence",
    "momentum, atomic units",
    "reflected, lower state",
    "reflected, upper",
    "transmitted, lower",
    "transmitted, upper",
    "largest deviation, standard errors",
)
RESOLUTION = 0.2  # bohr in a step
SUBSTEPS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trajectories", type=int, default=2000)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--momenta", nargs="+", type=float, help="in place of those of the table")
    parser.add_argument("--decoherence", choices=("none", "energy"), help="only the rows with this one")
    add_option(parser)
    options = parser.parse_args()
    n = options.trajectories
    rows = []
    for name, decoherence, momenta in CASES:
        if name not in options.models or options.decoherence not in (None, decoherence):
            continue
        model = MODELS[name]
        for k in options.momenta or momenta:
            start = time.process_time()
            expected = exact(model, Packet(k)).ravel()
            method = FewestSwitches(substeps=SUBSTEPS, decoherence=decoherence)
            found = surface_hopping(model, Packet(k), n, method=method, resolution=RESOLUTION).ravel()
            # At least one count's worth, where nothing is expected.
            errors = np.sqrt(np.clip(expected * (1 - expected), 1 / n, None) / n)
            deviations = np.abs(found - expected) / errors
            pairs = [
                f"{of_hopping:.3f} / {of_packet:.3f}" for of_hopping, of_packet in zip(found, expected, strict=True)
            ]
            rows.append((NAMES[name], decoherence, k, *pairs, round(float(deviations.max()), 1)))
            print(*rows[-1], f"{time.process_time() - start:.0f} s", flush=True)
    table = Table("", COLUMNS, tuple(rows))
    print_tables([table])
    notes = f"Shares of {n:,} trajectories / of the exact wave packet."
    write_record(options.json, [table], notes)


if __name__ == "__main__":
    main()
