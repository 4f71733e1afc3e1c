"""What who runs `tailwise bench` is told when something is wrong, before a cluster is touched."""

from pathlib import Path

import pytest

from tailwise.cli.main import main

EXAMPLE = str(Path(__file__).parents[3] / "examples" / "bench" / "heldout.yaml")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "--scenario FILE is needed"),
        (("--scenario", "no/such.yaml"), "no/such.yaml: No such file"),
        (("--scenario", EXAMPLE, "--policies", "default,mine"), "--policies mine: the scenario has no such"),
        (("--scenario", EXAMPLE), "policy Paper decides by utilisation: give --prometheus-url"),
        (("--report-only", "--out", "no/such"), "no step was measured here"),
    ],
)
def test_what_is_missing_is_named_with_the_way_out(
    words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *words]) == 1
    assert told in capsys.readouterr().err
