"""Work that runs in threads, each with one of the things that no two may use at once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

import torch

Place = TypeVar("Place")
Task = TypeVar("Task")
Result = TypeVar("Result")


def side_by_side(
    places: Sequence[Place], tasks: Sequence[Task], work: Callable[[Place, Task], Result]
) -> Generator[Result, None, None]:
    """Yield the results of tasks in their order, as many at once as there are places.

    Parameters
    ----------
    places : sequence
        What a task needs for itself while it runs. With one there is no thread.
    tasks : sequence
    work : callable
        Takes a place and a task.

    Notes
    -----
    OpenMM and TorchScript let other threads of Python run while they compute. Torch takes one thread in each, as many
    small operations take on one core what they take on all. After an error no further task is begun.
    """
    if len(places) == 1:
        for task in tasks:
            yield work(places[0], task)
        return
    free: SimpleQueue[Place] = SimpleQueue()
    for place in places:
        free.put(place)

    def run(task: Task) -> Result:
        place = free.get()
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return work(place, task)
        finally:
            torch.set_num_threads(before)
            free.put(place)

    pool = ThreadPoolExecutor(len(places), thread_name_prefix="walker")
    try:
        yield from pool.map(run, tasks)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
