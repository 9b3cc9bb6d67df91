"""Validation: what is refused, warned about, dropped; and Great Expectations' ways to pass on nothing."""

import numpy as np
import pandas as pd
import pytest
import torch

from modelmend.errors import SamplesError
from modelmend.samples.data import Samples, make_samples
from modelmend.samples.expectations import Rule, evaluate
from modelmend.samples.split import split
from modelmend.samples.validate import Limits, Validation, validate


def images(n=60, classes=3, seed=0):
    x = torch.rand(n, 1, 12, 12, generator=torch.Generator().manual_seed(seed))
    return x, torch.arange(n) % classes


def check(x, y, classes=3, **limits):
    samples = make_samples(x, y, source="mem")
    return validate(samples, input_shape=tuple(x.shape[1:]), num_classes=classes, limits=Limits(**limits))


def outcome(validation, title):
    found = [e for e in validation.expectations if title in e.title]
    assert len(found) == 1, [e.title for e in validation.expectations]
    return found[0]


def refused(x, y, **more):
    with pytest.raises(SamplesError) as caught:
        check(x, y, **more)
    assert caught.value.where == "mem"
    assert caught.value.fix
    assert not caught.value.validation.success
    return caught.value


def test_good_samples_pass_and_the_record_survives_json(tmp_path, capfd):
    checked = check(*images())
    record = checked.validation
    assert record.success
    assert record.kept == record.given == record.groups == 60
    assert record.class_counts == (20, 20, 20)
    assert record.evaluated == len(record.expectations) > 15
    record.write(tmp_path / "validation.json")
    assert Validation.read(tmp_path / "validation.json") == record
    assert capfd.readouterr() == ("", "")


def test_refusals_name_the_rule_and_the_rows():
    x, y = images()
    late = y.clone()
    late[7] = 3
    assert "(rows 7)" in str(refused(x, late))
    broken = x.clone()
    broken[[4, 9], 0, 0, 0] = torch.tensor([float("nan"), float("inf")])
    assert "(rows 4, 9)" in str(refused(broken, y))
    assert "above 1" in str(refused(x * 255, y))
    assert "below 0" in str(refused(x - 0.5, y))
    assert "at least 2 of" in str(refused(x, y * 0))
    assert "at least 5 of" in str(refused(x, y, classes=10))
    assert "at least 20 samples" in str(refused(*images(15)))
    with pytest.raises(SamplesError, match="input shape 3x12x12"):
        validate(make_samples(x, y, source="m"), input_shape=(3, 12, 12), num_classes=3)
    with pytest.raises(SamplesError, match="no samples"):
        check(x[:0], y[:0])


def test_all_nan_samples_do_not_pass():
    x, y = images()
    assert "finite" in str(refused(torch.full_like(x, float("nan")), y))


def test_constant_images_are_warned_about_then_refused():
    x, y = images()
    x[3] = 0.5
    record = check(x, y).validation
    assert outcome(record, "no sample is constant").outcome == "warn"
    assert outcome(record, "no sample is constant").rows == (3,)
    for k in range(20):
        x[k] = k / 20
    assert "are constant" in str(refused(x, y))


def test_copies_are_dropped_and_the_first_is_kept():
    x, y = images()
    checked = check(torch.cat([x, x[:6]]), torch.cat([y, y[:6]]))
    assert torch.equal(checked.samples.x, x)
    assert checked.validation.duplicates == 6
    assert outcome(checked.validation, "are copies").outcome == "warn"
    assert outcome(checked.validation, "are copies").rows == tuple(range(60, 66))
    few = torch.cat([x[:10]] * 6)
    assert "distinct samples: 10" in str(refused(few, torch.cat([y[:10]] * 6)))


