"""A made table of numbers and categories whose joint law is known, so that what is learned of it can be compared with
the truth."""

import math
from typing import Any

import torch

from ganlab.data.table import Tabular, Text
from ganlab.rng import seed_of

GROUPS = "abc"
SHARES = (0.6, 0.3, 0.1)  # of the groups
HEIGHT = ((160.0, 6.0), (175.0, 4.0), (190.0, 8.0))  # mean and deviation in each group
SLOPE, REST = 0.8, 5.0  # weight = SLOPE * (height - 100) + normal noise of this deviation
VISITS = (0.1, 0.3, 0.8)  # of 20, how likely each is, by group
MEMBER = (0.9, 0.5, 0.1)  # share of "yes", by group
RISK = {"yes": 0.01, "no": 0.12}  # share of "high", by member
TRIALS = 20


class MixedTable(Tabular):
    """Three numbers and three categories. A group (60, 30 and 10 %) has its own normal heights, its own binomial number
    of visits and its own share of members; weights depend on heights alone, and the risk, 4.3 % of which is high, on
    membership alone.

    count   rows
    """

    def __init__(self, count: int = 5000, **kwargs: Any):
        super().__init__(**{"label": "risk", **kwargs})
        self.rows_made = count

    def text(self) -> Text:
        return made(self.rows_made)


def made(count: int, seed: str = "train") -> Text:
    """So many rows, always the same ones for a seed."""
    generator = torch.Generator().manual_seed(seed_of("mixed table", seed))
    uniform = lambda *shape: torch.rand(count, *shape, generator=generator, dtype=torch.float64)
    group = torch.multinomial(torch.tensor(SHARES), count, True, generator=generator)
    mean, deviation = torch.tensor(HEIGHT, dtype=torch.float64)[group].T
    height = mean + deviation * torch.randn(count, generator=generator, dtype=torch.float64)
    weight = SLOPE * (height - 100) + REST * torch.randn(count, generator=generator, dtype=torch.float64)
    visits = (uniform(TRIALS) < torch.tensor(VISITS)[group][:, None]).sum(1)
    member = uniform() < torch.tensor(MEMBER)[group]
    high = uniform() < torch.where(member, RISK["yes"], RISK["no"])
    return {
        "group": [GROUPS[g] for g in group.tolist()],
        "height": [f"{h:.1f}" for h in height.tolist()],
        "weight": [f"{w:.1f}" for w in weight.tolist()],
        "visits": [str(v) for v in visits.tolist()],
        "member": ["yes" if m else "no" for m in member.tolist()],
        "risk": ["high" if r else "low" for r in high.tolist()],
    }


def truth() -> dict[str, Any]:
    """What is true of this table: {"mean", "deviation"} of each number, {"shares"} of each category's values, and
    {"association"} of each pair: Pearson's correlation of numbers, the correlation ratio of a category and a number,
    Cramer's V of categories. Numbers are taken as they are before they are rounded to be written."""
    shares = torch.tensor(SHARES, dtype=torch.float64)
    of = lambda values: torch.tensor(values, dtype=torch.float64)  # by group
    height, spread = of(HEIGHT).T
    given = {  # group -> (mean, variance within the group)
        "height": (height, spread.square()),
        "weight": (SLOPE * (height - 100), SLOPE**2 * spread.square() + REST**2),
        "visits": (TRIALS * of(VISITS), TRIALS * of(VISITS) * (1 - of(VISITS))),
    }
    mean = {name: (shares @ m).item() for name, (m, _) in given.items()}
    variance = {n: (shares @ (v + m.square())).item() - mean[n] ** 2 for n, (m, v) in given.items()}
    member = torch.stack([1 - of(MEMBER), of(MEMBER)], 1)  # [group, no or yes]
    high = of([RISK["no"], RISK["yes"]])
    risk = torch.stack([high, 1 - high], 1)  # [member, high or low]
    joint = {  # [values, values] of two categories, and of each with the groups
        ("group", "member"): shares[:, None] * member,
        ("group", "risk"): shares[:, None] * (member @ risk),
        ("member", "risk"): (shares @ member)[:, None] * risk,
    }
    by_group = {"group": torch.diag(shares), "member": joint["group", "member"], "risk": joint["group", "risk"]}
    within = {("height", "weight"): SLOPE * spread.square()}  # covariance inside a group
    association: dict[tuple[str, str], float] = {pair: cramer(table) for pair, table in joint.items()}
    for a, b in (("height", "weight"), ("height", "visits"), ("weight", "visits")):
        inside = within.get((a, b), torch.zeros(3, dtype=torch.float64))
        covariance = (shares @ (inside + given[a][0] * given[b][0])).item() - mean[a] * mean[b]
        association[a, b] = covariance / math.sqrt(variance[a] * variance[b])
    for category, table in by_group.items():
        for number, (m, _) in given.items():
            share = table.sum(0)
            means = (m @ table) / share  # of the number, in each of the category's values
            between = (share @ (means - mean[number]).square()).item()
            association[category, number] = math.sqrt(between / variance[number])
    return {
        "mean": mean,
        "deviation": {name: math.sqrt(v) for name, v in variance.items()},
        "shares": {
            "group": dict(zip(GROUPS, SHARES, strict=True)),
            "member": dict(zip(("no", "yes"), (shares @ member).tolist(), strict=True)),
            "risk": dict(zip(("high", "low"), (shares @ member @ risk).tolist(), strict=True)),
        },
        "association": association,
    }


def cramer(joint: torch.Tensor) -> float:
    """Cramer's V of a joint distribution [a, b]."""
    alone = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    return math.sqrt(((joint - alone).square() / alone).sum().item() / (min(joint.shape) - 1))
