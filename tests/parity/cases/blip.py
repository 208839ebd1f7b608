"""BLIP against transformers' `BlipForConditionalGeneration`, `BlipForImageTextRetrieval` and `BlipForQuestionAnswering`.

Vision encoders and text models of different widths (the last has one width for both: its format allows no other), a grid of
3 x 3 patches, texts of different lengths, padded on the right and on the left. Positions are counted from the first column,
by the reference and by ours: padded on the left, a text is read with other positions than alone, but by both with the same.
Neither counts padding when it writes.
"""

from functools import partial

import torch
from torch import Tensor, nn
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
)

from minivlm.models.blip import Questions, begin
from minivlm.models.clip import Pairs
from tests.parity.cases.decoder import fill
from tests.parity.harness import Case, Outputs, randomise, record

CLS, ENC, DEC, SEP, PAD = 4, 52, 5, 48, 3
NEW = 14
LENGTHS = (12, 7, 4)
SIDES = ("right", "left")
SIZES = {
    "image_text_hidden_size": 14,
    "vision_config": {
        "image_size": 15,
        "patch_size": 5,
        "hidden_size": 24,
        "intermediate_size": 36,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "layer_norm_eps": 1e-5,
    },
    "text_config": {
        "vocab_size": 53,
        "max_position_embeddings": 32,
        "hidden_size": 20,
        "intermediate_size": 44,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "layer_norm_eps": 1e-12,
        "bos_token_id": DEC,
        "eos_token_id": SEP,
        "sep_token_id": SEP,
        "pad_token_id": PAD,
        "label_smoothing": 0.1,
    },
}
ONE_WIDTH = {**SIZES, "text_config": {**SIZES["text_config"], "hidden_size": 24, "num_attention_heads": 2}}
OTHER_EPSILONS = {
    **SIZES,
    "image_text_hidden_size": 30,
    "vision_config": {**SIZES["vision_config"], "layer_norm_eps": 1e-4, "num_attention_heads": 4},
    "text_config": {**SIZES["text_config"], "layer_norm_eps": 1e-4, "num_attention_heads": 5, "label_smoothing": 0.0},
}


def build(kind: type[nn.Module], config: dict, seed: int) -> nn.Module:
    """The reference with random weights; with small biases of words and large positions, so that it does not repeat itself."""
    model = randomise(kind(BlipConfig(**config)), seed)
    if hasattr(model, "text_decoder"):
        with torch.no_grad():
            model.text_decoder.cls.predictions.bias.mul_(0.1)
            model.text_decoder.bert.embeddings.position_embeddings.weight.mul_(8)
    return model


def texts(generator: torch.Generator, lengths: tuple[int, ...], first: int) -> Outputs:
    """Texts that begin with `first` and end with [SEP], padded on either side; labels are the texts without their padding and
    without their first token (on the left, it would be predicted from padding).
    """
    longest = max(lengths)
    out: Outputs = {side: torch.full((len(lengths), longest), PAD) for side in SIDES}
    out |= {f"{side}_mask": torch.zeros(len(lengths), longest, dtype=torch.long) for side in SIDES}
    for row, length in enumerate(lengths):
        words = torch.randint(DEC + 1, SEP, (length,), generator=generator)
        words[0], words[-1] = first, SEP
        for side, start in (("right", 0), ("left", longest - length)):
            out[side][row, start : start + length] = words
            out[f"{side}_mask"][row, start : start + length] = 1
    for side in SIDES:
        first_one = out[f"{side}_mask"].cumsum(dim=1) == 1
        out[f"{side}_labels"] = out[side].masked_fill((out[f"{side}_mask"] == 0) | first_one, -100)
    return out


def inputs(first: int, seed: int = 0) -> Outputs:
    """Three images, three texts, and three answers."""
    generator = torch.Generator().manual_seed(seed)
    side = SIZES["vision_config"]["image_size"]
    out = {"pixel_values": torch.randn(3, 3, side, side, generator=generator)}
    answers = {f"answer_{name}": tensor for name, tensor in texts(generator, (3, 6, 4), DEC).items()}
    return out | texts(generator, LENGTHS, first) | answers


def seen_by(reference: nn.Module, pixels: Tensor) -> Outputs:
    """What the reference's vision encoder makes of the images."""
    layers = record(reference.vision_model.encoder.layers, lambda: reference.vision_model(pixels))
    out = {f"vision block {i}": layer for i, layer in enumerate(layers)}
    return out | {"vision": reference.vision_model(pixels).last_hidden_state}


def seen_by_ours(model: nn.Module, pixels: Tensor) -> Outputs:
    """The same of ours."""
    layers = record(model.vision.blocks, lambda: model.vision(pixels))
    return {f"vision block {i}": layer for i, layer in enumerate(layers)} | {"vision": model.see(pixels)}


# --- the captioner


