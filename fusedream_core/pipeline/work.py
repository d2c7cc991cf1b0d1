"""Execution of a job: encode, search or invert, optimise or compose."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from torch import Tensor

from ..augclip.target import encode_target
from ..autograd import with_gradients
from ..compose import ComposeResult, compose
from ..config import CompositionRecipe, Recipe
from ..determinism import deterministic
from ..errors import ConfigError
from ..optimize.invert import invert_image
from ..optimize.optimize import optimize
from ..rng import make_generator
from ..search.basis_from_latents import basis_from
from ..search.search import search_basis
from ..state import State, restoring
from ..types import Basis, Callback, Latent, OptimizeResult, Target
from .job import Job, Models, hash_image
from .provenance import Provenance
from .result import GenerationResult
from .run_file import RunKeeper, SavedRun

# Independent random streams of a seed, one per stage.
SEARCH_STREAM = 0
OPTIMIZE_STREAM = 1


@deterministic()
@with_gradients
def run_job(
    job: Job,
    models: Models,
    *,
    start_image: Tensor | None = None,
    state: State | None = None,
    keeper: RunKeeper | None = None,
    callback: Callback | None = None,
) -> GenerationResult:
    """Run a job, from the start or from a saved state.

    Raises:
        FuseDreamError: If a prompt is empty, the seed out of range, or models do not fit.
    """
    return _Work(job, models, start_image, state, keeper, callback).run()


def resume(
    run: SavedRun,
    models: Models,
    *,
    keeper: RunKeeper | None = None,
    callback: Callback | None = None,
) -> GenerationResult:
    """Continue a saved run; on the same machine, the result is equal to the bit.

    Raises:
        ConfigError: If a model differs from the record.
        CheckpointError: If the state is damaged.
    """
    run.provenance.check(models)
    return run_job(run.provenance.job, models, state=run.state, keeper=keeper, callback=callback)


class _Work:
    """State of a running job."""

    def __init__(
        self,
        job: Job,
        models: Models,
        start_image: Tensor | None,
        state: State | None,
        keeper: RunKeeper | None,
        callback: Callback | None,
    ) -> None:
        self._job, self._models, self._callback = job, models, callback
        self._provenance = Provenance.of(job, models)
        self._keeper, self._begin = keeper, time.perf_counter()
        self._state: State = {"bases": None, "engine": None, "start": start_image, "seconds": 0.0}
        if state is not None:
            with restoring():
                self._state = {name: state[name] for name in self._state}
                self._state["seconds"] = float(self._state["seconds"])
                if not isinstance(self._state["start"], Tensor | None):
                    raise TypeError("its image to start from is none")
        self._seconds: float = self._state["seconds"]
        self._check_start(self._state["start"])

    def _check_start(self, image: Tensor | None) -> None:
        """Check that the initial image is the job's."""
        wanted = self._job.start_image
        if self._state["bases"] is None and (image is None) != (wanted is None):
            raise ConfigError(
                "This starts from an image, which is missing; give it."
                if image is None
                else "An image to start from was given, but this does not start from one."
            )
        if image is not None and hash_image(image) != wanted:
            raise ConfigError("The image to start from is another than at the first time.")

    def run(self) -> GenerationResult:
        """Search or invert, then optimise or compose."""
        job, recipe = self._job, self._job.recipe
        target = encode_target(self._models.clip, job.prompt)
        parts = [
            None if text is None else encode_target(self._models.clip, text)
            for text in (job.foreground_prompt, job.background_prompt)
        ]
        bases = self._bases(target, parts)
        if isinstance(recipe, CompositionRecipe):
            return self._compose(recipe, target, parts, bases)
        return self._optimize(recipe, target, bases)

    def _bases(self, target: Target, parts: Sequence[Target | None]) -> list[Basis]:
        """Return the bases: one, or those of foreground and background."""
        if self._state["bases"] is not None:
            with restoring():
                return [_to_basis(own, self._models) for own in self._state["bases"]]
        self._note()
        image: Tensor | None = self._state["start"]
        bases = self._search(target, parts) if image is None else [self._invert(image, target)]
        self._note(bases=[_from_basis(basis) for basis in bases], start=None)
        return bases

    def _search(self, target: Target, parts: Sequence[Target | None]) -> list[Basis]:
        """Search bases for the prompt, or for the prompts of foreground and background."""
        recipe = self._job.recipe
        return search_basis(
            self._models.gan,
            self._models.clip,
            [part or target for part in parts] if any(parts) else [target],
            config=recipe.search,
            augment=recipe.augment,
            generator=make_generator(self._job.seed, SEARCH_STREAM),
            bank=self._models.bank,
            callback=self._callback,
        )

    def _invert(self, image: Tensor, target: Target) -> Basis:
        """Return the basis of the inverted initial image."""
        job, models = self._job, self._models
        if job.invert is None or models.perceptual is None:
            raise ConfigError("To start from an image, a perceptual distance is needed; give one.")
        generator = make_generator(job.seed, SEARCH_STREAM)
        found = invert_image(
            models.gan,
            models.clip,
            models.perceptual,
            image,
            config=job.invert,
            generator=generator,
            callback=self._callback,
        )
        return basis_from(
            models.gan,
            models.clip,
            target,
            found.latent,
            augment=job.recipe.augment,
            generator=generator,
        )

    def _optimize(self, recipe: Recipe, target: Target, bases: list[Basis]) -> GenerationResult:
        """Run Algorithm 1, for one image."""
        result = optimize(
            self._models.gan,
            self._models.clip,
            [target],
            bases,
            config=recipe.optimize,
            augment=recipe.augment,
            generators=[make_generator(self._job.seed, OPTIMIZE_STREAM)],
            selector=self._models.selector,
            callback=self._callback,
            state=self._state["engine"],
            on_state=self._on_state,
        )
        return self._result(result, bases[0])

    def _compose(
        self,
        recipe: CompositionRecipe,
        target: Target,
        parts: list[Target | None],
        bases: list[Basis],
    ) -> GenerationResult:
        """Run Algorithm 2, for a composition."""
        (result,) = compose(
            self._models.gan,
            self._models.clip,
            [target],
            bases[:1],
            bases[-1:],
            config=recipe.compose,
            augment=recipe.augment,
            generators=[make_generator(self._job.seed, OPTIMIZE_STREAM)],
            placements=self._job.placements,
            perceptual=self._models.perceptual,
            foreground_targets=parts[:1],
            background_targets=parts[1:],
            callback=self._callback,
            state=self._state["engine"],
            on_state=self._on_state,
        )
        return self._result(result, bases[0], result)

    def _result(
        self,
        made: OptimizeResult | ComposeResult,
        basis: Basis,
        composition: ComposeResult | None = None,
    ) -> GenerationResult:
        """Return the result of the job."""
        return GenerationResult(
            made.images,
            made.score,
            made.latent,
            basis,
            self._job.prompt,
            self._job.seed,
            self._elapsed(),
            composition,
            provenance=self._provenance,
        )

    @property
    def _on_state(self) -> Callable[[State], None] | None:
        """Callback for the state of each step; None without a keeper."""
        return None if self._keeper is None else lambda engine: self._note(engine=engine)

    def _note(self, **changes: object) -> None:
        """Update the state, and pass it to the keeper."""
        self._state |= changes
        if self._keeper is not None:
            state = {**self._state, "seconds": self._elapsed()}
            self._keeper.note(SavedRun(self._provenance, state))

    def _elapsed(self) -> float:
        """Return the seconds so far, including those before a resume."""
        return self._seconds + time.perf_counter() - self._begin


def _from_basis(basis: Basis) -> State:
    """Convert a basis to plain data."""
    latent = basis.latent
    return {
        "z": latent.z.detach().clone(),
        "y": latent.y.detach().clone(),
        "truncation": latent.truncation,
        "scores": basis.scores,
        "class_index": basis.class_index,
        "gan_id": basis.gan_id,
        "prompt": basis.prompt,
        "ranking": basis.ranking,
    }


def _to_basis(state: State, models: Models) -> Basis:
    """Convert plain data to a basis."""
    device = models.gan.device
    truncation = float(state["truncation"])
    if not 0.0 < truncation <= 1.0:
        raise ValueError("its truncation is none")
    if not (isinstance(state["scores"], Tensor) and isinstance(state["class_index"], Tensor)):
        raise TypeError("its basis has no scores or classes")
    return Basis(
        Latent(state["z"].to(device), state["y"].to(device), truncation),
        state["scores"],
        state["class_index"],
        state["gan_id"],
        state["prompt"],
        state["ranking"],
    )
