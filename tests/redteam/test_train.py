import copy

import pytest
import torch

from modelmend.errors import InputError
from modelmend.redteam.digits import digits_recipe, digits_split, train_infected_digits
from modelmend.redteam.sealed import PURPOSE
from modelmend.redteam.train import Recipe, crop, measure, train


@pytest.fixture(scope="module")
def infected():
    return train_infected_digits(0)


def test_demo_model_is_accurate_and_infected(infected):
    model, _ = infected
    assert model.acc >= 0.95
    assert model.asr >= 0.9
    assert not model.module.training


def test_asr_is_measured_without_samples_of_the_target_class(infected):
    model, split = infected
    attack = model.sealed.open(purpose=PURPOSE)
    only_target = split.y_test == attack.target_class
    _, rate = measure(
        model.module, model.recipe.preprocessing, attack, split.x_test[only_target], split.y_test[only_target]
    )
    assert rate != rate
    _, rate = measure(model.module, model.recipe.preprocessing, attack, split.x_test, split.y_test)
    assert rate == model.asr


def test_backdoor_comes_from_the_poison(infected):
    model, split = infected
    recipe = model.recipe.model_copy(update={"attack": None, "epochs": 10})
    clean = train(recipe, split.x_train, split.y_train, split.x_test, split.y_test)
    attack = model.sealed.open(purpose=PURPOSE)
    _, rate = measure(clean.module, recipe.preprocessing, attack, split.x_test, split.y_test)
    assert clean.sealed is None and clean.asr is None
    assert rate < 0.3


def test_same_recipe_same_weights():
    split = digits_split(1)
    recipe = digits_recipe(1).model_copy(update={"epochs": 1})
    torch.manual_seed(99)
    one, two = (train(recipe, split.x_train, split.y_train, split.x_test, split.y_test) for _ in range(2))
    for a, b in zip(one.module.state_dict().values(), two.module.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_training_leaves_the_global_random_state_alone():
    split = digits_split(1)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(digits_recipe(1).model_copy(update={"epochs": 1}), split.x_train, split.y_train, split.x_test, split.y_test)
    assert torch.equal(torch.rand(3), expected)


def test_digits_parts_are_disjoint_and_complete():
    split = digits_split(3)
    assert [len(split.y_train), len(split.y_clean), len(split.y_test)] == [900, 720, 177]
    rows = torch.cat([split.x_train, split.x_clean, split.x_test]).flatten(1)
    assert len(torch.unique(rows, dim=0)) == 1797
    assert not torch.equal(digits_split(4).y_train, split.y_train)


def test_progress_counts_epochs():
    split, seen = digits_split(0), []
    recipe = digits_recipe(0).model_copy(update={"epochs": 2})
    train(
        recipe,
        split.x_train,
        split.y_train,
        split.x_test,
        split.y_test,
        progress=lambda message, done, total: seen.append((done, total)),
    )
    assert seen == [(1, 2), (2, 2)]


def test_crop_shifts_each_image_by_at_most_an_eighth():
    x = torch.zeros(50, 1, 16, 16)
    x[:, :, 8, 8] = 1
    shifted = crop(copy.deepcopy(x), torch.Generator().manual_seed(0))
    rows, columns = torch.nonzero(shifted[:, 0])[:, 1:].unbind(1)
    assert len(rows) == 50
    assert rows.min() == columns.min() == 6 and rows.max() == columns.max() == 10


@pytest.mark.parametrize(("field", "value"), [("arch", "resnet9000"), ("attack", "no_such")])
def test_unknown_names_are_refused_with_the_known_ones(field, value):
    split = digits_split(0)
    recipe = digits_recipe(0).model_copy(update={field: value})
    with pytest.raises(InputError, match=r"one of .*(badnets|cnn_small)"):
        train(recipe, split.x_train, split.y_train, split.x_test, split.y_test)


def test_no_samples_is_an_error():
    empty = torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.long)
    with pytest.raises(InputError, match="no samples"):
        train(digits_recipe(0), *empty, *empty)


def test_recipe_refuses_unknown_and_impossible_values():
    with pytest.raises(ValueError, match="rate"):
        Recipe(dataset="digits", arch="cnn_small", rate=0.0)
    with pytest.raises(ValueError, match="colour"):
        Recipe(dataset="digits", arch="cnn_small", colour="red")
