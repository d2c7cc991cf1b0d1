"""The commands ``generate`` and ``compose``: new, repeated and resumed images."""

from __future__ import annotations

import argparse
import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..config import CompositionRecipe, InvertConfig
from ..devices import describe_device
from ..errors import ConfigError, SaveError
from ..images import read_image, read_png_text, save_png
from ..output import try_output
from ..pipeline.job import Job, Models, check_start_image, hash_image
from ..pipeline.provenance import CHUNK, Provenance
from ..pipeline.result import GenerationResult
from ..pipeline.run_file import SUFFIX, RunKeeper, SavedRun, load_run
from ..pipeline.work import resume, run_job
from .console import StoppedError, Watch, say, stoppable, unstoppable
from .models import load_models, load_models_again
from .recipes import make_composition_recipe, make_placements, make_recipe

_MAX_PIXELS = 2048 * 2048  # of the initial image; no GAN's images exceed 512 x 512


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Plan:
    """A parsed command.

    Attributes:
        job: Settings of the image.
        out: PNG to write.
        start_image: Initial image.
        provenance: Record of a repeated or resumed image; None for a new one.
        saved: State of a resumed run; None otherwise.
    """

    job: Job
    out: Path
    start_image: Tensor | None = None
    provenance: Provenance | None = None
    saved: SavedRun | None = None

    @property
    def command(self) -> str:
        """Name of the command for this kind of image."""
        return "compose" if isinstance(self.job.recipe, CompositionRecipe) else "generate"


def make(options: argparse.Namespace) -> str:
    """Make and save the image. Returns a line about it.

    Raises:
        FuseDreamError: If arguments or models do not fit, before the work where possible.
        StoppedError: On a signal; the best image and the run are saved.
    """
    plan = _make_plan(options)
    keeper = RunKeeper(plan.out.with_name(plan.out.stem + SUFFIX), every=options.save_every)
    for path in (plan.out, keeper.path):
        try_output(path)
    watch = Watch()
    try:
        with stoppable():
            result = _run(options, plan, keeper, watch)
            with unstoppable():
                result.save(plan.out)
    except StoppedError:
        with unstoppable():
            watch.close()
            say(_keep(plan, keeper, watch), sys.stderr)
        raise
    for run in (keeper.path if keeper.is_saved else None, options.resume):
        if run is not None:
            with contextlib.suppress(OSError):  # the image is saved already
                run.unlink(missing_ok=True)
    where = f"  {result.composition.placement.name}" if result.composition else ""
    return f"{plan.out}  AugCLIP {result.score_text}{where}  {result.seconds:.1f} s"


def _run(
    options: argparse.Namespace, plan: _Plan, keeper: RunKeeper, watch: Watch
) -> GenerationResult:
    """Load the models and run the job."""
    models = _load(options, plan)
    say(f"Device: {describe_device(models.gan.device)}", sys.stderr)
    if plan.saved is not None:
        return resume(plan.saved, models, keeper=keeper, callback=watch)
    return run_job(plan.job, models, start_image=plan.start_image, keeper=keeper, callback=watch)


def _load(options: argparse.Namespace, plan: _Plan) -> Models:
    """Load the models of a plan."""
    if plan.provenance is None:
        return load_models(options, plan.job)
    return load_models_again(options, plan.provenance)


def _make_plan(options: argparse.Namespace) -> _Plan:
    """Make a plan from a prompt, an image or a saved run."""
    if options.source is not None:
        plan = _plan_again(options)
    elif options.resume is not None:
        plan = _plan_resumed(options)
    else:
        image = _read_start(options)
        plan = _Plan(
            job=_make_job(options, image),
            out=options.out or Path("fusedream.png"),
            start_image=image,
        )
    start = getattr(options, "start_image", None)
    if start is not None and plan.out.exists() and plan.out.samefile(start):
        raise ConfigError(f"{plan.out} is the image to start from; give another name with -o.")
    if options.command != plan.command:
        raise ConfigError(
            f"{options.source or options.resume} was made by {plan.command!r}, not by "
            f"{options.command!r}; use that."
        )
    return plan


