"""Domain match: real samples match, foreign ones do not, few ones are not decided."""

import pytest
import torch
from torch.nn.functional import avg_pool2d

from modelmend.domain.match import DomainMatch, domain_match, shifted
from modelmend.domain.norms import hellinger, resamplings
from modelmend.domain.signals import observe
from modelmend.errors import SamplesError
from modelmend.samples.data import make_samples


def part(match, name):
    return next(p for p in match.parts if p.name == name)


def moved(samples, change):
    return make_samples(change(samples.x), samples.y, source="changed")


def permuted(x):
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    return x.flatten(2)[:, :, order].reshape(x.shape)


def noise(x):
    return torch.rand(x.shape, generator=torch.Generator().manual_seed(99))


def stripes(x):
    """Another data set: bars of random place and width, labelled as the digits are."""
    g = torch.Generator().manual_seed(2)
    start, width = torch.randint(0, 6, (len(x), 1), generator=g), torch.randint(1, 4, (len(x), 1), generator=g)
    columns = torch.arange(8)
    bars = ((columns >= start) & (columns < start + width)).float()
    return (bars[:, None, None, :].expand(x.shape) * 0.8 + 0.1).contiguous()


@pytest.mark.parametrize("count", [60, 797])
def test_real_digits_match(classifier, held_out, count):
    match = domain_match(classifier, held_out.subset(range(count)))
    assert match.outcome == "match", match.reason
    assert match.score.low > 0.5
    assert match.score.low <= match.score.value <= match.score.high
    assert part(match, "structure").outcome == "match"
    assert match.samples == count


@pytest.mark.parametrize(
    "change", [noise, permuted, stripes, lambda x: 1 - x], ids=["noise", "permuted", "other", "inverted"]
)
@pytest.mark.parametrize("count", [60, 797])
def test_foreign_samples_do_not_match(classifier, held_out, change, count):
    match = domain_match(classifier, moved(held_out.subset(range(count)), change))
    assert match.outcome == "mismatch", match.reason
    assert match.score.high < 0.5


def test_batch_norm_sees_a_shift_that_labels_hide(classifier, held_out):
    dim = domain_match(classifier, moved(held_out, lambda x: x * 0.7))
    assert part(dim, "agreement").outcome == "match"
    if part(dim, "batch_norm").outcome == "not_run":
        assert any("without batch norm" in words for words in dim.undecidable)
    else:
        assert dim.outcome == "mismatch"
        assert "batch_norm" in dim.reason


def test_shuffled_noise_looks_like_noise(classifier, held_out):
    assert part(domain_match(classifier, moved(held_out, noise)), "structure").outcome == "inconclusive"


def test_missing_classes_are_named_not_judged(classifier, held_out):
    few = held_out.subset((held_out.y < 5).nonzero().flatten())
    match = domain_match(classifier, few)
    assert match.outcome == "inconclusive"
    assert "classes 5, 6, 7, 8, 9" in match.reason


def test_few_samples_widen_the_interval(classifier, held_out):
    wide, narrow = (part(domain_match(classifier, held_out.subset(range(n))), "agreement").measured for n in (25, 797))
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_same_seed_same_record(classifier, held_out, tmp_path):
    match = domain_match(classifier, held_out, seed=3)
    assert match == domain_match(classifier, held_out, seed=3)
    match.write(tmp_path / "domain.json")
    assert DomainMatch.read(tmp_path / "domain.json") == match


def test_the_model_is_left_as_it_was(classifier, held_out):
    before = {name: value.clone() for name, value in classifier.graph.state_dict().items()}
    domain_match(classifier, held_out)
    assert all(torch.equal(value, before[name]) for name, value in classifier.graph.state_dict().items())


def test_no_samples_is_an_error(classifier, held_out):
    with pytest.raises(SamplesError, match="no samples"):
        domain_match(classifier, held_out.subset([]))


def test_signals_equal_the_model(classifier, held_out):
    x = held_out.x[:150]
    signals = observe(classifier, x)
    assert torch.allclose(signals.logits, classifier(x).detach(), atol=1e-5)
    weight, bias = (classifier.graph.get_parameter(f"8.{name}") for name in ("weight", "bias"))
    assert torch.allclose(signals.features @ weight.T + bias, signals.logits, atol=1e-4)
    assert len(signals.norms) == sum("batch_norm" in str(n.target) for n in classifier.graph.graph.nodes)


def test_signals_see_the_input_of_batch_norm(classifier, held_out):
    signals = observe(classifier, held_out.x)
    if signals.norms:
        first = torch.conv2d(
            held_out.x, classifier.graph.get_parameter("0.weight"), classifier.graph.get_parameter("0.bias"), padding=1
        )
        assert torch.allclose(signals.norms[0].seen_mean, first.mean((2, 3)), atol=1e-5)
        assert torch.allclose(signals.norms[0].seen_square, first.square().mean((2, 3)), atol=1e-4)


def test_training_with_shifts_is_allowed_for(classifier, held_out):
    moved_norms = observe(classifier, shifted(held_out.x, torch.Generator().manual_seed(5))).norms
    if not moved_norms:
        return
    trained = classifier.clone()
    nodes = [n for n in trained.graph.graph.nodes if "batch_norm" in str(n.target)]
    for node, layer in zip(nodes, moved_norms, strict=True):
        mean, square = layer.seen_mean.mean(0), layer.seen_square.mean(0)
        trained.graph.get_buffer(node.args[3].target).copy_(mean)
        trained.graph.get_buffer(node.args[4].target).copy_(square - mean**2)
    found = part(domain_match(trained, held_out), "batch_norm")
    assert found.detail.startswith("samples shifted")
    assert found.outcome == "match"
    assert part(domain_match(classifier, held_out), "batch_norm").detail.startswith("samples as they are")


def test_shifting_fills_with_zeros_and_keeps_the_rest():
    x = torch.rand(50, 2, 16, 8, generator=torch.Generator().manual_seed(0)) + 1
    out = shifted(x, torch.Generator().manual_seed(1))
    assert out.shape == x.shape
    centre = out[:, :, 2:-2, 1:-1]
    assert bool((centre > 0).all())
    assert len({int((row > 0).sum()) for row in out}) > 3
    assert all(set(b[b > 0].tolist()) <= set(a.flatten().tolist()) for a, b in zip(x, out, strict=True))


def test_hellinger_is_a_distance_of_normals():
    one = torch.tensor(1.0)
    assert float(hellinger(one, one, one, one)) == pytest.approx(0, abs=1e-6)
    assert float(hellinger(0 * one, one, 100 * one, one)) == pytest.approx(1)
    assert float(hellinger(0 * one, one, one, 4 * one)) == pytest.approx(
        1 - (4 / 5) ** 0.5 * 2.718281828 ** (-1 / 20), abs=1e-4
    )


def test_groups_are_resampled_whole():
    weights = resamplings(torch.tensor([0, 0, 1, 2, 2, 2]), 50, 0)
    assert torch.allclose(weights.sum(1), torch.ones(50))
    assert torch.equal(weights[:, 0], weights[:, 1])
    assert torch.equal(weights[:, 3], weights[:, 5])
    assert (weights[:, 2] == 0).any()


def test_blurred_images_lower_the_score(classifier, held_out):
    blurred = domain_match(classifier, moved(held_out, lambda x: avg_pool2d(x, 3, 1, 1)))
    assert blurred.score.value < domain_match(classifier, held_out).score.value
