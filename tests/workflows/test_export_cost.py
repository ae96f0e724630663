"""What an export costs: memory beside the weights, and CPU time beside torch's own exporter."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]
MB = 10**6
NORMALIZED = ("--normalization", "imagenet")

# ru_maxrss would not do: it is at least that of the process that started this one.
EXPORT = """
import re, sys
from pathlib import Path
from fcn_deploy.cli.app import run
code = run(["export", *sys.argv[1:]])
print("peak", re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
sys.exit(code)
"""
# As users of torch alone write it.
BARE = """
import sys
import torch
from fcn_deploy.models.fcn import FCN
net = FCN(8, 5, 0.0625)
net.load_state_dict(torch.load(sys.argv[1], weights_only=True))
size = torch.export.Dim.DYNAMIC
torch.onnx.export(
    net.eval(), (torch.zeros(2, 3, 1031, 1543),), dynamo=True, opset_version=18, input_names=["image"],
    output_names=["logits"], dynamic_shapes=({0: size, 2: size, 3: size},), verbose=False,
).save(sys.argv[2])
"""


def tree(process):
    """A process and its descendants, by their ids."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:  # it has ended
        return [process]
    return [process, *(one for child in children for one in tree(int(child)))]


def resident(process):
    """The memory of a process in bytes; pages that several share count in parts."""
    try:
        return 1024 * int(re.search(r"Pss:\s*(\d+) kB", Path(f"/proc/{process}/smaps_rollup").read_text())[1])
    except (OSError, TypeError):  # it has ended, or is about to
        return 0


def test_the_peak_is_less_than_four_times_the_weights_and_600_mb(make_net, tmp_path):
    weights = tmp_path / "net.pth"
    torch.save(make_net(8, classes=21, width=1.0).state_dict(), weights)
    limit = 4 * weights.stat().st_size + 600 * MB
    command = [sys.executable, "-c", EXPORT, "--weights", weights, *NORMALIZED, "-o", tmp_path / "net.onnx"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, sum(map(resident, tree(process.pid))))
            time.sleep(0.02)
        said = process.stdout.read()
    assert process.returncode == 0
    own = 1024 * int(re.search(r"peak (\d+)", said)[1])
    assert weights.stat().st_size < peak < limit, f"{peak / MB:.0f} MB, all processes together"
    assert own < limit, f"{own / MB:.0f} MB in the process itself"


def cpu_seconds(command):
    """The CPU time of a process and of those that it waited for."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_utime + used.ru_stime


def test_an_export_of_a_slim_net_takes_little_more_time_than_that_of_torch_alone(checkpoint_file, tmp_path):
    weights, output = checkpoint_file("fcn8s"), tmp_path / "net.onnx"
    ours = [sys.executable, "-m", "fcn_deploy", "export", "--weights", weights, *NORMALIZED, "-o", output]
    bare = [sys.executable, "-c", BARE, weights, output]
    # Whatever else the machine does makes both slower, seldom all runs.
    took = [(cpu_seconds(ours), cpu_seconds(bare)) for _ in range(3)]
    fastest, least = (min(times) for times in zip(*took, strict=True))
    assert fastest - least < 4, f"{fastest:.1f} s of CPU time beside {least:.1f} s"
