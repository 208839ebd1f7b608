"""The special tokens of all surveyed models, numbered once: pure data.

A special token is a text that is always one token of its own. Its id is its place in `SPECIALS`, for ever: trained weights
depend on it. Add new ones at the end, never elsewhere, and never take one out.

Spellings are those of the papers or of their official code. Where a paper has a learned vector without a spelling, or where
this course needs a token that no paper has, the spelling is ours (`OURS`).
"""

#: What every text needs. `<glue>` marks a word without a space before it. (`<eos>` must not be 2: in CLIP's released file
#: format that number means something else, see `minivlm/checkpoints/clip.py`.)
FIRST: tuple[str, ...] = ("<pad>", "<bos>", "<glue>", "<eos>")

_OBJECTS = tuple(f"<obj_{i}>" for i in range(1, 17))
_IMAGES = tuple(f"<img_{i}>" for i in range(1, 17))
_CELLS = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))

_CHAT = ("<|im_start|>", "<|im_end|>")
_REGION = ("<ref>", "</ref>", "<box>", "</box>")
_INTERNVL = ("<img>", "</img>", "<IMG_CONTEXT>", *_REGION)
_QWEN2 = (
    *_CHAT, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
    "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>",
)  # fmt: skip

#: Model -> the special tokens it uses beyond `FIRST`.
MODEL_TOKENS: dict[str, tuple[str, ...]] = {
    "clip": (),  # its start and end of text are <bos> and <eos>
    "blip": ("[CLS]", "[ENC]", "[DEC]", "[SEP]"),  # the first token says in which of its three modes the text model runs
    "flamingo": ("<image>", "<|endofchunk|>"),  # the paper writes <EOC>
    "blip2": ("[CLS]", "[DEC]"),
    "palm_e": ("<img>", *_IMAGES, *_OBJECTS, "<state>"),  # observations, referred to by number
    "llava": ("<image>", "<im_start>", "<im_end>", "<im_patch>"),  # the last three in its first version only
    "instructblip": ("[CLS]",),
    "qwen_vl": ("<img>", "</img>", "<imgpad>", *_REGION, "<quad>", "</quad>", *_CHAT),
    "llava_1_5": ("<image>", "<row_end>"),  # the learned vector that ends each row of the HD variant
    "cogvlm": ("<boi>", "<eoi>"),  # learned vectors around the image
    "internvl": (),
    "deepseek_vl": ("<image_placeholder>",),
    "internvl_1_5": _INTERNVL,
    # Its tile tags (<tile_1>, <tile_global>) are plain text by design, and so are its <ref> and <box>, which other models
    # made special: encode them with specials=False.
    "nvlm": (),
    "qwen2_vl": _QWEN2,
    "pixtral": ("[IMG]", "[IMG_BREAK]", "[IMG_END]"),
    "baichuan_omni": ("<image>", "<video>", "<video_start>", "<video_end>", "<audio>", "<audio_start>", "<audio_end>"),
    "smolvlm": ("<image>", "<fake_token_around_image>", "<global-img>", *_CELLS, "<end_of_utterance>"),
    "internvl_2_5": _INTERNVL,
    "deepseek_vl2": (
        "<image>", "<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "<|grounding|>", "<row_end>", "<view_separator>",
    ),
    "qwen2_5_vl": _QWEN2,
}  # fmt: skip

#: Tokens whose spelling is no paper's.
OURS: tuple[str, ...] = (
    "<video>", "<video_start>", "<video_end>", "<audio>", "<audio_start>", "<audio_end>", "<state>",
    "<boi>", "<eoi>", "<row_end>", "<view_separator>",
    "<think>", "</think>",  # around a chain of thought
)  # fmt: skip

#: All special tokens; a token's place is its id. Only ever append.
SPECIALS: tuple[str, ...] = (
    *FIRST,
    "<image>",
    "[CLS]", "[ENC]", "[DEC]", "[SEP]",
    "<|endofchunk|>",
    "<im_start>", "<im_end>", "<im_patch>",
    "<img>", "</img>", "<imgpad>", "<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>",
    "<|im_start|>", "<|im_end|>",
    "<image_placeholder>",
    "<IMG_CONTEXT>",
    "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
    "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>",
    "[IMG]", "[IMG_BREAK]", "[IMG_END]",
    "<fake_token_around_image>", "<global-img>", "<end_of_utterance>",
    "<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "<|grounding|>",
    *OURS,
    *_IMAGES,
    *_OBJECTS,
    *_CELLS,
)  # fmt: skip
