"""Published repairs as plain methods, one file each; none of them sees a trigger, a target or the test half."""

from benchmarks.baselines.anp import adversarial_neuron_pruning
from benchmarks.baselines.clp import channel_lipschitz_pruning
from benchmarks.baselines.fine_pruning import fine_pruning
from benchmarks.baselines.fine_tuning import fine_tuning
from benchmarks.baselines.ft_sam import ft_sam
from benchmarks.baselines.ibau import i_bau

BASELINES = {
    "fine-tuning": fine_tuning,
    "ft-sam": ft_sam,
    "fine-pruning": fine_pruning,
    "clp": channel_lipschitz_pruning,
    "anp": adversarial_neuron_pruning,
    "i-bau": i_bau,
}
"""Name in tables to ``method(classifier, parts, seed, *, effort, progress) -> Classifier``."""

__all__ = ["BASELINES"]
