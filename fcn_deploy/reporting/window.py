"""A window on the screen that shows one picture after the other."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fcn_deploy.errors import DependencyError

if TYPE_CHECKING:
    from typing_extensions import Self

_SHARE = 0.9  # of the screen, at most


class Window:
    """A window, open until its context ends; closing it, `q` or Escape ends the run that fills it.

    Args:
        title: What its bar says.

    Raises:
        DependencyError: There is no screen, or Python was installed without Tk.
    """

    def __init__(self, title: str) -> None:
        try:
            import tkinter

            from PIL import ImageTk
        except ImportError as error:
            fix = "install it as the system calls it: apt-get install python3-tk"
            raise DependencyError("`display` needs Tk", got=str(error), fix=fix) from error
        try:
            self._root = tkinter.Tk()
        except tkinter.TclError as error:
            fix = "run it where there is a screen, or leave `display` out"
            raise DependencyError("there is no screen for `display`", got=str(error), fix=fix) from error
        self._photo_of = ImageTk.PhotoImage
        self._label: Any = tkinter.Label(self._root, borderwidth=0)
        self._label.pack()
        self._photo: Any = None  # Tk does not keep it
        self._root.title(title)
        self._root.protocol("WM_DELETE_WINDOW", self.close)
        for key in ("q", "<Escape>"):
            self._root.bind(key, lambda event: self.close())
        self.closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def show(self, picture: NDArray[np.uint8]) -> None:
        """Shows a picture, uint8 [H, W, 3] in RGB, smaller if the screen is; nothing after the window was closed."""
        if self.closed:
            return
        image = Image.fromarray(picture)
        largest = (int(_SHARE * self._root.winfo_screenwidth()), int(_SHARE * self._root.winfo_screenheight()))
        if image.width > largest[0] or image.height > largest[1]:
            image.thumbnail(largest, Image.Resampling.BILINEAR)
        self._photo = self._photo_of(image, master=self._root)
        self._label.configure(image=self._photo)
        self._root.update()

    def close(self) -> None:
        """Closes it."""
        if not self.closed:
            self.closed = True
            self._root.destroy()
