"""Train the demo CLIP: open_clip's own architecture on captioned scenes of the small world.

InfoNCE with one false caption per picture as an extra column; half of the pictures come in pairs
that share their object. A caption that happens to be true of another picture is masked. One
colour-object pair in eight is held out until it has been measured, and learned at the end. Linear
heads for object, colour and background help the picture tower at first and are dropped at the end.
The token embedding is trained for the words that occur and written back into the stock vocabulary,
so open_clip's own tokenizer and loader serve.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from art import CLASSES
from captions import ASKED, Caption, Captioner, Facts, article, scene_facts, vocabulary
from composites import composed
from scenes import (
    BACKGROUNDS,
    COLORS,
    UNKNOWN,
    SceneMaker,
    Scenes,
    distort,
    dominant_color,
    join_scenes,
)
from training import Clock, cosine, half_precision, load_checkpoint, save_checkpoint, set_rate

IMAGE_SIZE, CONTEXT, EMBED_DIM, TEXT_WIDTH = 64, 32, 128, 128
VISION = {"image_size": IMAGE_SIZE, "layers": [1, 2, 2, 1], "width": 32, "head_width": 64}
TEXT = {
    "context_length": CONTEXT,
    "vocab_size": 49408,
    "width": TEXT_WIDTH,
    "heads": 4,
    "layers": 2,
}


class Words:
    """The stock byte-pair tokenizer, cut to the tokens that the captions use."""

    def __init__(self, names: list[str]) -> None:
        self.tokenizer = open_clip.SimpleTokenizer(context_length=CONTEXT)
        encoded = {word: self.tokenizer.encode(word) for word in vocabulary(names)}
        used = {token for tokens in encoded.values() for token in tokens}
        start, end = self.tokenizer.sot_token_id, self.tokenizer.eot_token_id
        # The end token stays the highest: the model finds it by argmax.
        self.stock_ids = sorted(used | {start, end})
        index = {token: i for i, token in enumerate(self.stock_ids)}
        self.start, self.end = index[start], index[end]
        self.ids = {word: [index[t] for t in tokens] for word, tokens in encoded.items()}

    def __call__(self, captions: list[Caption]) -> Tensor:
        """Token ids ``(N, length of the longest)`` int64, zero-padded."""
        rows = [
            [self.start, *(i for word in c.text.split() for i in self.ids[word]), self.end]
            for c in captions
        ]
        out = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for row, ids in zip(out, rows, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        return out


def encode_text(model: CLIP, tokens: Tensor) -> Tensor:
    """Unit features ``(N, EMBED_DIM)``: open_clip's text forward for rows below the context."""
    length = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    return F.normalize(
        (x[torch.arange(len(x)), tokens.argmax(1)] @ model.text_projection).float(), dim=-1
    )


def encode_image(model: CLIP, images: Tensor) -> Tensor:
    """Features ``(B, EMBED_DIM)``, not normalised, of ``(B, 3, 64, 64)`` pictures in [-1, 1]."""
    return model.visual(images.contiguous(memory_format=torch.channels_last)).float()


@dataclass
class ClipRun:
    """Settings of CLIP's training."""

    minutes: float = 75.0
    batch: int = 96
    single_share: float = 0.6
    pasted_share: float = 0.15  # the rest are two objects side by side
    lr: float = 1.5e-3
    weight_decay: float = 0.05
    hold_out_share: float = 0.8  # of the time; then the pairs held out are learned too
    naming_weight: float = 0.5  # of the heads' loss
    seed: int = 1
    start: Path | None = None


def held_out_pairs(maker: SceneMaker, num_classes: int) -> Tensor:
    """Pairs of object and colour that are never trained on, ``(num_classes, num_colors)`` bool.

    One pair in eight is held out, but never an object's natural colour.
    """
    keep = torch.rand(num_classes, len(COLORS), generator=torch.Generator().manual_seed(42)) > 1 / 8
    for tiles in maker.tiles:
        natural = dominant_color(tiles[:, :3], tiles[:, 3:])
        known = natural != UNKNOWN
        keep[torch.arange(num_classes)[known], natural[known]] = True
    return ~keep


