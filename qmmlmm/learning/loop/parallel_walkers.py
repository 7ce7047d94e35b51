"""Tasks in threads, each with its own worker."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

import torch

Worker = TypeVar("Worker")
Task = TypeVar("Task")
Result = TypeVar("Result")


def run_parallel(
    workers: Sequence[Worker], tasks: Sequence[Task], work: Callable[[Worker, Task], Result]
) -> Generator[Result, None, None]:
    """Yield the results of tasks in their order; as many tasks run in parallel as there are workers.

    Parameters
    ----------
    workers : sequence
        Objects that only one task uses at a time. With one worker there are no threads.
    tasks : sequence
    work : callable
        Function of a worker and a task.

    Notes
    -----
    OpenMM and TorchScript release the interpreter lock while they compute. Torch has one thread in each task, because
    many small operations are not faster on more cores. No further task starts after an error.
    """
    if len(workers) == 1:
        for task in tasks:
            yield work(workers[0], task)
        return
    free: SimpleQueue[Worker] = SimpleQueue()
    for worker in workers:
        free.put(worker)

    def run(task: Task) -> Result:
        worker = free.get()
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return work(worker, task)
        finally:
            torch.set_num_threads(before)
            free.put(worker)

    pool = ThreadPoolExecutor(len(workers), thread_name_prefix="walker")
    try:
        yield from pool.map(run, tasks)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
