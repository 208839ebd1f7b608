"""A small course in a temporary folder."""

from pathlib import Path

from minivlm.course.files import Course

ATTENTION = '''"""Toy attention."""

import math

# How many heads there are.
HEADS = 2  # two


# Softly picks values.
def attend(q, k):
    """Scaled product."""
    return q * k / math.sqrt(HEADS)


class Attention:
    """Nothing but a name."""

    width = 4
'''

LESSON = """# %% [markdown] header="toy"

# %% [markdown]
# ## Build
#
# Some $x$ text.

# %%
import math

# %% include="minivlm.toy:HEADS, attend"

# %% tags=["nbval-ignore-output"] alt="A line that says nothing"
print("a")
print("b")

attend(2, 3) > 4

# %%
print("claim: six beats five")
"""


def header(name: str) -> str:
    return f"# About {name}\n"


def make_course(root: Path, source: str = LESSON, name: str = "01_toy") -> Course:
    (root / "minivlm").mkdir()
    (root / "minivlm" / "toy.py").write_text(ATTENTION)
    (root / "notebooks" / "src").mkdir(parents=True)
    (root / "notebooks" / "src" / f"{name}.py").write_text(source)
    return Course(root)
