"""What is on disk survives: torn files, flipped bytes, full disks."""

from __future__ import annotations

import hashlib
import sqlite3
import warnings

import numpy as np
import pytest

from qmmlmm.errors import DataSetError, LoopError, LoopStoreError, QmmlmmWarning
from qmmlmm.geometry import Geometry
from qmmlmm.learning import read_frames
from qmmlmm.learning.labels.data_set import format_frame
from qmmlmm.learning.labels.label_file import MAGIC, LabelFile
from qmmlmm.learning.labels.label_job import CANDIDATE, CLAIMED, FAILED, LABELLED, WAITING, Job
from qmmlmm.learning.loop.loop_identity import check_loop_identity
from qmmlmm.learning.loop.store import LoopStore
from qmmlmm.learning.loop.walker_state import WalkerState

N = 5
LABELS = 6


def geometry(rng) -> Geometry:
    return Geometry(rng.normal(size=(N, 3)), 2.0 * np.eye(3))


def walker(rng) -> WalkerState:
    return WalkerState(geometry(rng), rng.normal(size=(N, 3)))


@pytest.fixture
def filled(tmp_path, rng, make_frame):
    """Return a store with labelled, waiting, claimed and failed jobs, and the texts of its labels."""
    store = LoopStore(tmp_path, N)
    store.enter(0, "sample", {})
    jobs = [Job(0, "start", 0, k, geometry(rng)) for k in range(LABELS + 4)]
    store.add_walker_result(0, 0, walker(rng), jobs, [(10, float("nan"), -1.0, {"d": 0.5})], "step 3: it ran away")
    store.choose(0, range(1, LABELS + 4), "label")
    texts = []
    for job in store.jobs(WAITING)[:LABELS]:
        texts.append(format_frame(make_frame(name=job.name)))
        store.add_label(store.claim(job), texts[-1], 1.5)
    waiting = store.jobs(WAITING)
    store.claim(waiting[0])
    store.give_back(store.claim(waiting[1]), "no convergence", final=True)
    return store, texts


def labels_of(store) -> list[str]:
    return [format_frame(frame) for _, frame in store.labels()]


def reopened(store) -> LoopStore:
    store.close()
    return LoopStore(store.directory, N)


def test_everything_comes_back(filled, tmp_path):
    store, texts = filled
    before = store.jobs()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = reopened(store)
    counts = store.counts()
    assert counts == {CANDIDATE: 0, WAITING: 1, CLAIMED: 1, LABELLED: LABELS, FAILED: 1}
    assert labels_of(store) == texts
    assert store.round() == (0, "label", {})
    assert store.events() == [(0, 0, "step 3: it ran away")]
    ((*_, uncertainty, energy, variables),) = store.trace()
    assert np.isnan(uncertainty)
    assert (energy, variables) == (-1.0, {"d": 0.5})
    for old, new in zip(before, store.jobs(), strict=True):
        assert new.geometry.is_same(old.geometry)
    assert store.walker_state(0, 0).velocities.shape == (N, 3)
    (failed,) = store.jobs(FAILED)
    assert failed.reason == "no convergence"
    assert [format_frame(f) for f in read_frames(tmp_path / "labels.xyz")] == texts


def test_labels_come_in_the_order_of_the_jobs_not_of_their_arrival(tmp_path, rng, make_frame):
    store = LoopStore(tmp_path, N)
    store.enter(0, "sample", {})
    store.add_walker_result(0, 0, WalkerState(geometry(rng)), [Job(0, "start", 0, k, geometry(rng)) for k in range(3)])
    store.choose(0, (1, 2, 3), "label")
    for job in reversed(store.jobs(WAITING)):
        store.add_label(store.claim(job), format_frame(make_frame(name=job.name)), 0.0)
    assert [job.id for job, _ in store.labels()] == [1, 2, 3]
    assert [frame.name for _, frame in store.labels()] == [job.name for job, _ in store.labels()]


@pytest.mark.parametrize("cut", [1, 40, 400])
def test_a_torn_end_of_the_labels_file_is_mended(filled, tmp_path, cut):
    store, texts = filled
    path = tmp_path / "labels.xyz"
    path.write_bytes(path.read_bytes()[:-cut])
    store = reopened(store)
    assert labels_of(store) == texts
    assert sorted(format_frame(f) for f in read_frames(path)) == sorted(texts)


