"""TorchScript archives: a real one is read as PyTorch reads it, a hostile one runs nothing."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fusedream_core import CheckpointError, make_generator
from fusedream_core.models.weights import read_state_dict

pytestmark = pytest.mark.filterwarnings("ignore:.*(torch.jit|Python boolean)")

Entries = dict[str, bytes]


class Block(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        generator = make_generator(1)
        self.weight = nn.Parameter(torch.randn(3, 4, generator=generator).to(dtype).T)
        self.register_buffer("steps", torch.arange(3))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.float() + self.steps


class Small(nn.Module):
    """Nested modules, a list, two names for one tensor, and numbers of several kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Block(torch.float32)
        self.rest = nn.ModuleList([Block(torch.float16), Block(torch.bfloat16)])
        self.tied = self.first.weight
        self.scale = nn.Parameter(torch.tensor(2.5))

    def forward(self, x: Tensor) -> Tensor:
        total = self.first(x)
        for block in self.rest:
            total = total + block(x)
        return total * self.scale + self.tied.sum()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    torch.jit.trace(Small().eval(), torch.zeros(1, 4)).save(tmp_path / "small.pt")
    return tmp_path / "small.pt"


def entries_of(path: Path) -> Entries:
    with zipfile.ZipFile(path) as stream:
        return {entry.filename.split("/", 1)[1]: stream.read(entry) for entry in stream.infolist()}


