"""Student's t distribution, of whole and of fractional degrees of freedom.

`compare.py` and `verdict.py` call it for intervals and p values. To import scipy.special for this
would take a tenth of a report's time.
"""

import math
from functools import lru_cache
from itertools import count
from statistics import NormalDist

_NORMAL = 1e8  # degrees of freedom from which on the two distributions are the same in print


def t_below(freedom: float, t: float) -> float:
    """Return the probability that a t variable is at most `t`.

    With x = v / (v + t²) the lower tail is I_x(v/2, 1/2) / 2, the regularised incomplete beta
    function (Abramowitz & Stegun 1964, 26.7.1 and 26.5.2).

    >>> t_below(4, 0.0), round(t_below(4, -2.776445), 6)
    (0.5, 0.025)
    """
    if freedom > _NORMAL:
        return math.erfc(-t / math.sqrt(2)) / 2  # the normal tail
    if not t:
        return 0.5
    square = t * t
    tail = _beta(freedom / 2, 0.5, freedom / (freedom + square), square / (freedom + square)) / 2
    return tail if t < 0 else 1 - tail


@lru_cache(maxsize=4096)
def t_quantile(freedom: float, p: float) -> float:
    """Return the value that a t variable stays below with probability `p`, at least one half.

    >>> round(t_quantile(4, 0.975), 6)
    2.776445
    """
    t = NormalDist().inv_cdf(p)  # below the root, from where Newton's steps never overshoot
    for _ in range(100):
        step = (t_below(freedom, -t) - (1 - p)) / _density(freedom, t)
        t += step
        if abs(step) <= 1e-12 * t:
            break
    return t


def _density(freedom: float, t: float) -> float:
    if freedom > _NORMAL:
        return NormalDist().pdf(t)
    half = (freedom + 1) / 2
    scale = math.lgamma(half) - math.lgamma(freedom / 2) - math.log(freedom * math.pi) / 2
    return math.exp(scale - half * math.log1p(t * t / freedom))


def _beta(a: float, b: float, x: float, rest: float) -> float:
    """Return I_x(a, b); `rest` is 1 - x, in full precision."""
    if x > (a + 1) / (a + b + 2):  # the fraction converges quickly on the other side
        return 1 - _beta(b, a, rest, x)
    front = a * math.log(x) + b * math.log(rest) - math.log(a) if x else -math.inf
    front += math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(front) * _fraction(a, b, x)


def _fraction(a: float, b: float, x: float) -> float:
    """Return the continued fraction 26.5.8 of the incomplete beta function, by Lentz's method."""
    tiny = 1e-300  # what stands for a denominator of 0
    value, above, below = 1.0, 1.0, 0.0
    for m in count():
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        even = (m + 1) * (b - m - 1) * x / ((a + 2 * m + 1) * (a + 2 * m + 2))
        before = value
        for term in (odd, even):
            below = 1 / (1 + term * below or tiny)
            above = 1 + term / above or tiny
            value *= above * below
        if abs(value - before) <= 1e-15 * abs(value):
            break
    return 1 / value
