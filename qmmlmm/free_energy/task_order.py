"""Tasks of which some need the results of others, run by any executor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass

from qmmlmm.errors import EvaluationError, listed
from qmmlmm.progress_display import progress_bar


@dataclass(frozen=True)
class Task:
    """A call that leaves its result in a file.

    Parameters
    ----------
    name : str
    call : callable
        Function or partial that can be pickled.
    after : str, optional
        Name of the task that has to be complete before.
    """

    name: str
    call: Callable[[], None]
    after: str | None = None


def run_tasks(tasks: Sequence[Task], executor: Executor | None, unit: str) -> None:
    """Run all tasks, those that fail among them; a task runs after the one that it needs, if that is in the list.

    Parameters
    ----------
    tasks : sequence of Task
    executor : concurrent.futures.Executor, optional
        Executor; the tasks run one after another in this process if not given.
    unit : str
        What a task computes, for the progress bar.

    Raises
    ------
    EvaluationError
        If tasks failed. All others were run, except those that need them.
    """
    names = {task.name for task in tasks}
    waiting = {task.name: task for task in tasks if task.after in names}
    ready = [task for task in tasks if task.name not in waiting]
    failures: list[str] = []
    pool_broke = False
    with progress_bar(len(tasks), unit, unit) as bar:
        running: dict[Future[None], Task] = {}
        while ready or running:
            if executor is None:
                task = ready.pop(0)
                error = _failure(task.call)
                finished = [(task, error)]
            else:
                for task in ready:
                    running[_submitted(executor, task)] = task
                ready = []
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                finished = [(running.pop(future), future.exception()) for future in done]
            for task, error in finished:
                bar.update()
                if error is not None:
                    pool_broke = pool_broke or isinstance(error, BrokenExecutor)
                    failures.append(f"{task.name} ({type(error).__name__}: {error})")
                    continue
                freed = [name for name, other in waiting.items() if other.after == task.name]
                ready += [waiting.pop(name) for name in freed]
    if failures:
        raise EvaluationError(_message(len(failures), len(tasks), failures, len(waiting), pool_broke))


def _submitted(executor: Executor, task: Task) -> Future[None]:
    try:
        return executor.submit(task.call)
    except BrokenExecutor as error:  # a worker died since the last submission
        future: Future[None] = Future()
        future.set_exception(error)
        return future


def _failure(call: Callable[[], None]) -> BaseException | None:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - reported together, and no other trajectory is lost
        return error
    return None


def _message(failed: int, total: int, failures: Sequence[str], left: int, pool_broke: bool) -> str:
    text = f"{failed} of {total} tasks failed: {listed(failures)}. "
    if left:
        text += f"{left} that need them were not started. "
    if pool_broke:
        text += (
            "A worker process died: memory may be short, or the pool forks its processes; give "
            'ProcessPoolExecutor(n, mp_context=multiprocessing.get_context("spawn")). '
        )
    return text + "Run it again to continue: what is complete is kept"
