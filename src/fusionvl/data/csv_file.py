"""CSV files of questions about pictures: columns `image`, `question` and `answer`, a question with its answer a row.

Each row is a sample of its own, also where several ask about one picture; conversations of several turns are LLaVA
JSON's. Pictures are paths, which are resolved and not opened. A faulty row does not hide the others: it shows when it
is read.
"""

import csv
import functools
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fusionvl.data.record_file import RecordFile

COLUMNS = ("image", "question", "answer")
_BYTE_ORDER_MARK = "\ufeff"


class CsvFile(RecordFile):
    """The rows of a CSV file: UTF-8, commas, a header; its columns in any order, others among them.

    Blanks around a cell do not count.

    Args:
        path: the file.
        image_folder: what image paths are relative to; by default the file's own folder.
    """

    place = ("offset", "length", "line")

    def __init__(self, path: Path, *, image_folder: Path | None = None) -> None:
        super().__init__(path)
        self.image_folder = path.parent if image_folder is None else image_folder

    def scan(self) -> Iterator[tuple[tuple[int, ...], object]]:
        """Yields each row's place and its record, None if it makes none.

        Raises:
            ValueError: if a column is missing, or rows cannot be told apart; names the file and the line.
        """
        _ = self._header
        with self.path.open("rb") as file:
            rows = _cells(line.decode(errors="replace") for line in file)
            begin, line = 0, 1
            try:
                for cells in rows:
                    if cells and begin:  # neither a blank line nor the header
                        yield (begin, file.tell() - begin, line), self._record_or_none(cells, line)
                    begin, line = file.tell(), rows.line_num + 1
            except csv.Error as error:
                raise ValueError(
                    f"{self.path}: line {line}: rows cannot be told apart ({error}): look for a quote that is never "
                    "closed"
                ) from error

    def fetch(self, *place: int) -> object:
        """Reads the row at a place, its image being a path.

        Raises:
            ValueError: if it is not UTF-8, has more or fewer cells than the header, or an empty one; names the line.
        """
        offset, length, line = place
        try:
            text = self.read(offset, length).decode()
            return self._record(next(_cells(io.StringIO(text, newline=""))), line)
        except UnicodeDecodeError as error:
            raise ValueError(f"line {line}: not UTF-8; save the file as CSV in UTF-8") from error
        except ValueError as error:
            raise ValueError(f"line {line}: {error}") from error

    @functools.cached_property
    def _header(self) -> list[str]:
        with self.path.open("rb") as file:
            first = file.readline().decode(errors="replace").removeprefix(_BYTE_ORDER_MARK)
        header = [name.strip() for name in next(_cells([first]), [])]
        if any(header.count(name) != 1 for name in COLUMNS):
            raise ValueError(
                f"{self.path}: line 1: the columns must be {', '.join(COLUMNS)} (UTF-8, with commas between them), "
                f"found {', '.join(header) or 'none'}"
            )
        return header

    def _record_or_none(self, cells: list[str], line: int) -> dict[str, Any] | None:
        try:
            return self._record(cells, line)
        except ValueError:
            return None  # `fetch` says why

    def _record(self, cells: list[str], line: int) -> dict[str, Any]:
        if len(cells) != len(self._header):
            raise ValueError(
                f"{len(cells)} cells where the header has {len(self._header)}; text with a comma in it needs double "
                "quotes around it"
            )
        row = {name: cell.strip() for name, cell in zip(self._header, cells, strict=True)}
        for name in COLUMNS:
            if not row[name]:
                raise ValueError(f"no {name}; fill it in, or take the line out")
        turn = [{"from": "human", "value": row["question"]}, {"from": "gpt", "value": row["answer"]}]
        return {
            "id": f"{self.path.name}:{line}",
            "image": self.image_folder / row["image"],
            "conversations": turn,
        }


def _cells(lines: Iterable[str]) -> Any:
    """Reads lines as rows of cells; the reader's type has no public name."""
    return csv.reader(lines, skipinitialspace=True, strict=True)
