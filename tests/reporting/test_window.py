import json
import os
import shutil
import subprocess
import sys
from textwrap import dedent

import pytest

from fcn_deploy.errors import DependencyError
from fcn_deploy.reporting.window import Window

tkinter = pytest.importorskip("tkinter")


def test_without_a_screen_the_error_says_so(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DependencyError, match=r"there is no screen for `display`; got .*; fix: run it where"):
        Window("net")


def test_without_tk_the_error_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "tkinter", None)
    with pytest.raises(DependencyError, match=r"`display` needs Tk; .*python3-tk"):
        Window("net")


@pytest.mark.skipif(shutil.which("Xvfb") is None, reason="no Xvfb, a screen that nobody sees")
def test_a_window_shows_pictures_until_it_is_closed(tmp_path):
    script = """
    import json, sys
    import numpy as np
    from fcn_deploy.reporting.window import Window

    sizes = []
    with Window("net") as window:
        for size in ((48, 64, 3), (5000, 3000, 3)):
            window.show(np.full(size, 90, np.uint8))
            sizes.append((window._photo.width(), window._photo.height()))
        window._root.focus_force()
        window._root.event_generate("<Key-q>" if sys.argv[1] == "q" else "<Escape>")
        window._root.update()
        sizes.append(window.closed)
        window.show(np.zeros((4, 4, 3), np.uint8))
    print(json.dumps(sizes))
    """
    read, write = os.pipe()
    with subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "800x600x24"], pass_fds=[write], stderr=subprocess.DEVNULL
    ) as screen:
        try:
            os.close(write)
            number = os.read(read, 16).decode().strip()
            assert number, "Xvfb does not start"
            for key in ("q", "escape"):
                command = [sys.executable, "-c", dedent(script), key]
                environment = {**os.environ, "DISPLAY": f":{number}"}
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
                assert done.returncode == 0, done.stderr
                assert json.loads(done.stdout) == [[64, 48], [324, 540], True]
        finally:
            os.close(read)
            screen.terminate()
