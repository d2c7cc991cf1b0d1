from __future__ import annotations

import copy
import dataclasses
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fusedream_core import (
    DEFAULT,
    BigGan,
    CompositionRecipe,
    ConfigError,
    InvertConfig,
    OpenClip,
    Placement,
    PromptError,
    build_bank,
)
from fusedream_core.pipeline.job import Job, Models, same_device
from fusedream_core.pipeline.provenance import Provenance, hash_weights
from fusedream_core.version import VERSION

JOB = Job(prompt="a dog", seed=2**64 - 1, recipe=DEFAULT)
COMPOSITION = Job(
    prompt="a dog | red:-0.3",
    seed=0,
    recipe=CompositionRecipe(),
    placements=(Placement.named("left", 0.5),),
    foreground_prompt="a d\u00f6g",
)


@pytest.fixture
def models(gan: BigGan, clip: OpenClip) -> Models:
    return Models(gan, clip)


class TestJson:
    @pytest.mark.parametrize("job", [JOB, COMPOSITION])
    def test_round_trip(self, job: Job, gan: BigGan, clip: OpenClip) -> None:
        bank = build_bank(gan, clip, num=3)
        record = Provenance.of(job, Models(gan, clip, bank, clip))
        text = record.to_json()
        assert text.isascii()
        assert Provenance.from_json(text) == record
        plain = json.loads(text)
        assert plain["models"]["gan"]["id"] == gan.gan_id
        assert len(plain["models"]["clip"]["sha256"]) == 64
        assert plain["models"]["bank"] == bank.key
        assert plain["versions"]["torch"] == torch.__version__
        assert plain["job"]["recipe"]["search"]["num_basis"] == job.recipe.search.num_basis

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"format": "other"}, "of another program"),
            ({"extra": 1}, "unknown setting 'extra'"),
            ({"device": 3}, "device is 3"),
            ({"versions": {}}, "versions lacks the setting 'fusedream'"),
            (
                {"models": {"gan": {"id": "x", "path": "/etc"}, "clip": {"id": "x"}}},
                "setting 'path'",
            ),
            ({"job": {"prompt": "a"}}, "job lacks the setting"),
            ({"job": {"prompt": "x" * 20_000, "seed": 0, "recipe": {}}}, "prompt is"),
            ({"job": {"prompt": "a", "seed": 2**64, "recipe": {}}}, "seed is"),
            ({"job": {"prompt": "a", "seed": 0, "recipe": {"code": 1}}}, "unknown setting 'code'"),
        ],
    )
    def test_what_nobody_vouches_for(
        self, change: dict[str, Any], message: str, models: Models
    ) -> None:
        plain = json.loads(Provenance.of(JOB, models).to_json()) | change
        with pytest.raises(ConfigError, match=message):
            Provenance.from_json(json.dumps(plain))

    def test_prompt_that_is_no_text(self, models: Models) -> None:
        plain = json.loads(Provenance.of(JOB, models).to_json())
        plain["job"]["prompt"] = "a\udcff"
        with pytest.raises(PromptError, match="something that is no character at place 2"):
            Provenance.from_json(json.dumps(plain))


class TestCheck:
    def test_same(self, models: Models, caplog: pytest.LogCaptureFixture) -> None:
        Provenance.of(JOB, models).check(models)
        assert not caplog.records

    def test_other_weights_under_the_same_name(self, models: Models) -> None:
        record = Provenance.of(JOB, models)
        changed = copy.deepcopy(models.gan)
        assert isinstance(changed, nn.Module)
        next(changed.parameters()).data.view(-1)[0] += 1.0
        with pytest.raises(ConfigError, match="This was made with the GAN 'biggan-"):
            record.check(Models(changed, models.clip))

    def test_kinds_of_models(self, models: Models) -> None:
        record = Provenance.of(JOB, models)
        both = dataclasses.replace(models, selector=models.clip)
        with pytest.raises(ConfigError, match="made with no selector, but here is the selector"):
            record.check(both)
        with pytest.raises(ConfigError, match=r"made with the selector .*here is no selector"):
            Provenance.of(JOB, both).check(models)
        bank = build_bank(models.gan, models.clip, num=3)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="made with no seed bank, but here is the seed bank"):
            record.check(dataclasses.replace(models, bank=bank))

    def test_other_versions_are_a_warning(
        self, models: Models, caplog: pytest.LogCaptureFixture
    ) -> None:
        record = Provenance.of(JOB, models)
        versions = dataclasses.replace(record.versions, torch="1.0\x1b[2J")
        with caplog.at_level(logging.WARNING):
            dataclasses.replace(record, versions=versions).check(models)
        assert "torch was '1.0\\x1b[2J' and is" in caplog.text


class TestModels:
    def test_devices(self, models: Models) -> None:
        class Elsewhere:
            device = torch.device("cuda", 0)

        with pytest.raises(ConfigError, match="The LPIPS is on cuda:0 and the GAN on cpu"):
            dataclasses.replace(models, perceptual=Elsewhere())

    @pytest.mark.parametrize(
        ("first", "second", "same"),
        [("cuda", "cuda:1", True), ("cuda:0", "cuda:1", False), ("cpu", "cuda", False)],
    )
    def test_same_device(self, first: str, second: str, same: bool) -> None:
        assert same_device(torch.device(first), torch.device(second)) == same


def test_hash_of_weights() -> None:
    state = {"a": torch.ones(2), "b": torch.tensor(True), "c": torch.ones(2).bfloat16()}
    own = hash_weights(state)
    assert own == hash_weights(dict(reversed(state.items())))
    others = [{**state, "a": torch.ones(2, 1)}, {**state, "a": torch.zeros(2)}, {"a": state["a"]}]
    assert len({own, *map(hash_weights, others)}) == 4


def test_version_is_that_of_the_package() -> None:
    project = Path(__file__).parents[3] / "pyproject.toml"
    (own,) = re.findall(r'^version = "(.+)"$', project.read_text(encoding="utf-8"), re.MULTILINE)
    assert own == VERSION


def test_recipe_of_inversion(models: Models) -> None:
    job = dataclasses.replace(JOB, start_image="0" * 64, invert=InvertConfig())
    record = Provenance.of(job, models)
    assert Provenance.from_json(record.to_json()).job.invert == InvertConfig()
