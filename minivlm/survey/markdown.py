"""The survey as markdown: a notebook's header cell and the README's table of models.

Notable: nothing here is typed twice. What is built is read off the disk, and what was measured is read from
`results/*.jsonl`, where `python -m minivlm claims` keeps one row a claim and seed:
`{"notebook": "06_llava", "claim": "...", "preset": "cpu", "seed": 0, "with_mlp": 0.91, "without": 0.42, ...}`.
"""

from collections.abc import Iterable
from pathlib import Path

from minivlm.survey.evidence import LEVELS, Row, evidence, mean, read_rows, short, spread
from minivlm.survey.models import MODELS, ROOT, ROWS, Model, built, by_name

BEGIN, END = "<!-- survey -->", "<!-- /survey -->"
NOTHING = "—"


def _grid(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A markdown table. A bar inside a cell would end it, so it is escaped."""
    lines = [list(head)]
    lines.append(["---"] * len(lines[0]))
    lines.extend([cell.replace("|", "\\|") for cell in row] for row in rows)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def diff_table(model: Model) -> str:
    """The seven rows of `model` beside those of its parents; rows in which the paper's idea lives are bold."""
    parents = [by_name(parent) for parent in model.parents]
    head = ["", *(p.title for p in parents), ("→ " if parents else "") + model.title]
    rows = []
    for field, label in ROWS.items():
        cells = [label, *(getattr(p, field) for p in parents), getattr(model, field)]
        if field in model.new:
            cells[0], cells[-1] = f"**{cells[0]}**", f"**{cells[-1]}**"
        rows.append(cells)
    return _grid(head, rows)


def header(name: str) -> str:
    """The markdown of the first cell of a model's notebook: title, paper, idea and diff table.

    Raises KeyError for a name that is not in the survey.
    """
    model = by_name(name)
    return "\n\n".join(
        [
            f"# {model.number} · {model.title}",
            f"[{model.paper}]({model.url}) · {model.authors} · {model.date}",
            f"> {model.idea}",
            diff_table(model),
        ]
    )


def read_results(folder: Path) -> list[dict[str, object]]:
    """All rows of `folder/*.jsonl`, file by file in the order of their names; [] where there is no such folder."""
    return [row for file in sorted(folder.glob("*.jsonl")) for row in read_rows(file)]


def measured(rows: Iterable[Row], model: Model) -> str:
    """What the model's notebook measured: each claim with the mean, lowest and highest of its two main numbers over seeds,
    their difference with its interval, the levels they are compared with, and whether the claim is reproduced.

    Presets are never averaged together, and a seed that crashed is counted, not hidden: see `minivlm.survey.evidence`.
    """
    parts = []
    for found in evidence(row for row in rows if row.get("notebook") == model.notebook):
        if found.seeds:
            means = [spread(name, found.measured[name]) for name in found.main]
            levels = [f"{name} {short(mean(found.measured[name]))}" for name in LEVELS if name in found.measured]
            says = ", ".join(filter(None, [*means, found.difference, *levels]))
            made = ", ".join(filter(None, [found.count, found.preset, "on a GPU" if found.device == "gpu" else ""]))
            parts.append(f"{found.claim}: **{found.verdict}**, {says} ({made})")
    return "<br>".join(parts) or NOTHING


def table(results: Iterable[Row] | None = None, root: Path = ROOT) -> str:
    """The README's table of all models. `results`: rows as `read_results` gives them; default, those of `root`."""
    found = list(read_results(root / "results") if results is None else results)
    done = built(root)
    rows = []
    for model in MODELS:
        title = f"[{model.title}]({model.notebook_file})" if model.name in done else model.title
        paper = f"[{model.date}]({model.url})"
        tick = "yes" if model.name in done else NOTHING
        rows.append([model.number, title, paper, model.idea, tick, measured(found, model)])
    return _grid(["", "model", "paper", "the idea", "built", "measured here"], rows)


def refresh(text: str, content: str) -> str:
    """`text` with what stands between the survey markers replaced by `content`. Raises ValueError without markers."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"expected {BEGIN} and then {END}, once each")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{content}\n{END}{after}"
