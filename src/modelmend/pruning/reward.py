"""Weights of the reward, and the price of clean accuracy."""

from __future__ import annotations

from torch import Tensor

from modelmend.records import Record


class RewardConfig(Record):
    """Weights of the reward; rates are 0..1."""

    budget: float = 0.015
    """Clean-accuracy drop that a repair may cost."""
    slope: float = 1.0
    """Price of accuracy inside the budget."""
    steepness: float = 30.0
    """Price of accuracy past the budget: at 30, one point too many costs 0.3 of probe success."""
    price: float = 0.002
    """Price of one cut group."""
    race_margin: float = 3.0
    """Racing drops a mask when its accuracy drop on the first samples exceeds the budget by so many standard errors
    (and by 5 points); 0 = never."""
    race_reward: float = 3.0
    """Racing drops a mask when its reward on the first n of N samples is behind that of the best mask so far on the
    same samples by ``race_reward sqrt(1/n - 1/N)``; 0 = never."""
    triggered: int = 256
    """Triggered samples that a mask is run on, over all triggers (at least 24 a trigger)."""
    shares: float = 0.5
    """Weight of the share of samples in both rates; the rest is the mean probability."""
    labels: float = 0.1
    """Weight of the label in what counts as right on a clean sample; the rest is the suspect's own probability of the
    answer. A search over hundreds of masks fits the accidents of a hundred labels; it cannot fit these."""
    caution: float = 1.0
    """Standard errors that are added to the accuracy drop before it is priced: the search prefers the lucky masks."""
    class_budget: float = 0.05
    """Fall in accuracy that the triggers' own classes may suffer."""
    class_steepness: float = 4.0
    """Price past it. Cutting what a natural trigger excites costs its class; a backdoor's groups cost less."""


def penalty(drop: Tensor, class_drop: Tensor, config: RewardConfig) -> Tensor:
    """``slope max(0, d) + steepness max(0, d - budget) + class_steepness max(0, d_T - class_budget)``."""
    over, over_class = (drop - config.budget).clamp_min(0), (class_drop - config.class_budget).clamp_min(0)
    return config.slope * drop.clamp_min(0) + config.steepness * over + config.class_steepness * over_class
