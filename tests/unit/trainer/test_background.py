"""Work beside the training: in order, the newest of what waits, nothing left behind."""

import threading
from pathlib import Path

from loraland_trainer.background import Background

LIMIT_S = 60


def test_the_newest_of_what_waits_is_done_after_what_runs() -> None:
    """The caller is never held up; what was replaced is dropped."""
    done: list[int] = []
    dropped: list[int] = []
    begun, may_end = threading.Event(), threading.Event()

    def work(number: int, folder: Path) -> None:
        begun.set()
        assert may_end.wait(LIMIT_S)
        done.append(number)

    background = Background(work, drop=lambda number, _: dropped.append(number))
    background.put(1, Path("1"))
    assert begun.wait(LIMIT_S)
    for number in (2, 3, 4):
        background.put(number, Path(str(number)))
    seen = (list(done), list(dropped))
    may_end.set()
    background.wait()

    assert seen == ([], [2, 3])
    assert (done, dropped) == ([1, 4], [2, 3])


def test_work_can_come_after_a_pause() -> None:
    """The thread ends with the work; more work starts another."""
    done: list[int] = []
    background = Background(lambda number, _: done.append(number), drop=lambda *_: None)

    background.wait()
    background.put(1, Path())
    background.wait()
    background.put(2, Path())
    background.wait()

    assert done == [1, 2]
