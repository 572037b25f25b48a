"""The joint search is affordable."""

from __future__ import annotations

import statistics
import time

import pytest
import torch

from benchmarks.systems import SMALL, ours, sources, translation

LIMIT, ROUNDS = 1.35, 5


@pytest.mark.slow
def test_the_joint_search_costs_at_most_a_third_more() -> None:
    """Beam 5, batch 64, 8,000 tokens: processor time beside the decoder alone, the two taking turns."""
    torch.set_num_threads(1)
    chain, x = translation(SMALL), sources(64, SMALL)
    searches = {weight: ours(chain, ctc_weight=weight) for weight in (0.0, 0.4)}
    seconds: dict[float, list[float]] = {weight: [] for weight in searches}
    for _ in range(ROUNDS):
        for weight, search in searches.items():
            start = time.process_time()
            search(x)
            seconds[weight].append(time.process_time() - start)
    plain, joint = (statistics.median(times[1:]) for times in seconds.values())  # the first round warms up
    assert joint / plain <= LIMIT
