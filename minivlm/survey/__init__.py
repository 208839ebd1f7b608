"""The survey this course follows, and everything that is made from it.

- `MODELS`: the one hand-written table of the 21 models (`minivlm/survey/models.py`)
- `by_name`, `built`: look one up; which of them exist as a notebook and a module, read off the disk
- `header`: the markdown of a notebook's first cell, with the diff table against its parents
- `table`: the markdown table of all models for the README, with what the notebooks measured
- `python -m minivlm.survey --write README.md`: refresh that table between its markers
"""

from minivlm.survey.markdown import header, refresh, table
from minivlm.survey.models import FAMILIES, MODELS, ROWS, Model, built, by_name

__all__ = ["FAMILIES", "MODELS", "ROWS", "Model", "built", "by_name", "header", "refresh", "table"]
