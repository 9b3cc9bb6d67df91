"""The pictures of a search are drawn from stored data alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from modelmend.errors import InputError
from modelmend.pruning import explanation as stored
from modelmend.pruning.attributes import NAMES
from modelmend.pruning.picture import Excited, draw, draw_samples
from tests.cuts import explanation, graph


@pytest.fixture
def words(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Draws an SVG whose text is text, and returns it."""
    matplotlib = pytest.importorskip("matplotlib")

    def drawn(how: Any, *what: Any) -> str:
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fixed"}):
            how(*what, tmp_path / "picture.svg")
        return (tmp_path / "picture.svg").read_text()

    return drawn


def test_cuts_are_numbered_by_step_and_the_layers_named(words) -> None:  # type: ignore[no-untyped-def]
    text = words(draw, graph(), explanation())
    assert ">1: 5<" in text and ">2: 4<" in text and ">3: 0<" not in text
    assert ">conv1<" in text and ">conv2<" in text
    assert "holds 4 of 10 edges" in text


def test_the_whole_graph_is_not_called_a_part(words) -> None:  # type: ignore[no-untyped-def]
    assert "holds" not in words(draw, {**graph(), "edges_total": 4}, explanation())


def test_a_layer_name_is_no_formula(words) -> None:  # type: ignore[no-untyped-def]
    assert r"$\frac$" in words(draw, {**graph(), "layers": ["conv1", r"$\frac$"]}, explanation())


def test_the_same_data_give_the_same_file_without_the_graph_library(words, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    first = words(draw, graph(), explanation())
    monkeypatch.setitem(sys.modules, "torch_geometric", None)
    assert words(draw, json.loads(json.dumps(graph())), json.loads(json.dumps(explanation()))) == first


def test_an_explanation_without_weights_is_drawn_too(words) -> None:  # type: ignore[no-untyped-def]
    old = explanation()
    del old["probe"]
    assert ">uncut<" in words(draw, graph(), old)


def test_samples_are_captioned_in_their_row(words) -> None:  # type: ignore[no-untyped-def]
    x = torch.rand(3, 8, 8)
    rows = [Excited("group 5", [(x, "2, 1, 1.50")], [(x, 1 - x, "3, 0, 5.00")]), Excited("group 4", [], [])]
    text = words(draw_samples, rows)
    assert all(f">{told}<" in text for told in ("group 5", "2, 1, 1.50", "3, 0, 5.00", "group 4"))
    assert text.count("<image ") == 2


def test_without_matplotlib_the_error_names_the_extra(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError) as error:
        draw(graph(), explanation(), tmp_path / "a.png")
    assert error.value.fix is not None and "modelmend[plots]" in error.value.fix


def searched() -> Any:
    """Evidence with five edges, each both ways; group 2 is cut."""
    pairs = [(0, 1, 0, 0.9), (2, 3, 1, 0.3), (0, 3, 1, 0.8), (0, 2, 0, 0.2), (1, 3, 1, 0.1)]
    index = [[p[0] for p in pairs] + [p[1] for p in pairs], [p[1] for p in pairs] + [p[0] for p in pairs]]
    strength = torch.tensor([p[3] for p in pairs] + [p[3] / 2 for p in pairs])
    raw = torch.zeros(4, len(NAMES))
    raw[:, NAMES.index("depth")] = torch.tensor([0.0, 0.0, 0.0, 1.0])
    x = torch.zeros(4, len(NAMES))
    x[2, NAMES.index("probe contrast")] = 3.5
    return SimpleNamespace(
        graph=SimpleNamespace(
            edge_index=torch.tensor(index),
            edge_type=torch.tensor([p[2] for p in pairs] * 2),
            edge_attr=torch.stack([strength * 0, strength * 0, strength], 1),
            layer=torch.tensor([0, 0, 0, 1]),
        ),
        attributes=SimpleNamespace(x=x, column=lambda name: raw[:, NAMES.index(name)]),
        groups=[SimpleNamespace(layer=name) for name in ("a", "a", "a", "b")],
        chosen=SimpleNamespace(cut=(2,)),
    )


def test_every_pair_is_stored_once_at_its_larger_strength() -> None:
    kept = stored.stored_graph(searched())
    edges = [(e["from"], e["to"], e["type"], round(e["strength"], 3)) for e in kept["edges"]]
    assert edges[:2] == [(2, 3, "flow", 0.3), (0, 2, "similar", 0.2)]  # at the cut, the stronger first
    assert edges[2:] == [(0, 1, "similar", 0.9), (0, 3, "flow", 0.8), (1, 3, "flow", 0.1)]
    assert kept["edges_total"] == 5
    assert kept["layers"] == ["a", "b"]
    assert kept["nodes"][2:] == [
        {"layer": 0, "depth": 0.0, "contrast": 3.5}, {"layer": 1, "depth": 1.0, "contrast": 0.0}
    ]  # fmt: skip
    json.dumps(kept, allow_nan=False)


def test_a_large_graph_is_cut_down_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "STORED_EDGES", 3)
    kept = stored.stored_graph(searched())
    assert [(e["from"], e["to"]) for e in kept["edges"]] == [(2, 3), (0, 2), (0, 1)]
    assert kept["edges_total"] == 5