def their_captions(reference: nn.Module, given: Outputs) -> Outputs:
    """Inside and at the end of `BlipForConditionalGeneration`."""
    pixels = given["pixel_values"]
    out = seen_by(reference, pixels)
    for side in SIDES:
        ids, mask, labels = given[side], given[f"{side}_mask"], given[f"{side}_labels"]
        run = partial(reference, pixels, input_ids=ids, attention_mask=mask, labels=labels)
        layers = record(reference.text_decoder.bert.encoder.layer, run)
        out |= {f"{side}: block {i}": x[mask.bool()] for i, x in enumerate(layers)}
        out[f"{side}: logits"], out[f"{side}: loss"] = run().logits[mask.bool()], run().loss
    right, labels = given["right"], given["right_labels"]
    out["lesson: loss"] = reference(pixels, input_ids=right, attention_mask=given["right_mask"], labels=labels).loss
    how = {"max_new_tokens": NEW, "do_sample": False}
    out["generated"] = fill(reference.generate(pixels, **how)[:, 1:])
    out["generated from a prompt"] = fill(reference.generate(pixels, input_ids=right[:, :4], **how)[:, 3:])
    left, mask = given["left"], given["left_mask"]
    written = reference.generate(pixels, input_ids=left.clone(), attention_mask=mask, **how)
    out["generated from padded prompts"] = fill(written[:, left.shape[1] - 1 :])
    out["lesson: generated"] = out["generated"]
    return out


def our_captions(loaded: nn.Module, given: Outputs) -> Outputs:
    """The same of ours; some from the lesson class itself, as a notebook calls it."""
    model, pixels = loaded.model, given["pixel_values"]
    out = seen_by_ours(model, pixels)
    for side in SIDES:
        ids, mask, labels = given[side], given[f"{side}_mask"], given[f"{side}_labels"]
        run = partial(loaded, pixels, input_ids=ids, attention_mask=mask, labels=labels)
        layers = record(model.decoder.blocks, run)
        out |= {f"{side}: block {i}": x[mask.bool()] for i, x in enumerate(layers)}
        out[f"{side}: logits"], out[f"{side}: loss"] = run().logits[mask.bool()], run().loss
    right = given["right"]
    out["lesson: loss"] = model.loss(Pairs(pixels, begin(right, CLS)))
    out["generated"] = fill(loaded.generate(pixels, max_new_tokens=NEW)[:, 1:])
    out["generated from a prompt"] = fill(loaded.generate(pixels, right[:, :4], max_new_tokens=NEW)[:, 3:])
    left, mask = given["left"], given["left_mask"]
    out["generated from padded prompts"] = fill(loaded.generate(pixels, left, mask, NEW)[:, left.shape[1] - 1 :])
    out["lesson: generated"] = fill(model.generate(pixels, max_new_tokens=NEW))
    return out


# --- the filter


def their_matches(reference: nn.Module, given: Outputs) -> Outputs:
    """Inside and at the end of `BlipForImageTextRetrieval`."""
    pixels = given["pixel_values"]
    out = seen_by(reference, pixels)
    for side in SIDES:
        ids, mask = given[side], given[f"{side}_mask"]
        for task, head in (("itc", False), ("itm", True)):
            run = partial(reference, ids, pixels, use_itm_head=head, attention_mask=mask)
            layers = record(reference.text_encoder.encoder.layer, run)
            out |= {f"{side}: {task} block {i}": x[mask.bool()] for i, x in enumerate(layers)}
            out[f"{side}: {task} text"] = run().question_embeds[mask.bool()]
            out[f"{side}: {task}"] = run().itm_score
    ids, mask = given["right"], given["right_mask"]
    out["lesson: itc"] = reference(ids, pixels, use_itm_head=False, attention_mask=mask).itm_score
    judged = reference(begin(ids, ENC), pixels, attention_mask=mask).itm_score
    out["lesson: itm"], out["lesson: match"] = judged, judged.softmax(dim=-1)[:, 1]
    return out


def our_matches(loaded: nn.Module, given: Outputs) -> Outputs:
    """The same of ours; some from the lesson class itself, as a notebook calls it."""
    model, pixels = loaded.model, given["pixel_values"]
    out = seen_by_ours(model, pixels)
    for side in SIDES:
        ids, mask = given[side], given[f"{side}_mask"]
        for task, head in (("itc", False), ("itm", True)):
            run = partial(loaded, ids, pixels, use_itm_head=head, attention_mask=mask)
            layers = record(model.encoder.blocks, run)
            out |= {f"{side}: {task} block {i}": x[mask.bool()] for i, x in enumerate(layers)}
            out[f"{side}: {task} text"] = run().question_embeds[mask.bool()]
            out[f"{side}: {task}"] = run().itm_score
    ids = given["right"]
    out["lesson: itc"] = model.embed_image(pixels) @ model.embed_text(ids).T
    out["lesson: itm"], out["lesson: match"] = model.judge(model.see(pixels), ids), model.match(pixels, ids)
    return out