def test_a_changed_byte_in_the_labels_file_is_mended(filled, tmp_path):
    store, texts = filled
    path = tmp_path / "labels.xyz"
    data = bytearray(path.read_bytes())
    data[-200] ^= 1
    path.write_bytes(bytes(data))
    assert labels_of(reopened(store)) == texts
    assert [format_frame(f) for f in read_frames(path)] == texts


def change_last_label(path, texts) -> None:
    """Change one digit of the last label inside the database file."""
    data = bytearray(path.read_bytes())
    piece = texts[-1].splitlines()[-1].encode()[-30:]
    at = data.rindex(piece)
    data[at + 5] = ord("7") if data[at + 5] != ord("7") else ord("8")
    path.write_bytes(bytes(data))


def test_a_label_that_is_damaged_in_the_database_comes_back_from_the_file(filled, tmp_path):
    store, texts = filled
    store.close()
    change_last_label(tmp_path / "loop.sqlite", texts)
    with pytest.warns(QmmlmmWarning, match=f"labels of {LABELS} came back"):
        store = LoopStore(tmp_path, N)
    assert labels_of(store) == texts


def test_a_label_that_is_damaged_in_both_is_made_again_and_the_others_are_kept(filled, tmp_path):
    store, texts = filled
    store.close()
    change_last_label(tmp_path / "loop.sqlite", texts)
    path = tmp_path / "labels.xyz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.warns(QmmlmmWarning, match=f"labels of {LABELS} are made again"):
        store = LoopStore(tmp_path, N)
    assert labels_of(store) == texts[:-1]
    assert LABELS in [job.id for job in store.jobs(WAITING)]
    assert [format_frame(f) for f in read_frames(path)] == texts[:-1]


