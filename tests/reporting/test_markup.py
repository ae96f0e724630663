"""Names of classes and files are shown as they are, whatever they look like."""

import io

import numpy as np
from rich.console import Console

from fcn_deploy.reporting.tables import accuracy_table


def test_markup_in_names_is_text():
    names = ("[void]", "[/b]", "[bold red]road", ":smile:")
    table = accuracy_table("[/b] on 2 images", names, np.eye(4, dtype=np.int64))
    console = Console(file=io.StringIO(), width=120)
    console.print(table)
    for name in (*names, "[/b] on 2 images"):
        assert name in console.file.getvalue()
