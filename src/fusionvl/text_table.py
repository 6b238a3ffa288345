"""A table of texts as terminal, Markdown or HTML writes it. Knows nothing of what is in it."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Format: TypeAlias = Literal["terminal", "markdown", "html"]
FORMATS: tuple[Format, ...] = ("terminal", "markdown", "html")

_STYLE = (
    "body { font: 15px/1.5 sans-serif; margin: 2em } table { border-collapse: collapse }"
    " th, td { padding: .3em .7em; border-bottom: 1px solid #ccc; text-align: right; white-space: nowrap }"
    " th:first-child, td:first-child { text-align: left }"
)


def aligned(lines: Sequence[Sequence[str]], text_columns: int = 1) -> list[str]:
    """Lines of cells as texts with columns under one another; the first so many are words, the others numbers."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if place < text_columns else text.rjust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int) -> list[str]:
    """The lines of a Markdown table that reads well as text, too."""
    cells = [[text.replace("|", "\\|").replace("\n", " ") for text in line] for line in (header, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * width if place < text_columns else "-" * (width - 1) + ":" for place, width in enumerate(widths)]
    padded = [
        [
            text.ljust(width) if place < text_columns else text.rjust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in (cells[0], rule, *cells[1:])
    ]
    return [f"| {' | '.join(line)} |" for line in padded]


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: One line.
        header: A text for each column.
        rows: As many texts each.
        notes: Sentences below it.
        text_columns: How many of the first columns are words, the others being numbers.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    text_columns: int = 1

    def render(self, form: Format) -> str:
        """As text, ending with a line feed; an HTML table is a page of its own."""
        return {"terminal": self._terminal, "markdown": self._markdown, "html": self._html}[form]()

    def _terminal(self) -> str:
        texts = aligned([self.header, *self.rows], self.text_columns)
        texts.insert(1, "-" * max(map(len, texts)))
        return "\n".join([self.title, "", *texts, *(["", *self.notes] if self.notes else [])]) + "\n"

    def _markdown(self) -> str:
        rows = markdown(self.header, self.rows, self.text_columns)
        notes = [f"* {note}" for note in self.notes]
        return "\n".join([f"**{self.title}**", "", *rows, *(["", *notes] if notes else [])]) + "\n"

    def _html(self) -> str:
        def line(texts: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts) + "</tr>"

        title = html.escape(self.title)
        body = "\n".join(line(row, "td") for row in self.rows)
        notes = "".join(f"<p>{html.escape(note)}</p>\n" for note in self.notes)
        return (
            f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{title}</title>\n'
            f"<style>{_STYLE}</style>\n<h1>{title}</h1>\n"
            f"<table>\n<thead>{line(self.header, 'th')}</thead>\n<tbody>\n{body}\n</tbody>\n</table>\n{notes}</html>\n"
        )
