"""Student's t distribution, against scipy."""

import math

import pytest
from scipy.special import stdtr, stdtrit

from crosstune.reporting.student import t_below, t_quantile

FREEDOMS = [1, 2, 3.7, 4, 9, 29.5, 100, 5432.1, 1e6, 9.9e7, 1e9]


@pytest.mark.parametrize("freedom", FREEDOMS)
@pytest.mark.parametrize("t", [-300.0, -12.5, -3.0, -1.0, -0.01, -1e-9, 0.0, 0.3, 2.0, 40.0])
def test_a_probability_is_that_of_scipy(freedom, t):
    assert t_below(freedom, t) == pytest.approx(float(stdtr(freedom, t)), rel=1e-5, abs=1e-300)


@pytest.mark.parametrize("freedom", FREEDOMS)
@pytest.mark.parametrize("p", [0.5, 0.75, 0.95, 0.975, 0.995, 0.9995])
def test_a_quantile_is_that_of_scipy(freedom, p):
    assert t_quantile(freedom, p) == pytest.approx(float(stdtrit(freedom, p)), rel=1e-6, abs=1e-9)


def test_no_end_of_degrees_of_freedom_is_the_normal_distribution():
    assert t_quantile(math.inf, 0.975) == pytest.approx(1.959964, abs=1e-6)
