"""The joint search is affordable."""

from __future__ import annotations

import pytest

from benchmarks.search import cost

LIMIT = 1.35


@pytest.mark.slow
def test_the_joint_search_costs_at_most_a_third_more() -> None:
    """Beam 5, batch 64, 8,000 tokens: processor time beside the decoder alone, in the same process."""
    plain, joint = cost()
    assert joint / plain <= LIMIT
