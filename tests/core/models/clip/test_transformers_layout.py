from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fusedream_core import CheckpointError, make_generator
from fusedream_core.models.clip.loading import holds_open_clip, load_open_clip_folder

TEXT = {
    "vocab_size": 49408,
    "hidden_size": 24,
    "intermediate_size": 50,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 12,
    "eos_token_id": 49407,
    "pad_token_id": 49407,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 70,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 24,
    "patch_size": 8,
}


def make_clip_model(
    text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None
) -> Any:  # noqa: ANN401
    """transformers' own model with random weights, large enough that activations matter."""
    from transformers import CLIPConfig, CLIPModel

    config = CLIPConfig(
        text_config={**TEXT, **(text or {})},
        vision_config={**VISION, **(vision or {})},
        projection_dim=20,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIPModel(config).eval()
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.2)
    return model


def features(output: Any) -> Tensor:  # noqa: ANN401
    """Unit features, whichever of its forms transformers returns them in."""
    return F.normalize(output if isinstance(output, Tensor) else output.pooler_output, dim=-1)


def compare(model: Any, folder: Path) -> None:  # noqa: ANN401
    """The features of the folder are those of transformers' model."""
    loaded = load_open_clip_folder(folder)
    images = torch.rand(3, 3, 24, 24, generator=make_generator(0)) * 2 - 1
    pixels = ((images + 1) / 2 - loaded.mean) / loaded.std
    with torch.no_grad():
        expected = features(model.get_image_features(pixel_values=pixels))
        torch.testing.assert_close(loaded.encode_images(images), expected, rtol=0, atol=2e-6)
        texts = ["a blue dog", "a red apple on a table and a very long tail of words", ""]
        tokens = loaded.tokenizer(texts)
        expected = features(model.get_text_features(input_ids=tokens))
    torch.testing.assert_close(loaded.encode_text(texts), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu", "gelu_new"])
def test_features_equal_those_of_transformers(activation: str, tmp_path: Path) -> None:
    model = make_clip_model({"hidden_act": activation}, {"hidden_act": activation})
    model.save_pretrained(tmp_path)
    compare(model, tmp_path)


def test_epsilons_and_kinds_of_gelu_may_differ_between_the_towers(tmp_path: Path) -> None:
    model = make_clip_model(
        {"hidden_act": "gelu", "layer_norm_eps": 1e-2},
        {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-1},
    )
    model.save_pretrained(tmp_path)
    compare(model, tmp_path)


def test_end_of_text_by_its_old_number(tmp_path: Path) -> None:
    model = make_clip_model({"eos_token_id": 2})
    model.save_pretrained(tmp_path)
    compare(model, tmp_path)


def test_pytorch_model_bin(tmp_path: Path) -> None:
    model = make_clip_model()
    model.config.save_pretrained(tmp_path)
    state = dict(model.state_dict())
    state["text_model.embeddings.position_ids"] = torch.arange(12)[None]  # older versions did
    torch.save(state, tmp_path / "pytorch_model.bin")
    compare(model, tmp_path)


def test_several_files_with_an_index(tmp_path: Path) -> None:
    model = make_clip_model()
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    compare(model, tmp_path)


def test_wrapped_and_compiled(tmp_path: Path) -> None:
    model = make_clip_model()
    model.config.save_pretrained(tmp_path)
    state = {f"module._orig_mod.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"model": state, "epoch": 3}, tmp_path / "epoch_3.pt")
    compare(model, tmp_path)


def test_own_tokenizer_where_the_vocabulary_is_another(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "a", "dog", "blue", "<end>", "later"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("$A <end>", None, [("<end>", 4)])
    marks = {"pad_token": "<pad>", "eos_token": "<end>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=12, **marks)
    fast.save_pretrained(tmp_path)
    model = make_clip_model({"vocab_size": 6, "eos_token_id": 4, "pad_token_id": 0})
    model.save_pretrained(tmp_path)
    loaded = load_open_clip_folder(tmp_path)
    assert loaded.tokenizer(["a blue dog"])[0, :5].tolist() == [1, 3, 2, 4, 0]
    texts = ["a blue dog", "later later dog"]  # whose largest number is not the end of the text
    with torch.no_grad():
        expected = features(model.get_text_features(input_ids=loaded.tokenizer(texts)))
    torch.testing.assert_close(loaded.encode_text(texts), expected, rtol=0, atol=2e-6)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="needs the tokenizer 'CLIPTokenizer'"):
        load_open_clip_folder(tmp_path)


class TestPreprocessing:
    def write(self, folder: Path, **content: object) -> None:
        (folder / "preprocessor_config.json").write_text(json.dumps(content), encoding="utf-8")

    def test_of_the_folder(self, tmp_path: Path) -> None:
        from transformers import CLIPImageProcessor

        make_clip_model().save_pretrained(tmp_path)
        processor = CLIPImageProcessor(
            image_mean=[0.1, 0.2, 0.3],
            image_std=[0.4, 0.5, 0.6],
            size={"shortest_edge": 24},
            crop_size={"height": 24, "width": 24},
            resample=2,
        )
        processor.save_pretrained(tmp_path)
        loaded = load_open_clip_folder(tmp_path)
        assert loaded.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
        assert loaded.std.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])
        assert (loaded._interpolation, loaded._resize_mode) == ("bilinear", "shortest")
        assert loaded.clip_id != load_without(tmp_path, "preprocessor_config.json").clip_id

    def test_squashed_and_not_normalised(self, tmp_path: Path) -> None:
        make_clip_model().save_pretrained(tmp_path)
        size = {"height": 24, "width": 24}
        self.write(tmp_path, size=size, do_center_crop=False, do_normalize=False, resample=3)
        loaded = load_open_clip_folder(tmp_path)
        assert loaded._resize_mode == "squash"
        assert loaded.mean.flatten().tolist() == [0, 0, 0]
        assert loaded.std.flatten().tolist() == [1, 1, 1]

    def test_what_open_clip_lacks_is_refused(self, tmp_path: Path) -> None:
        make_clip_model().save_pretrained(tmp_path)
        for content in ({"size": 32, "crop_size": 24}, {"resample": 1}, {"do_resize": False}):
            self.write(tmp_path, **content)
            with pytest.raises(
                CheckpointError, match=r"but a model of 24 pixels is supported with"
            ):
                load_open_clip_folder(tmp_path)

    def test_absent_where_open_clip_has_several_answers(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def two_ways(*_: object, **__: object) -> list[dict[str, Any]]:
            return [{"interpolation": "bicubic"}, {"interpolation": "bilinear"}]

        make_clip_model().save_pretrained(tmp_path)
        name = "fusedream_core.models.clip.transformers_layout.preprocess_of_shapes"
        monkeypatch.setattr(name, two_ways)
        with pytest.raises(CheckpointError, match="put the model's preprocessor_"):
            load_open_clip_folder(tmp_path)


class TestRefused:
    def test_other_models_of_transformers(self, tmp_path: Path) -> None:
        make_clip_model().save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "siglip"}))
        with pytest.raises(CheckpointError, match=r"of the model type 'siglip', but .* 'clip'"):
            load_open_clip_folder(tmp_path)

    def test_code_of_its_own(self, tmp_path: Path) -> None:
        make_clip_model().save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        config["auto_map"] = {"AutoModel": "evil.Model"}
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match="the key auto_map, which is refused"):
            load_open_clip_folder(tmp_path)

    def test_activations_that_differ(self, tmp_path: Path) -> None:
        make_clip_model({"hidden_act": "quick_gelu"}, {"hidden_act": "gelu"}).save_pretrained(
            tmp_path
        )
        with pytest.raises(CheckpointError, match="activations 'quick_gelu' and 'gelu'"):
            load_open_clip_folder(tmp_path)

    def test_one_tower(self, tmp_path: Path) -> None:
        model = make_clip_model()
        model.config.save_pretrained(tmp_path)
        state = {k: v for k, v in model.state_dict().items() if not k.startswith("text_model")}
        torch.save(state, tmp_path / "pytorch_model.bin")
        with pytest.raises(CheckpointError, match="without its text tower"):
            load_open_clip_folder(tmp_path)

    def test_values_of_the_wrong_kind(self, tmp_path: Path) -> None:
        make_clip_model().save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        no_heads = {**config["vision_config"], "num_attention_heads": 0}
        for part, message in (
            (no_heads, r"num_attention_heads = .* a whole number from 1"),
            (5, "vision_config = '5', but it must be an object"),
            (["width"], r"vision_config = .* but it must be an object"),
        ):
            whole = {**config, "vision_config": part}
            (tmp_path / "config.json").write_text(json.dumps(whole))
            with pytest.raises(CheckpointError, match=message):
                load_open_clip_folder(tmp_path)


