"""Progress: elsewhere than on a terminal a line for what is new, and one a minute for what is not."""

import re
import time

import pytest

from pags.cli.progress import SECONDS_BETWEEN_LINES, ProgressLine


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_line_for_each_job_and_one_a_minute(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLine() as progress:
        for second in range(150):
            clock.now = 1000.0 + second
            progress("first" if second < 130 else "second", second / 1000)
    lines = capsys.readouterr().out.splitlines()
    assert [re.sub(r" \(.*", "", line) for line in lines] == [
        "[  0%] first", "[  6%] first", "[ 12%] first", "[ 13%] second",
    ]  # fmt: skip
    assert SECONDS_BETWEEN_LINES == 60


def test_time_left_counts_from_where_the_run_began(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """Half was done before: ten seconds for a quarter of the whole leave ten more."""
    with ProgressLine() as progress:
        progress.begun_at(0.5)
        progress.begun_at(0.6)  # the first word counts
        clock.now += 10
        progress("training", 0.75)
    assert capsys.readouterr().out == "[ 75%] training (about 0 min 10 s left)\n"
