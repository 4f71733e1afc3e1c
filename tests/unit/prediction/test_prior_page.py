"""docs/prior.md says what ships."""

from __future__ import annotations

from pathlib import Path

from bench.prior import page
from tailwise.prediction.coefficients import coefficients


def test_the_page_is_the_one_that_the_coefficients_make() -> None:
    assert Path("docs/prior.md").read_text(encoding="utf-8") == page.page()


def test_every_term_stands_as_a_ratio_to_a_measured_speed() -> None:
    known = coefficients()
    text = page.page()
    for name, cost in known.terms.items():
        assert f"`{name}`" in text
        assert page.ratio(cost, known) > 0
