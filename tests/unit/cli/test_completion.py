"""The shell completes commands, their options and the values that an option can have."""

import pytest

from tailwise.cli.completion import completions
from tailwise.cli.main import main


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["expl"], ["explain"]),
        (["explain", "--prom"], ["--prometheus-url"]),
        (["explain", "w", "--output", ""], ["json", "table", "yaml"]),
        (["explain", "-o", "t"], ["table"]),
        (["completion", "b"], ["bash"]),
        (["what-if", "w", "--add-node", ""], []),
        (["inspect", ""], []),
        (["no-such-command", ""], []),
    ],
)
def test_what_may_stand_there_is_offered(words: list[str], found: list[str]) -> None:
    assert completions(words) == found


def test_a_cluster_that_is_not_there_completes_to_nothing(tmp_path: pytest.TempPathFactory) -> None:
    assert completions(["explain", "--kubeconfig", f"{tmp_path}/none", ""]) == []


def test_what_a_shell_asks_with_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "words", "--", "nodes", "--"]) == 0
    offered = capsys.readouterr().out.split()
    assert {"--output", "--context", "--prometheus-url"} <= set(offered)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_is_given_its_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "tailwise completion words" in capsys.readouterr().out