# --- answers


def their_answers(reference: nn.Module, given: Outputs) -> Outputs:
    """Inside and at the end of `BlipForQuestionAnswering`. Its decoder looks at the padding of questions too (transformers
    5.23 takes their mask and loses it), so answers are read in sight of each question alone.
    """
    pixels = given["pixel_values"]
    out = seen_by(reference, pixels)
    answers, kept = given["answer_right"], given["answer_right_mask"]
    for side in SIDES:
        ids, mask = given[side], given[f"{side}_mask"]
        run = partial(reference, ids, pixels, decoder_input_ids=answers, attention_mask=mask)
        layers = record(reference.text_encoder.encoder.layer, run)
        out |= {f"{side}: question block {i}": x[mask.bool()] for i, x in enumerate(layers)}
        written = reference.generate(ids, pixels, attention_mask=mask, max_new_tokens=NEW, do_sample=False)
        out[f"{side}: generated"] = fill(written[:, 1:])
    parts = [*reference.text_decoder.bert.encoder.layer, reference.text_decoder.cls]
    rows, losses = [], []
    for i, (length, tokens) in enumerate(zip(LENGTHS, kept.sum(dim=1).tolist(), strict=True)):
        question, image, answer = given["right"][i : i + 1, :length], pixels[i : i + 1], answers[i : i + 1, :tokens]
        rows.append(record(parts, partial(reference, question, image, decoder_input_ids=answer)))
        losses.append(reference(question, image, labels=answer).loss * (tokens - 1))
    read = [torch.cat([x[0] for x in part]) for part in zip(*rows, strict=True)]
    out |= {f"answer block {i}": x for i, x in enumerate(read[:-1])} | {"logits": read[-1]}
    out["loss"] = sum(losses) / (kept.sum() - len(kept))
    # No padding: the longest question and its answer.
    ids, image, answer = given["right"][:1], pixels[:1], answers[:1, :3]
    out["loss of labels alone"] = reference(ids, image, labels=answer).loss
    out["lesson: loss"] = reference(begin(ids, ENC), image, labels=answer).loss
    written = reference.generate(begin(ids, ENC), image, max_new_tokens=NEW, do_sample=False)
    out["lesson: generated"] = fill(written[:, 1:])
    return out


def our_answers(loaded: nn.Module, given: Outputs) -> Outputs:
    """The same of ours; some from the lesson class itself, as a notebook calls it."""
    model, pixels = loaded.model, given["pixel_values"]
    out = seen_by_ours(model, pixels)
    answers, kept, labels = (given[f"answer_right{what}"] for what in ("", "_mask", "_labels"))
    for side in SIDES:
        ids, mask = given[side], given[f"{side}_mask"]
        how = {"decoder_attention_mask": kept, "attention_mask": mask, "labels": labels}
        run = partial(loaded, ids, pixels, decoder_input_ids=answers, **how)
        layers = record(model.encoder.blocks, run)
        out |= {f"{side}: question block {i}": x[mask.bool()] for i, x in enumerate(layers)}
        written = loaded.generate(ids, pixels, attention_mask=mask, max_new_tokens=NEW)
        out[f"{side}: generated"] = fill(written[:, 1:])
        if side == "right":
            layers = record(model.decoder.blocks, run)
            out |= {f"answer block {i}": x[kept.bool()] for i, x in enumerate(layers)}
            out["logits"], out["loss"] = model.decoder.logits(layers[-1])[kept.bool()], run().loss
    ids, image, answer = given["right"][:1], pixels[:1], answers[:1, :3]
    out["loss of labels alone"] = loaded(ids, image, labels=answer).loss
    out["lesson: loss"] = model.loss(Questions(image, ids, begin(answer, CLS)))
    out["lesson: generated"] = fill(model.generate(image, ids, max_new_tokens=NEW))
    return out


KINDS = {
    "captioner": (BlipForConditionalGeneration, DEC, their_captions, our_captions),
    "filter": (BlipForImageTextRetrieval, CLS, their_matches, our_matches),
    "answers": (BlipForQuestionAnswering, CLS, their_answers, our_answers),
}


def case(name: str, kind: str, config: dict, seed: int) -> Case:
    """One configuration."""
    reference, first, theirs, ours = KINDS[kind]
    return Case("blip", name, partial(build, reference, config, seed), partial(inputs, first), theirs, ours)


CASES = [
    case("captioner", "captioner", SIZES, 36),
    case("filter", "filter", SIZES, 2),
    case("answers", "answers", ONE_WIDTH, 25),
    case("captioner, other epsilons, no smoothing", "captioner", OTHER_EPSILONS, 17),
    case("filter, other epsilons", "filter", OTHER_EPSILONS, 5),
]
