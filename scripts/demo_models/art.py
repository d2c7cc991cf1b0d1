"""The art that the demo models learn from: openly licensed emoji, and clip art for the judge.

The drawings are rendered once, to an atlas of RGBA pictures. Three pairs of eyes see the same
words in different hands: the generator learns ``GAN_SETS``, CLIP ``CLIP_SETS`` and the judge
``JUDGE_SETS``, which share no drawing with the other two.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

# npm package -> licence of the drawings. Pinned, so that the same command renders the same atlas.
PACKAGES = {
    "noto": ("@iconify-json/noto@1.2.9", "Noto Emoji, Google Inc, Apache-2.0"),
    "fluent-emoji": (
        "@iconify-json/fluent-emoji@1.2.7",
        "Fluent Emoji, Microsoft Corporation, MIT",
    ),
    "fluent-emoji-flat": (
        "@iconify-json/fluent-emoji-flat@1.2.6",
        "Fluent Emoji Flat, Microsoft Corporation, MIT",
    ),
    "twemoji": ("@iconify-json/twemoji@1.2.5", "Twemoji, Twitter and contributors, CC-BY-4.0"),
    "emojione": ("@iconify-json/emojione@1.2.3", "EmojiOne 2 (EmojiTwo), CC-BY-4.0"),
    "fxemoji": ("@iconify-json/fxemoji@1.2.2", "FxEmojis, Mozilla, Apache-2.0"),
    "streamline-emojis": ("@iconify-json/streamline-emojis@1.2.4", "Streamline Emojis, CC-BY-4.0"),
    "noto-v1": ("@iconify-json/noto-v1@1.2.5", "Noto Emoji version 1, Google Inc, Apache-2.0"),
}
GAN_SETS = ("noto",)
CLIP_SETS = ("noto", "fluent-emoji", "fluent-emoji-flat")
# The judge learns from many hands, to know an object in a hand that it never saw: Debian's package
# of the Open Clip Art Library (public domain), whose drawings that fit a word clip_art.json names.
# One word has up to six of them; the first of all words make the first set, and so on.
CLIP_ART_PACKAGE, CLIP_ART_VERSION = "openclipart-svg", "0.18+dfsg-19"
CLIP_ART: dict[str, list[str]] = json.loads(
    Path(__file__).with_name("clip_art.json").read_text(encoding="utf-8")
)
CLIP_ART_SETS = tuple(f"clip-art-{i}" for i in range(max(map(len, CLIP_ART.values()))))
JUDGE_SETS = (
    "twemoji",
    "emojione",
    "fxemoji",
    "streamline-emojis",
    "noto-v1",
    *CLIP_ART_SETS,
)

# word -> icon names to look for, in order; a set may lack one. The word is what prompts say.
CLASSES: dict[str, tuple[str, ...]] = {
    name: tuple(icons.split())
    for name, icons in {
        "dog": "dog-face dog-face-1 dog",
        "cat": "cat-face cat",
        "mouse": "mouse-face mouse",
        "rabbit": "rabbit-face bunny",
        "fox": "fox fox-face fox-face-1 foxsmiling",
        "bear": "bear bear-face",
        "panda": "panda panda-face pandaface",
        "koala": "koala",
        "tiger": "tiger-face",
        "lion": "lion lion-face lion-head",
        "cow": "cow-face cowface",
        "pig": "pig-face pig",
        "frog": "frog frog-face",
        "monkey": "monkey-face monkeyface",
        "horse": "horse-face horseface",
        "unicorn": "unicorn unicorn-face unicorn-1",
        "chicken": "chicken",
        "chick": "front-facing-baby-chick frontfacingchick",
        "penguin": "penguin penguin-1",
        "bird": "bird bird-1",
        "duck": "duck",
        "owl": "owl",
        "bee": "honeybee",
        "butterfly": "butterfly",
        "ladybug": "lady-beetle ladybeetle",
        "snail": "snail",
        "turtle": "turtle",
        "snake": "snake",
        "octopus": "octopus",
        "crab": "crab",
        "fish": "fish tropical-fish",
        "whale": "spouting-whale",
        "elephant": "elephant",
        "camel": "two-hump-camel camel bactriancamel",
        "sheep": "ewe sheep",
        "apple": "red-apple apple redapple",
        "pear": "pear",
        "lemon": "lemon",
        "banana": "banana",
        "watermelon": "watermelon watermelon-1",
        "grapes": "grapes",
        "strawberry": "strawberry",
        "cherries": "cherries",
        "pineapple": "pineapple",
        "avocado": "avocado",
        "eggplant": "eggplant aubergine",
        "corn": "ear-of-corn earofmaize",
        "carrot": "carrot",
        "cheese": "cheese-wedge",
        "pizza": "pizza pizza-1 sliceofpizza",
        "hamburger": "hamburger hamburger-1",
        "cake": "birthday-cake birthday-cake-1 birthdaycake",
        "ice cream": "soft-ice-cream soft-ice-cream-1 icecream",
        "doughnut": "doughnut doughnut-1",
        "cookie": "cookie",
        "coffee": "hot-beverage hot-beverage-1 hotbeverage",
        "mushroom": "mushroom",
        "cactus": "cactus cactus-1",
        "tree": "deciduous-tree deciduous-tree-1 deciduoustree",
        "pine tree": "evergreen-tree evergreen-tree-1 evergreen",
        "palm tree": "palm-tree palmtree",
        "sunflower": "sunflower sunflower-1",
        "rose": "rose",
        "tulip": "tulip tulip-1",
        "clover": "four-leaf-clover four-leaf-clover-1 fourleafclover",
        "car": "automobile",
        "bus": "bus",
        "truck": "delivery-truck deliverytruck",
        "tractor": "tractor",
        "train": "locomotive",
        "airplane": "airplane airplane-1",
        "rocket": "rocket",
        "helicopter": "helicopter",
        "boat": "sailboat",
        "house": "house house-building housebuilding",
        "castle": "castle europeancastle",
        "church": "church",
        "balloon": "balloon",
        "gift": "wrapped-gift wrapped-gift-1",
        "guitar": "guitar",
        "umbrella": "closed-umbrella umbrella-with-rain-drops umbrella",
        "hat": "top-hat",
        "crown": "crown",
        "robot": "robot robot-face robot-face-1",
        "ghost": "ghost",
        "star": "star",
        "heart": "red-heart heavy-black-heart redheart",
        "mountain": "snow-capped-mountain",
        "moon": "crescent-moon crescentmoon",
        "key": "key",
        "bell": "bell",
        "light bulb": "light-bulb lightbulb",
    }.items()
}
# Drawings left out of the judge's lesson: framed pictures, or another thing under the same name.
LEFT_OUT = {
    ("fxemoji", "boat"),
    ("fxemoji", "bird"),
    ("streamline-emojis", "castle"),
    ("fxemoji", "mountain"),
}
SIZE = 128  # pixels of an atlas tile


def find_tool(name: str, remedy: str) -> str:
    """The path of a command."""
    path = shutil.which(name)
    if path is None:
        raise SystemExit(f"{name} is needed to fetch the art, and was not found: {remedy}.")
    return path


def fetch(package: str, folder: Path) -> Path:
    """Unpack one npm package into ``folder`` (once) and return its path.

    The archive comes from ``npm pack``.
    """
    target = folder / package.split("/")[-1]
    if target.exists():
        return target
    npm = find_tool("npm", "install Node.js")
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [npm, "pack", "--silent", package], cwd=folder, check=True, capture_output=True, text=True
    )
    with tarfile.open(folder / done.stdout.split()[-1]) as archive:
        archive.extractall(target.with_suffix(".part"), filter="data")
    target.with_suffix(".part").rename(target)
    return target


def fetch_clip_art(folder: Path) -> Path:
    """Unpack Debian's clip art into ``folder`` (once) and return the path of its drawings.

    The archive comes from ``apt-get download``, or from a file that already lies in ``folder``.
    """
    target = folder / CLIP_ART_PACKAGE
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        pattern = f"{CLIP_ART_PACKAGE}_*{CLIP_ART_VERSION}_all.deb"
        if not any(folder.glob(pattern)):
            fetcher = find_tool("apt-get", f"or put the file {pattern} in {folder}")
            wanted = f"{CLIP_ART_PACKAGE}=1:{CLIP_ART_VERSION}"
            subprocess.run([fetcher, "download", wanted], cwd=folder, check=True)
        unpacker, part = find_tool("dpkg-deb", "install Debian's dpkg"), target.with_suffix(".part")
        subprocess.run([unpacker, "-x", next(folder.glob(pattern)), part], check=True)
        part.rename(target)
    return target / "usr" / "share" / "openclipart" / "svg"


def draw(svg: str, size: int) -> Image.Image:
    """RGBA picture of a drawing, ``size`` wide, with premultiplied alpha."""
    import resvg_py

    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size))
    return Image.open(io.BytesIO(png)).convert("RGBa")


def render_clip_art(path: Path, size: int = SIZE) -> np.ndarray:
    """RGBA picture ``(size, size, 4)`` uint8 of one drawing: cropped to its ink and centred."""
    picture = draw(path.read_text(encoding="utf-8", errors="replace"), 4 * size)
    picture = picture.crop(picture.getchannel("a").getbbox())
    scale = 0.94 * size / max(picture.size)
    width, height = (max(1, round(scale * side)) for side in picture.size)
    tile = Image.new("RGBa", (size, size))
    corner = ((size - width) // 2, (size - height) // 2)
    tile.paste(picture.resize((width, height), Image.LANCZOS), corner)
    return np.asarray(tile.convert("RGBA"))


class IconSet:
    """One set of SVG icons in Iconify's JSON format."""

    def __init__(self, folder: Path) -> None:
        self.data = json.loads((folder / "package" / "icons.json").read_text(encoding="utf-8"))

    def find(self, names: tuple[str, ...]) -> dict[str, object] | None:
        """The first icon among ``names`` that the set has, aliases followed."""
        for name in names:
            alias = self.data.get("aliases", {}).get(name)
            name = alias["parent"] if alias else name
            if name in self.data["icons"]:
                return self.data["icons"][name]
        return None

    def render(self, icon: dict[str, object], size: int = SIZE) -> np.ndarray:
        """RGBA picture ``(size, size, 4)`` uint8, drawn at twice the size and reduced."""
        width = icon.get("width", self.data.get("width", 16))
        height = icon.get("height", self.data.get("height", 16))
        view = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{view}">{icon["body"]}</svg>'
        )
        reduced = draw(svg, 2 * size).resize((size, size), Image.LANCZOS)
        return np.asarray(reduced.convert("RGBA"))


