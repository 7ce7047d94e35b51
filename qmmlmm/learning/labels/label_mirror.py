"""All labels of a loop in one extended XYZ file, for ASE and `qmmlmm train`."""

from __future__ import annotations

import os
from pathlib import Path

from qmmlmm.durable_files import checksum, replace_file


class LabelMirror:
    """A file to which labels are appended.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, str]:
        """Return the complete frames by their checksum."""
        if not self.path.exists():
            return {}
        lines = self.path.read_bytes().decode("ascii", errors="replace").splitlines(keepends=True)
        frames: dict[str, str] = {}
        at = 0
        while at < len(lines):
            count = lines[at].strip()
            end = at + 2 + int(count) if count.isdigit() and len(count) < 9 else at
            if at < end <= len(lines) and "Properties=" in lines[at + 1] and lines[end - 1].endswith("\n"):
                text = "".join(lines[at:end])
                frames[checksum(text)] = text
                at = end
            else:
                at += 1
        return frames

    def append(self, text: str) -> None:
        """Add a frame; the file is unchanged if the disk is full."""
        with open(self.path, "ab") as file:
            size = file.seek(0, os.SEEK_END)
            try:
                file.write(text.encode("ascii"))
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), size)
                raise

    def make_equal(self, texts: list[str]) -> None:
        """Make the file hold exactly these frames: append missing ones, or rewrite it if it has others."""
        content = "".join(texts).encode("ascii")
        present = self.path.read_bytes() if self.path.exists() else b""
        copies = self.read()
        if sum(len(frame) for frame in copies.values()) == len(present):
            missing = [text for text in texts if checksum(text) not in copies]
            if len(texts) - len(missing) == len(copies):
                for text in missing:
                    self.append(text)
                return
        replace_file(self.path, content)
