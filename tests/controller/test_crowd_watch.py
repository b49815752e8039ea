"""What the log has of a switch that cannot keep up."""

from __future__ import annotations

import logging

import pytest

from ryu_lw4o6 import crowd_watch
from ryu_lw4o6.crowd_watch import CrowdWatch, as_usual
from tests.rules.samples import instance

FEWER = "lwaftr1: the switch cannot keep up: fewer new lwB4s get in"
USUAL = "lwaftr1: as many new lwB4s get in as usual"


def test_a_storm_is_one_pair_of_lines(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    watch = CrowdWatch(instance(), as_usual)
    for share in (1.0, 0.7, 0.49, 1.0, 1.0, 0.7, 1.0):
        watch._note(share, 1.0)
        assert watch.share == share
    assert caplog.messages == [FEWER]
    monkeypatch.setattr(crowd_watch, "QUIET_SECONDS", 0.0)
    watch._note(1.0, 1.0)
    watch._note(1.0, 1.0)
    assert caplog.messages == [FEWER, USUAL]


def test_who_is_kept_out_for_another_reason_is_no_sign_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    watch = CrowdWatch(instance(), as_usual)
    for share, enough in ((0.02, 0.02), (5.0, 1.0), (1.0, 1.0)):
        watch._note(share, enough)
    assert caplog.messages == []
    watch._note(0.01, 0.02)
    assert caplog.messages == [FEWER]
