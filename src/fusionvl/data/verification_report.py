"""What verifying a mixture found: counts per source, faulty rows by name, and how long samples are.

Written as `report.json` and `lengths.png`, printed as a table. Knows no files of data and no training.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fusionvl.data.extras import import_extra
from fusionvl.data.sample import Sample

# Ten bins for each factor of ten: fine enough to choose a maximal length by, few enough to keep for every source.
LENGTH_EDGES = tuple(int(edge) for edge in np.unique(np.round(np.geomspace(1, 1e7, 71))))


@dataclass(frozen=True)
class FaultyRow:
    """A row that cannot be used.

    Attributes:
        row: of the source.
        id: the sample's id, or None if the row could not be read so far.
        kind: `corrupt`, or `over-long` for a sound sample that does not fit.
        reason: what is wrong.
    """

    row: int
    id: str | None
    kind: Literal["corrupt", "over-long"]
    reason: str


@dataclass
class SourceReport:
    """What one source holds.

    Attributes:
        name: of the source.
        rows_in_file: all its rows, those not selected among them.
        listed: most faulty rows to name.
        rows: read: those that take part.
        images: usable rows with an image.
        turns: questions with answers, in usable rows.
        characters: of them.
        tokens: of usable rows; 0 where they were not counted.
        longest: greatest length, in the report's unit.
        corrupt: rows that cannot be used.
        over_long: rows that are sound but do not fit.
        faulty: the first of both, by name.
        histogram: usable rows by length; bin i reaches from `LENGTH_EDGES[i - 1]` to below `LENGTH_EDGES[i]`.
    """

    name: str
    rows_in_file: int
    listed: int
    rows: int = 0
    images: int = 0
    turns: int = 0
    characters: int = 0
    tokens: int = 0
    longest: int = 0
    corrupt: int = 0
    over_long: int = 0
    faulty: list[FaultyRow] = field(default_factory=list)
    histogram: list[int] = field(default_factory=lambda: [0] * (len(LENGTH_EDGES) + 1))

    def count(self, sample: Sample, tokens: int | None) -> None:
        """Counts a usable row; without a number of tokens its length is in characters."""
        characters = sum(len(turn.question) + len(turn.answer) for turn in sample.turns)
        length = characters if tokens is None else tokens
        self.rows += 1
        self.images += sample.image is not None
        self.turns += len(sample.turns)
        self.characters += characters
        self.tokens += tokens or 0
        self.longest = max(self.longest, length)
        self.histogram[int(np.searchsorted(LENGTH_EDGES, length, side="right"))] += 1

    def count_fault(self, fault: FaultyRow) -> None:
        """Counts a row that cannot be used, and names it while there is room."""
        self.rows += 1
        if fault.kind == "corrupt":
            self.corrupt += 1
        else:
            self.over_long += 1
        if len(self.faulty) < self.listed:
            self.faulty.append(fault)

    def add(self, other: "SourceReport") -> None:
        """Takes in what was found in later rows of the same source."""
        for name in ("rows", "images", "turns", "characters", "tokens", "corrupt", "over_long"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.longest = max(self.longest, other.longest)
        self.faulty = (self.faulty + other.faulty)[: self.listed]
        self.histogram = [own + more for own, more in zip(self.histogram, other.histogram, strict=True)]


@dataclass
class MixtureReport:
    """What a mixture holds.

    Attributes:
        sources: in the mixture's order.
        unit: of the lengths: tokens or characters.
    """

    sources: list[SourceReport]
    unit: Literal["tokens", "characters"]

    @property
    def corrupt(self) -> int:
        """Corrupt rows of all sources."""
        return sum(source.corrupt for source in self.sources)

    @property
    def over_long(self) -> int:
        """Over-long rows of all sources."""
        return sum(source.over_long for source in self.sources)

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON holds it, with the sum over all sources."""
        summed = SourceReport(name="all", rows_in_file=sum(source.rows_in_file for source in self.sources), listed=0)
        for source in self.sources:
            summed.add(source)
        return {
            "unit": self.unit,
            "all": asdict(summed),
            "sources": [asdict(source) for source in self.sources],
            "length_edges": list(LENGTH_EDGES),
        }

    def as_text(self) -> str:
        """The report as a table, with the named faulty rows below it."""
        columns = ["rows", "images", "turns", "characters", "tokens", "longest", "corrupt", "over_long"]
        if self.unit == "characters":
            columns.remove("tokens")
        content = self.as_dict()
        lines = [["source", *(column.replace("_", "-") for column in columns)]]
        lines += [[line["name"], *(f"{line[c]:,}" for c in columns)] for line in [*content["sources"], content["all"]]]
        widths = [max(len(line[number]) for line in lines) for number in range(len(lines[0]))]
        table = [
            "  ".join(
                text.ljust(width) if number == 0 else text.rjust(width)
                for number, (text, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        return "\n".join(table + self._named_faults())

    def _named_faults(self) -> list[str]:
        lines = []
        for source in self.sources:
            for fault in source.faulty:
                named = "" if fault.id is None else f" (id {fault.id!r})"
                lines.append(f"{fault.kind}: {source.name}, row {fault.row}{named}: {fault.reason}")
            if unnamed := source.corrupt + source.over_long - len(source.faulty):
                lines.append(f"... and {unnamed:,} more in {source.name}")
        return ["", *lines] if lines else []

    def write(self, folder: Path) -> None:
        """Writes `report.json` and the plot `lengths.png` into a folder, made if it is missing.

        Raises:
            ModuleNotFoundError: if matplotlib is not installed; `report.json` is written all the same.
        """
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.as_dict(), indent=2)
        (folder / "report.json").write_text(text + "\n", encoding="utf-8")
        self._plot(folder / "lengths.png")

    def _plot(self, path: Path) -> None:
        figures = import_extra("matplotlib.figure", extra="train", needed_for="the plot of lengths")
        figure = figures.Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.add_subplot()
        for source in self.sources:
            if source.rows > source.corrupt + source.over_long:
                # The last bin is open; no sample of a real data set is in it.
                axes.stairs(source.histogram[1:-1], LENGTH_EDGES, label=source.name)
        axes.set(xscale="log", xlabel=f"length of a sample ({self.unit})", ylabel="samples", title="Lengths")
        longest = max((source.longest for source in self.sources), default=1)
        axes.set_xlim(1, max(10, 1.5 * longest))
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
        figure.savefig(path, dpi=120)
