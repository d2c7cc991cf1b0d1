"""A job is refused at the start if its record could not be read again."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from fusedream_core import (
    DEFAULT,
    BigGan,
    ConfigError,
    OpenClip,
    PromptError,
    SearchConfig,
    ShapeError,
    generate,
)
from fusedream_core.config import to_plain
from fusedream_core.config.plain import MAX_LENGTH, from_plain
from fusedream_core.pipeline.job import Job, Models, check_start_image
from fusedream_core.pipeline.provenance import Provenance

JOB = Job(prompt="a dog", seed=0, recipe=DEFAULT)


class TestStartImage:
    @pytest.mark.parametrize("shape", [(1, 3, 7, 20), (1, 3, 20, 7), (2, 3, 8, 8), (1, 4, 8, 8)])
    def test_too_small_or_no_image(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ShapeError):
            generate("a dog", start_image=torch.zeros(shape))

    def test_smallest(self) -> None:
        check_start_image(torch.zeros(1, 3, 8, 8))


class TestWhatCannotBeReadAgain:
    def test_longest_prompt_is_read_again(self) -> None:
        job = dataclasses.replace(JOB, prompt="d" * MAX_LENGTH)
        assert from_plain(Job, json.loads(json.dumps(to_plain(job)))) == job

    @pytest.mark.parametrize("name", ["prompt", "foreground_prompt", "background_prompt"])
    def test_prompt_over_the_limit(self, name: str) -> None:
        said = f"The {name.replace('_', ' ')} has 10,001 characters, but at most 10,000"
        with pytest.raises(PromptError, match=said):
            dataclasses.replace(JOB, **{name: "d" * 10_001})

    def test_steps_over_the_limit(self) -> None:
        optimize = dataclasses.replace(DEFAULT.optimize, num_steps=1_000_001)
        with pytest.raises(ConfigError, match=r"num_steps is 1000001, .* a number up to 1000000"):
            dataclasses.replace(JOB, recipe=dataclasses.replace(DEFAULT, optimize=optimize))

    def test_class_name_over_the_limit(self) -> None:
        recipe = dataclasses.replace(DEFAULT, search=SearchConfig(classes=("x" * 10_001,)))
        with pytest.raises(ConfigError, match="classes is"):
            dataclasses.replace(JOB, recipe=recipe)

    def test_prompts_that_take_too_much_room_together(self) -> None:
        """Each is short enough, but a character outside of the first plane takes twelve."""
        dogs = "\U0001f415" * 9_000
        with pytest.raises(ConfigError, match=r"would have .* but at most 190,000 can be read"):
            dataclasses.replace(JOB, prompt=dogs, foreground_prompt=dogs)

    def test_name_of_a_model_over_the_limit(self, gan: BigGan, clip: OpenClip) -> None:
        class Named:
            gan_id = "g" * 10_001
            device = torch.device("cpu")

        models = Models(Named(), clip)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="id is 'a text of length 10,001'"):
            Provenance.of(JOB, models)
        assert Provenance.of(JOB, Models(gan, clip)).job == JOB
