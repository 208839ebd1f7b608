"""Answers of models that speak: have them written, and see how many are right, kind by kind, and what is right without looking.

Questions are rows with `kind`, `question` and `answer`, as the world's are (`ask`, the frozen sets).
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxtyping import Bool, Int
from torch import Tensor, nn

from minivlm.evaluation.modes import quiet
from minivlm.language.chat import Chat, Exchange
from minivlm.world.levels import Level


def respond(
    model: nn.Module,
    chat: Chat,
    conversations: Sequence[Sequence[Exchange]],
    pixel_values: Tensor | list[Tensor] | None = None,
    max_new_tokens: int = 24,
    batch: int = 100,
    eos: int | None = None,
    asked: Int[Tensor, "images a"] | None = None,
    asked_keep: Bool[Tensor, "images a"] | None = None,
) -> list[str]:
    """What the model says next in each conversation, taking the likeliest token each time, up to its end of text.

    Args:
        model: has `generate(ids, pixel_values, keep, ...)`.
        conversations: their last answer is None.
        pixel_values: all their images in reading order, as many as the conversations mention; on any device.
        batch: conversations answered at a time.
        eos: ends an answer; by default the tokenizer's `<eos>`.
        asked: what a model that looks for what it is asked (InstructBLIP) reads beside each image: a row for each, in the same
            order, and in `asked_keep` False where there is padding. Both go to `generate`.

    Raises:
        ValueError: nothing to answer, images and conversations do not match, or images and what is asked of them, or what
            `Chat.prompts` and `generate` raise.
    """
    if not conversations or batch < 1:
        raise ValueError(
            f"give conversations to answer, and a batch of at least 1; got {len(conversations)} and {batch}."
        )
    mentions = [sum(said.count(chat.image) for said, _ in turns) for turns in conversations]
    given = 0 if pixel_values is None else len(pixel_values)
    if sum(mentions) != given:
        raise ValueError(f"the conversations mention {sum(mentions)} images ({chat.image!r}); {given} are given.")
    told = {name: rows for name, rows in (("asked", asked), ("asked_keep", asked_keep)) if rows is not None}
    for name, rows in told.items():
        if len(rows) != given:
            raise ValueError(f"{name} has {len(rows)} rows for {given} images; give one for each.")
    tokenizer, device = chat.tokenizer, next(model.parameters()).device
    eos = tokenizer.eos if eos is None else eos
    said: list[str] = []
    with quiet(model):
        for start in range(0, len(conversations), batch):
            first, many = sum(mentions[:start]), sum(mentions[start : start + batch])
            ids, keep = chat.prompts(conversations[start : start + batch], many)
            images = _on(device, pixel_values[first : first + many]) if many else None
            how = {name: rows[first : first + many].to(device) for name, rows in told.items() if many}
            how |= {"max_new_tokens": max_new_tokens, "eos": eos}
            new = model.generate(ids.to(device), images, keep.to(device), **how)
            for row in new.tolist():
                end = row.index(eos) if eos in row else len(row)
                said.append(tokenizer.decode(row[:end], skip_specials=True).strip())
    return said


def _on(device: Any, images: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
    return images.to(device) if isinstance(images, Tensor) else [image.to(device) for image in images]


def plain(answer: str) -> str:
    """An answer without what does not count: space around it, and a full stop at its end."""
    return answer.strip().removesuffix(".").rstrip()


def right(
    said: Sequence[str], questions: Sequence[Any], correct: Callable[[int, str], bool] | None = None
) -> list[bool]:
    """Whether each answer is the question's.

    Args:
        correct: `correct(i, said)` says whether an answer to the i-th question is right, where more than one is (see
            `world.robot_questions`). By default it must be the answer, word for word, but for `plain`.

    Raises:
        ValueError: not as many answers as questions, or none.
    """
    if len(said) != len(questions) or not questions:
        raise ValueError(f"there are {len(said)} answers to {len(questions)} questions; give one to each, and some.")
    correct = correct or (lambda i, answer: plain(answer) == plain(questions[i].answer))
    return [bool(correct(i, answer)) for i, answer in enumerate(said)]


def share_right(
    said: Sequence[str], questions: Sequence[Any], correct: Callable[[int, str], bool] | None = None
) -> float:
    """Share of right answers; arguments as for `right`."""
    return sum(right(said, questions, correct)) / len(questions)


def by_kind(
    said: Sequence[str], questions: Sequence[Any], correct: Callable[[int, str], bool] | None = None
) -> dict[str, float]:
    """Kind -> share of right answers, in the order in which kinds first come; arguments as for `right`."""
    hits: dict[str, list[bool]] = defaultdict(list)
    for question, hit in zip(questions, right(said, questions, correct), strict=True):
        hits[question.kind].append(hit)
    return {kind: sum(found) / len(found) for kind, found in hits.items()}


def asked(questions: Sequence[Any]) -> dict[str, int]:
    """Kind -> how many questions of it there are."""
    return dict(Counter(question.kind for question in questions))


def table(shares: Mapping[str, float], questions: Sequence[Any], levels: Mapping[str, Level] | None = None) -> str:
    """A line for each kind: how many were asked, the share of right ones, and where `levels` (`world.levels.stored()[task]`)
    are given, what guessing and the words alone reach.
    """
    many, width = asked(questions), max(map(len, ["kind", *shares]))
    lines = [f"{'kind':<{width}}  asked  right" + ("  blind  chance" if levels else "")]
    for kind, share in shares.items():
        line = f"{kind:<{width}}  {many[kind]:>5}  {share:>5.2f}"
        lines.append(line + (f"  {levels[kind].blind:>5.2f}  {levels[kind].chance:>6.2f}" if levels else ""))
    return "\n".join(lines)


def usual(known: Sequence[Any], questions: Sequence[Any]) -> list[str]:
    """What one says who has learned the answers of `known` and never looks: to each question the most usual answer to the same
    words; to words that are new, that of their kind, or else of all. Among equals, the last in the alphabet.

    `by_kind(usual(known, questions), questions)` is its level. (The levels of the frozen sets, `world.levels`, are those of the
    best of several such readers.)

    Raises:
        ValueError: nothing is known.
    """
    if not known:
        raise ValueError("give questions with answers to learn from; got none.")
    seen: dict[tuple[str, ...], Counter] = defaultdict(Counter)
    for row in known:
        for key in _keys(row):
            seen[key][plain(row.answer)] += 1
    best = {key: max(answers, key=lambda a: (answers[a], a)) for key, answers in seen.items()}
    return [next(best[key] for key in _keys(row) if key in best) for row in questions]


def _keys(row: Any) -> tuple[tuple[str, ...], ...]:
    return (row.kind, row.question), (row.kind,), ()
