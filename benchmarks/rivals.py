"""What is compared in `models.py`: each model of the course and its reference (`transformers`), with the same weights."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import torch
import transformers
from torch import Tensor, nn

from minivlm import checkpoints
from minivlm.language.decoder import Decoder, Texts
from minivlm.language.generate import generate
from minivlm.models.blip2 import Captions
from minivlm.models.clip import Pairs
from minivlm.models.flamingo import Documents
from minivlm.models.instructblip import Instructions
from minivlm.models.llava import Chats

WIDTH, LAYERS, HEADS, HIDDEN = 128, 4, 4, 344
BATCH, PATCHES, WORDS, NEW = 16, 64, 32, 64  # images of 8 x 8 patches, each with a text; tokens to be written
ANSWER = 16  # how many of the words are learned, where not all are
QUERIES = 16  # tokens of an image, where a connector counts them
VOCABULARY, IMAGE = 1024, 1
HOW = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "use_cache": True}  # greedy writing, theirs


@dataclass(frozen=True)
class Rivals:
    """What is compared: the loss of a batch, and what is written; `write` None for a model that does not."""

    ours: nn.Module
    theirs: nn.Module
    our_loss: Callable[[], Tensor]
    their_loss: Callable[[], Tensor]
    our_write: Callable[[], Tensor] | None = None
    their_write: Callable[[], Tensor] | None = None


def _vision() -> dict:
    # (BLIP's own initializer_range of 1e-10 would measure how slow a processor is at numbers next to nothing.)
    return {
        "hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "image_size": 64, "patch_size": 8, "initializer_range": 0.02,
    }  # fmt: skip


def _language() -> dict:
    return {
        "hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS, "vocab_size": VOCABULARY, "max_position_embeddings": 256, "bos_token_id": None,
        "eos_token_id": None, "pad_token_id": 0,
    }  # fmt: skip


def _loaded(reference: nn.Module) -> nn.Module:
    """Our class with the reference's weights."""
    with tempfile.TemporaryDirectory() as folder:
        reference.save_pretrained(folder)
        return checkpoints.load(folder).model.train()


def clip() -> Rivals:
    """Both towers, the contrastive loss."""
    text = {
        "hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "vocab_size": VOCABULARY, "max_position_embeddings": WORDS, "eos_token_id": VOCABULARY - 1, "bos_token_id": 3,
        "pad_token_id": 0,
    }  # fmt: skip
    config = transformers.CLIPConfig(vision_config=_vision(), text_config=text, projection_dim=WIDTH)
    theirs = transformers.CLIPModel(config).train()
    ours = _loaded(theirs)
    pixels, ids = torch.randn(BATCH, 3, 64, 64), torch.randint(4, VOCABULARY - 1, (BATCH, WORDS))
    ids[:, -1] = VOCABULARY - 1
    return Rivals(
        ours, theirs, lambda: ours.loss(Pairs(pixels, ids)),
        lambda: theirs(input_ids=ids, pixel_values=pixels, return_loss=True).loss,
    )  # fmt: skip


def decoder() -> Rivals:
    """The language model alone: as many tokens as an image and its text have."""
    config = transformers.LlamaConfig(**_language(), tie_word_embeddings=False)
    theirs = transformers.LlamaForCausalLM(config).train()
    ours: Decoder = _loaded(theirs)
    ids = torch.randint(4, VOCABULARY, (BATCH, PATCHES + WORDS))
    labels = ids.clone()
    labels[:, :-ANSWER] = -100
    return Rivals(
        ours, theirs, lambda: ours.loss(Texts(ids, labels)), lambda: theirs(input_ids=ids, labels=labels).loss,
        lambda: generate(ours, ids, max_new_tokens=NEW), lambda: theirs.generate(input_ids=ids, **HOW)[:, ids.shape[1] :],
    )  # fmt: skip


def llava() -> Rivals:
    """Image and text, the loss on the answer; with LLaVA-1.5's connector, which the reference has."""
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**_vision(), projection_dim=WIDTH),
        text_config=transformers.LlamaConfig(**_language()),
        image_token_index=IMAGE, image_token_id=IMAGE, tie_word_embeddings=False,
    )  # fmt: skip
    theirs = transformers.LlavaForConditionalGeneration(config).train()
    ours = _loaded(theirs)
    pixels, ids = torch.randn(BATCH, 3, 64, 64), torch.randint(4, VOCABULARY, (BATCH, PATCHES + WORDS))
    ids[:, 2 : 2 + PATCHES] = IMAGE
    labels = ids.clone()
    labels[:, :-ANSWER] = -100
    return Rivals(
        ours, theirs, lambda: ours.loss(Chats(pixels, ids, labels)),
        lambda: theirs(input_ids=ids, pixel_values=pixels, labels=labels).loss,
        lambda: ours.generate(ids, pixels, max_new_tokens=NEW),
        lambda: theirs.generate(input_ids=ids, pixel_values=pixels, **HOW)[:, ids.shape[1] :],
    )  # fmt: skip


