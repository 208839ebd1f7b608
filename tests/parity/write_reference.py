"""Write data/reference/: small random models in the released format, and what the reference library computes with them.

    python -m tests.parity.write_reference [FOLDER]

So the notebooks show, without that library, that they compute the same numbers. `test_stored_reference.py` compares what is
stored with what the reference computes today.
"""

import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
    CLIPModel,
    IdeficsForVisionText2Text,
    InstructBlipForConditionalGeneration,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
)

from minivlm.survey.models import ROOT
from tests.parity.cases import blip, blip2, clip, decoder, flamingo, instructblip, llava

FOLDER = ROOT / "data" / "reference"

CLIP = {
    "projection_dim": 24,
    "vision_config": {
        "image_size": 30,
        "patch_size": 6,
        "hidden_size": 40,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 5,
    },
    "text_config": {
        "vocab_size": 64,
        "max_position_embeddings": 13,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "eos_token_id": 63,
        "bos_token_id": 1,
        "pad_token_id": 0,
    },
}


def clip_model() -> CLIPModel:
    """The random CLIP that is stored."""
    return clip.build(CLIP, seed=4)


def clip_inputs() -> dict[str, Tensor]:
    """Three images and three captions, padded on the right."""
    given = clip.inputs(CLIP, seed=5)
    return {
        "pixel_values": given["pixel_values"],
        "input_ids": given["right"],
        "attention_mask": given["right_mask"],
    }


