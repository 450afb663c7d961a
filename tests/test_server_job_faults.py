"""Jobs after faults, and under clocks that are put back: tried again, never lost, and no budget twice."""

from tacit.bank.base import Bank
from tacit.server.learner.jobs import FIRST_PAUSE, MAX_ATTEMPTS, JobQueue
from test_server_jobs import Clock, bank, key_for, put

__all__ = ["bank"]


def test_a_setback_pauses_the_job_and_the_last_one_fails_it(bank: Bank) -> None:
    clock = Clock()
    queue, key = JobQueue(bank, clock), key_for(bank)
    put(queue, key, "a")
    for attempt in range(1, MAX_ATTEMPTS + 1):
        [job] = queue.claim("w", 60, 1)
        assert job.attempts == attempt
        assert not queue.setback(job, "v", "not mine") and queue.setback(job, "w", "RuntimeError: shapes")
        assert queue.release("w") == 0 and queue.claim("w", 60, 1) == []  # it pauses, or has failed
        clock.now += FIRST_PAUSE * 4 ** (attempt - 1)
    [failed] = queue.list("home", states=["failed"])
    assert failed.error == f"given up after {MAX_ATTEMPTS} attempts: RuntimeError: shapes"
    assert queue.claim("w", 60, 1) == [] and queue.retry(failed.id, "home") is not None
    [job] = queue.claim("w", 60, 1)
    assert job.attempts == 1 and queue.finish(job, "w", None, "done")
    assert queue.list("home")[0].error is None


HOUR = 3600.0


def test_a_clock_put_back_neither_blocks_claims_nor_breaks_leases(bank: Bank) -> None:
    clock = Clock()
    queue, key = JobQueue(bank, clock), key_for(bank)
    put(queue, key, "left behind", "paused", "being learned")
    [dead, paused, alive] = queue.claim("w", 60, 3)
    assert queue.setback(paused, "w", "a fault")
    clock.now -= HOUR
    assert queue.extend([alive], "w", 60) == {alive.id}  # its worker lives, and says so by the new clock
    assert {job.id for job in queue.claim("v", 60, 9)} == {dead.id, paused.id}
    assert queue.claim("u", 60, 9) == []  # and what was claimed by the new clock is kept
    assert not queue.finish(dead, "w", None, "late") and queue.finish(alive, "w", None, "done")


def test_clocks_that_differ_a_little_break_no_lease(bank: Bank) -> None:
    clock = Clock()
    queue, key = JobQueue(bank, clock), key_for(bank)
    put(queue, key, "a")
    assert queue.claim("w", 60, 1)
    clock.now -= 59  # another machine's clock
    assert queue.claim("v", 60, 1) == []


def test_a_clock_put_back_over_midnight_hands_out_no_budget_anew(bank: Bank) -> None:
    clock = Clock()
    queue, key = JobQueue(bank, clock), key_for(bank, learn_per_day=2)
    clock.now += 12 * HOUR + 60  # a minute after midnight
    put(queue, key, "a", "b")
    clock.now -= HOUR
    refused = queue.submit("home", "c", key)
    assert refused.job is None and "spent" in refused.why
    clock.now += 25 * HOUR
    assert queue.submit("home", "c", key).job is not None