class Teacher:
    """Draws batches of scenes with true and false captions."""

    def __init__(self, maker: SceneMaker, names: list[str], run: ClipRun) -> None:
        self.maker, self.names, self.run = maker, names, run
        self.generator = torch.Generator().manual_seed(run.seed)
        self.captioner = Captioner(names, run.seed)
        self.held_out = held_out_pairs(maker, len(names))

    def scenes(self, single: int, double: int, pasted: int) -> list[Scenes]:
        """Scenes of one object, of two, and of one on another; neighbours share the first."""
        num = single + double + pasted
        order = torch.rand(num, len(self.names), generator=self.generator).topk(2, 1)[1]
        order[1::2, 0] = order[::2, 0][: len(order[1::2])]
        clash = order[:, 0] == order[:, 1]
        order[clash, 1] = (order[clash, 1] + 1) % len(self.names)
        one, two, over = order.split([single, double, pasted])
        return [
            self.maker.single(one[:, 0], self.generator),
            self.maker.double(two, self.generator),
            self.maker.pasted(over[::2], self.generator),
            *(composed(self.maker, part, self.generator) for part in over[1::2].chunk(3)),
        ]

    def is_held_out(self, scenes: Scenes) -> Tensor:
        """``(B,)`` bool: an object of the scene wears a colour it is not to be seen in."""
        known = (scenes.objects != UNKNOWN) & (scenes.colors != UNKNOWN)
        return (self.held_out[scenes.objects.clamp_min(0), scenes.colors.clamp_min(0)] & known).any(
            1
        )

    def batch(self, *, hold_out: bool) -> tuple[Tensor, Scenes, list[Facts]]:
        """Distorted pictures, their scenes (without held-out pairs if asked) and facts."""
        single, pasted = (
            int(self.run.batch * share) for share in (self.run.single_share, self.run.pasted_share)
        )
        scenes = join_scenes(self.scenes(single, self.run.batch - single - pasted, pasted))
        if hold_out:
            scenes = scenes.pick(~self.is_held_out(scenes))
        return distort(scenes.images, self.generator, 0.7), scenes.seen(), scene_facts(scenes)


