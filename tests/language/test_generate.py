"""Writing."""

import pytest
import torch

from minivlm.language.generate import generate, next_token, pad_left
from tests.language.test_decoder import decoder

PROMPTS = [[5, 6, 7, 8, 9], [11], [3, 2, 1]]


@pytest.fixture(scope="module")
def model():
    return decoder()


@torch.no_grad()
def slowly(model, prompt: list[int], new: int) -> list[int]:
    """Greedy, without cache, batch or padding."""
    ids = list(prompt)
    for _ in range(new):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


def test_pad_left():
    ids, keep = pad_left(PROMPTS, pad=4)
    assert ids.tolist() == [[5, 6, 7, 8, 9], [4, 4, 4, 4, 11], [4, 4, 3, 2, 1]]
    assert keep.int().tolist() == [[1, 1, 1, 1, 1], [0, 0, 0, 0, 1], [0, 0, 1, 1, 1]]
    with pytest.raises(ValueError, match="got no prompts"):
        pad_left([])
    with pytest.raises(ValueError, match="got an empty one"):
        pad_left([[1], []])


@pytest.mark.parametrize("pad", [0, 17])
def test_a_batch_writes_what_each_would_write_alone(model, pad):
    ids, keep = pad_left(PROMPTS, pad)
    together = generate(model, ids, keep, max_new_tokens=10).tolist()
    assert together == [slowly(model, prompt, 10) for prompt in PROMPTS]
    assert together[0] == generate(model, torch.tensor(PROMPTS[:1]), max_new_tokens=10)[0].tolist()


def test_embeddings_write_as_ids(model):
    ids, keep = pad_left(PROMPTS)
    by_ids = generate(model, ids, keep, 6)
    with torch.no_grad():
        embeddings = model.embed(ids)
    assert torch.equal(generate(model, embeddings=embeddings, keep=keep, max_new_tokens=6), by_ids)


def test_rows_stop_at_eos(model):
    ids, keep = pad_left(PROMPTS)
    free = generate(model, ids, keep, 10)
    eos = int(free[1, 2])
    stopped = generate(model, ids, keep, 10, eos=eos, pad=39)
    ends = [row.index(eos) if eos in row else None for row in free.tolist()]
    assert any(end is not None and end < 9 for end in ends)
    for end, was, now in zip(ends, free.tolist(), stopped.tolist(), strict=True):
        cut = len(now) if end is None else end + 1
        assert now[:cut] == was[:cut]
        assert set(now[cut:]) <= {39}
    alone = generate(model, torch.tensor([PROMPTS[1]]), max_new_tokens=10, eos=eos)
    assert alone[0].tolist() == free[1, : ends[1] + 1].tolist(), "all rows ended: nothing more is computed"


def test_the_cache_saves_work(model, monkeypatch):
    """Every token passes the model once."""
    seen = []
    features = type(model).features

    def counting(self, ids=None, *rest, **more):
        seen.append(ids.shape[1])
        return features(self, ids, *rest, **more)

    monkeypatch.setattr(type(model), "features", counting)
    generate(model, torch.tensor([[1, 2, 3]]), max_new_tokens=5)
    assert seen == [3, 1, 1, 1, 1]


def test_greedy_takes_the_likeliest():
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]])
    assert next_token(logits).tolist() == [1, 0]


def frequencies(logits, n=20_000, **options) -> torch.Tensor:
    drawn = next_token(logits.expand(n, -1), generator=torch.Generator().manual_seed(0), **options)
    return torch.bincount(drawn, minlength=logits.shape[-1]) / n


def test_temperature():
    p = torch.tensor([0.1, 0.6, 0.3])
    torch.testing.assert_close(frequencies(p.log(), temperature=1.0), p, atol=0.015, rtol=0)
    sharp = p**2 / (p**2).sum()
    torch.testing.assert_close(frequencies(p.log(), temperature=0.5), sharp, atol=0.015, rtol=0)


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (0.4, [0, 1, 0, 0]),  # the first passes it alone; one is always left
        (0.5, [0, 1, 0, 0]),  # just reached
        (0.55, [0, 1, 0, 1]),
        (0.75, [0, 1, 0, 1]),
        (0.8, [1, 1, 0, 1]),
        (1.0, [1, 1, 1, 1]),
    ],
)
def test_top_p_by_hand(top_p, kept):
    """Probabilities in powers of two, so that sums are exact."""
    p = torch.tensor([0.1875, 0.5, 0.0625, 0.25])
    wanted = p * torch.tensor(kept)
    found = frequencies(p.log(), temperature=1.0, top_p=top_p)
    torch.testing.assert_close(found, wanted / wanted.sum(), atol=0.015, rtol=0)
    assert ((found > 0).int() == torch.tensor(kept)).all()


def test_sampling_repeats_with_its_generator(model):
    ids, keep = pad_left(PROMPTS)
    draw = lambda seed: generate(
        model, ids, keep, 8, temperature=1.0, top_p=0.9, generator=torch.Generator().manual_seed(seed)
    )
    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ids": None}, "either as ids or as embeddings"),
        ({"ids": torch.zeros(1, 0, dtype=torch.long)}, "a prompt is empty"),
        ({"ids": torch.zeros(0, 3, dtype=torch.long)}, "a prompt is empty"),
        ({"keep": torch.tensor([[False, False], [True, True]])}, "a prompt is empty"),
        ({"keep": torch.tensor([[True, False], [True, True]])}, "padded on the left.* pad_left"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"temperature": -1.0}, "temperature at least 0"),
        ({"top_p": 0.0}, "top_p above 0"),
        ({"top_p": 1.5}, "at most 1; got .* 1.5"),
        ({"max_new_tokens": 31}, "has 2 tokens, and 31 new ones make 33; the context holds 32.* at most 30"),
    ],
)
def test_clear_errors(model, options, words):
    with pytest.raises(ValueError, match=words):
        generate(model, **{"ids": torch.ones(2, 2, dtype=torch.long), **options})


def test_the_whole_context_can_be_used_and_padding_does_not_count(model):
    assert generate(model, torch.ones(1, 2, dtype=torch.long), max_new_tokens=30).shape == (1, 30)
    ids, keep = pad_left([[1], [1, 2]])
    ids, keep = torch.cat([ids.new_zeros(2, 5), ids], 1), torch.cat([keep.new_zeros(2, 5), keep], 1)
    assert generate(model, ids, keep, max_new_tokens=30).shape == (2, 30)
