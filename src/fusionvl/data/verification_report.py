"""What verifying a mixture found: counts per source, faulty rows by name, and how long samples are.

Written as `report.json` and `lengths.png`, printed as a table. Knows no files of data and no training.
"""

import io
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from fusionvl.data.extras import import_extra
from fusionvl.data.faults import Fault
from fusionvl.data.sample import Sample
from fusionvl.run_folder import write_whole
from fusionvl.text_table import aligned

# Ten bins for each factor of ten: fine enough to choose a maximal length by, few enough to keep for every source.
LENGTH_EDGES = tuple(int(edge) for edge in np.unique(np.round(np.geomspace(1, 1e7, 71))))


_NAMED_FAULTS = 20  # of each source; all are counted
_COLUMNS = ("rows", "images", "turns", "characters", "tokens", "longest", "corrupt", "over_long")


@dataclass
class SourceReport:
    """What one source holds.

    Attributes:
        name: of the source.
        rows_in_file: all its rows, those not selected among them.
        rows: read: those that take part.
        images: usable rows with an image.
        turns: questions with answers, in usable rows.
        characters: of them.
        tokens: of usable rows.
        longest: most tokens of a row.
        corrupt: rows that cannot be used.
        over_long: rows that are sound but do not fit.
        faulty: the first of both, by name.
        histogram: usable rows by tokens; bin i reaches from `LENGTH_EDGES[i - 1]` to below `LENGTH_EDGES[i]`.
    """

    name: str
    rows_in_file: int = 0
    rows: int = 0
    images: int = 0
    turns: int = 0
    characters: int = 0
    tokens: int = 0
    longest: int = 0
    corrupt: int = 0
    over_long: int = 0
    faulty: list[Fault] = field(default_factory=list)
    histogram: list[int] = field(default_factory=lambda: [0] * (len(LENGTH_EDGES) + 1))

    def count(self, found: tuple[Sample, int] | Fault) -> None:
        """Counts a row: a sample with its tokens, or why it cannot be used."""
        self.rows += 1
        if isinstance(found, Fault):
            self.corrupt += found.kind == "corrupt"
            self.over_long += found.kind == "over-long"
            if len(self.faulty) < _NAMED_FAULTS:
                self.faulty.append(found)
            return
        sample, tokens = found
        self.images += sample.image is not None
        self.turns += len(sample.turns)
        self.characters += sum(len(turn.question) + len(turn.answer) for turn in sample.turns)
        self.tokens += tokens
        self.longest = max(self.longest, tokens)
        self.histogram[int(np.searchsorted(LENGTH_EDGES, tokens, side="right"))] += 1

    def add(self, other: "SourceReport") -> None:
        """Takes in what was found in other rows."""
        for name in ("rows_in_file", "rows", "images", "turns", "characters", "tokens", "corrupt", "over_long"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.longest = max(self.longest, other.longest)
        self.faulty = (self.faulty + other.faulty)[:_NAMED_FAULTS]
        self.histogram = [own + more for own, more in zip(self.histogram, other.histogram, strict=True)]


@dataclass
class MixtureReport:
    """What a mixture holds.

    Attributes:
        sources: in the mixture's order.
    """

    sources: list[SourceReport]

    @property
    def corrupt(self) -> int:
        """Corrupt rows of all sources."""
        return self.total().corrupt

    def total(self) -> SourceReport:
        """The sum over all sources; names no rows."""
        total = SourceReport(name="all")
        for source in self.sources:
            total.add(source)
        return total

    def as_text(self) -> str:
        """The report as a table, with the named faulty rows below it."""
        lines = [["source", *(column.replace("_", "-") for column in _COLUMNS)]]
        for source in [*self.sources, self.total()]:
            lines.append([source.name, *(f"{getattr(source, column):,}" for column in _COLUMNS)])
        return "\n".join(aligned(lines) + self._named_faults())

    def _named_faults(self) -> list[str]:
        lines = []
        for source in self.sources:
            lines += [f"{fault.kind}: {fault}" for fault in source.faulty]
            if unnamed := source.corrupt + source.over_long - len(source.faulty):
                lines.append(f"... and {unnamed:,} more in {source.name}")
        return ["", *lines] if lines else []

    def write(self, folder: Path) -> None:
        """Writes `report.json` and the plot `lengths.png` into a folder, made if it is missing.

        Raises:
            CannotWriteError: if the disk is full, or the folder is no place to write to.
            ModuleNotFoundError: if matplotlib is not installed; `report.json` is written all the same.
        """
        content = {
            "unit": "tokens",
            "all": asdict(self.total()),
            "sources": [asdict(source) for source in self.sources],
            "length_edges": list(LENGTH_EDGES),
        }
        write_whole(folder / "report.json", json.dumps(content, indent=2) + "\n")
        write_whole(folder / "lengths.png", self._plot())

    def _plot(self) -> bytes:
        figures = import_extra("matplotlib.figure", extra="train", needed_for="the plot of lengths")
        figure = figures.Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.add_subplot()
        for source in self.sources:
            if source.rows > source.corrupt + source.over_long:
                # The last bin is open; no sample of a real data set is in it.
                axes.stairs(source.histogram[1:-1], LENGTH_EDGES, label=source.name)
        axes.set(xscale="log", xlabel="length of a sample (tokens)", ylabel="samples", title="Lengths")
        axes.set_xlim(1, max([10, *(1.5 * source.longest for source in self.sources)]))
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
        content = io.BytesIO()
        figure.savefig(content, dpi=120)
        return content.getvalue()