def blip() -> Rivals:
    """The captioner: the loss of captions, and their writing."""
    text = {**_bert(), "encoder_hidden_size": WIDTH, "label_smoothing": 0.1, "bos_token_id": 3, "sep_token_id": 2}
    text |= {"eos_token_id": 2, "pad_token_id": 0}
    config = transformers.BlipConfig(vision_config=_vision(), text_config=text, image_text_hidden_size=WIDTH)
    theirs = transformers.BlipForConditionalGeneration(config).train()
    ours = _loaded(theirs)
    pixels, ids = torch.randn(BATCH, 3, 64, 64), torch.randint(4, VOCABULARY, (BATCH, WORDS))
    ids[:, 0] = 3
    how = {**HOW, "max_new_tokens": NEW - WORDS, "min_new_tokens": NEW - WORDS}
    begun = ids[:, : WORDS // 2]
    return Rivals(
        ours, theirs, lambda: ours.loss(Pairs(pixels, ids)),
        lambda: theirs(pixel_values=pixels, input_ids=ids, labels=ids).loss,
        lambda: ours.generate(pixels, begun[:, :-1], max_new_tokens=NEW - WORDS),
        lambda: theirs.generate(pixel_values=pixels, input_ids=begun, **how)[:, WORDS // 2 - 1 :],
    )  # fmt: skip


def flamingo() -> Rivals:
    """Documents with two images each; a new layer before each second block."""
    config = transformers.IdeficsConfig(
        **_language(), cross_layer_interval=2, use_resampler=True, image_token_index=IMAGE, tie_word_embeddings=False,
        vision_config={
            "image_size": 64, "patch_size": 8, "embed_dim": WIDTH, "intermediate_size": HIDDEN,
            "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        },
        perceiver_config={
            "resampler_n_latents": QUERIES, "resampler_depth": 2, "resampler_n_heads": HEADS,
            "resampler_head_dim": WIDTH // HEADS,
        },
    )  # fmt: skip
    theirs = transformers.IdeficsForVisionText2Text(config).train().requires_grad_(True)  # it freezes itself
    with torch.no_grad():  # the gates are closed at first, and closed gates need not compute
        for name, gate in theirs.named_parameters():
            if "alpha" in name:
                gate.fill_(0.5)
    ours = _loaded(theirs)
    pixels, ids = torch.randn(BATCH, 2, 3, 64, 64), torch.randint(4, VOCABULARY, (BATCH, PATCHES + WORDS))
    ids[:, 2], ids[:, 40] = IMAGE, IMAGE
    seen = (ids == IMAGE).cumsum(dim=1)
    looks = torch.stack([seen == 1, seen == 2], dim=-1).long()
    labels = ids.clone()
    labels[:, :-ANSWER] = -100
    how = {"pixel_values": pixels, "image_attention_mask": looks}
    return Rivals(
        ours, theirs, lambda: ours.loss(Documents(pixels.flatten(0, 1), ids, labels)),
        lambda: theirs(input_ids=ids, labels=labels, **how).loss,
        lambda: ours.generate(ids, pixels.flatten(0, 1), max_new_tokens=NEW),
        lambda: theirs.generate(input_ids=ids, **how, **HOW)[:, ids.shape[1] :],
    )  # fmt: skip


def blip2() -> Rivals:
    """An image as few queries before the text of an OPT."""
    config = transformers.Blip2Config(**_queries("blip_2"))
    theirs = transformers.Blip2ForConditionalGeneration(config).train()
    ours = _loaded(theirs)
    pixels, ids, labels = _after_queries()
    return Rivals(
        ours, theirs, lambda: ours.loss(Captions(pixels, ids, labels)),
        lambda: theirs(pixel_values=pixels, input_ids=ids, labels=labels).loss,
        lambda: ours.generate(ids, pixels, max_new_tokens=NEW),
        lambda: theirs.generate(pixel_values=pixels, input_ids=ids, **HOW)[:, ids.shape[1] :],
    )  # fmt: skip


def instructblip() -> Rivals:
    """The same, and the Q-Former reads what is asked."""
    config = transformers.InstructBlipConfig(**_queries("instructblip"))
    theirs = transformers.InstructBlipForConditionalGeneration(config).train()
    ours = _loaded(theirs)
    pixels, ids, labels = _after_queries()
    asked = torch.randint(4, VOCABULARY, (BATCH, WORDS // 2))
    how = {"pixel_values": pixels, "qformer_input_ids": asked, "input_ids": ids}
    return Rivals(
        ours, theirs, lambda: ours.loss(Instructions(pixels, ids, labels, asked)),
        lambda: theirs(**how, labels=labels).loss,
        lambda: ours.generate(ids, pixels, asked=asked, max_new_tokens=NEW),
        lambda: theirs.generate(**how, **HOW)[:, ids.shape[1] :],
    )  # fmt: skip


def _bert() -> dict:
    return {
        "hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "vocab_size": VOCABULARY, "max_position_embeddings": 128, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip


def _queries(kind: str) -> dict:
    """The parts of a BLIP-2 or an InstructBLIP."""
    opt = {
        "model_type": "opt", "vocab_size": VOCABULARY, "max_position_embeddings": 256, "hidden_size": WIDTH,
        "word_embed_proj_dim": WIDTH, "ffn_dim": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "dropout": 0.0, "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0,
    }  # fmt: skip
    vision = {**_vision(), "model_type": f"{kind}_vision_model"}
    qformer = {**_bert(), "model_type": f"{kind}_qformer", "encoder_hidden_size": WIDTH}
    return {
        "vision_config": vision, "qformer_config": qformer, "text_config": opt, "num_query_tokens": QUERIES,
        "image_token_index": IMAGE,
    }  # fmt: skip


def _after_queries() -> tuple[Tensor, Tensor, Tensor]:
    """Images, texts that begin with their queries, labels."""
    pixels, ids = torch.randn(BATCH, 3, 64, 64), torch.randint(4, VOCABULARY, (BATCH, QUERIES + WORDS))
    ids[:, :QUERIES] = IMAGE
    labels = ids.clone()
    labels[:, :-ANSWER] = -100
    return pixels, ids, labels


MODELS: dict[str, Callable[[], Rivals]] = {
    "clip": clip, "decoder": decoder, "llava": llava, "blip": blip, "flamingo": flamingo, "blip2": blip2,
    "instructblip": instructblip,
}  # fmt: skip