def test_contradicting_labels_are_dropped_then_refused():
    x, y = images(120)
    twice, labels = torch.cat([x, x[:1]]), torch.cat([y, (y[:1] + 1) % 3])
    checked = check(twice, labels)
    assert checked.validation.contradictions == 2
    assert len(checked.samples) == 119
    assert outcome(checked.validation, "equal samples have equal labels").rows == (0, 120)
    assert "contradict" in str(refused(torch.cat([x, x[:9]]), torch.cat([y, (y[:9] + 1) % 3])))


def test_near_copies_stay_in_one_split():
    x, y = images(80)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    near = (x * 0.9 + 0.03 + 0.002 * noise).clamp(0, 1)
    checked = check(torch.cat([x, near]), torch.cat([y, y]))
    assert checked.validation.near_duplicates == 160
    assert outcome(checked.validation, "nearly equal").outcome == "warn"
    parts = split(checked.samples, 0).to_lists()
    owner = {row: name for name, rows in parts.items() for row in rows}
    assert all(owner[i] == owner[i + 80] for i in range(80))


def test_given_groups_survive_and_grow():
    x, y = images()
    samples = make_samples(x, y, source="m", groups=torch.arange(60) // 2)
    near = x[:1] * 0.9
    more = Samples.join(samples, make_samples(near, y[:1], source="m"))
    groups = validate(more, input_shape=(1, 12, 12), num_classes=3).samples.groups.tolist()
    assert groups[0] == groups[1] == groups[60]
    assert len(set(groups)) == 30


def test_unbalanced_and_missing_classes_are_warned_about():
    x, y = images(90, 4)
    y[y == 3] = 0
    record = check(x, y, classes=4, max_imbalance=1.5).validation
    assert outcome(record, "every class of the model occurs").outcome == "warn"
    assert "3" in outcome(record, "every class of the model occurs").observed
    assert outcome(record, "times the smallest").outcome == "warn"
    assert record.success


def test_dark_images_are_warned_about():
    x, y = images()
    assert outcome(check(x / 255, y).validation, "nearly black").outcome == "warn"


def test_raw_samples_need_no_range_and_may_contradict():
    x = torch.randn(60, 1, generator=torch.Generator().manual_seed(0)) * 50
    x[:9] = x[9:18]
    samples = make_samples(x, torch.arange(60) % 2, source="m", kind="raw")
    checked = validate(samples, input_shape=(1,), num_classes=2)
    assert checked.validation.success
    with pytest.raises(SamplesError, match="finite"):
        validate(make_samples(x * float("inf"), samples.y, source="m", kind="raw"), input_shape=(1,), num_classes=2)


def frame(**columns):
    return pd.DataFrame({"row": range(len(next(iter(columns.values())))), **columns})


def test_nan_inside_bounds_is_not_a_pass():
    rule = Rule("ColumnValuesToBeBetween", "between", "v", {"min_value": 0, "max_value": 1})
    for values in ([0.5, np.nan], [np.nan, np.nan], [None, None]):
        assert "fail" in {e.outcome for e in evaluate(frame(v=values), [rule])}
    assert {e.outcome for e in evaluate(frame(v=[0.5, 0.7]), [rule])} == {"pass"}


def test_nothing_to_evaluate_is_refused():
    with pytest.raises(SamplesError, match="0 of 0 checks"):
        evaluate(frame(v=[1]), [])


def test_rules_that_cannot_be_evaluated_fail():
    found = evaluate(frame(v=[1]), [Rule("ColumnValuesToBeBetween", "other", "w", {"min_value": 0})])
    assert {e.outcome for e in found} == {"fail"}
    assert {e.observed for e in found} == {"could not be evaluated"}


def test_unevaluated_rules_are_refused(monkeypatch):
    monkeypatch.setattr("modelmend.samples.expectations._ask", lambda frame, rules: [])
    with pytest.raises(SamplesError, match="only 0 of 2 checks"):
        evaluate(frame(v=[1]), [Rule("ColumnValuesToBeBetween", "v", "v", {"min_value": 0})])