@torch.no_grad()
def clip_outputs(model: CLIPModel, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the reference computes."""
    result = model(**given, return_loss=True)
    return {
        "vision_last_hidden_state": result.vision_model_output.last_hidden_state,
        "text_last_hidden_state": result.text_model_output.last_hidden_state,
        "image_embeds": result.image_embeds,
        "text_embeds": result.text_embeds,
        "logits_per_image": result.logits_per_image,
        "loss": result.loss,
    }


LLAMA = {
    "vocab_size": 64,
    "max_position_embeddings": 48,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    **decoder.NO_TOKENS,
}
LLAMA_NEW = 10


def llama_model() -> LlamaForCausalLM:
    """The random Llama that is stored."""
    return decoder.build(LLAMA, seed=6)


def llama_inputs() -> dict[str, Tensor]:
    """Three texts, padded on the left."""
    given = decoder.inputs(LLAMA, seed=7)
    return {"input_ids": given["left"], "attention_mask": given["left_mask"], "labels": given["left_labels"]}


@torch.no_grad()
def llama_outputs(model: LlamaForCausalLM, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the reference computes, and the ten tokens that it writes on, greedily."""
    result = model(**given, output_hidden_states=True)
    ids, mask = given["input_ids"], given["attention_mask"]
    written = model.generate(ids, attention_mask=mask, max_new_tokens=LLAMA_NEW, do_sample=False, pad_token_id=0)
    return {
        "last_hidden_state": result.hidden_states[-1],
        "logits": result.logits,
        "loss": result.loss,
        "generated": written[:, ids.shape[1] :],
    }


LLAVA = {
    **llava.ONE_MATRIX,
    "vision_config": {
        **llava.ONE_MATRIX["vision_config"],
        "hidden_size": 40,
        "intermediate_size": 80,
        "num_attention_heads": 5,
    },
    "text_config": {**LLAMA, "model_type": "llama", "max_position_embeddings": 64},
}


def llava_model() -> LlavaForConditionalGeneration:
    """The random LLaVA, with one matrix as connector, that is stored."""
    return llava.build(LLAVA, seed=10)


def llava_inputs() -> dict[str, Tensor]:
    """Four images in four texts (two, one, one, none), padded on the left."""
    given = llava.inputs(LLAVA, seed=9)
    return {
        "pixel_values": given["pixel_values"],
        "input_ids": given["left"],
        "attention_mask": given["left_mask"],
        "labels": given["left_labels"],
    }


@torch.no_grad()
def llava_outputs(model: LlavaForConditionalGeneration, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the reference computes: patches as CLIP leaves them, as words, scores, and what it writes on, greedily."""
    result = model(**given)
    ids, pixels = given["input_ids"], given["pixel_values"]
    states = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
    prompt = {name: given[name] for name in ("input_ids", "pixel_values", "attention_mask")}
    written = model.generate(**prompt, max_new_tokens=LLAMA_NEW, do_sample=False, pad_token_id=0)
    return {
        "vision_features": states[model.config.vision_feature_layer][:, 1:],
        "image_features": torch.stack(list(model.get_image_features(pixels).pooler_output)),
        "logits": result.logits,
        "loss": result.loss,
        "generated": written[:, ids.shape[1] :],
    }


BLIP = {
    **blip.SIZES,
    "vision_config": {**blip.SIZES["vision_config"], "hidden_size": 40, "num_attention_heads": 5, "num_hidden_layers": 2},
    "text_config": {**blip.SIZES["text_config"], "hidden_size": 32},
}
BLIP_NEW = 10


def blip_captioner() -> BlipForConditionalGeneration:
    """The random BLIP captioner that is stored."""
    return blip.build(BlipForConditionalGeneration, BLIP, seed=14)


def blip_filter() -> BlipForImageTextRetrieval:
    """The random BLIP filter that is stored."""
    return blip.build(BlipForImageTextRetrieval, BLIP, seed=14)


def blip_inputs(first: int) -> dict[str, Tensor]:
    """Three images and three texts, padded on the right, that begin with `first`."""
    given = blip.inputs(first, seed=14)
    return {
        "pixel_values": given["pixel_values"],
        "input_ids": given["right"],
        "attention_mask": given["right_mask"],
    }


@torch.no_grad()
def blip_captioner_outputs(model: BlipForConditionalGeneration, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the reference computes: image tokens, scores, the loss of the texts, and captions, greedily."""
    labels = given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)
    result = model(**given, labels=labels)
    written = model.generate(given["pixel_values"], max_new_tokens=BLIP_NEW, do_sample=False)
    return {
        "image_embeds": result.image_embeds,
        "logits": result.logits,
        "loss": result.loss,
        "generated": written[:, 1:],
    }


@torch.no_grad()
def blip_filter_outputs(model: BlipForImageTextRetrieval, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the reference computes: cosines of images and texts that begin with [CLS], and scores of pairs with [ENC]."""
    grounded = {**given, "input_ids": blip.begin(given["input_ids"], blip.ENC)}
    return {
        "itc": model(**given, use_itm_head=False).itm_score,
        "itm": model(**grounded).itm_score,
    }


BLIP2_SEED, BLIP2_NEW = 7, 10

MATCHER_SEED = 8

INSTRUCTBLIP_SEED = 4

FLAMINGO = {**flamingo.EACH, "num_hidden_layers": 4, "cross_layer_interval": 2}

FLAMINGO_NEW = 8


def blip_answers() -> BlipForQuestionAnswering:
    """The random BLIP that answers questions and is stored."""
    return blip.build(BlipForQuestionAnswering, blip.ONE_WIDTH, seed=25)


def blip_questions() -> dict[str, Tensor]:
    """Three images, questions and answers, without padding (see `their_answers` in `cases/blip.py`)."""
    given = blip.inputs(blip.ENC, seed=14)
    return {
        "pixel_values": given["pixel_values"],
        "input_ids": given["right"][:, : min(blip.LENGTHS)],
        "answer_ids": given["answer_right"][:, :3],
    }


@torch.no_grad()
def blip_answers_outputs(model: BlipForQuestionAnswering, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the reference computes: the loss of the answers, and answers, greedily."""
    ids, pixels = given["input_ids"], given["pixel_values"]
    written = model.generate(ids, pixels, max_new_tokens=BLIP_NEW, do_sample=False)
    return {"loss": model(ids, pixels, labels=given["answer_ids"]).loss, "generated": written[:, 1:]}


def blip2_model() -> Blip2ForConditionalGeneration:
    """The random BLIP-2, with an OPT behind it, that is stored."""
    return blip2.build(blip2.OPT, BLIP2_SEED)


def blip2_inputs() -> dict[str, Tensor]:
    """Four images in three texts (two, one, one), padded on the left."""
    given = blip2.inputs(blip2.OPT)
    return {
        "pixel_values": given["pixel_values"],
        "input_ids": given["left"],
        "attention_mask": given["left_mask"],
        "labels": given["left_labels"],
    }


@torch.no_grad()
def blip2_outputs(model: Blip2ForConditionalGeneration, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the reference computes: images as words, scores, and what it writes on, greedily."""
    result = model(**given)
    ids, pixels, mask = given["input_ids"], given["pixel_values"], given["attention_mask"]
    how = {"max_new_tokens": BLIP2_NEW, "do_sample": False, "pad_token_id": 0}
    written = model.generate(pixels, ids, attention_mask=mask, **how)
    return {
        "image_features": model.get_image_features(pixels).pooler_output,
        "logits": result.logits,
        "loss": result.loss,
        "generated": written[:, ids.shape[1] :],
    }


def matcher_model() -> Blip2ForImageTextRetrieval:
    """The random retrieval model of BLIP-2 that is stored."""
    return blip2.build(blip2.MATCHER, MATCHER_SEED)


def matcher_inputs() -> dict[str, Tensor]:
    """Three images and three texts, padded on the right."""
    given = blip2.matcher_inputs(blip2.MATCHER)
    return {"pixel_values": given["pixel_values"], "input_ids": given["ids"], "attention_mask": given["mask"]}


@torch.no_grad()
def matcher_outputs(model: Blip2ForImageTextRetrieval, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the reference computes: unit vectors, cosines of all with all, and scores of the pairs."""
    alone = model(**given, use_image_text_matching_head=False)
    return {
        "image_embeds": alone.image_embeds,
        "text_embeds": alone.text_embeds,
        "itc": alone.logits_per_image,
        "itm": model(**given, use_image_text_matching_head=True).logits_per_image,
    }


def instructblip_model() -> InstructBlipForConditionalGeneration:
    """The random InstructBLIP, with a LLaMA behind it, that is stored."""
    return instructblip.build(blip2.LLAMA, INSTRUCTBLIP_SEED)


def instructblip_inputs() -> dict[str, Tensor]:
    """BLIP-2's four images in three texts, and an instruction for each image, padded on the right."""
    given = instructblip.inputs(blip2.LLAMA)
    return {
        "pixel_values": given["pixel_values"],
        "qformer_input_ids": given["asked"],
        "qformer_attention_mask": given["asked_mask"],
        "input_ids": given["left"],
        "attention_mask": given["left_mask"],
        "labels": given["left_labels"],
    }


@torch.no_grad()
def instructblip_outputs(model: InstructBlipForConditionalGeneration, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the reference computes: images as words, with what is asked of each; scores, and what it writes on, greedily."""
    prompt = {name: tensor for name, tensor in given.items() if name != "labels"}
    written = model.generate(**prompt, max_new_tokens=BLIP2_NEW, do_sample=False, pad_token_id=0)
    result = model(**given)
    images = (given["pixel_values"], given["qformer_input_ids"], given["qformer_attention_mask"])
    return {
        "image_features": model.get_image_features(*images).pooler_output,
        "logits": result.logits,
        "loss": result.loss,
        "generated": written[:, given["input_ids"].shape[1] :],
    }


def flamingo_model() -> IdeficsForVisionText2Text:
    """The random IDEFICS, an open Flamingo, that is stored."""
    return flamingo.build(FLAMINGO, seed=25)


def flamingo_inputs() -> dict[str, Tensor]:
    """Four texts (with two images, two side by side, one, none), padded on the left. `images` are those that there are, in
    reading order; the reference wants as many for each text, and is told which of them each place looks at.
    """
    given = flamingo.inputs(FLAMINGO, seed=16)
    return {
        "images": flamingo.packed(given),
        "pixel_values": given["pixel_values"],
        "input_ids": given["left"],
        "attention_mask": given["left_mask"],
        "image_attention_mask": given["left_looks"],
        "labels": given["left_labels"],
    }


@torch.no_grad()
def flamingo_outputs(model: IdeficsForVisionText2Text, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the reference computes: the resampler's tokens of each image that there is, scores, the loss, and what it writes
    on, greedily.
    """
    given = {name: tensor for name, tensor in given.items() if name != "images"}
    ids, pixels = given["input_ids"], given["pixel_values"]
    seen = model.model.vision_model(pixels.flatten(0, 1)).last_hidden_state
    tokens = model.model.perceiver_resampler(seen).unflatten(0, pixels.shape[:2])
    there = torch.arange(pixels.shape[1]) < (ids == flamingo.IMAGE).sum(1, keepdim=True)
    result = model(**given)
    prompt = {name: tensor for name, tensor in given.items() if name != "labels"}
    written = model.generate(**prompt, max_new_tokens=FLAMINGO_NEW, do_sample=False, pad_token_id=0)
    return {
        "image_tokens": tokens[there],
        "logits": result.logits,
        "loss": result.loss,
        "generated": written[:, ids.shape[1] :],
    }


def write(folder: Path) -> None:
    """Write everything under `folder`."""
    for name, model, given, outputs in (
        ("clip", clip_model(), clip_inputs(), clip_outputs),
        ("llama", llama_model(), llama_inputs(), llama_outputs),
        ("llava", llava_model(), llava_inputs(), llava_outputs),
        ("blip_captioner", blip_captioner(), blip_inputs(blip.DEC), blip_captioner_outputs),
        ("blip_filter", blip_filter(), blip_inputs(blip.CLS), blip_filter_outputs),
        ("blip_answers", blip_answers(), blip_questions(), blip_answers_outputs),
        ("blip2", blip2_model(), blip2_inputs(), blip2_outputs),
        ("blip2_matcher", matcher_model(), matcher_inputs(), matcher_outputs),
        ("instructblip", instructblip_model(), instructblip_inputs(), instructblip_outputs),
        ("flamingo", flamingo_model(), flamingo_inputs(), flamingo_outputs),
    ):
        model.save_pretrained(folder / name)
        (folder / name / "generation_config.json").unlink(missing_ok=True)
        expected = {key: tensor.clone().contiguous() for key, tensor in (given | outputs(model, given)).items()}
        save_file(expected, folder / name / "expected.safetensors")
        for file in (folder / name).iterdir():
            file.chmod(0o644)


def main() -> None:
    """Write beside `data/reference`, then replace the files one by one."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        write(Path(scratch))
        for file in Path(scratch).rglob("*.*"):
            target = folder / file.relative_to(scratch)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
            print(target, file_size(target))


def file_size(path: Path) -> str:
    return f"{path.stat().st_size / 1000:.0f} kB"


if __name__ == "__main__":
    main()
