"""A folder of images with one sub-folder a class."""

from __future__ import annotations

from pathlib import Path

import torch

from modelmend.errors import SamplesError
from modelmend.samples.data import Samples, make_samples
from modelmend.samples.image import EXTENSIONS
from modelmend.samples.stack import ImageStack, Want

CLASSES_FILE = "classes.txt"


def read_folder(folder: Path, want: Want, source: str) -> Samples:
    """Images from ``folder/<class>/...``; the class number is the place of the name in the sorted names.

    A file ``classes.txt`` beside the class folders, one name a line, gives another order (and may name classes
    that have no folder). Names starting with a dot are skipped.

    Raises:
        SamplesError: no class folders, no images, an unreadable image (named), or a folder that ``classes.txt`` omits.
    """
    found = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not found:
        loose = any(p.suffix.lower() in EXTENSIONS for p in folder.iterdir())
        raise SamplesError(
            "the directory has no class folders" + (" (images lie in it directly)" if loose else ""),
            where=source,
            fix="put the images into one sub-folder a class, or give a .parquet or .npz file",
        )
    classes = _classes(folder, found, source)
    files = [(label, path) for label, name in enumerate(classes) for path in _images(folder / name)]
    if not files:
        raise SamplesError(
            "the class folders hold no images", where=source, fix=f"store {', '.join(sorted(EXTENSIONS))} files"
        )
    stack = ImageStack(len(files), want, source, "image")
    for index, (_, path) in enumerate(files):
        stack.add(index, path, f"row {index} ({path.relative_to(folder).as_posix()})")
    labels = torch.tensor([label for label, _ in files])
    return make_samples(stack.tensor(), labels, source=source, classes=classes)


def _classes(folder: Path, found: list[str], source: str) -> list[str]:
    listing = folder / CLASSES_FILE
    if not listing.is_file():
        return found
    names = [line.strip() for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
    missing = sorted(set(found) - set(names))
    if missing or len(set(names)) != len(names):
        what = f"does not name the folder {missing[0]!r}" if missing else "names a class twice"
        raise SamplesError(
            f"{CLASSES_FILE} {what}", where=source, field=CLASSES_FILE, fix="list every class folder once"
        )
    return names


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix.lower() in EXTENSIONS)
