"""The surveyed models: the only place where their list is written by hand.

One `Model` a paper, in the order of the notebooks: by the month of the arXiv number, except SmolVLM, which stands at its
release (2024-11) because its paper came five months later. The README's table, the notebooks' header cells, the genealogy
figure and several tests are all made from `MODELS`.

Each model says the same seven things about itself (`ROWS`). A phrase is short and exact, and it is *the same string* as its
parent's where nothing changed, so that two columns of a diff table can be compared by eye. `new` names the rows in which the
paper's idea lives; they are set in bold.
"""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

ROWS: dict[str, str] = {
    "vision_encoder": "vision encoder",
    "connector": "connector",
    "language_model": "language model",
    "resolution": "resolution",
    "positions": "positions",
    "trained": "what is trained when",
    "loss": "loss",
}

FAMILIES: dict[str, str] = {
    "towers": "two towers",
    "inside": "fused inside the language model",
    "senses": "many senses",
    "projection": "projected into the prompt",
    "queries": "learned queries",
    "native": "native resolution",
}


@dataclass(frozen=True)
class Model:
    """One surveyed model. `name` is its module in `minivlm.models`; `parents` are names of earlier models."""

    number: str
    name: str
    title: str
    paper: str
    authors: str
    arxiv: str
    date: str
    family: str
    parents: tuple[str, ...]
    idea: str
    new: tuple[str, ...]
    vision_encoder: str
    connector: str
    language_model: str
    resolution: str
    positions: str
    trained: str
    loss: str

    @property
    def notebook(self) -> str:
        """The notebook's file name without its ending: `01_clip`."""
        return f"{self.number}_{self.name}"

    @property
    def notebook_file(self) -> str:
        """Where the notebook stands, from the project's root."""
        return f"notebooks/{self.notebook}.ipynb"

    @property
    def module_file(self) -> str:
        """Where the model's code stands, from the project's root."""
        return f"minivlm/models/{self.name}.py"

    @property
    def url(self) -> str:
        """The paper's page on arXiv."""
        return f"https://arxiv.org/abs/{self.arxiv}"