def leaf_pages(path, table) -> list[int]:
    """Return the pages of a table, from the root on, as SQLite's own virtual table or a search tells."""
    with sqlite3.connect(path) as database:
        (size,) = database.execute("PRAGMA page_size").fetchone()
        (root,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name=?", (table,)).fetchone()
    data = path.read_bytes()
    start = (root - 1) * size
    if data[start] == 0x0D:
        return [root]
    cells = int.from_bytes(data[start + 3 : start + 5], "big")
    pointers = [int.from_bytes(data[start + 12 + 2 * k : start + 14 + 2 * k], "big") for k in range(cells)]
    pages = [int.from_bytes(data[start + p : start + p + 4], "big") for p in pointers]
    return [*pages, int.from_bytes(data[start + 8 : start + 12], "big")]


def test_a_damaged_page_costs_what_is_on_it_alone(filled, tmp_path):
    store, texts = filled
    store.close()
    path = tmp_path / "loop.sqlite"
    pages = leaf_pages(path, "jobs")
    assert len(pages) > 2
    data = bytearray(path.read_bytes())
    size = len(data) // (len(data) // 4096)
    start = (pages[-1] - 1) * size
    data[start : start + size] = b"\xa5" * size
    path.write_bytes(bytes(data))
    with pytest.warns(QmmlmmWarning, match="the damaged file is"):
        store = LoopStore(tmp_path, N)
    kept = labels_of(store)
    assert len(kept) > 0
    assert kept == texts[: len(kept)]
    assert store.round() == (0, "label", {})
    assert (tmp_path / "loop.sqlite.damaged-1").exists()


def test_a_file_that_is_no_database_any_more_says_where_the_labels_are(filled, tmp_path):
    store, texts = filled
    store.close()
    (tmp_path / "loop.sqlite").write_bytes(b"\0" * 40960)
    with pytest.raises(LoopStoreError, match="the labels are safe"):
        LoopStore(tmp_path, N)
    assert [format_frame(f) for f in read_frames(tmp_path / "labels.xyz")] == texts


def test_a_kill_inside_a_transaction_leaves_none_of_it(filled, tmp_path, monkeypatch):
    store, texts = filled
    number_of_jobs = len(store.jobs())
    rng = np.random.default_rng(1)
    with pytest.raises(ZeroDivisionError):
        store.add_walker_result(1, 0, walker(rng), [Job(1, "fresh", 0, 1, geometry(rng))], [(1, 2.0, 1 / 0, {})])
    with pytest.raises(LoopStoreError):  # the walker is there already
        store.add_walker_result(0, 0, walker(rng), [Job(0, "fresh", 0, 1, geometry(rng))])
    assert len(reopened(store).jobs()) == number_of_jobs


def test_space_is_taken_before_a_label_is_made(tmp_path):
    file = LabelFile(tmp_path / "000001.label")
    file.reserve(50_000)
    assert file.path.stat().st_blocks * 512 >= 50_000
    assert file.read() is None
    descriptor = file.acquire(1.0)
    with pytest.raises(TimeoutError, match="locked by another process"):
        LabelFile(file.path).acquire(0.1)
    LabelFile.write(descriptor, "a label", 2.5)
    assert file.read() == ("a label", 2.5)
    data = bytearray(file.path.read_bytes())
    data[60] ^= 1
    file.path.write_bytes(bytes(data))
    assert file.read() is None
    file.remove()
    assert file.acquire(1.0) is None


def test_a_loop_with_other_settings_is_refused_with_what_differs(tmp_path):
    store = LoopStore(tmp_path, N)
    check_loop_identity(store, {"network": {"features": 24}})
    check_loop_identity(store, {"network": {"features": 24}})
    with pytest.raises(LoopError, match="network features: 24 then, 16 now, network layers: None then, 2 now"):
        check_loop_identity(store, {"network": {"features": 16, "layers": 2}})


@pytest.mark.parametrize(
    ("statement", "read", "message"),
    [
        ("UPDATE rounds SET result='{'", lambda store: store.rounds(), "the row of round 0 in the table rounds"),
        ("UPDATE rounds SET result='[]'", lambda store: store.round(), "the row of round 0 in the table rounds"),
        ("UPDATE rounds SET phase='x'", lambda store: store.round(), "the row of round 0 .* phase 'x'"),
        (
            "UPDATE rounds SET result='{\"error\": {}}'",
            lambda store: store.round(),
            "the row of round 0 in the table rounds is damaged .error",
        ),
        ("UPDATE jobs SET variables='{'", lambda store: store.jobs(), "the row of job 1 is damaged"),
        ("UPDATE jobs SET variables=NULL", lambda store: store.jobs(), "the row of job 1 is damaged"),
        ("UPDATE jobs SET geometry=x'00'", lambda store: store.jobs(), "the geometry of job 1 is damaged"),
        ("UPDATE jobs SET geometry='text'", lambda store: store.jobs(), "the geometry of job 1 is damaged"),
        ("UPDATE trace SET variables='{'", lambda store: store.trace(), "a row of trace is damaged"),
        ("DROP TABLE trace", lambda store: store.trace(), "cannot be used: no such table"),
    ],
)
def test_a_damaged_row_is_an_error_that_names_file_and_row(filled, statement, read, message):
    store, _ = filled
    with sqlite3.connect(store.path) as database:
        database.execute(statement)
    with pytest.raises(LoopStoreError, match=message) as caught:
        read(store)
    assert str(store.path) in str(caught.value)
    assert "labels.xyz" in str(caught.value)


def test_a_damaged_identity_is_an_error_that_names_the_file(filled):
    store, _ = filled
    store.put("loop", "{")
    with pytest.raises(LoopStoreError, match=r"loop\.sqlite: the row 'loop' in the table meta is damaged"):
        check_loop_identity(store, {"seed": 1})


def test_a_label_that_is_no_frame_is_an_error_that_names_the_file(filled):
    store, _ = filled
    with sqlite3.connect(store.path) as database:
        database.execute("UPDATE jobs SET label='nonsense' WHERE id=1")
    with pytest.raises(DataSetError, match=r"loop\.sqlite, label of job 1"):
        store.labels()


def test_a_label_file_with_something_else_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "000001.label"
    for payload in (b"nonsense", b"{}", b"[]", b'{"label": "x", "seconds": "y"}'):
        head = MAGIC + len(payload).to_bytes(8, "little") + hashlib.sha256(payload).digest()
        path.write_bytes(head + payload)
        with pytest.raises(LoopStoreError, match=r"000001\.label has no label that this version reads"):
            LabelFile(path).read()
    path.write_bytes(head + payload[:-1])  # its writer was killed: the label is computed again
    assert LabelFile(path).read() is None
    path.unlink()
    path.mkdir()
    with pytest.raises(LoopStoreError, match=r"000001\.label of a label cannot be read"):
        LabelFile(path).read()
