"""Candidate triggers to look at: clean, triggered, and their difference enlarged, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from modelmend.probe.trigger import Trigger

COLUMNS = 4
SIDE = 64
"""Pixels of one image at least; small images are enlarged by whole factors."""


def write_pictures(folder: Path, triggers: Sequence[Trigger], x: Tensor, *, gain: float = 4.0) -> list[Path]:
    """Write one PNG a trigger: rows clean, triggered, and 0.5 + gain x difference; one column a sample.

    Args:
        folder: Existing directory; files are ``trigger<index>.png`` in the order of the triggers.
        triggers: Candidates.
        x: Images ``(N, 1 or 3, H, W)`` in 0..1; nothing is written for other samples.
        gain: Factor on the difference.

    Returns:
        The files.
    """
    if x.dim() != 4 or x.shape[1] not in (1, 3) or not len(x):
        return []
    from PIL import Image

    written = []
    for index, trigger in enumerate(triggers):
        clean = x[:COLUMNS].cpu()
        changed = trigger(clean)
        rows = (clean, changed, (0.5 + gain * (changed - clean)).clamp(0, 1))
        sheet = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
        pixels = (sheet.clamp(0, 1) * 255).round().to(torch.uint8).movedim(0, -1).numpy()
        image = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
        factor = max(1, -(-SIDE // max(1, x.shape[-1])))
        path = folder / f"trigger{index}.png"
        image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST).save(path)
        written.append(path)
    return written