def test_whole_file_is_found_among_others(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = make_clip_model()
    model.save_pretrained(tmp_path)
    assert holds_open_clip(tmp_path / "model.safetensors")
    vision = {k: v for k, v in model.state_dict().items() if k.startswith("vision_model.")}
    save_file(vision, tmp_path / "vision.safetensors")
    assert not holds_open_clip(tmp_path / "vision.safetensors")


def load_without(folder: Path, name: str) -> Any:  # noqa: ANN401
    """The CLIP of a folder when a file is gone."""
    (folder / name).unlink()
    return load_open_clip_folder(folder)


@pytest.mark.parametrize("kind", ["int8", "complex64", "bool"])
def test_weights_of_another_kind_of_number(kind: str, tmp_path: Path) -> None:
    """One of three that are joined, among which it would turn into what the others are."""
    from safetensors.torch import load_file, save_file

    make_clip_model().save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    name = "vision_model.encoder.layers.0.self_attn.k_proj.weight"
    state[name] = state[name].to(getattr(torch, kind))
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"its tensor {name} is of {kind}"):
        load_open_clip_folder(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("text_config", "abc"),
        ("vision_config", [1]),
        ("projection_dim", 1e9),
        ("projection_dim", True),
        ("text_config.num_hidden_layers", 10**6),
        ("text_config.layer_norm_eps", "x"),
        ("text_config.eos_token_id", [2]),
        ("vision_config.image_size", 10**9),
        ("vision_config.patch_size", 0),
        ("vision_config.hidden_size", None),
        ("vision_config.num_channels", 4),
    ],
)
def test_types_and_ranges(key: str, value: object, tmp_path: Path) -> None:
    make_clip_model().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    place, *names = key.split(".")
    if names:
        content[place][names[0]] = value
    else:
        content[place] = value
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CheckpointError, match=rf"has {key} = .*, but it must be "):
        load_open_clip_folder(tmp_path)
