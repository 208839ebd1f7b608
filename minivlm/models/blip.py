"""BLIP (Li et al. 2022, arXiv 2201.12086): one text model that compares, judges and
writes, and so can clean its own training captions.

- ITC, the text encoder: which text for which image, as in CLIP, but compared with what
  a slow copy of the model made of the last thousands of pairs, and learned from it
- ITM, the image-grounded encoder: does this text belong to this image? Asked about the
  wrong pairs that look most right
- LM, the image-grounded decoder: write the caption
- encoder and decoder are one model but for their self-attention
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivlm.language.bert import SHARED_PARTS, Bert, BertConfig, share
from minivlm.models.clip import Pairs, contrastive_loss
from minivlm.nn.contrast import Momentum, MomentumContrast, hard_negatives
from minivlm.nn.momentum import follow, slow_copy
from minivlm.vision.vit import VisionTransformer, ViTConfig

#: What a BLIP can be trained for. `vqa`: answers, after the others (section 5.3).
TASKS = ("itc", "itm", "lm", "vqa")

#: The parts that have a slow copy.
COPIED = ("vision", "encoder", "image_projection", "text_projection")


@dataclass(frozen=True)
class BLIPConfig:
    """Sizes, the tokens that say in which way a text is read, and what is trained."""

    vision: ViTConfig
    text: BertConfig
    enc_id: int  # stands first when the encoder looks at an image: [ENC]
    dec_id: int  # stands first when the decoder writes: [DEC]
    sep_id: int  # ends a text
    pad_id: int = 0
    tasks: tuple[str, ...] = ("itc", "itm", "lm")
    shared: str = "all but self-attention"
    embedding: int = 256  # of the space in which images and texts are compared
    momentum: Momentum | None = None  # None: ITC compares within the batch
    temperature: float = 0.07  # with momentum it is learned, and starts here
    smoothing: float = 0.1  # of the labels of the decoder

    def __post_init__(self) -> None:
        unknown = [task for task in self.tasks if task not in TASKS]
        if unknown or not self.tasks:
            raise ValueError(
                f"tasks is {self.tasks}; expected one or several of {TASKS}."
            )
        if "vqa" in self.tasks and len(self.tasks) > 1:
            raise ValueError(
                f"tasks is {self.tasks}; 'vqa' stands alone: its decoder looks at the"
                " question, that of the others at the image."
            )
        if "itm" in self.tasks and "itc" not in self.tasks:
            raise ValueError("'itm' needs 'itc', which finds its hard negatives.")
        if self.shared not in SHARED_PARTS:
            raise ValueError(
                f"shared is {self.shared!r}; expected one of {list(SHARED_PARTS)}."
            )
        if self.text.seen != self.vision.width:
            raise ValueError(
                f"text.seen is {self.text.seen}; it must be the width of the image's"
                f" tokens, {self.vision.width}."
            )
        apart = self.text.width != self.vision.width
        if "vqa" in self.tasks and apart and "cross" in SHARED_PARTS[self.shared]:
            raise ValueError(
                f"shared is {self.shared!r}, but the cross-attention of 'vqa' reads"
                f" {self.vision.width} features in the encoder and {self.text.width} in"
                " the decoder; share less."
            )
        for name in ("enc_id", "dec_id", "sep_id", "pad_id"):
            if not 0 <= getattr(self, name) < self.text.vocab_size:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; the vocabulary has ids 0 to"
                    f" {self.text.vocab_size - 1}."
                )
        plain = {"tasks": tuple(task for task in TASKS if task in self.tasks)}
        if not (self.encodes and self.decodes):
            plain["shared"] = "nothing"
        if "itc" not in self.tasks:
            plain["momentum"] = None
        for name, value in plain.items():  # one way to say it, not two
            object.__setattr__(self, name, value)

    @property
    def encodes(self) -> bool:
        """Whether there is an encoder."""
        return bool({"itc", "vqa"} & set(self.tasks))

    @property
    def decodes(self) -> bool:
        """Whether there is a decoder."""
        return bool({"lm", "vqa"} & set(self.tasks))

    @classmethod
    def tiny(
        cls,
        vocab_size: int,
        enc_id: int,
        dec_id: int,
        sep_id: int,
        width: int = 96,
        layers: int = 2,
        queue: int = 512,
        **more: Any,
    ) -> "BLIPConfig":
        """The sizes this course trains."""
        sizes = {"layers": layers, "heads": max(1, width // 16), "hidden": 2 * width}
        vision = blip_vit(image_size=32, patch_size=8, width=width, **sizes)
        text = BertConfig(vocab_size, context=32, width=width, seen=width, **sizes)
        more.setdefault("momentum", Momentum(queue, ramp=100))
        return cls(vision, text, enc_id, dec_id, sep_id, embedding=width, **more)

    @classmethod
    def base(cls, image_size: int = 224, **more: Any) -> "BLIPConfig":
        """ViT-B/16 and BERT-base; `image_size=384` after fine-tuning."""
        vision = blip_vit(image_size, 16, 768, 12, 12, 3072)
        return cls._released(vision, batch=2880, **more)

    @classmethod
    def large(cls, image_size: int = 224, **more: Any) -> "BLIPConfig":
        """ViT-L/16 and BERT-base."""
        vision = blip_vit(image_size, 16, 1024, 24, 16, 4096)
        return cls._released(vision, batch=2400, **more)

    @classmethod
    def _released(cls, vision: ViTConfig, batch: int, **more: Any) -> "BLIPConfig":
        text = BertConfig(30524, 512, 768, 12, 12, 3072, seen=vision.width)
        two_epochs = 2 * 14_000_000 // batch
        more.setdefault("momentum", Momentum(ramp=two_epochs))
        return cls(vision, text, enc_id=30523, dec_id=30522, sep_id=102, **more)


def blip_vit(*sizes: int, **named: int | float) -> ViTConfig:
    """Sizes of a vision tower as ImageNet's ViTs are, without CLIP's changes. (Epsilon:
    1e-5 in the released files of `transformers`, 1e-6 in the original code.)
    """
    own = {"norm_before": False, "activation": "gelu", "patch_bias": True}
    return ViTConfig(*sizes, **named, **own)


class Questions(NamedTuple):
    """Images, questions about them and their answers, row by row."""

    pixel_values: Float[Tensor, "b c H W"]
    ids: Int[Tensor, "b t"]
    answers: Int[Tensor, "b a"]


def begin(ids: Int[Tensor, "b t"], first: int) -> Int[Tensor, "b t"]:
    """The same texts with another first token. (The paper says that [Encode] is
    appended; its code overwrites what stands first.)
    """
    ids = ids.clone()
    ids[:, 0] = first
    return ids


def feature(
    projection: nn.Linear, tokens: Float[Tensor, "b t d"]
) -> Float[Tensor, "b e"]:
    """Unit vectors: the first token, projected."""
    return F.normalize(projection(tokens[:, 0]), dim=-1)


class MED(nn.Module):
    """What BLIP can do: see, compare, judge and write, as far as its `tasks` say. The
    paper calls it a multimodal mixture of encoder and decoder (section 3.1).
    """

    def __init__(self, config: BLIPConfig) -> None:
        super().__init__()
        self.config, text, seen = config, config.text, config.vision.width
        self.vision = VisionTransformer(config.vision)
        if config.encodes:
            self.encoder = Bert(text)
        if config.decodes:
            read = text.width if "vqa" in config.tasks else seen
            self.decoder = Bert(replace(text, seen=read), head=True)
        if config.encodes and config.decodes:
            share(self.encoder, self.decoder, config.shared)
        if "itc" in config.tasks:
            self.image_projection = nn.Linear(seen, config.embedding)
            self.text_projection = nn.Linear(text.width, config.embedding)
        if "itm" in config.tasks:
            self.match_head = nn.Linear(text.width, 2)

    def see(self, pixel_values: Float[Tensor, "b c H W"]) -> Float[Tensor, "b n s"]:
        """An image's tokens: the class token and the patches, normalised."""
        return self.vision.norm_after(self.vision(pixel_values))

    def keep(self, ids: Int[Tensor, "b t"]) -> Bool[Tensor, "b t"]:
        """False where there is padding, which belongs on the right."""
        return ids != self.config.pad_id

    def ground(
        self, tokens: Float[Tensor, "b n s"], ids: Int[Tensor, "texts t"]
    ) -> Float[Tensor, "texts t d"]:
        """Texts read in sight of images, text i with image i: the image-grounded
        encoder.

        Raises:
            ValueError: more images than texts, or fewer.
        """
        if len(tokens) != len(ids):
            raise ValueError(
                f"{len(tokens)} images and {len(ids)} texts; each text is read with an"
                " image of its own, so they must be as many."
            )
        ids, keep = begin(ids, self.config.enc_id), self.keep(ids)
        return self.encoder(ids, tokens, keep=keep)

    def judge(
        self, tokens: Float[Tensor, "b n s"], ids: Int[Tensor, "texts t"]
    ) -> Float[Tensor, "texts 2"]:
        """Scores for "text i does not belong to image i" and for "it does"."""
        self._need("itm")
        return self.match_head(self.ground(tokens, ids)[:, 0])

    def embed_image(
        self, pixel_values: Float[Tensor, "b c H W"]
    ) -> Float[Tensor, "b e"]:
        """Unit vectors: the class token, projected."""
        self._need("itc")
        return feature(self.image_projection, self.see(pixel_values))

    def embed_text(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b e"]:
        """Unit vectors: the first token, projected; no image is looked at."""
        self._need("itc")
        return feature(self.text_projection, self.encoder(ids, keep=self.keep(ids)))

    def match(
        self, pixel_values: Float[Tensor, "b c H W"], ids: Int[Tensor, "b t"]
    ) -> Float[Tensor, "b"]:
        """How likely text i belongs to image i."""
        return self.judge(self.see(pixel_values), ids).softmax(dim=-1)[:, 1]

    def generate(
        self,
        pixel_values: Float[Tensor, "b c H W"],
        ids: Int[Tensor, "b t"] | None = None,
        **how: Any,
    ) -> Int[Tensor, "b new"]:
        """Write captions, or with "vqa" answers; new tokens only.

        Args:
            ids: the questions; or how all captions begin, without padding and without
                the end. The first token is overwritten.
            how: `max_new_tokens`, `temperature`, `top_p`, `generator`, as in
                `language.generate`.

        Raises:
            ValueError: no questions, captions that begin with padding in them, or this
                BLIP was not made to write.
        """
        self._need("lm", "vqa")
        seen, seen_keep, c = self.see(pixel_values), None, self.config
        prompt = torch.full((len(seen), 1), c.dec_id, device=seen.device)
        if "vqa" in c.tasks:
            if ids is None:
                raise ValueError("this BLIP answers questions; give them as ids.")
            seen, seen_keep = self.ground(seen, ids), self.keep(ids)
        elif ids is not None:
            prompt = begin(ids, c.dec_id)
            if not self.keep(prompt).all():
                raise ValueError(
                    "captions to go on with must have no padding; write those of"
                    " different lengths one by one."
                )
        how = {"eos": c.sep_id, "pad": c.pad_id, **how}
        return self.decoder.generate(prompt, seen, seen_keep=seen_keep, **how)

    def _need(self, *tasks: str) -> None:
        """Raise ValueError if this BLIP is for none of these tasks."""
        if not set(tasks) & set(self.config.tasks):
            raise ValueError(
                f"this BLIP is for {self.config.tasks}; what you ask for needs"
                f" {' or '.join(map(repr, tasks))}."
            )


class BLIP(MED):
    """How it learns: the losses of all tasks, and with `momentum` a slow copy."""

    def __init__(self, config: BLIPConfig) -> None:
        super().__init__(config)
        if config.momentum is not None:
            self.slow = nn.ModuleDict(
                {name: slow_copy(getattr(self, name)) for name in COPIED}
            )
            self.contrast = MomentumContrast(
                config.momentum, config.embedding, config.temperature
            )

    def losses(
        self, batch: Pairs | Questions, generator: torch.Generator | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """The loss of each task, by its name; `generator` draws the hard negatives."""
        tasks, ids, found = self.config.tasks, batch.ids, {}
        tokens = self.see(batch.pixel_values)
        if "itc" in tasks:
            found["itc"], to_text, to_image = self._contrast(tokens, batch)
        if "itm" in tasks:
            found["itm"] = self._matching(tokens, ids, to_text, to_image, generator)
        if "lm" in tasks:
            found["lm"] = self._writing(tokens, ids)
        if "vqa" in tasks:
            asked = self.ground(tokens, ids)
            found["vqa"] = self._writing(asked, batch.answers, self.keep(ids))
        return found

    def loss(
        self, batch: Pairs | Questions, generator: torch.Generator | None = None
    ) -> Float[Tensor, ""]:
        """Their sum (section 3.2)."""
        return sum(self.losses(batch, generator).values())

    def _contrast(
        self, tokens: Float[Tensor, "b n s"], batch: Pairs
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "b b"], Float[Tensor, "b b"]]:
        """ITC; and how alike are image i and text j, text i and image j."""
        image = feature(self.image_projection, tokens)
        text = self.embed_text(batch.ids)
        if self.config.momentum is None:
            logits = image @ text.T / self.config.temperature
            return contrastive_loss(logits), logits, logits.T
        return self.contrast(image, text, *self._slow_features(batch))

    @torch.no_grad()
    def _slow_features(
        self, batch: Pairs
    ) -> tuple[Float[Tensor, "b e"], Float[Tensor, "b e"]]:
        slow = self.slow
        seen = slow.vision.norm_after(slow.vision(batch.pixel_values))
        read = slow.encoder(batch.ids, keep=self.keep(batch.ids))
        return feature(slow.image_projection, seen), feature(slow.text_projection, read)

    def _matching(
        self,
        tokens: Float[Tensor, "b n s"],
        ids: Int[Tensor, "b t"],
        to_text: Float[Tensor, "b b"],
        to_image: Float[Tensor, "b b"],
        generator: torch.Generator | None,
    ) -> Float[Tensor, ""]:
        """ITM: each pair, each text with a wrong image, each image with a wrong text.
        Not wrong is one's own; and, beyond the paper's code, an equal text's.
        """
        same = (ids[:, None] == ids).all(dim=-1)
        wrong_image = hard_negatives(to_image, same, generator)
        wrong_text = hard_negatives(to_text, same, generator)
        images = torch.cat([tokens, tokens[wrong_image], tokens])
        texts = torch.cat([ids, ids, ids[wrong_text]])
        labels = torch.arange(len(texts), device=ids.device) < len(ids)
        return F.cross_entropy(self.judge(images, texts), labels.long())

    def _writing(
        self,
        seen: Float[Tensor, "b n s"],
        ids: Int[Tensor, "b t"],
        seen_keep: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, ""]:
        """LM: each token from those before it and from what is seen."""
        ids, keep = begin(ids, self.config.dec_id), self.keep(ids)
        features = self.decoder(ids, seen, True, keep, seen_keep)
        labels = ids.masked_fill(~keep, -100)
        return self.decoder.next_token_loss(features, labels, self.config.smoothing)

    @torch.no_grad()
    def after_step(self) -> None:
        """Let the slow copy follow, and the queues move on; the training loop calls
        this after each step.
        """
        if self.config.momentum is None:
            return
        self.contrast.after_step()
        for name in COPIED:
            follow(self.slow[name], getattr(self, name), self.config.momentum.rate)

    def only(self, *tasks: str, **changes: Any) -> "BLIP":
        """A copy for some of the tasks, without the slow one: what is fine-tuned to be
        a captioner (`only("lm")`) or a filter (`only("itc", "itm")`), and what is
        released. `changes`: of the config.

        Raises:
            ValueError: this BLIP lacks a part that they need.
        """
        changes = {"momentum": None, **changes}
        copy = type(self)(replace(self.config, tasks=tasks, **changes))
        copy = copy.to(self.vision.positions)  # where this one is, and as precise
        mine = self.state_dict()
        if lacks := [name for name in copy.state_dict() if name not in mine]:
            raise ValueError(
                f"a BLIP for {self.config.tasks} has no {lacks[0]!r}, which {tasks}"
                f" needs ({len(lacks)} such)."
            )
        copy.load_state_dict({name: mine[name] for name in copy.state_dict()})
        return copy
