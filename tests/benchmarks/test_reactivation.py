import pytest
from benchmarks.cases import clean_references, read_cases
from benchmarks.reactivation import excess, reactivate

from benchmarks import efficacy, reactivation
from modelmend.progress import silent


@pytest.fixture(scope="module")
def case():
    return read_cases("smoke", None, None)[0]


@pytest.fixture(scope="module")
def reference(case):
    return clean_references([case])["digits", "cnn_small"]


@pytest.fixture(autouse=True)
def many_clean_samples(monkeypatch):
    """Five of 37 digits implant a patch in any model; five of 400 do not."""
    monkeypatch.setattr(reactivation, "CLEAN_SHARE", 0.4)


def test_untouched_backdoor_is_awake_and_a_clean_model_has_none(case, reference):
    infected = reactivate(case, case, case.classifier(), 0)
    clean = reactivate(reference, case, reference.classifier(), 0)
    assert infected.retuned > 0.9 and infected.queried > 0.9
    assert clean.queried < infected.queried and clean.retuned < infected.retuned


def test_excess_is_0_for_the_clean_and_1_for_the_infected_model():
    assert excess(0.1, 0.1, 0.9) == 0
    assert excess(0.9, 0.1, 0.9) == 1
    assert excess(0.5, 0.4, 0.4) is None


def test_clean_model_has_no_trigger_to_wake(reference):
    with pytest.raises(ValueError, match="no trigger"):
        reactivate(reference, reference, reference.classifier(), 0)


def test_cells_and_table_show_it_on_request(case, reference, tmp_path):
    references = {("digits", "cnn_small"): reference}
    (cell,) = efficacy.run(
        [case], ["none"], [0], budget=720, effort=0.01, out=tmp_path, progress=silent, references=references
    )
    assert cell["reactivation"]["retuned_excess"] == pytest.approx(1, abs=0.15)
    assert "Re-activation" in efficacy.markdown([cell], {})
    (plain,) = efficacy.run([case], ["none"], [0], budget=720, effort=0.01, out=tmp_path, progress=silent)
    assert plain["reactivation"] is None
