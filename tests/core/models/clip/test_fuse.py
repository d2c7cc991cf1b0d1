from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import Conv2d as Conv

from fusedream_core.models.clip.fuse import (
    _cuts_patches,
    _PatchConv,
    activation_floats,
    fuse_image_tower,
)
from fusedream_core.rng import make_generator

TOWERS: dict[str, dict[str, Any]] = {
    "resnet": {"layers": [1, 2, 1, 1], "width": 8, "head_width": 16, "image_size": 32},
    "transformer": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32},
}


def make_tower(kind: str) -> nn.Module:
    from open_clip.model import CLIP

    text = {"context_length": 4, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tower: nn.Module = CLIP(12, TOWERS[kind], text).visual.eval()
        for name, tensor in [*tower.named_buffers(), *tower.named_parameters()]:
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0)
            elif "bn" in name and tensor.is_floating_point():
                tensor.data.normal_(0.3, 0.5)
    return tower


def make_conv(*args: Any, **options: Any) -> Conv:  # noqa: ANN401 - torch's
    with torch.random.fork_rng(devices=[]):
        return Conv(*args, **options)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=make_generator(0))


def outputs(tower: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    leaf = images.clone().requires_grad_()
    features = tower(leaf)
    weights = torch.randn(features.shape, generator=make_generator(1))
    return features, torch.autograd.grad((features * weights).sum(), leaf)[0]


class TestFuseImageTower:
    @pytest.mark.parametrize("kind", TOWERS)
    def test_same_outputss(self, kind: str, images: Tensor) -> None:
        tower = make_tower(kind)
        fused = copy.deepcopy(tower)
        fuse_image_tower(fused)
        for ours, theirs in zip(outputs(fused, images), outputs(tower, images), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)

    def test_no_normalisation_is_left(self) -> None:
        fused = make_tower("resnet")
        assert any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
        fuse_image_tower(fused)
        assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
        assert not any(parameter.requires_grad for parameter in fused.parameters())

    def test_patches_are_cut_by_a_product(self) -> None:
        fused = make_tower("transformer")
        names = set(fused.state_dict())
        fuse_image_tower(fused)
        assert isinstance(fused.conv1, _PatchConv)
        assert set(fused.state_dict()) == names

    def test_attention_is_one_product_for_all_tokens(self, images: Tensor) -> None:
        fused = make_tower("transformer")
        fused.requires_grad_(False)
        counts = []
        for _ in range(2):
            with torch.profiler.profile() as profile:
                outputs(fused, images)
            counts.append({event.key: event.count for event in profile.key_averages()})
            fuse_image_tower(fused)
        assert counts[0]["aten::bmm"] > counts[1].get("aten::bmm", 0)

    @pytest.mark.parametrize("patch_size", [8, 4])
    def test_activation_floats(self, patch_size: int) -> None:
        """At least what autograd keeps beside the weights, and not many times that."""
        from open_clip.transformer import VisionTransformer

        side, (width, heads) = 56, (64, 4)
        with torch.random.fork_rng(devices=[]):
            tower = VisionTransformer(side, patch_size, width, 3, heads, 4.0, output_dim=16).eval()
        fuse_image_tower(tower)
        weights = {parameter.data_ptr() for parameter in tower.parameters()}
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage.nbytes() // 4
            return tensor.detach()  # an output that is kept as it is would never be freed

        leaf = torch.rand(1, 3, side, side, generator=make_generator(0)).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            features = tower(leaf)
        assert features.requires_grad
        assert sum(kept.values()) <= activation_floats(tower, (side, side)) < 4 * sum(kept.values())

    def test_another_attention_stays(self) -> None:
        """Where keys come from elsewhere, and in older forms with the tokens first."""
        from open_clip.transformer import ResidualAttentionBlock

        with torch.random.fork_rng(devices=[]):
            crossed = ResidualAttentionBlock(16, 2, is_cross_attention=True)
            turned = ResidualAttentionBlock(16, 2, batch_first=False)
        for block in (crossed, turned):
            fuse_image_tower(nn.Sequential(block))
            assert type(block.attn) is nn.MultiheadAttention

    def test_what_it_does_not_know_stays(self, images: Tensor) -> None:
        other = nn.Sequential(make_conv(3, 4, 3), nn.BatchNorm2d(4), make_conv(4, 4, 1)).eval()
        before = copy.deepcopy(other)
        fuse_image_tower(other)
        assert [type(module) for module in other] == [type(module) for module in before]
        assert torch.equal(other(images), before(images))


class TestPatchConv:
    @pytest.mark.parametrize("bias", [False, True])
    @pytest.mark.parametrize("size", [(8, 4), (9, 7), (16, 16)])
    def test_same_as_the_convolution(self, bias: bool, size: tuple[int, int]) -> None:
        conv = make_conv(3, 5, (4, 2), stride=(4, 2), bias=bias)
        x = torch.randn(2, 3, *size, generator=make_generator(0))
        assert _cuts_patches(conv)
        torch.testing.assert_close(_PatchConv(conv)(x), conv(x))

    @pytest.mark.parametrize(
        "conv",
        [
            make_conv(4, 4, 2, stride=1),
            make_conv(4, 4, 2, stride=2, padding=1),
            make_conv(4, 4, 2, stride=2, groups=2),
            make_conv(4, 4, 1),
        ],
    )
    def test_others_are_left(self, conv: nn.Conv2d) -> None:
        assert not _cuts_patches(conv)
