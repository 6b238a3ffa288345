from collections import Counter

import pytest

from fusionvl.synth.fuse import Fuse, FuseSettings
from fusionvl.synth.progress import Price, Progress, Tally
from fusionvl.synth.rows import Row
from fusionvl.synth.supervision import Reporter, Supervisor


def supervisor(fuse=None):
    progress = Progress(100, Tally(), shown=False)
    return Supervisor(progress, Fuse(fuse or FuseSettings(), rows=100)), progress.tally


def row(status="ok", reason="", tokens=0):
    return Row(id="1", kind="SynthColor", status=status, reason=reason, input_tokens=tokens)


def tell(watch):
    watch.found(3, Counter(ok=5))
    watch.spent(row(), row(tokens=2_000_000), Price(input=1.5))
    watch.finished(3, row())
    watch.finished(3, row("rejected", "no good"))


def test_news_from_elsewhere_count_as_much_as_what_happens_here():
    here, tally = supervisor()
    tell(here)
    there, (elsewhere, other) = Reporter(), supervisor()
    tell(there)
    elsewhere.take(there.take())
    elsewhere.take(there.take())  # nothing new
    for each in (tally, other):
        assert str(each) == "6 ok, 1 rejected, 2,000,000 tokens, $3.00"


def test_a_shard_that_is_opened_again_counts_its_rows_once():
    """What made it was lost after it had told of two rows; a third one was in the journal by then."""
    watch, tally = supervisor()
    tell(watch)
    watch.found(3, Counter(ok=7, rejected=1))
    assert tally.rows == {"ok": 7, "rejected": 1}
    watch.finished(3, row())
    watch.found(4, Counter(ok=1))
    assert tally.rows == {"ok": 9, "rejected": 1}


def test_the_fuse_sees_the_rows_of_all_together():
    watch, _ = supervisor(FuseSettings(window=6, max_errors=0.5))
    reporters = [Reporter(), Reporter()]
    for shard, reporter in enumerate(reporters):
        reporter.found(shard, Counter())
        for _ in range(3):
            reporter.finished(shard, row("error", "no answer"))
    watch.take(reporters[0].take())
    with pytest.raises(ValueError, match=r"6 of the last 6 rows are error.*\(6 times\): no answer"):
        watch.take(reporters[1].take())
