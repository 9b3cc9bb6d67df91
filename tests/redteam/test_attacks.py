import pytest
import torch

from modelmend.errors import InputError
from modelmend.redteam.attacks import ATTACKS, CORE, HARD

SHAPE, CLASSES = (3, 16, 16), 5
LABEL_CHANGING = sorted(name for name, kind in ATTACKS.items() if not kind.clean_label)


def images(n: int = 100) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(n, 3, 4, 4, generator=generator)
    x = torch.nn.functional.interpolate(coarse, size=16, mode="bilinear")
    return (x * 255).round() / 255, torch.arange(n) % CLASSES


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_registry_holds_the_suites():
    assert set(ATTACKS) == {*CORE, *HARD}
    assert all(name == kind.name for name, kind in ATTACKS.items())


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_trigger_changes_every_image_and_stays_an_8_bit_image(name):
    x, _ = images()
    marked = ATTACKS[name](0, SHAPE, CLASSES).apply(x)
    assert marked.shape == x.shape
    assert ((marked != x).flatten(1).any(1)).all()
    assert marked.min() >= 0 and marked.max() <= 1
    assert torch.allclose(marked * 255, (marked * 255).round(), atol=1e-3)


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_same_seed_same_trigger_other_seed_another(name):
    x, _ = images(20)
    one, same, other = (ATTACKS[name](seed, SHAPE, CLASSES) for seed in (5, 5, 6))
    assert torch.equal(one.apply(x), same.apply(x)) and one.target_class == same.target_class
    assert any(not torch.equal(one.tensors[k], other.tensors[k]) for k in one.tensors) or name == "bpp"


def test_seeds_draw_all_target_classes():
    assert {ATTACKS["badnets"](seed, SHAPE, CLASSES).target_class for seed in range(40)} == set(range(CLASSES))


@pytest.mark.parametrize("name", LABEL_CHANGING)
def test_rate_is_the_share_of_changed_labels(name):
    x, y = images(200)
    attack = ATTACKS[name](0, SHAPE, CLASSES)
    _, poisoned = attack.poison(x, y, 0.1, generator())
    changed = poisoned != y
    assert int(changed.sum()) == 20
    assert torch.equal(poisoned[changed], attack.target(y)[changed])


def test_clean_label_attack_marks_only_the_target_class_and_keeps_labels():
    x, y = images(200)
    attack = ATTACKS["sig"](0, SHAPE, CLASSES, target=2)
    marked, labels = attack.poison(x, y, 0.5, generator())
    touched = (marked != x).flatten(1).any(1)
    assert torch.equal(labels, y)
    assert int(touched.sum()) == 20 and set(y[touched].tolist()) == {2}


def test_all_to_all_sends_each_class_to_the_next():
    attack = ATTACKS["all_to_all"](0, SHAPE, CLASSES)
    assert attack.target(torch.arange(CLASSES)).tolist() == [1, 2, 3, 4, 0]


@pytest.mark.parametrize("name", sorted(name for name, kind in ATTACKS.items() if kind.cover))
def test_cover_samples_are_marked_but_keep_their_label(name):
    x, y = images(200)
    marked, labels = ATTACKS[name](0, SHAPE, CLASSES).poison(x, y, 0.1, generator())
    covered = (marked != x).flatten(1).any(1) & (labels == y)
    assert int(covered.sum()) == round(20 * ATTACKS[name].cover_ratio)


def test_poisoning_leaves_the_original_alone_and_repeats():
    x, y = images()
    before = x.clone(), y.clone()
    attack = ATTACKS["wanet"](0, SHAPE, CLASSES)
    first, second = (attack.poison(x, y, 0.1, generator()) for _ in range(2))
    assert torch.equal(x, before[0]) and torch.equal(y, before[1])
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_sample_specific_pattern_depends_on_the_image():
    x, _ = images(10)
    change = ATTACKS["sample_specific"](0, SHAPE, CLASSES).apply(x) - x
    assert (change[0] - change[1]).abs().max() > 0.02


def test_low_frequency_trigger_is_smooth():
    pattern = ATTACKS["lf"](0, SHAPE, CLASSES).tensors["pattern"]
    power = torch.fft.rfft2(pattern).abs() ** 2
    assert power[:, :3, :3].sum() + power[:, -2:, :3].sum() > 0.9 * power.sum()


def test_dithering_keeps_the_mean_brightness():
    x, _ = images(10)
    marked = ATTACKS["bpp"](0, SHAPE, CLASSES).apply(x)
    assert len(marked.unique()) <= 6
    assert (marked.mean((2, 3)) - x.mean((2, 3))).abs().max() < 0.05


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5, float("nan")])
def test_impossible_rate_is_refused(rate):
    x, y = images()
    with pytest.raises(InputError, match="rate"):
        ATTACKS["badnets"](0, SHAPE, CLASSES).poison(x, y, rate, generator())


def test_non_images_and_foreign_targets_are_refused():
    with pytest.raises(InputError, match="images"):
        ATTACKS["lf"](0, (12,), CLASSES)
    with pytest.raises(InputError, match="target"):
        ATTACKS["lf"](0, SHAPE, CLASSES, target=CLASSES)
