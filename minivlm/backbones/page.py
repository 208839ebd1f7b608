"""The table of `docs/backbones.md`, made from the cards."""

from minivlm.backbones.store import built, card
from minivlm.world import datasheet

#: The line after which the page holds its table.
START = "<!-- made by: python -m minivlm.backbones list --write docs/backbones.md -->"


def table() -> str:
    """What the cards say, as Markdown: a section for each backbone that is here."""
    sections = []
    for name in built():
        about = card(name)
        recipe = about["recipe"]
        rows = [
            f"### {name}",
            f"{about['what'][0].upper()}{about['what'][1:]}. {about['parameters']:,} parameters, trained for"
            f" {recipe['steps']:,} steps of {recipe['batch']} in {about['hours']:.1f} hours ({about['device']}), seed"
            f" {recipe['seed']}, on world {about['world']}.",
            "\n".join(["| measured on | right | by kind |", "|---|---:|---|", *_rows(about["metrics"])]),
        ]
        by_objects = _by_objects(about["metrics"])
        sections.append("\n\n".join(rows + by_objects))
    return "\n\n".join(sections)


def _rows(metrics: dict[str, float]) -> list[str]:
    """A row for each task; its kinds, if there are several, in a line of their own."""
    rows = []
    for task, value in metrics.items():
        if task.startswith("scene ") or " / " in task:
            continue
        kinds = {kind.split(" / ")[1]: v for kind, v in metrics.items() if kind.startswith(f"{task} / ")}
        parts = ", ".join(f"{kind} {v:.0%}" for kind, v in kinds.items()) if len(kinds) > 1 else ""
        rows.append(f"| {task} | {value:.1%} | {parts} |")
    return rows


def _by_objects(metrics: dict[str, float]) -> list[str]:
    """Scene questions, a column for each number of things."""
    cells: dict[str, dict[str, float]] = {}
    for kind, value in metrics.items():
        if kind.startswith("scene "):
            name, objects = kind.removeprefix("scene ").rpartition(" ")[::2]
            cells.setdefault(name or "all", {})[objects] = value
    if not cells:
        return []
    head = ["| scene | 1 thing | 2 things | 3 things |", "|---|---:|---:|---:|"]
    body = [
        f"| {name} | " + " | ".join(f"{row[n]:.1%}" if n in row else "" for n in "123") + " |"
        for name, row in cells.items()
    ]
    return ["\n".join(head + body)]


def refresh(page: str) -> str:
    """The page with a fresh table between its markers.

    Raises:
        ValueError: a page without the markers.
    """
    return datasheet.refresh(page, table(), START)