def head_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy over rows whose target is known, zero where there are none."""
    return (
        F.cross_entropy(logits, target, ignore_index=UNKNOWN)
        if (target != UNKNOWN).any()
        else logits.sum() * 0
    )


def contrast(
    model: CLIP, features: Tensor, text: Tensor, facts: list[Facts], captions: list[Caption]
) -> Tensor:
    """InfoNCE both ways; the captions are the true ones first, the false ones after.

    Other captions that are true of a picture are masked.
    """
    num = len(facts)
    claims = [fact.claims() for fact in facts]
    also_true = torch.tensor(
        [[caption.claims <= claim for caption in captions] for claim in claims]
    )
    also_true[torch.arange(num), torch.arange(num)] = False
    logits = model.logit_scale.exp().clamp(max=100) * features @ text.t()
    logits = logits.masked_fill(also_true, -1e4)
    target = torch.arange(num)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits[:, :num].t(), target)) / 2


class Student(nn.Module):
    """CLIP and the linear heads that help it at first."""

    def __init__(self, words: Words, num_classes: int, naming_weight: float) -> None:
        super().__init__()
        self.naming_weight = naming_weight
        self.clip = CLIP(EMBED_DIM, VISION, TEXT | {"vocab_size": len(words.stock_ids)}).to(
            memory_format=torch.channels_last
        )
        self.heads = nn.ModuleList(
            nn.Linear(EMBED_DIM, n) for n in (num_classes, len(COLORS), len(BACKGROUNDS))
        )

    def loss(
        self,
        images: Tensor,
        scenes: Scenes,
        facts: list[Facts],
        captions: list[Caption],
        words: Words,
    ) -> Tensor:
        """Contrast of pictures and captions, and the heads' own losses."""
        with half_precision():
            features = encode_image(self.clip, images)
            text = encode_text(self.clip, words(captions))
        unit = F.normalize(features, dim=-1)
        return contrast(
            self.clip, unit, text, facts, captions
        ) + self.naming_weight * self.naming_loss(features, scenes)

    def naming_loss(self, features: Tensor, scenes: Scenes) -> Tensor:
        """Loss of the heads for object, colour and background.

        Each of two objects counts half; the colour is asked of single objects only.
        """
        objects, colors, grounds = (head(features) for head in self.heads)
        one = scenes.objects[:, 1] == UNKNOWN
        loss = head_loss(objects[one], scenes.objects[one, 0]) + head_loss(
            colors[one], scenes.colors[one, 0]
        )
        loss = loss + head_loss(grounds, scenes.background)
        return loss + sum(head_loss(objects[~one], scenes.objects[~one, i]) for i in range(2)) / 2

    def make_optimizer(self, run: ClipRun) -> torch.optim.Optimizer:
        """AdamW; biases and norms are not decayed."""
        decayed = [p for p in self.parameters() if p.ndim > 1]
        plain = [p for p in self.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": run.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=run.lr, betas=(0.9, 0.98))


def train(
    atlases: list[Tensor], names: list[str], out: Path, run: ClipRun, log: Callable[[str], None]
) -> tuple[CLIP, Words]:
    """Train, with a checkpoint each minute; an interrupted run goes on from its last checkpoint.

    The first run of all begins with the weights in ``run.start``, if that is a folder.
    """
    torch.manual_seed(run.seed)
    words = Words(names)
    student = Student(words, len(names), run.naming_weight)
    if run.start:
        load_export(student.clip, words, run.start)
    optimizer = student.make_optimizer(run)
    teacher = Teacher(SceneMaker(atlases, IMAGE_SIZE), names, run)
    clock, path = Clock(run.minutes), out / "clip-checkpoint.pt"
    if state := load_checkpoint(path):
        student.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        teacher.generator.set_state(state["rng"])
        clock.resume(state)
        teacher.captioner.rng.seed(clock.step)
    for progress in clock.steps():
        set_rate(optimizer, run.lr * cosine(progress, clock.step, warmup=200, floor=0.01))
        student.train()
        images, scenes, facts = teacher.batch(hold_out=progress < run.hold_out_share)
        captions = [write(f) for write in teacher.captioner.writers() for f in facts]
        loss = student.loss(images, scenes, facts, captions, words)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        clock.tick()
        if clock.due("save", 60):
            save_checkpoint(
                path,
                model=student.state_dict(),
                optimizer=optimizer.state_dict(),
                rng=teacher.generator.get_state(),
                **clock.state(),
            )
        if clock.due("log", 240):
            scores = recall(
                student.clip, words, atlases, names, rounds=1 if clock.spent < clock.total else 10
            )
            scores["asked words"] = words_right(student.clip, words, atlases)
            told = " ".join(f"{key} {value:.3f}" for key, value in scores.items())
            log(
                f"clip {clock.spent / 60:5.1f} min step {clock.step} loss {loss.item():.3f} "
                f"R@1 of 100: {told}"
            )
    return student.clip.eval(), words


@torch.no_grad()
def recall(
    model: CLIP, words: Words, atlases: list[Tensor], names: list[str], rounds: int = 5
) -> dict[str, float]:
    """Mean R@1 of 100 captions for each kind of scene, by its name.

    The kinds are one object, held-out colour-object pairs, two objects, and one pasted on another.
    The last number is the share of pictures that match their true caption better than the false.
    """
    model.eval()
    maker = SceneMaker(atlases, IMAGE_SIZE)
    teacher = Teacher(maker, names, ClipRun(seed=9999))
    pairs = teacher.held_out.nonzero()
    hits: dict[str, list[float]] = {
        "one": [],
        "held-out": [],
        "two": [],
        "pasted": [],
        "true>false": [],
    }
    for _ in range(rounds):
        generator = teacher.generator
        one, two, *over = teacher.scenes(100, 100, 100)
        many = maker.single(
            pairs[torch.randint(len(pairs), (2500,), generator=generator), 0], generator
        )
        rare = many.pick(teacher.is_held_out(many).nonzero()[:100, 0])
        for key, scenes in zip(hits, (one, rare, two, join_scenes(over)), strict=False):
            found, told_apart = match(model, words, teacher.captioner, scenes)
            hits[key].append(found)
            if key in ("one", "two"):
                hits["true>false"].append(told_apart)
    return {key: sum(values) / len(values) for key, values in hits.items()}


def match(model: CLIP, words: Words, captioner: Captioner, scenes: Scenes) -> tuple[float, float]:
    """R@1 of the scenes' true captions, and how often the true one beats the false one."""
    facts = scene_facts(scenes)
    captions = [write(f) for write in captioner.writers() for f in facts]
    features = F.normalize(encode_image(model, scenes.images), dim=-1)
    scores = features @ encode_text(model, words(captions)).t()
    num = len(facts)
    claims = [fact.claims() for fact in facts]
    right = torch.tensor([[c.claims <= claim for c in captions[:num]] for claim in claims])
    best = scores[:, :num].argmax(1)
    found = right[torch.arange(num), best].float().mean().item()
    lies = torch.stack([part.diagonal() for part in scores[:, num:].split(num, 1)])
    told_apart = (scores.diagonal() > lies).float().mean().item()
    return found, told_apart


@torch.no_grad()
def words_right(model: CLIP, words: Words, atlases: list[Tensor], views: int = 4) -> float:
    """Share of the sixty asked words of which the class that fits best is an accepted one.

    It is the class with the highest mean score over ``views`` scenes.
    """
    maker, generator = SceneMaker(atlases, IMAGE_SIZE), torch.Generator().manual_seed(60)
    classes = torch.arange(maker.num_classes).repeat(views)
    features = F.normalize(
        encode_image(model.eval(), maker.single(classes, generator).images), dim=-1
    )
    captions = [Caption(article(word), frozenset()) for word in ASKED]
    scores = (features @ encode_text(model, words(captions)).t()).unflatten(0, (views, -1)).mean(0)
    best = [list(CLASSES)[index] for index in scores.argmax(0).tolist()]
    return sum(name in ok for name, ok in zip(best, ASKED.values(), strict=True)) / len(ASKED)


def load_export(model: CLIP, words: Words, folder: Path) -> None:
    """Read what :func:`export` wrote into a model with the cut token table."""
    state = {k: v.float() for k, v in load_file(folder / "open_clip_model.safetensors").items()}
    state["token_embedding.weight"] = state["token_embedding.weight"][words.stock_ids]
    model.load_state_dict(state)


def export(model: CLIP, words: Words, folder: Path) -> None:
    """Write an open_clip local directory, half precision; tokens never seen are zero rows."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.detach().clone() for key, value in model.state_dict().items()}
    table = torch.zeros(TEXT["vocab_size"], TEXT_WIDTH)
    table[words.stock_ids] = state["token_embedding.weight"]
    state["token_embedding.weight"] = table
    state = {
        k: (v.half() if v.is_floating_point() and v.ndim > 1 else v).contiguous()
        for k, v in state.items()
    }
    save_file(state, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    half = [0.5, 0.5, 0.5]
    config = {
        "model_cfg": {
            "embed_dim": EMBED_DIM,
            "vision_cfg": VISION,
            "text_cfg": TEXT,
            "quick_gelu": False,
        },
        "preprocess_cfg": {"mean": half, "std": half, "interpolation": "bicubic"},
    }
    (folder / "open_clip_config.json").write_text(
        json.dumps(config, indent=1) + "\n", encoding="utf-8"
    )
