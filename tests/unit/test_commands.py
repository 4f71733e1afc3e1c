"""What a user of the commands is told when something is wrong: a sentence, the way out, no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

NODE = """
node: n
cores: 2
measured: {gflopsPerCore: 50, copyGigabytesPerSecondPerCore: 10}
measuredAt: 2026-01-01T00:00:00Z
"""
PROFILE = "{flops: 1000000, flopsByKind: {}, parameters: 1, parameterBytes: 4, work: {denseFlops: 1000000}}"
KUBECONFIG = """
current-context: here
contexts: [{name: here, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {}}]
"""
NO_KUBECONFIG = ("no/such", "there is no such file", "--kubeconfig or $KUBECONFIG")


def command(*words: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KUBE")}
    return subprocess.run(
        [sys.executable, "-m", "tailwise", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=home,
        env=environment | {"HOME": str(home)},
    )


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["explain", "w", "--kubeconfig", "no/such"], 1, NO_KUBECONFIG),
        (["agent", "--node-name", "n", "--kubeconfig", "no/such"], 1, NO_KUBECONFIG),
        (["operator", "--kubeconfig", "no/such"], 1, NO_KUBECONFIG),
        (["explain", "w"], 1, ("~/.kube/config", "there is no such file")),
        (["nodes"], 1, ("~/.kube/config", "there is no such file")),
        (["what-if", "w"], 1, ("~/.kube/config", "there is no such file")),
        (["what-if", "w", "--add-node", "colour=red"], 2, ("--add-node", "give WORD=VALUE", "gflops")),
        (["what-if", "w", "--node-labels", "gold"], 2, ("--node-labels", "KEY=VALUE")),
        (["what-if", "w", "--slo-milliseconds", "0"], 2, ("--slo-milliseconds", "below 1")),
        (["nodes", "--kubeconfig", "config.yaml", "--context", "nope"], 1, ("context nope", "it has here")),
        (["flops", "m.onnx"], 2, ("m.onnx", "ModelNotFound", "check the path")),
        (["agent"], 2, ("--node-name",)),
        (["operator", "--prometheus-url", "prometheus:9090"], 2, ("--prometheus-url", "http://")),
        (["operator", "--allow-model-network", "here"], 2, ("--allow-model-network", "CIDR")),
        (["operator", "--poll-seconds", "soon"], 2, ("--poll-seconds", "not a whole number")),
        (["operator", "--metrics-port", "70000"], 2, ("--metrics-port", "above 65535")),
        (["inspect", "m.onnx", "--timeout", "-1"], 2, ("--timeout", "not above 0")),
        (["predict", "--model", "m.onnx", "--node", "n.yaml", "--threads", "0"], 2, ("--threads", "below 1")),
        (
            ["predict", "--model", "m.onnx", "--node", "n.yaml"],
            1,
            ("m.onnx", "ModelNotFound", "check the path"),
        ),
        (["predict", "--model", "m.onnx", "--node", "list.yaml"], 1, ("list.yaml", "agent --print")),
        (
            ["predict", "--model", "p.yaml", "--node", "n.yaml", "--threads", "9"],
            0,
            ("--threads 9", "runs 2"),
        ),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(
    words: list[str], code: int, told: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "n.yaml").write_text(NODE)
    (tmp_path / "p.yaml").write_text(PROFILE)
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "config.yaml").write_text(KUBECONFIG)
    done = command(*words, home=tmp_path)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    for word in told:
        assert word in done.stderr
