"""Every figure style that the course uses more than once.

- `use_style`: one look for all figures; call it once, in a notebook's first cell
- `show_images`, `overlay`, `tokens`: what goes in and what the model looks at
- `curves`, `bars`, `heatmap`: what was measured, always with chance and blind levels beside it
- `diagram`, `box`, `arrow`: an architecture drawn by code
- `genealogy`: the family tree of the surveyed models (`python -m minivlm.plots genealogy.png`)

Each returns a Figure or an Axes and none shows it: the notebook does.
"""

from minivlm.plots.charts import bars, curves, heatmap
from minivlm.plots.diagrams import arrow, box, diagram
from minivlm.plots.genealogy import genealogy
from minivlm.plots.pictures import overlay, show_images, tokens
from minivlm.plots.style import COLOURS, KINDS, RIGHT, WRONG, use_style

__all__ = [
    "COLOURS",
    "KINDS",
    "RIGHT",
    "WRONG",
    "arrow",
    "bars",
    "box",
    "curves",
    "diagram",
    "genealogy",
    "heatmap",
    "overlay",
    "show_images",
    "tokens",
    "use_style",
]
