"""Paired comparison of two systems on the same utterances: difference, p-value, equivalence within a margin.

A large p-value is no evidence that two systems are equal. "No degradation" is
claimed by `Comparison.equivalent`: the 90 % interval of the difference lies inside the margin (two one-sided
tests at 5 %).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from espnet2_legonn.errors import DataError
from espnet2_legonn.scoring.bootstrap import RESAMPLES, SEED, Segments, resample_sums
from espnet2_legonn.scoring.hierarchy import inside, spread


@dataclass(frozen=True)
class Comparison:
    """System B against system A; differences are B - A in the metric's points.

    Args:
        ci: 95 % interval of the difference.
        tost: 90 % interval, the one equivalence is judged by.
        p_value: two-sided, paired bootstrap with the difference shifted to zero, as sacreBLEU's paired-bs.
        margin: half-width of the equivalence region in points, None when not asked.
    """

    metric: str
    value_a: float
    value_b: float
    ci: tuple[float, float]
    tost: tuple[float, float]
    p_value: float
    unit: str
    units: int
    resamples: int
    seed: int
    margin: float | None = None

    @property
    def difference(self) -> float:
        """B - A on the whole set."""
        return self.value_b - self.value_a

    @property
    def equivalent(self) -> bool | None:
        """Whether `tost` lies strictly inside +-margin; None without a margin."""
        return None if self.margin is None else inside(self.tost, self.margin)

    def as_json(self) -> dict[str, object]:
        """Content of result.json."""
        fields: dict[str, object] = asdict(self)
        for name in ("ci", "tost"):
            fields[f"{name}_low"], fields[f"{name}_high"] = getattr(self, name)
            del fields[name]
        return fields | {"difference": self.difference, "equivalent": self.equivalent}

    def as_text(self) -> str:
        """A few lines for people."""
        lines = [
            f"{self.metric.upper()}: A {self.value_a:.2f}, B {self.value_b:.2f}, "
            f"B - A = {self.difference:+.2f}, "
            f"95 % interval [{self.ci[0]:+.2f}, {self.ci[1]:+.2f}], p = {self.p_value:.4f} "
            f"(paired bootstrap, {self.resamples} resamples of {self.units} {self.unit}s)"
        ]
        if self.margin is not None:
            verdict = "equivalent" if self.equivalent else "NOT shown to be equivalent"
            lines.append(
                f"{verdict} within +-{self.margin:g}: "
                f"90 % interval [{self.tost[0]:+.2f}, {self.tost[1]:+.2f}] (two one-sided tests at 5 %)"
            )
        return "\n".join(lines)


def compare(
    a: Segments, b: Segments, margin: float | None = None, resamples: int = RESAMPLES, seed: int = SEED
) -> Comparison:
    """Compares two systems scored on the same references.

    Args:
        a, b: `report.segments` of two reports.
        margin: points within which the two count as equal, e.g. 0.3 (WER) or 0.5 (BLEU).

    Raises:
        DataError: metric, references or resampling unit differ, fewer than two units, or margin <= 0.
    """
    _check(a, b, margin)
    sums_a, sums_b = a.sums, b.sums
    drawn = resample_sums(np.concatenate([sums_a, sums_b], axis=1), resamples, seed)
    width = sums_a.shape[1]
    differences = b.score(drawn[:, width:]) - a.score(drawn[:, :width])
    differences = differences[~np.isnan(differences)]
    observed = b.value - a.value
    found = spread(observed, differences, 1)
    extreme = np.sum(np.abs(differences - differences.mean()) >= abs(observed))
    return Comparison(
        metric=a.metric,
        value_a=a.value,
        value_b=b.value,
        ci=found.ci,
        tost=found.tost,
        p_value=float((extreme + 1) / (len(differences) + 1)),
        unit=a.unit,
        units=len(sums_a),
        resamples=resamples,
        seed=seed,
        margin=margin,
    )


def _check(a: Segments, b: Segments, margin: float | None) -> None:
    faults = []
    if a.metric != b.metric:
        faults.append(f"system A was scored by {a.metric}, system B by {b.metric}; score both by one metric")
    if a.reference != b.reference:
        faults.append(
            "the two systems were scored on different references, utterances or settings; "
            "use the same files and options"
        )
    if a.speakers != b.speakers:
        faults.append("the two systems have different speakers; give both the same utt2spk, or none")
    if len(a.sums) < 2:
        faults.append(f"a comparison needs at least 2 {a.unit}s, the set has {len(a.sums)}")
    if margin is not None and not margin > 0:
        faults.append(f"margin must be above 0 points, got {margin}")
    if faults:
        raise DataError(faults)
