"""What a row goes through, one step after the other. Each says by itself whether a row still needs it.

Knows no backend and no files.
"""

from typing import Protocol

from fusionvl.synth.progress import Price
from fusionvl.synth.rows import Row


class Step(Protocol):
    """One step of making a row.

    Whatever goes wrong with one row is said in the row it returns (`Row.failed`, `Row.rejected`). It raises only what
    concerns every row: a ValueError for wrong settings or credentials, an OSError for a disk that is full.

    Attributes:
        price: Of the tokens it reads and writes.
    """

    price: Price

    def is_done(self, row: Row) -> bool:
        """Whether the row has what this step brings."""

    async def run(self, row: Row, shard: int) -> Row:
        """Carry out the step for a row of a shard."""

    def close(self) -> None:
        """Give back connections and processes; the step may not be used after that."""
