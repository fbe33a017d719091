"""Dividing what there is: weighted max-min fairness, and who gives when the pool is empty."""

from collections.abc import Hashable, Mapping
from typing import NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)


class Claim(NamedTuple):
    """``floor`` is had in any case, ``want`` is never exceeded; ``floor <= want``."""

    floor: int
    want: int
    weight: int


class Holding(NamedTuple):
    """What a container holds, its fair share, what it needs (its use plus headroom), and its floor."""

    limit: int
    fair: int
    need: int
    floor: int


def max_min(total: int, claims: Mapping[K, Claim]) -> dict[K, int]:
    """Weighted max-min shares: nobody can get more without taking from one who has less per weight.

    Everybody holds ``clamp(level * weight, floor, want)``; the water level rises until the total is
    spent.  It is walked from one bend of that sum to the next, so this costs n log n.  The
    shares sum to at most ``total``, except that floors are given even when they alone exceed it.

    >>> max_min(100, {"a": Claim(0, 10, 1), "b": Claim(0, 100, 1), "c": Claim(0, 100, 2)})
    {'a': 10, 'b': 30, 'c': 60}
    """
    level = _water_level(total, claims)
    return {k: max(c.floor, min(c.want, int(level * c.weight))) for k, c in claims.items()}


def _water_level(total: int, claims: Mapping[K, Claim]) -> float:
    bends = [(c.floor / c.weight, c.weight) for c in claims.values()]
    bends += [(c.want / c.weight, -c.weight) for c in claims.values()]
    spent = float(sum(c.floor for c in claims.values()))
    level, slope = 0.0, 0
    if spent >= total:
        return level
    for at, change in sorted(bends):
        rise = slope * (at - level)
        if spent + rise > total:
            return level + (total - spent) / slope
        spent += rise
        level, slope = at, slope + change
    return level


def donations(entitled: int, welcome: int, holdings: Mapping[K, Holding]) -> dict[K, int]:
    """New, lower limits.

    What nobody uses goes first: to those below their fair share, who want ``entitled``, and to others,
    who want ``welcome``.  What is used is taken for the ``entitled`` only, and only from those
    above their fair share.  Less than both together may come out.
    """
    unused = {k: max(0, h.limit - max(h.floor, h.need)) for k, h in holdings.items()}
    taken = proportionally(entitled + welcome, unused)
    used = {k: max(0, h.limit - h.fair - taken[k]) for k, h in holdings.items()}
    more = proportionally(entitled - sum(taken.values()), used)
    return {k: h.limit - taken[k] - more[k] for k, h in holdings.items() if taken[k] + more[k] > 0}


def proportionally(needed: int, available: Mapping[K, int]) -> dict[K, int]:
    """What each gives of what it has available, so that together it is ``needed``, or all there is."""
    total = sum(available.values())
    if needed <= 0 or total == 0:
        return dict.fromkeys(available, 0)
    if total <= needed:
        return dict(available)
    return {key: min(amount, -(-amount * needed // total)) for key, amount in available.items()}
