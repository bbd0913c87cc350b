"""The notebook of the documentation: examples/implicit_layers.py with what it prints and draws.

    python docs/notebook.py

runs the script cell by cell ("# %%" begins one) and writes examples/implicit_layers.ipynb. As a
hook of MkDocs it shows that notebook on the page that asks for it.
"""

from __future__ import annotations

import base64
import io
import json
import tempfile
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parents[1] / "examples/implicit_layers.py"
NOTEBOOK = SCRIPT.with_suffix(".ipynb")
PLACE = "<!-- the notebook -->"
DPI = 64  # of the figures that are kept


def cells(script: str) -> list[tuple[str, str]]:
    """Kind ("markdown" or "code") and text of each cell of a script."""
    found = []
    for part in script.split("# %%")[1:]:
        head, _, text = part.partition("\n")
        kind = "markdown" if "[markdown]" in head else "code"
        lines = text.strip().splitlines()
        if kind == "markdown":
            lines = [line.removeprefix("#").removeprefix(" ") for line in lines]
        found.append((kind, "\n".join(lines)))
    return found


def run(parts: list[tuple[str, str]], names: dict[str, Any] | None = None) -> list[dict]:
    """The cells of a notebook, executed in order; ``names`` is where their names go."""
    import matplotlib.pyplot as plt

    names, found = {} if names is None else names, []
    for number, (kind, text) in enumerate(parts):
        cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": text}
        if kind == "code":
            plt.close("all")
            with redirect_stdout(io.StringIO()) as told:
                exec(compile(text, f"cell {number}", "exec"), names)
            outputs: list[dict] = []
            if told.getvalue():
                outputs.append({"output_type": "stream", "name": "stdout", "text": told.getvalue()})
            outputs += [_drawn(plt.figure(each)) for each in plt.get_fignums()]
            cell |= {"execution_count": number, "outputs": outputs}
        found.append(cell)
    plt.close("all")
    return found


def _drawn(figure: Any) -> dict:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=DPI, metadata={"Software": None})
    image = base64.b64encode(data.getvalue()).decode()
    title = " / ".join(axes.get_title() for axes in figure.axes)
    return {
        "output_type": "display_data",
        "data": {"image/png": image, "text/plain": title},
        "metadata": {},
    }


def on_page_markdown(text: str, **rest: Any) -> str:
    if PLACE not in text:
        return text
    shown = []
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        shown.append(
            "\n".join(x for x in cell["source"].splitlines() if not x.startswith("# "))
            if cell["cell_type"] == "markdown"  # the page has a title of its own
            else f"```python\n{cell['source']}\n```"
        )
        for output in cell.get("outputs", ()):
            if output["output_type"] == "stream":
                shown.append(f"```text\n{output['text']}```")
            else:
                data, title = output["data"]["image/png"], output["data"]["text/plain"]
                shown.append(f'<img alt="{title}" src="data:image/png;base64,{data}">')
    return text.replace(PLACE, "\n\n".join(shown))


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        made = run(cells(SCRIPT.read_text()))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about = {"kernelspec": kernel, "language_info": {"name": "python"}}
    book = {"cells": made, "metadata": about, "nbformat": 4, "nbformat_minor": 5}
    NOTEBOOK.write_text(json.dumps(book, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
