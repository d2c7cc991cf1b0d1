"""What holds for all nodes: links are checked as typing is, and no output is part of another."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

Run = Callable[..., Any]


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def given(
    pack: SimpleNamespace,
    run: Run,
    gan: object,
    clip: object,
    lpips: object,
    target: object,
    basis: object,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, dict[str, Any]]]:
    """For each node inputs with which it runs, beside the defaults of its widgets."""
    import folder_paths

    folder = tmp_path_factory.mktemp("output")
    before, folder_paths.output_directory = folder_paths.output_directory, str(folder)
    models = {"gan": gan, "clip": clip}
    short = {"num_steps": 3, "num_augments": 2}
    made = run("FuseDreamOptimize", **models, target=target, basis=basis, **short)
    image, latent, trace = made[0], made[1], made[4]
    other = run("FuseDreamLoadCLIP", clip_name="other")[0]
    saved = run("FuseDreamSaveLatent", latent=latent)[0]
    images = noise(3, 24, 24, 3)
    mask = torch.zeros(1, 32, 32)
    mask[:, 8:20, 8:20] = 1.0
    yield {
        "FuseDreamLoadGAN": {"gan_name": "tiny"},
        "FuseDreamLoadCLIP": {"clip_name": "tiny"},
        "FuseDreamLoadLPIPS": {"lpips_name": "tiny.safetensors"},
        "FuseDreamEncodePrompt": {"clip": clip, "text": "a dog"},
        "FuseDreamImagePrompt": {"clip": clip, "images": images, "text": "a dog"},
        "FuseDreamMergeCLIP": {"gan": gan, "clip_a": clip, "clip_b": other},
        "FuseDreamSeedBank": {**models, "num_candidates": 6},
        "FuseDreamSeedSearch": {**models, "target": target, "num_candidates": 12, "num_basis": 2},
        "FuseDreamOptimize": {**models, "target": target, "basis": basis, **short},
        "FuseDreamCompose": {
            **models,
            "target": target,
            "foreground": basis,
            "background": basis,
            **short,
            "scale": 0.5,
            "position": "center",
            "lpips": lpips,
        },
        "FuseDreamInvertImage": {**models, "lpips": lpips, "image": image, "num_steps": 2},
        "FuseDreamPoissonBlend": {"foreground": images[:1], "background": image, "mask": mask},
        "FuseDreamAugCLIPScore": {
            "clip": clip,
            "target": target,
            "images": images,
            "num_augments": 2,
        },
        "FuseDreamSaveLatent": {"latent": latent},
        "FuseDreamLoadLatent": {"latent_name": saved},
        "FuseDreamDecodeLatent": {"gan": gan, "latent": latent},
        "FuseDreamInterpolateLatents": {
            "gan": gan,
            "first": latent,
            "last": latent,
            "num_frames": 3,
        },
        "FuseDreamLatentToBasis": {**models, "target": target, "latent": latent},
        "FuseDreamPlotTrace": {"trace": trace, "width": 128, "height": 128},
        "FuseDreamContactSheet": {"images": images, "labels": "a\nb\nc", "tile": 32},
    }
    folder_paths.output_directory = before


@pytest.fixture
def errors(pack: SimpleNamespace) -> ModuleType:
    return pack.module("fusedream_core.errors")


def test_all_are_here(pack: SimpleNamespace, given: dict[str, Any]) -> None:
    assert given.keys() == pack.nodes.keys()


def widgets(pack: SimpleNamespace, *kinds: str) -> Iterator[tuple[str, Any]]:
    """Node and input of all widgets of these kinds."""
    for node_id, node in pack.nodes.items():
        for entry in node.define_schema().inputs:
            if entry.io_type in kinds:
                yield node_id, entry


def linked(run: Run, pack: SimpleNamespace, node_id: str, name: str, value: object) -> None:
    """Run a node with one linked value; its sockets hold what nobody can work with."""
    sockets = {
        entry.id: object()
        for entry in pack.nodes[node_id].define_schema().inputs
        if not hasattr(entry, "default")
    }
    run(node_id, **(sockets | {name: value}))


class TestNumbersByALink:
    """``validate_inputs`` cannot see them: ComfyUI gives it None for what is linked."""

    def test_there_are_many(self, pack: SimpleNamespace) -> None:
        found = list(widgets(pack, "INT", "FLOAT"))
        assert len(found) > 25
        assert all(entry.min < entry.max for _, entry in found)

    def bad(self, entry: Any) -> list[object]:  # noqa: ANN401
        values = [
            entry.min - 1,
            entry.max + 1,
            math.nan,
            math.inf,
            -math.inf,
            None,
            True,
            "1",
            "many",
            [1],
            torch.ones(1),
            np.float64("nan"),
            10**400,
            np.True_,
            1j,
        ]
        return [*values, entry.min + 0.5] if entry.io_type == "INT" else values

    def test_refused_before_the_work(
        self, pack: SimpleNamespace, run: Run, errors: ModuleType
    ) -> None:
        for node_id, entry in widgets(pack, "INT", "FLOAT"):
            for value in self.bad(entry):
                sent = [value] if pack.nodes[node_id].INPUT_IS_LIST else value
                with pytest.raises(errors.ConfigError) as caught:
                    linked(run, pack, node_id, entry.id, sent)
                message = str(caught.value)
                assert message.startswith(f"{entry.id} is "), (node_id, value)
                assert "but it must be a " in message
                assert len(message) < 200

    def test_of_another_kind_but_right(self, pack: SimpleNamespace) -> None:
        """A whole number may come as 4.0, and numbers of NumPy are numbers."""
        checked = pack.module("nodes._node").checked
        for node_id, entry in widgets(pack, "INT", "FLOAT"):
            whole = entry.io_type == "INT"
            for value in (entry.min, entry.max, np.float64(entry.min), np.float32(entry.min)):
                found = checked(pack.nodes[node_id], {entry.id: value})[entry.id]
                assert type(found) is (int if whole else float)
                assert found == value
        largest = {"seed": np.uint64(2**64 - 1)}
        assert checked(pack.nodes["FuseDreamSeedSearch"], largest) == {"seed": 2**64 - 1}

    def test_the_example(self, run: Run, given: dict[str, Any], errors: ModuleType) -> None:
        for number in (-1, 0):
            with pytest.raises(errors.ConfigError, match=r"whole number from 1 to 4096\."):
                run("FuseDreamAugCLIPScore", **given["FuseDreamAugCLIPScore"], num_best=number)


class TestWordsByALink:
    def test_no_option(self, pack: SimpleNamespace, run: Run, errors: ModuleType) -> None:
        own = {"gan_name", "clip_name", "lpips_name", "latent_name"}  # looked up when it runs
        for node_id, entry in widgets(pack, "COMBO"):
            for value in (None, 3, "none of these"):
                if entry.id not in own:
                    with pytest.raises(errors.ConfigError, match=f"{entry.id} is .* one of "):
                        linked(run, pack, node_id, entry.id, value)

    def test_no_text(self, pack: SimpleNamespace, run: Run, errors: ModuleType) -> None:
        for node_id, entry in widgets(pack, "STRING"):
            for value in (None, ["a"], object()):
                sent = [value] if pack.nodes[node_id].INPUT_IS_LIST else value
                with pytest.raises(errors.ConfigError, match=f"{entry.id} is .* a text"):
                    linked(run, pack, node_id, entry.id, sent)

    def test_a_number_is_a_text(self, pack: SimpleNamespace) -> None:
        """As it is when it is typed into a prompt of the API."""
        checked = pack.module("nodes._node").checked
        found = checked(pack.nodes["FuseDreamSaveLatent"], {"filename_prefix": 7})
        assert found == {"filename_prefix": "7"}


class TestMessagesNameTheWidget:
    """Also those that the core raises, whose settings have names of their own."""

    @pytest.mark.parametrize(
        ("node_id", "inputs"),
        [
            ("FuseDreamSeedBank", {"num_candidates": 0}),
            ("FuseDreamSeedSearch", {"num_candidates": 0}),
            ("FuseDreamSeedSearch", {"num_basis": 64}),
            ("FuseDreamSeedSearch", {"classes": "dgo"}),
            ("FuseDreamOptimize", {"num_steps": 0}),
            ("FuseDreamOptimize", {"num_augments": 0}),
            ("FuseDreamCompose", {"num_steps": 0}),
            ("FuseDreamCompose", {"num_augments": 0}),
            ("FuseDreamCompose", {"consistency": "seam", "lpips": None}),
        ],
    )
    def test_refused_by_the_core(
        self,
        run: Run,
        given: dict[str, Any],
        errors: ModuleType,
        node_id: str,
        inputs: Any,  # noqa: ANN401
    ) -> None:
        widget = next(iter(inputs))
        with pytest.raises(errors.ConfigError) as caught:
            run(node_id, **(given[node_id] | inputs))
        assert widget in str(caught.value)
        if inputs[widget] == 0:
            assert str(caught.value).startswith(f"{widget} is 0")

    def test_zero_is_all_that_the_widgets_let_pass(self, pack: SimpleNamespace) -> None:
        """Numbers from -1 have a hole at 0, which the test above fills; there are no others."""
        holes = [(n, e.id) for n, e in widgets(pack, "INT") if e.min < 0]
        assert sorted(holes) == [
            ("FuseDreamCompose", "num_augments"),
            ("FuseDreamCompose", "num_steps"),
            ("FuseDreamOptimize", "num_augments"),
            ("FuseDreamOptimize", "num_steps"),
            ("FuseDreamSeedBank", "num_candidates"),
            ("FuseDreamSeedSearch", "num_candidates"),
        ]


def tensors_in(value: object) -> Iterator[Tensor]:
    """All tensors in a value of a socket, but those of models, which are shared on purpose."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from tensors_in(one)
    elif hasattr(value, "tensors"):
        yield from value.tensors()


