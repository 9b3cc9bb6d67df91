import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from modelmend.errors import PolicyError
from modelmend.gate.policy import Policy, load_policy, packaged_policies, parse_policy, policy_text


def refused(text: str) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, where="p.yaml")
    return caught.value


def test_the_packaged_default_says_what_the_code_defaults_to():
    assert load_policy(None) == load_policy("default") == Policy()


def test_packaged_default_names_every_key_with_a_comment():
    text = policy_text("default")
    for section, field in Policy.model_fields.items():
        keys = getattr(field.annotation, "model_fields", {})
        for key in keys or [section]:
            assert f"\n{'  ' if keys else ''}{key}:" in text
    assert set(yaml.safe_load(text)) == set(Policy.model_fields)


def test_strict_is_at_least_as_strict_as_default_everywhere():
    default, strict = load_policy("default"), load_policy("strict")
    for section in ("accuracy", "backdoor", "known_trigger"):
        for key, value in getattr(default, section):
            if key.startswith("max_") and value is not None:
                assert getattr(getattr(strict, section), key) < value
    assert strict.accuracy.level > default.accuracy.level
    assert set(strict.allowed_not_run) < set(default.allowed_not_run)
    assert strict.privacy.absolute == "enforce"


@pytest.mark.parametrize("name", packaged_policies())
def test_a_packaged_policy_carries_its_own_name(name):
    assert load_policy(name).name == name


def test_keys_left_out_take_the_default(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\naccuracy:\n  max_drop: 0.01\n")
    policy = load_policy(file)
    assert policy.accuracy.max_drop == 0.01
    assert policy.backdoor == Policy().backdoor


def test_an_unknown_key_names_file_line_key_and_the_nearest_one():
    error = refused("name: x\naccuracy:\n  max_drp: 0.1\n")
    assert error.where == "p.yaml:3"
    assert error.field == "accuracy.max_drp"
    assert "did you mean 'max_drop'" in str(error)


def test_an_unknown_section_names_the_nearest_one():
    assert "did you mean 'backdoor'" in str(refused("backdor:\n  level: 0.9\n"))


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("accuracy: {max_drop: .nan}", "accuracy.max_drop"),
        ("accuracy: {max_drop: .inf}", "accuracy.max_drop"),
        ("accuracy: {max_drop: '0.1'}", "accuracy.max_drop"),
        ("accuracy: {max_drop: yes}", "accuracy.max_drop"),
        ("accuracy: {max_drop: null}", "accuracy.max_drop"),
        ("accuracy: {max_drop: 1.5}", "accuracy.max_drop"),
        ("accuracy: {max_drop: -0.1}", "accuracy.max_drop"),
        ("accuracy: {class_min_samples: 2.5}", "accuracy.class_min_samples"),
        ("accuracy: {level: 1.0}", "accuracy.level"),
        ("accuracy: {max_drop: 0.05, max_drop_upper: 0.02}", "accuracy"),
        ("accuracy: 3", "accuracy"),
        ("backdoor: {max_success_upper: 1.0}", "backdoor.max_success_upper"),
        ("fallback: maybe", "fallback"),
        ("registry: {alias: latest}", "registry.alias"),
        ("registry: {alias: v3}", "registry.alias"),
        ("registry: {alias: 'a b'}", "registry.alias"),
        ("composite: {backdoor: 0, accuracy: 0, privacy: 0, explainability: 0, time: 0, compute: 0}", "composite"),
        ("cost: {max_seconds: -1}", "cost.max_seconds"),
        ("allowed_not_run: [accuracy.drop]", "allowed_not_run"),
        ("allowed_not_run: [privacy.G3.repair]", "allowed_not_run"),
        ("allowed_not_run: ['*']", "allowed_not_run"),
    ],
)
def test_a_wrong_value_is_refused_and_its_field_named(text, field):
    error = refused(text)
    assert error.field == field
    assert error.where == "p.yaml:1"


def test_scientific_notation_that_yaml_reads_as_text_is_explained():
    assert "1e-3" in str(refused("accuracy: {max_drop: 1e-3}").fix)


def test_a_key_given_twice_is_refused():
    error = refused("accuracy:\n  max_drop: 0.01\n  max_drop: 0.5\n")
    assert "twice" in error.message
    assert error.where == "p.yaml:3"


@pytest.mark.parametrize(
    "text", ["a: [", "\tx: 1", "!!python/object/apply:os.system ['true']", "a: b: c", "\x00", "{a: {b: *c}}"]
)
def test_broken_yaml_is_a_policy_error(text):
    assert refused(text).where.startswith("p.yaml")


@pytest.mark.parametrize("text", ["- a", "just words", "3", "[[[[[[[[[[[[]]]]]]]]]]]]"])
def test_yaml_that_is_no_mapping_is_refused(text):
    refused(text)


def test_a_missing_file_names_the_packaged_policies(tmp_path: Path):
    with pytest.raises(PolicyError, match="default, strict"):
        load_policy(tmp_path / "none.yaml")


def test_a_mistyped_packaged_name_is_recognised():
    with pytest.raises(PolicyError, match="did you mean 'strict'"):
        load_policy("strickt")


def test_a_large_or_binary_file_is_refused(tmp_path: Path):
    big, binary = tmp_path / "big.yaml", tmp_path / "bin.yaml"
    big.write_text("#" * 100_000)
    binary.write_bytes(b"\xff\xfe\x00")
    for file in (big, binary, tmp_path):
        with pytest.raises(PolicyError):
            load_policy(file)


def test_comments_and_order_do_not_change_the_hash_and_every_value_does():
    a = parse_policy("name: x\naccuracy: {max_drop: 0.01, level: 0.9}\n", where="a")
    b = parse_policy("# words\naccuracy: {level: 0.9, max_drop: 0.010}\nname: x\n", where="b")
    c = parse_policy("name: x\naccuracy: {max_drop: 0.011, level: 0.9}\n", where="c")
    assert a.hash() == b.hash() != c.hash()


def test_both_looks_share_the_error_that_the_level_leaves():
    assert math.isclose(Policy().bound_level(0.95, looks=1), 0.975)
    assert math.isclose(Policy(fallback="none").bound_level(0.95, looks=1), 0.95)
    assert math.isclose(Policy(fallback="none").bound_level(0.95, looks=2), 0.975)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200))
def test_any_text_gives_a_policy_or_a_policy_error(text):
    try:
        assert isinstance(parse_policy(text, where="fuzz"), Policy)
    except PolicyError as error:
        assert error.where


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*Policy.model_fields, "level"]), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_any_yaml_value_gives_a_policy_or_a_policy_error(value):
    try:
        assert isinstance(parse_policy(yaml.safe_dump(value), where="fuzz"), Policy)
    except PolicyError as error:
        assert error.where
