"""docs/evaluation.md says what its runs' files say."""

from tests.benchmark.document import DOCUMENT, written


def test_every_figure_of_the_evaluation_comes_from_a_run_beside_it() -> None:
    text = DOCUMENT.read_text()
    assert written(text) == text, "write it with: python -m tests.benchmark.document"