MODELS: tuple[Model, ...] = (
    Model(
        number="01",
        name="clip",
        title="CLIP",
        paper="Learning Transferable Visual Models From Natural Language Supervision",
        authors="Alec Radford et al., OpenAI",
        arxiv="2103.00020",
        date="2021-03",
        family="towers",
        parents=(),
        idea="Show a model a batch of images and a batch of captions and let it learn which belongs to which: "
        "that alone teaches it to see, and to name things nobody labelled.",
        new=("trained", "loss"),
        vision_encoder="ViT or ResNet, from scratch",
        connector="none: one linear map per tower into a joint space",
        language_model="causal text transformer, from scratch, read at end-of-text",
        resolution="fixed square: 224 px, the largest also 336 px",
        positions="learned, one per patch and one per word",
        trained="everything, in one stage",
        loss="symmetric contrastive, with a learned temperature",
    ),
    Model(
        number="02",
        name="blip",
        title="BLIP",
        paper="BLIP: Bootstrapping Language-Image Pre-training for Unified Vision-Language Understanding and Generation",
        authors="Junnan Li et al., Salesforce",
        arxiv="2201.12086",
        date="2022-01",
        family="inside",
        parents=("clip",),
        idea="Captions from the web often lie, so let the model write a second caption for every image, let it judge both, "
        "and train a new model on what survives.",
        new=("connector", "trained", "loss"),
        vision_encoder="ViT-B or ViT-L, started from ImageNet weights",
        connector="cross-attention to all image tokens in every text block",
        language_model="BERT-base in three modes: text, grounded encoder, grounded decoder",
        resolution="fixed square: 224 px, fine-tuned at 384 px",
        positions="learned, one per patch and one per word",
        trained="everything; CapFilt cleans the captions; a new model, everything again",
        loss="contrastive (ITC) + matching (ITM) + captioning (LM)",
    ),
    Model(
        number="03",
        name="flamingo",
        title="Flamingo",
        paper="Flamingo: a Visual Language Model for Few-Shot Learning",
        authors="Jean-Baptiste Alayrac et al., DeepMind",
        arxiv="2204.14198",
        date="2022-04",
        family="inside",
        parents=("clip",),
        idea="Leave a finished language model untouched and let it look through new cross-attention layers whose gates "
        "start shut: it learns to see without forgetting how to talk, and picks up tasks from a few examples.",
        new=("connector", "language_model", "trained"),
        vision_encoder="NFNet-F6, pre-trained by contrast, frozen",
        connector="Perceiver resampler (64 tokens), then gated cross-attention layers",
        language_model="finished decoder, 1.4B to 70B, frozen",
        resolution="fixed square: 320 px; a video is its frames",
        positions="learned per video frame, none in space",
        trained="resampler, gated layers and the new token's embedding",
        loss="next token, weighted over four data sets",
    ),
    Model(
        number="04",
        name="blip2",
        title="BLIP-2",
        paper="BLIP-2: Bootstrapping Language-Image Pre-training with Frozen Image Encoders and Large Language Models",
        authors="Junnan Li et al., Salesforce",
        arxiv="2301.12597",
        date="2023-01",
        family="queries",
        parents=("blip", "flamingo"),
        idea="Freeze the eye and freeze the language model, and train only a small translator between them, "
        "whose few learned queries ask the image for what text can use.",
        new=("connector", "trained", "loss"),
        vision_encoder="CLIP ViT-L or EVA-CLIP ViT-g, frozen",
        connector="Q-Former with 32 learned queries, then one linear layer",
        language_model="OPT or FlanT5, frozen",
        resolution="fixed square: 224 px",
        positions="none on the queries; visual tokens come first",
        trained="stage 1 Q-Former; stage 2 Q-Former and linear layer",
        loss="stage 1 ITC + ITM + captioning; stage 2 next token",
    ),
    Model(
        number="05",
        name="palm_e",
        title="PaLM-E",
        paper="PaLM-E: An Embodied Multimodal Language Model",
        authors="Danny Driess et al., Google and TU Berlin",
        arxiv="2303.03378",
        date="2023-03",
        family="senses",
        parents=("flamingo",),
        idea="Anything that can be turned into vectors, an image or a robot's state, can stand in a sentence where a word "
        "could stand, and a language model can then plan with it.",
        new=("vision_encoder", "connector", "positions"),
        vision_encoder="ViT-4B or ViT-22B; also state and object-centric encoders",
        connector="affine map or MLP per encoder, anywhere in the text",
        language_model="PaLM, 8B to 540B",
        resolution="each encoder's own",
        positions="1-D, image tokens counted like words",
        trained="encoders, projections and LLM; or all but the LLM",
        loss="next token, on answers only",
    ),
    Model(
        number="06",
        name="llava",
        title="LLaVA",
        paper="Visual Instruction Tuning",
        authors="Haotian Liu, Chunyuan Li et al.",
        arxiv="2304.08485",
        date="2023-04",
        family="projection",
        parents=("clip", "blip2"),
        idea="One matrix turns CLIP's patches into words of the language model's own space; with conversations about images "
        "to practise on, that is all it takes.",
        new=("connector", "trained"),
        vision_encoder="CLIP ViT-L/14, frozen, penultimate layer, no class token",
        connector="one linear layer",
        language_model="Vicuna",
        resolution="fixed square: 224 px",
        positions="1-D, image tokens counted like words",
        trained="stage 1 connector; stage 2 connector and LLM",
        loss="next token, on answers only",
    ),
    Model(
        number="07",
        name="instructblip",
        title="InstructBLIP",
        paper="InstructBLIP: Towards General-purpose Vision-Language Models with Instruction Tuning",
        authors="Wenliang Dai, Junnan Li et al.",
        arxiv="2305.06500",
        date="2023-05",
        family="queries",
        parents=("blip2",),
        idea="Tell the translator what was asked before it looks: the instruction enters the Q-Former, "
        "so the same image gives different visual tokens for different questions.",
        new=("connector", "trained"),
        vision_encoder="EVA-CLIP ViT-g, frozen",
        connector="Q-Former that also reads the instruction, then one linear layer",
        language_model="FlanT5 or Vicuna, frozen",
        resolution="fixed square: 224 px",
        positions="none on the queries; visual tokens come first",
        trained="Q-Former and linear layer, on instructions for many tasks",
        loss="next token, on answers only",
    ),
    Model(
        number="08",
        name="qwen_vl",
        title="Qwen-VL",
        paper="Qwen-VL: A Versatile Vision-Language Model for Understanding, Localization, Text Reading, and Beyond",
        authors="Jinze Bai et al., Alibaba",
        arxiv="2308.12966",
        date="2023-08",
        family="queries",
        parents=("blip2",),
        idea="Queries that know where on the image they stand, and boxes written as plain text, "
        "let a language model point at what it talks about.",
        new=("connector", "positions", "trained"),
        vision_encoder="OpenCLIP ViT-bigG/14",
        connector="one cross-attention layer with 256 learned queries",
        language_model="Qwen-7B",
        resolution="fixed square: 224 px, then 448 px",
        positions="fixed 2-D sine-cosine on queries and keys; 1-D in the LLM",
        trained="1 ViT and connector; 2 everything; 3 connector and LLM",
        loss="next token; boxes are text too",
    ),
    Model(
        number="09",
        name="llava_1_5",
        title="LLaVA-1.5",
        paper="Improved Baselines with Visual Instruction Tuning",
        authors="Haotian Liu et al.",
        arxiv="2310.03744",
        date="2023-10",
        family="projection",
        parents=("llava",),
        idea="Two layers instead of one, prompts that say how long the answer should be, and a large image encoded in parts "
        "whose feature maps are put back together.",
        new=("connector", "resolution", "positions"),
        vision_encoder="CLIP ViT-L/14, frozen, penultimate layer, no class token",
        connector="two-layer MLP",
        language_model="Vicuna-1.5",
        resolution="padded square: 336 px; HD: tiles merged into one map, plus overview",
        positions="1-D, image tokens counted like words; HD: row-end tokens",
        trained="stage 1 connector; stage 2 connector and LLM",
        loss="next token, on answers only",
    ),
    Model(
        number="10",
        name="cogvlm",
        title="CogVLM",
        paper="CogVLM: Visual Expert for Pretrained Language Models",
        authors="Weihan Wang et al., Tsinghua and Zhipu",
        arxiv="2311.03079",
        date="2023-11",
        family="inside",
        parents=("flamingo", "llava"),
        idea="Give image tokens their own weights in every layer of the language model and train only those: "
        "where there is no image, the model is exactly the one it was.",
        new=("connector", "language_model", "positions"),
        vision_encoder="EVA2-CLIP-E, 4.4B, last layer removed",
        connector="SwiGLU MLP, then a visual expert in every layer",
        language_model="Vicuna-1.5-7B, frozen; image tokens use the experts' weights",
        resolution="fixed square: 224 px, then 490 px",
        positions="1-D, all tokens of an image share one index",
        trained="MLP and experts; in chat tuning the ViT too",
        loss="next token; boxes are text too",
    ),
    Model(
        number="11",
        name="internvl",
        title="InternVL",
        paper="InternVL: Scaling up Vision Foundation Models and Aligning for Generic Visual-Linguistic Tasks",
        authors="Zhe Chen et al., OpenGVLab",
        arxiv="2312.14238",
        date="2023-12",
        family="queries",
        parents=("clip", "blip2"),
        idea="Make the eye as large as a language model, and make the translator out of a language model too, "
        "so that neither is the weak link.",
        new=("vision_encoder", "connector"),
        vision_encoder="InternViT-6B, from scratch",
        connector="QLLaMA (96 queries, cross-attention into LLaMA), or an MLP",
        language_model="LLaMA-7B as text tower and connector; Vicuna to chat",
        resolution="fixed square: 196 px half masked, then 224 px",
        positions="learned in the ViT; RoPE over queries, then text",
        trained="1 both towers; 2 queries and cross-attention; 3 MLP or more",
        loss="contrastive; then ITC + ITM + captioning; then next token",
    ),
    Model(
        number="12",
        name="deepseek_vl",
        title="DeepSeek-VL",
        paper="DeepSeek-VL: Towards Real-World Vision-Language Understanding",
        authors="Haoyu Lu et al.",
        arxiv="2403.05525",
        date="2024-03",
        family="projection",
        parents=("llava_1_5",),
        idea="Two eyes on one image, one for meaning and one for fine detail, at no more tokens than one; "
        "and enough plain text in training that language does not fade.",
        new=("vision_encoder", "resolution", "trained"),
        vision_encoder="SigLIP-L at 384 px; the 7B adds SAM-B at 1024 px",
        connector="two-layer MLP over both encoders' joined channels",
        language_model="DeepSeek-LLM, 1B or 7B",
        resolution="padded square: 1024 px, always 576 tokens",
        positions="1-D, image tokens counted like words",
        trained="1 connector; 2 also LLM, on mostly text; 3 also SigLIP",
        loss="next token",
    ),
    Model(
        number="13",
        name="internvl_1_5",
        title="InternVL 1.5",
        paper="How Far Are We to GPT-4V? Closing the Gap to Commercial Multimodal Models with Open-Source Suites",
        authors="Zhe Chen et al., OpenGVLab",
        arxiv="2404.16821",
        date="2024-04",
        family="projection",
        parents=("internvl", "llava_1_5"),
        idea="Cut the image into the grid of tiles whose shape is closest to its own, add a thumbnail of the whole, "
        "and fold every four visual tokens into one.",
        new=("connector", "resolution"),
        vision_encoder="InternViT-6B, last three layers removed",
        connector="2 × 2 tokens merged (pixel unshuffle), then two-layer MLP",
        language_model="InternLM2-20B",
        resolution="grid of 448 px tiles, closest aspect ratio, plus thumbnail",
        positions="1-D, image tokens counted like words",
        trained="stage 1 ViT and MLP; stage 2 everything",
        loss="next token",
    ),
    Model(
        number="14",
        name="nvlm",
        title="NVLM",
        paper="NVLM: Open Frontier-Class Multimodal LLMs",
        authors="Wenliang Dai et al.",
        arxiv="2409.11402",
        date="2024-09",
        family="inside",
        parents=("flamingo", "internvl_1_5"),
        idea="Train three models that differ only in how the image enters, as prompt, through cross-attention, or half and "
        "half, and see what each is good at.",
        new=("connector", "positions"),
        vision_encoder="InternViT-6B, frozen",
        connector="D: MLP; X: gated cross-attention; H: thumbnail MLP, tiles cross-attention",
        language_model="Qwen2-72B-Instruct",
        resolution="grid of 448 px tiles, at most six, plus thumbnail",
        positions="1-D, a text tag before each tile",
        trained="stage 1 connector; stage 2 connector and LLM",
        loss="next token",
    ),
    Model(
        number="15",
        name="qwen2_vl",
        title="Qwen2-VL",
        paper="Qwen2-VL: Enhancing Vision-Language Model's Perception of the World at Any Resolution",
        authors="Peng Wang et al., Alibaba",
        arxiv="2409.12191",
        date="2024-09",
        family="native",
        parents=("qwen_vl",),
        idea="Take every image at its own size, and give every token three positions, time, row and column, "
        "so that the language model knows where and when it is looking.",
        new=("resolution", "positions"),
        vision_encoder="ViT, 675M, 2-D RoPE, frames taken in pairs",
        connector="2 × 2 tokens merged, then two-layer MLP",
        language_model="Qwen2",
        resolution="native, sides rounded to multiples of 28 px",
        positions="M-RoPE: time, row and column of every token",
        trained="1 ViT; 2 everything; 3 LLM, with the ViT frozen",
        loss="next token; boxes are text too",
    ),
    Model(
        number="16",
        name="pixtral",
        title="Pixtral",
        paper="Pixtral 12B",
        authors="Pravesh Agrawal et al., Mistral",
        arxiv="2410.07073",
        date="2024-10",
        family="native",
        parents=("llava_1_5",),
        idea="An eye trained from scratch for images of any size and shape: rotary positions in two dimensions, many images "
        "packed side by side unseen by each other, and a token where a row of patches ends.",
        new=("vision_encoder", "resolution", "positions"),
        vision_encoder="ViT, 400M, from scratch, RoPE-2D, gated FFN",
        connector="two-layer MLP",
        language_model="Mistral Nemo 12B",
        resolution="native, up to 1024 px, in patches of 16 px",
        positions="1-D, image tokens counted like words; a break after each row",
        trained="ViT from scratch, then interleaved data; schedule not published",
        loss="next token",
    ),
    Model(
        number="17",
        name="baichuan_omni",
        title="Baichuan-Omni",
        paper="Baichuan-Omni Technical Report",
        authors="Yadong Li et al., Baichuan and Westlake",
        arxiv="2410.08565",
        date="2024-10",
        family="senses",
        parents=("palm_e", "llava_1_5"),
        idea="Teach one language model to see, watch and hear, one sense after the other and from the adapter inwards, "
        "and only then all together.",
        new=("vision_encoder", "connector", "trained"),
        vision_encoder="SigLIP-so400m for images and video; Whisper-large-v3 for audio",
        connector="images: 2 × 2 pooling, MLP; audio: convolutional gated MLP",
        language_model="a 7B LLM",
        resolution="tiles of 384 px (AnyRes)",
        positions="1-D, image tokens counted like words",
        trained="image, video, audio in turn; then all; then fine-tuning",
        loss="next token",
    ),
    Model(
        number="18",
        name="smolvlm",
        title="SmolVLM",
        paper="SmolVLM: Redefining small and efficient multimodal models",
        authors="Andrés Marafioti et al., Hugging Face",
        arxiv="2504.05299",
        date="2024-11",
        family="projection",
        parents=("internvl_1_5",),
        idea="A small model is not a large one made smaller: a small eye for a small language model, far fewer visual tokens, "
        "and learned tokens that say where each tile belongs.",
        new=("vision_encoder", "connector", "positions"),
        vision_encoder="SigLIP-B/16, 93M; in the 2.2B SigLIP-so400m",
        connector="4 × 4 or 3 × 3 tokens merged, then one linear layer",
        language_model="SmolLM2: 135M, 360M or 1.7B",
        resolution="longest side resized, square tiles, whole image last",
        positions="1-D, a learned row-and-column token before each tile",
        trained="backbones by LoRA, connector fully; then everything",
        loss="next token, on answers only",
    ),
    Model(
        number="19",
        name="internvl_2_5",
        title="InternVL 2.5",
        paper="Expanding Performance Boundaries of Open-Source Multimodal Models with Model, Data, and Test-Time Scaling",
        authors="Zhe Chen et al., OpenGVLab",
        arxiv="2412.05271",
        date="2024-12",
        family="projection",
        parents=("internvl_1_5",),
        idea="The same architecture, trained with more care: grow the eye against a small language model before moving it to "
        "a large one, weigh short and long answers fairly, and throw out repetitive data.",
        new=("trained", "loss"),
        vision_encoder="InternViT-6B-V2.5; up to 8B InternViT-300M-V2.5",
        connector="2 × 2 tokens merged (pixel unshuffle), then two-layer MLP",
        language_model="Qwen2.5 or InternLM2.5",
        resolution="grid of 448 px tiles, closest aspect ratio, plus thumbnail",
        positions="1-D, image tokens counted like words",
        trained="1 MLP; 1.5 (optional) ViT and MLP; 2 everything",
        loss="next token, each weighted by 1/√(length of its answer)",
    ),
    Model(
        number="20",
        name="deepseek_vl2",
        title="DeepSeek-VL2",
        paper="DeepSeek-VL2: Mixture-of-Experts Vision-Language Models for Advanced Multimodal Understanding",
        authors="Zhiyu Wu et al.",
        arxiv="2412.10302",
        date="2024-12",
        family="projection",
        parents=("deepseek_vl", "internvl_1_5"),
        idea="A language model of many small experts, of which each token wakes a few; and one eye that reads tiles laid back "
        "out as one map instead of two eyes at a fixed size.",
        new=("language_model", "resolution", "positions"),
        vision_encoder="one SigLIP-so400m at 384 px for overview and tiles",
        connector="2 × 2 tokens merged, then two-layer MLP",
        language_model="DeepSeekMoE; the two larger with latent attention (MLA)",
        resolution="padded to a grid of 384 px tiles, after an overview",
        positions="1-D, tiles laid out as one map with row ends",
        trained="1 ViT and connector; 2 everything; 3 everything, fine-tuned",
        loss="next token, plus a small loss that balances the experts",
    ),
    Model(
        number="21",
        name="qwen2_5_vl",
        title="Qwen2.5-VL",
        paper="Qwen2.5-VL Technical Report",
        authors="Shuai Bai et al., Alibaba",
        arxiv="2502.13923",
        date="2025-02",
        family="native",
        parents=("qwen2_vl",),
        idea="Tie a video token's position to the clock instead of the frame number, and let most layers of the eye "
        "look only through small windows, so that large images stay affordable.",
        new=("vision_encoder", "positions"),
        vision_encoder="ViT from scratch, window attention, full in four layers",
        connector="2 × 2 tokens merged, then two-layer MLP",
        language_model="Qwen2.5: 3B, 7B or 72B",
        resolution="native, sides rounded to multiples of 28 px",
        positions="M-RoPE: seconds, row and column of every token",
        trained="1 ViT; 2 ViT and LLM; 3 LLM, with the ViT frozen",
        loss="next token, then preferences (DPO); boxes in absolute pixels",
    ),
)


def by_name(name: str) -> Model:
    """The model of that module name. Raises KeyError, naming the known ones."""
    for model in MODELS:
        if model.name == name:
            return model
    raise KeyError(f"no surveyed model is called {name!r}; known: {', '.join(m.name for m in MODELS)}")


def built(root: Path = ROOT) -> tuple[str, ...]:
    """Names of the models that have both a notebook and a module under `root`, in the survey's order."""
    return tuple(m.name for m in MODELS if (root / m.notebook_file).exists() and (root / m.module_file).exists())
