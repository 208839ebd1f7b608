"""The survey as markdown: a notebook's header cell and the README's table of models.

Notable: nothing here is typed twice. What is built is read off the disk, and what was measured is read from
`results/*.jsonl`, where a notebook's claim writes one row a seed (`minivlm.course.lesson.Lesson.record`):
`{"notebook": "06_llava", "claim": "...", "preset": "cpu", "seed": 0, "with_mlp": 0.91, "without": 0.42, ...}`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from minivlm.survey.models import MODELS, ROOT, ROWS, Model, built, by_name

BEGIN, END = "<!-- survey -->", "<!-- /survey -->"
NOTHING = "—"
LEVELS = ("chance", "blind")

# Fields of a results row that say how it was made, not what was measured.
CIRCUMSTANCES = frozenset(
    {"notebook", "claim", "seed", "preset", "arms", "device", "torch", "world", "code", "seconds"}
)


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
    return [
        json.loads(line)
        for file in sorted(folder.glob("*.jsonl"))
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]


def _numbers(row: Mapping[str, object]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in row.items()
        if key not in CIRCUMSTANCES and isinstance(value, int | float) and not isinstance(value, bool)
    }


def _shown(names: Sequence[str]) -> list[str]:
    """The first two numbers (with the idea, and without it) and the levels they are compared with."""
    levels = [name for name in names if name in LEVELS]
    return [name for name in names if name not in LEVELS][:2] + levels


def _over_seeds(name: str, values: Sequence[float]) -> str:
    """Mean and, if they differ, lowest and highest."""
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    spread = f" ({low} to {high})" if low != high else ""
    return f"{name.replace('_', ' ')} {sum(values) / len(values):.2f}{spread}"


def measured(rows: Iterable[Mapping[str, object]], model: Model) -> str:
    """What the model's notebook measured: each claim with the mean, lowest and highest of its main numbers over seeds.

    Presets are never averaged together. Of several rows of one seed the last counts. A row without numbers (a seed that
    crashed) is counted, not hidden.
    """
    claims: dict[tuple[str, str], dict[object, dict[str, float]]] = {}
    for row in rows:
        if row.get("notebook") == model.notebook:
            key = (str(row.get("claim", "")), str(row.get("preset", "")))
            claims.setdefault(key, {})[row.get("seed")] = _numbers(row)
    parts = []
    for (claim, preset), seeds in claims.items():
        good = [numbers for numbers in seeds.values() if numbers]
        if not good:
            continue
        names = [name for name in good[0] if all(name in numbers for numbers in good)]
        means = ", ".join(_over_seeds(name, [numbers[name] for numbers in good]) for name in _shown(names))
        count = f"{len(good)} of {len(seeds)} seeds" if len(good) < len(seeds) else f"{len(good)} seeds"
        count = "1 seed" if count == "1 seeds" else count
        parts.append(f"{claim}: {means} ({', '.join(filter(None, [count, preset]))})")
    return "<br>".join(parts) or NOTHING


def table(results: Iterable[Mapping[str, object]] | None = None, root: Path = ROOT) -> str:
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
