"""How a result is shown in Python and in notebooks: the methods stand here, the drawing in `pags.plots`.

Data sets and audits belong to the first packages, figures and pages to the last. So the drawing is looked up
when it is asked for, here and nowhere else.
"""

from importlib import import_module
from pathlib import Path
from typing import Any


class Displayed:
    """What prints itself in at most ten lines, and draws, tabulates and writes itself on request."""

    def __repr__(self) -> str:
        return self._view().text()

    def _repr_html_(self) -> str:
        return self._view().html()

    def plot(self, **options: Any) -> Any:
        """The main figure, from Matplotlib; options are those of `pags.plot_audit` or `pags.plot_sweep`."""
        return self._view().plot(**options)

    def show(self, n: int = 8) -> Any:
        """Pictures of up to n images, with gradients and scores where there are some: a Matplotlib figure."""
        return self._view().show(n)

    def to_pandas(self) -> Any:
        """The numbers as a `pandas.DataFrame`.

        Raises:
            PagsError: pandas is not installed.
        """
        return self._view().to_pandas()

    def save(self, folder: Path | str) -> list[Path]:
        """Write records and tensors as the command does, for `pags.load_results`; the files written."""
        return self._view().save(Path(folder))

    def report(self, folder: Path | str | None = None) -> Path:
        """Save, draw every figure and write the page.

        Args:
            folder: where to; None: the folder of a result that was read from, or written to, one.

        Returns:
            The page.
        """
        return self._view().report(None if folder is None else Path(folder))

    def _view(self) -> Any:
        return import_module("pags.plots").view(self)
