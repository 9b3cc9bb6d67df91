import pytest
import torch
from benchmarks.baselines import BASELINES
from benchmarks.baselines.clp import channel_lipschitz_pruning
from benchmarks.baselines.graph import norms, tensor
from benchmarks.cases import Case, read_cases
from benchmarks.measure import final_measurement
from benchmarks.parts import NotApplicableError, Parts, divide

from modelmend.editing.layers import set_batch_norm_training
from modelmend.model.architectures import ARCHITECTURES
from modelmend.model.classifier import Classifier
from modelmend.model.export import export_module
from modelmend.records import Preprocessing


@pytest.fixture(scope="module")
def case() -> Case:
    return read_cases("smoke", None, None)[0]


@pytest.fixture(scope="module")
def parts(case) -> Parts:
    return divide(case.pool, 0)


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_method_leaves_the_suspect_alone_and_repeats(name, case, parts):
    suspect = case.classifier()
    before = {key: value.clone() for key, value in suspect.graph.state_dict().items()}
    effort = 0.01 if name == "anp" else 0.04
    one, two = (BASELINES[name](suspect, parts, 3, effort=effort) for _ in range(2))
    assert all(torch.equal(value, before[key]) for key, value in suspect.graph.state_dict().items())
    x = case.x_final
    assert torch.equal(one.predict(x), two.predict(x))
    assert final_measurement(case, one).acc > 0.5


@pytest.mark.parametrize("name", ["fine-tuning", "ft-sam", "i-bau", "fine-pruning"])
def test_method_changes_the_weights(name, case, parts):
    suspect = case.classifier()
    repaired = BASELINES[name](suspect, parts, 0, effort=0.02)
    pairs = zip(suspect.graph.parameters(), repaired.graph.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_clp_cuts_exactly_the_channel_made_an_outlier(case, parts):
    suspect = case.classifier()
    layer = norms(suspect.graph)[1]
    with torch.no_grad():
        tensor(suspect.graph, layer.weight)[5] = 100.0
    repaired = channel_lipschitz_pruning(suspect, parts, 0)
    cut = (tensor(repaired.graph, layer.weight) == 0) & (tensor(suspect.graph, layer.weight) != 0)
    assert torch.nonzero(cut).flatten().tolist() == [5]
    assert tensor(repaired.graph, layer.bias)[5] == 0


def test_methods_that_need_batch_norm_say_so(parts):
    module = ARCHITECTURES["vit_tiny"](1, 10, 8).eval()
    plain = Classifier(export_module(module, (1, 8, 8)), Preprocessing(), 10)
    for name in ("clp", "anp", "fine-pruning"):
        with pytest.raises(NotApplicableError):
            BASELINES[name](plain, parts, 0, effort=0.01)


def test_training_mode_uses_and_updates_batch_statistics(case):
    graph = case.classifier().graph
    layer = norms(graph)[0]
    x = case.pool.x[:64]
    stored = tensor(graph, layer.mean).clone()
    with torch.no_grad():
        before = graph(x)
        set_batch_norm_training(graph, True)
        assert not torch.allclose(graph(x), before)
        assert not torch.equal(tensor(graph, layer.mean), stored)
        tensor(graph, layer.mean).copy_(stored)
        moved = graph(x)
        set_batch_norm_training(graph, False)
        assert torch.equal(graph(x), graph(x)) and moved.shape == before.shape