def storages(value: object) -> set[int]:
    """Where the memory of a value begins."""
    return {
        tensor.untyped_storage().data_ptr() for tensor in tensors_in(value) if tensor.numel() > 0
    }


class TestSharedMemory:
    """A later node that writes in place must not change what another node was given."""

    def assert_apart(self, outputs: Any, inputs: Any, where: str) -> None:  # noqa: ANN401
        for (i, first), (j, second) in itertools.combinations(enumerate(outputs), 2):
            assert not storages(first) & storages(second), f"outputs {i} and {j} of {where}"
        for (i, output), (name, value) in itertools.product(enumerate(outputs), inputs.items()):
            assert not storages(output) & storages(value), f"output {i} and {name} of {where}"

    def test_every_node(self, pack: SimpleNamespace, run: Run, given: dict[str, Any]) -> None:
        seen = 0
        for node_id, inputs in given.items():
            outputs = run(node_id, **inputs)
            seen += sum(bool(storages(output)) for output in outputs)
            self.assert_apart(outputs, inputs, node_id)
        assert seen > 20

    @pytest.mark.parametrize("num", [1, 3])
    def test_ranking(self, run: Run, given: dict[str, Any], num: int) -> None:
        inputs = given["FuseDreamAugCLIPScore"]
        images = inputs["images"][:num]
        values = run("FuseDreamAugCLIPScore", **inputs)[5]
        for threshold in (-1.0, values[0]):
            own = inputs | {"images": images, "threshold": threshold, "num_best": 9}
            self.assert_apart(run("FuseDreamAugCLIPScore", **own), own, f"{num}, {threshold}")

    def test_ranking_of_several_sizes(self, run: Run, given: dict[str, Any]) -> None:
        images = [noise(2, 16, 16, 3), noise(1, 24, 16, 3)]
        inputs = given["FuseDreamAugCLIPScore"] | {"images": images, "num_best": 2}
        outputs = run("FuseDreamAugCLIPScore", **inputs)
        self.assert_apart(outputs, inputs, "a list")
        apart = [storages(image) for image in outputs[1]]
        assert not any(a & b for a, b in itertools.combinations(apart, 2))

    def test_one_frame_is_no_view(self, run: Run, given: dict[str, Any]) -> None:
        """One picture for several backgrounds is expanded inside, and copied outside."""
        inputs = given["FuseDreamPoissonBlend"] | {"background": noise(3, 32, 32, 3)}
        outputs = run("FuseDreamPoissonBlend", **inputs)
        self.assert_apart(outputs, inputs, "a blend")
        outputs[1][0].zero_()
        assert outputs[1][1].any()
