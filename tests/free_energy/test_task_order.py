"""Tasks that need others: their order, and what becomes of them if one fails."""

from __future__ import annotations

import functools
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor

import pytest

from qmmlmm.errors import EvaluationError
from qmmlmm.free_energy.task_order import Task, run_tasks


def tasks_of(done, failing=()):
    def call(name):
        if name in failing:
            raise ValueError(f"{name} went wrong")
        done.append(name)

    def task(name, after=None):
        return Task(name, functools.partial(call, name), after)

    return [task("b", "a"), task("c", "b"), task("a"), task("d"), task("e", "not in the list")]


@pytest.mark.parametrize("threads", [0, 3])
def test_a_task_runs_after_the_one_that_it_needs(threads):
    done = []
    if threads:
        with ThreadPoolExecutor(threads) as executor:
            run_tasks(tasks_of(done), executor, "task")
    else:
        run_tasks(tasks_of(done), None, "task")
    assert sorted(done) == ["a", "b", "c", "d", "e"]
    assert done.index("a") < done.index("b") < done.index("c")


def test_after_a_failure_all_others_are_run_except_those_that_need_it():
    done = []
    with pytest.raises(EvaluationError, match=r"1 of 5 tasks failed: b \(ValueError: b went wrong\). 1 that need them"):
        run_tasks(tasks_of(done, failing=["b"]), None, "task")
    assert sorted(done) == ["a", "d", "e"]


class Broken(Executor):
    """An executor whose worker has died."""

    def submit(self, call):
        raise BrokenExecutor("a child process terminated abruptly")


class Dies(Executor):
    """An executor whose worker dies with the first task."""

    def submit(self, call):
        future = Future()
        future.set_exception(BrokenExecutor("a child process terminated abruptly"))
        return future


@pytest.mark.parametrize("kind", [Broken, Dies])
def test_a_dead_worker_is_named_with_what_to_do(kind):
    with pytest.raises(EvaluationError, match="A worker process died: .*get_context.*spawn.* Run it again to continue"):
        run_tasks(tasks_of([]), kind(), "task")
