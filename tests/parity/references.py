"""Which reference each surveyed model is compared with, or why there is none.

A class of transformers, or a text that says so. A model whose reference is only a part (its language model, its vision
tower) names the class of that part: the part is compared.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reference:
    """A class of transformers; `part`: what of the model it covers, if not all."""

    name: str
    part: str = ""


REFERENCES: dict[str, Reference | str] = {
    "clip": Reference("CLIPModel"),
    "blip": Reference("BlipForConditionalGeneration"),
    "flamingo": Reference("IdeficsForVisionText2Text"),
    "blip2": Reference("Blip2ForConditionalGeneration"),
    "palm_e": "no code was released; its language model is the course's decoder, compared on its own (PARTS), and what is new"
    " is held to exact invariants (tests/models/test_palm_e.py)",
    "llava": Reference("LlavaForConditionalGeneration"),
    "instructblip": Reference("InstructBlipForConditionalGeneration"),
    "qwen_vl": Reference("Qwen2ForCausalLM", "the language model"),
    "llava_1_5": Reference("LlavaForConditionalGeneration"),
    "cogvlm": Reference("LlamaForCausalLM", "the language model, and the visual experts where they equal its weights"),
    "internvl": Reference("InternVLVisionModel", "the vision encoder"),
    "deepseek_vl": Reference("DeepseekVLForConditionalGeneration"),
    "internvl_1_5": Reference("InternVLForConditionalGeneration"),
    "nvlm": Reference("InternVLForConditionalGeneration", "all but the projector"),
    "qwen2_vl": Reference("Qwen2VLForConditionalGeneration"),
    "pixtral": Reference("LlavaForConditionalGeneration"),
    "baichuan_omni": Reference("WhisperModel", "the audio encoder"),
    "smolvlm": Reference("SmolVLMForConditionalGeneration"),
    "internvl_2_5": Reference("InternVLForConditionalGeneration"),
    "deepseek_vl2": Reference("DeepseekV2ForCausalLM", "the language model"),
    "qwen2_5_vl": Reference("Qwen2_5_VLForConditionalGeneration"),
}

#: What several models share and no one of them brings: compared on its own.
PARTS: dict[str, Reference] = {
    "decoder": Reference("LlamaForCausalLM", "the language model, and with biases Qwen2ForCausalLM"),
}