def load_atlas(cache: Path, name: str) -> np.ndarray:
    """One set's drawings ``(num_classes, SIZE, SIZE, 4)`` uint8, all zero where it lacks a word.

    They are rendered once and then read from ``cache``.
    """
    clip_art = name in CLIP_ART_SETS
    source = [CLIP_ART_PACKAGE, CLIP_ART] if clip_art else [PACKAGES[name], sorted(LEFT_OUT)]
    digest = hashlib.sha256(json.dumps([source, CLASSES, SIZE]).encode()).hexdigest()[:12]
    path = cache / f"atlas-{name}-{digest}.npz"
    if not path.exists():
        drawings = render_clip_art_set(cache, name) if clip_art else render_icons(cache, name)
        empty = np.zeros((SIZE, SIZE, 4), np.uint8)
        atlas = np.stack([empty if drawing is None else drawing for drawing in drawings])
        np.savez_compressed(path, atlas=atlas)
    with np.load(path) as data:
        return data["atlas"]


def render_icons(cache: Path, name: str) -> list[np.ndarray | None]:
    """Every word's drawing in an icon set."""
    icons = IconSet(fetch(PACKAGES[name][0], cache / "npm"))
    found = [
        None if (name, word) in LEFT_OUT else icons.find(names) for word, names in CLASSES.items()
    ]
    return [None if icon is None else icons.render(icon) for icon in found]


def render_clip_art_set(cache: Path, name: str) -> list[np.ndarray | None]:
    """Every word's drawing in one of the clip art's sets."""
    folder, index = fetch_clip_art(cache / "debian"), CLIP_ART_SETS.index(name)
    paths = [CLIP_ART.get(word, [])[index : index + 1] for word in CLASSES]
    return [render_clip_art(folder / own[0]) if own else None for own in paths]
