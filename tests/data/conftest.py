"""Small data sets on disk, in every form a source can have."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image


def record(number, *, image=None, turns=1, words=1):
    """A LLaVA record whose texts tell which it is."""
    conversations = []
    for turn in range(turns):
        conversations.append({"from": "human", "value": f"question {number}.{turn} " + "word " * words})
        conversations.append({"from": "gpt", "value": f"answer {number}.{turn}"})
    made = {"id": f"id-{number}", "conversations": conversations}
    return made if image is None else {**made, "image": image}


def png(colour=(200, 0, 0), size=4):
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(buffer, "png")
    return buffer.getvalue()


class Files:
    """Writes data sets; every second row of a LLaVA file has an image, longer rows have more words."""

    record = staticmethod(record)
    png = staticmethod(png)

    def __init__(self, folder: Path):
        self.folder = folder

    def llava(self, name, rows, *, records=None):
        path = self.folder / name
        (self.folder / "image.png").write_bytes(png())
        if records is None:
            records = [record(n, image="image.png" if n % 2 else None, words=1 + (n * 7) % 50) for n in range(rows)]
        if path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(made) + "\n" for made in records))
        else:
            path.write_text(json.dumps(records))
        return path

    def tar(self, name, rows, *, members=None):
        path = self.folder / name
        if members is None:
            members = []
            for n in range(rows):
                members.append((f"shard/{n:04}.json", json.dumps(record(n)).encode()))
                if n % 2:
                    members.append((f"shard/{n:04}.png", png((n, 0, 0))))
        with tarfile.open(path, "w") as archive:
            for member, content in members:
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return path

    def parquet(self, name, rows, *, struct=True, row_group_size=3):
        arrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        path = self.folder / name
        made = [record(n, turns=1 + n % 3) for n in range(rows)]
        images = [png((n, 0, 0)) if n % 2 else None for n in range(rows)]
        if struct:
            images = [None if content is None else {"bytes": content, "path": "x.png"} for content in images]
        table = arrow.table(
            {
                "id": [one["id"] for one in made],
                "conversations": [one["conversations"] for one in made],
                "image": images,
            }
        )
        parquet.write_table(table, path, row_group_size=row_group_size)
        return path


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)