def write(path: Path, entries: Entries, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as stream:
        for name, content in entries.items():
            stream.writestr(f"small/{name}", content)
    return path


class TestRead:
    def test_same_tensors_as_pytorch_reads(self, archive: Path) -> None:
        state, theirs = read_state_dict(archive), torch.jit.load(archive).state_dict()
        assert state.keys() == theirs.keys()
        assert {"first.weight", "rest.1.weight", "tied", "scale", "first.steps"} <= state.keys()
        for name, value in theirs.items():
            assert state[name].dtype == value.dtype
            assert torch.equal(state[name], value), name

    def test_a_clip(self, tmp_path: Path) -> None:
        """As OpenAI's own files are made: traced, with methods, in half precision."""
        from open_clip.model import CLIP

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            vision = {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
            text = {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1}
            clip = CLIP(embed_dim=12, vision_cfg=vision, text_cfg=text).eval()
        inputs = torch.zeros(1, 3, 16, 16), torch.zeros(1, 8, dtype=torch.long)
        examples = {"forward": inputs, "encode_image": inputs[0], "encode_text": inputs[1]}
        traced = torch.jit.trace_module(clip, examples, check_trace=False)
        traced.half().save(tmp_path / "clip.pt")
        state, own = read_state_dict(tmp_path / "clip.pt"), clip.state_dict()
        assert own.keys() <= state.keys() <= own.keys() | {"attn_mask"}
        for name, value in own.items():
            assert torch.equal(state[name], value.half()), name

    def test_code_and_constants_are_never_opened(self, archive: Path) -> None:
        """What is in them makes no difference, be it damaged or the same for all entries."""
        before = read_state_dict(archive)
        entries = entries_of(archive)
        for name in entries:
            if name.startswith("code/") or name == "constants.pkl":
                entries[name] = b"cos\nsystem\n(S'touch /tmp/opened'\ntR."
        after = read_state_dict(write(archive, entries))
        assert all(torch.equal(before[name], after[name]) for name in before)


class Token:
    """Pickled as a name that need not exist here."""

    def __init__(self, module: str, name: str) -> None:
        self.text = f"c{module}\n{name}\n".encode()


class Pickle:
    """A pickle of protocol 2, put together piece by piece."""

    def __init__(self) -> None:
        self.content = b"\x80\x02"

    def tensor(self, key: object = "0", numel: int = 4, place: object = None) -> bytes:
        offset, size, stride = place or (0, (2, 2), (2, 1))
        pid = Token("torch", "FloatStorage").text
        storage = b"(" + plain("storage") + pid + plain(key) + plain("cpu") + plain(numel) + b"tQ"
        rest = plain(offset) + plain(size) + plain(stride) + plain(False)
        hooks = Token("collections", "OrderedDict").text + b")R"
        return (
            Token("torch._utils", "_rebuild_tensor_v2").text + b"(" + storage + rest + hooks + b"tR"
        )

    def module(self, attributes: dict[str, bytes]) -> bytes:
        content = b"".join(plain(name) + value for name, value in attributes.items())
        return Token("__torch__.small", "Small").text + b")\x81}(" + content + b"ub"


def plain(value: object) -> bytes:
    """A value's own pickle, without frame."""
    return pickle.dumps(value, protocol=2)[2:-1].replace(b"q\x00", b"").replace(b"q\x01", b"")


def hostile(path: Path, content: bytes, **more: bytes) -> Path:
    entries = {
        "data.pkl": b"\x80\x02" + content + b".",
        "constants.pkl": b"",
        "data/0": torch.arange(4.0).numpy().tobytes(),
        **{name.replace("_", "/", 1): value for name, value in more.items()},
    }
    return write(path, entries)


P = Pickle()
SYSTEM = b"cos\nsystem\n(X\x1c\x00\x00\x00touch must-not-exist-at-all..tR"


class TestHostile:
    def test_the_harness_writes_good_archives_too(self, tmp_path: Path) -> None:
        path = hostile(tmp_path / "good.pt", P.module({"weight": P.tensor(), "n": plain(3)}))
        state = read_state_dict(path)
        assert state.keys() == {"weight"}
        assert torch.equal(state["weight"], torch.arange(4.0).view(2, 2))

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (SYSTEM, "names os.system"),
            (P.module({"weight": SYSTEM}), "names os.system"),
            (b"c__builtin__\neval\n(X\x01\x00\x00\x001tR", "names __builtin__.eval"),
            (b"ctorch\nload\n(X\x01\x00\x00\x00xtR", "names torch.load"),
            (b"ctorch.jit._pickle\nrestore_type_tag\n", "restore_type_tag"),
            (b"c__torch__x\nSmall\n)\x81", "names __torch__x.Small"),
            (b"(S'ls'\nios\nsystem\n", "the instruction STRING"),
            (b"(ios\nsystem\n", "the instruction INST"),
            (b"\x8c\x02os\x8c\x06system\x93", "the instruction SHORT_BINUNICODE"),
            (b"\x82\x01", "the instruction EXT1"),
            (b"Nr\xff\xff\xff\x7f", "asks for memory"),
            (P.module({"w": P.tensor(numel=5)}), "storage 0 is shorter than it says"),
            (P.module({"w": P.tensor(numel=-1)}), "size of a tensor is none"),
            (P.module({"w": P.tensor(key="../0")}), "no storage '../0'"),
            (P.module({"w": P.tensor(key="/etc/passwd")}), "no storage '/etc/passwd'"),
            (P.module({"w": P.tensor(key="7")}), "no storage '7'"),
            (P.module({"w": P.tensor(key=0)}), "no storage '0'"),
            (P.module({"w": P.tensor(place=(3, (2,), (1,)))}), "beyond its storage"),
            (P.module({"w": P.tensor(place=(0, (2, 2), (3, 1)))}), "beyond its storage"),
            (P.module({"w": P.tensor(place=(0, (2**40,), (0,)))}), "beyond its storage"),
            (P.module({"w": P.tensor(place=(-1, (2,), (1,)))}), "size of a tensor is none"),
            (P.module({"w": P.tensor(place=(0, (2,), (-1,)))}), "size of a tensor is none"),
            (P.module({"w": P.tensor(place=(0, (2**70,), (1,)))}), "size of a tensor is none"),
            (P.module({"w": P.tensor(place=(0, (2, 2), (1,)))}), "without a storage"),
            (P.module({"w": P.tensor(place=(0, (True, 2), (2, 1)))}), "size of a tensor is none"),
            (P.module({"w": P.module({}), "a" * 300: P.tensor()}), "a name in it is none"),
            (P.tensor(), "holds no module"),
            (P.module({"a.b": P.tensor(), "a": P.module({"b": P.tensor()})}), "two tensors a.b"),
            (Token("__torch__.small", "Small").text + b"N\x81", "damaged"),
            (Token("__torch__.small", "Small").text + b")\x81K\x05b", "damaged"),
            (
                Token("torch._utils", "_rebuild_tensor_v2").text + b"}X\x01\x00\x00\x00ax0sb",
                "damaged",
            ),
            (b"", "damaged"),
        ],
    )
    def test_is_refused_in_one_sentence(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        path = hostile(tmp_path / "hostile.pt", content)
        with pytest.raises(CheckpointError, match=r"hostile\.pt is .*TorchScript") as caught:
            read_state_dict(path)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
        assert [file.name for file in tmp_path.iterdir()] == ["hostile.pt"]

    def test_a_state_that_makes_a_tensor_larger_than_its_storage(self, tmp_path: Path) -> None:
        """PyTorch's tensors take such a state: theirs is a storage, an offset, sizes, strides."""
        empty = P.tensor(numel=0, place=(0, (0,), (1,)))
        size, stride = plain((10_000,)), plain((1,))
        state = b"(" + empty + plain(0) + size + stride + b"tb"
        path = hostile(tmp_path / "a.pt", P.module({"w": P.tensor() + state}))
        with pytest.raises(CheckpointError, match="changes a tensor"):
            read_state_dict(path)

    @pytest.mark.parametrize("depth", [2, 40])
    def test_modules_that_hold_each_other_without_end(self, tmp_path: Path, depth: int) -> None:
        """By a circle, and by a tower of pairs that is small and has more than 2**40 names."""
        head = Token("__torch__.small", "Small").text + b")\x81q\x05"
        circle = head + b"}(" + plain("own") + b"h\x05ub"
        tower = P.module({"weight": P.tensor()}) + b"q\x05"
        for _ in range(depth):
            tower += Token("__torch__.small", "Small").text + b")\x81}("
            tower += plain("a") + b"h\x05" + plain("b") + b"h\x05" + b"ubq\x05"
        content = circle if depth == 2 else tower
        path = hostile(tmp_path / "deep.pt", content)
        with pytest.raises(CheckpointError, match="nested without end"):
            read_state_dict(path)

    def test_a_pickle_changes_nothing_for_the_next_file(self, tmp_path: Path) -> None:
        """A state of two parts sets attributes of the class itself, if it is not made anew."""
        state = b"}}" + plain("__setstate__") + Token("collections", "OrderedDict").text + b"s\x86b"
        with pytest.raises(CheckpointError):
            read_state_dict(
                hostile(tmp_path / "a.pt", Token("__torch__.small", "Small").text + state)
            )
        good = hostile(tmp_path / "b.pt", P.module({"weight": P.tensor()}))
        assert read_state_dict(good).keys() == {"weight"}

    def test_a_zip_bomb_is_refused_by_its_declared_size(self, tmp_path: Path) -> None:
        entries = {"data.pkl": b"\x80\x02N.", "constants.pkl": b"", "data/0": bytes(10_000_000)}
        path = write(tmp_path / "bomb.pt", entries, zipfile.ZIP_DEFLATED)
        assert path.stat().st_size < 100_000
        with pytest.raises(CheckpointError, match="compressed, or larger than the file"):
            read_state_dict(path)

    def test_a_size_that_the_file_does_not_have(self, tmp_path: Path) -> None:
        path = hostile(tmp_path / "liar.pt", P.module({"weight": P.tensor()}))
        content = bytearray(path.read_bytes())
        entry = content.index(b"small/data/0", content.index(b"PK\x01\x02")) - 46
        content[entry + 20 : entry + 28] = struct.pack("<II", 1 << 30, 1 << 30)
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="compressed, or larger than the file"):
            read_state_dict(path)

    @pytest.mark.parametrize("gone", ["data.pkl", "data/0"])
    def test_parts_that_are_missing(self, tmp_path: Path, gone: str) -> None:
        path = hostile(tmp_path / "part.pt", P.module({"weight": P.tensor()}))
        entries = entries_of(path)
        del entries[gone]
        with pytest.raises(CheckpointError, match=r"data\.pkl|no storage '0'"):
            read_state_dict(write(path, entries))

    def test_damage_in_the_numbers(self, archive: Path) -> None:
        """A zip file has a checksum of each part."""
        content = bytearray(archive.read_bytes())
        with zipfile.ZipFile(io.BytesIO(content)) as stream:
            (entry,) = (e for e in stream.infolist() if e.filename.endswith("/data/0"))
        start = content.index(b"/data/0", entry.header_offset) + len(b"/data/0")
        skip = struct.unpack("<H", content[entry.header_offset + 28 : entry.header_offset + 30])[0]
        content[start + skip] ^= 1
        archive.write_bytes(content)
        with pytest.raises(CheckpointError, match="damaged"):
            read_state_dict(archive)

    @pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
    def test_truncated(self, archive: Path, share: float) -> None:
        archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * share)])
        with pytest.raises(CheckpointError, match=r"small\.pt"):
            read_state_dict(archive)