def _plan_again(options: argparse.Namespace) -> _Plan:
    """Plan the repetition of an image."""
    source: Path = options.source
    out: Path = options.out or source.with_name(source.stem + "-again.png")
    provenance = _read_provenance(source)
    if out.exists() and out.samefile(source):
        raise ConfigError(f"{out} is the image to make again; give another name for the new one.")
    return _Plan(
        job=provenance.job, out=out, start_image=_read_start(options), provenance=provenance
    )


def _plan_resumed(options: argparse.Namespace) -> _Plan:
    """Plan the continuation of a run."""
    saved, path = load_run(options.resume), options.resume
    name = path.name.removesuffix(SUFFIX).removesuffix(".safetensors") + ".png"
    return _Plan(
        job=saved.provenance.job,
        out=options.out or path.with_name(name),
        provenance=saved.provenance,
        saved=saved,
    )


def _read_start(options: argparse.Namespace) -> Tensor | None:
    """Read the initial image, if there is one."""
    path = getattr(options, "start_image", None)
    if path is None:
        return None
    image = read_image(path, max_pixels=_MAX_PIXELS)
    check_start_image(image)
    return image


def _make_job(options: argparse.Namespace, start_image: Tensor | None) -> Job:
    """Make the job of a new image."""
    seed = options.seed or 0
    if options.command == "compose":
        return Job(
            prompt=options.prompt,
            seed=seed,
            recipe=make_composition_recipe(options),
            placements=make_placements(options),
            foreground_prompt=options.foreground,
            background_prompt=options.background,
        )
    return Job(
        prompt=options.prompt,
        seed=seed,
        recipe=make_recipe(options),
        start_image=None if start_image is None else hash_image(start_image),
        invert=None if start_image is None else InvertConfig(),
    )


def _read_provenance(path: Path) -> Provenance:
    """Read the record of an image.

    Raises:
        ConfigError: If the file has no valid record.
    """
    text = read_png_text(path, CHUNK)
    if text is None:
        raise ConfigError(
            f"{path} does not say how it was made; only images that this command line or "
            "generate() saved do (those of ComfyUI hold their workflow: drop them into ComfyUI)."
        )
    try:
        return Provenance.from_json(text)
    except ConfigError as error:
        raise ConfigError(f"What {path} says of how it was made cannot be used: {error}") from error


def _keep(plan: _Plan, keeper: RunKeeper, watch: Watch) -> str:
    """Save the best image and the run of a stopped job. Returns a line about both."""
    kept = [_keep_best(plan, watch), _keep_run(plan, keeper)]
    return (
        " ".join(["Stopped.", *filter(None, kept)])
        if any(kept)
        else ("Stopped before there was anything to keep.")
    )


def _keep_best(plan: _Plan, watch: Watch) -> str:
    """Save the best image so far. Returns a sentence about it."""
    best, last = watch.best, watch.last
    if best is None or last is None:
        return ""
    score = f"{float(best.score.max()):.4f}"
    notes = {
        "prompt": plan.job.prompt,
        "seed": str(plan.job.seed),
        "score": score,
        "state": f"stopped in {last.stage}, step {last.step} of {last.total}",
    }
    try:
        save_png(best.preview[int(best.score.argmax())], plan.out, notes)
    except SaveError as error:
        return str(error)
    return f"The best image so far is {plan.out} (score {score}, {notes['state']})."


def _keep_run(plan: _Plan, keeper: RunKeeper) -> str:
    """Save the run. Returns a sentence about it."""
    try:
        if not keeper.save():
            return ""
    except OSError as error:
        return f"The run could not be kept as {keeper.path} ({error.strerror or error})."
    return (
        f"Go on, with the same models, by: python -m fusedream_core {plan.command} "
        f"--resume {keeper.path}"
    )
