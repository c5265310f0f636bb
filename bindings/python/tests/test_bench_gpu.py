"""Promise: what measures a GPU runs on a CPU at tiny size, and names every row that it did not measure.

No time is asserted.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

GPU = Path(__file__).resolve().parents[3] / "benches" / "gpu"
Rows = dict[str, dict[str, Any]]

SPEED = [
    "machine",
    "matrix product",
    "photographs",
    "training",
    "fit",
    "encode, batch 8",
    "encode, batch 16",
    "nearest codes, batch 8",
    "nearest codes, batch 16",
    "captions, batch 8",
    "loader, full",
    "loader, first epoch",
    "loader, second epoch",
    "loader, thin",
    "loader, with captions",
    "batches on their own stream",
    "memory on other GPUs",
    "signals, CPU and device",
    "transformers, encode, batch 8",
    "transformers, encode, batch 16",
    "transformers, captions, batch 8",
    "encode, profiled",
]
ONLY_ON_A_GPU = ["batches on their own stream", "memory on other GPUs"]
ARMS = [
    "full",
    "rotating gate, equal steps",
    "rotating gate, 35% of the steps",
    "full, 35% of the steps",
    "rotating random, equal steps",
    "gate kept whole, equal steps",
    "gate that does not rotate, equal steps",
]
QUALITY = ["machine", "pairs", "captioner", "fit", "signals", *ARMS]


def python(words: list[str], status: int = 0, path: str = "") -> subprocess.CompletedProcess[str]:
    """Python in a process of its own; `path` is searched for programs first."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == status, done.stderr[-4000:]
    return done


def measured(name: str, folder: Path, *words: str) -> Rows:
    """The rows of one command at tiny size, by name."""
    out = folder / "rows.jsonl"
    command = [str(GPU / f"{name}.py"), "--tiny", "--device", "cpu", "--out", str(out), *words]
    done = python(command)
    lines = out.read_text().splitlines()
    assert lines == done.stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert len({row["row"] for row in rows}) == len(rows), "no row twice"
    return {row["row"]: row for row in rows}


def snippet(code: str, *words: str, path: str = "") -> str:
    """What code says that has the modules of benches/gpu."""
    return python(["-c", f"import sys\nsys.path.insert(0, {str(GPU)!r})\n{code}", *words], path=path).stdout


@pytest.fixture(scope="module")
def speed(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    return measured("speed", tmp_path_factory.mktemp("speed"))


@pytest.fixture(scope="module")
def quality(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    return measured("quality", tmp_path_factory.mktemp("quality"))


def test_every_row_is_there(speed: Rows, quality: Rows) -> None:
    assert list(speed) == SPEED
    assert list(quality) == QUALITY
    skipped = {name for name, row in (speed | quality).items() if "skipped" in row}
    assert skipped == set(ONLY_ON_A_GPU)
    assert not [row for row in (speed | quality).values() if "failed" in row]


def test_what_means_nothing_without_a_gpu_says_so(speed: Rows) -> None:
    for name in ONLY_ON_A_GPU:
        assert speed[name]["skipped"] == "no GPU"
    for row in speed.values():
        # On a CPU nothing is said of a GPU.
        assert row.get("gpu_busy") is None
        assert row.get("peak_gpu_mib") is None
        assert row.get("peak_host_mib", 1) > 0


def test_speeds_are_shares_of_what_was_measured_here(speed: Rows) -> None:
    peak = speed["matrix product"]["tflops"]
    assert peak > 0
    for batch in (8, 16):
        ours, theirs = speed[f"encode, batch {batch}"], speed[f"transformers, encode, batch {batch}"]
        for row in (ours, theirs):
            assert row["batch"] == batch
            assert row["images_per_s"] > 0
            assert 0 < row["of_matrix_product"] <= 1
            assert row["of_matrix_product"] == pytest.approx(row["tflops"] / peak, rel=1e-2)
        assert theirs["ours_times"] == pytest.approx(ours["images_per_s"] / theirs["images_per_s"], rel=1e-2)
        assert "cpu, float32" in ours["measured_by"]
        codes = speed[f"nearest codes, batch {batch}"]
        assert codes["codes"] == 16
        assert 0 < codes["of_encode"] <= 1
    ours, theirs = speed["captions, batch 8"], speed["transformers, captions, batch 8"]
    assert ours["beams"] == theirs["beams"] == 3
    assert ours["tokens"] == theirs["tokens"] == 10
    times = ours["captions_per_s"] / theirs["captions_per_s"]
    assert theirs["ours_times"] == pytest.approx(times, rel=1e-2)
    training = speed["training"]
    assert training["steps"] == 10  # 2 shards of 40 pairs, by 8
    assert training["pairs_per_s"] > 0
    assert training["weights"] > 0
    assert speed["fit"]["points"] == 64
    profile = speed["encode, profiled"]
    assert 0 < profile["of_the_time"] <= 1.05
    assert any("mm" in name for name, _ in profile["longest"]), "matrix products"
    shares = [share for _, share in profile["longest"]]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= profile["of_the_time"] * 1.01


def test_goals_stand_beside_their_rows(speed: Rows) -> None:
    goals = {name for name, row in speed.items() if "goal" in row}
    assert goals == {
        *(f"encode, batch {batch}" for batch in (8, 16)),
        *(f"nearest codes, batch {batch}" for batch in (8, 16)),
        "transformers, captions, batch 8",
        "loader, first epoch",
    }


def test_counts_of_epochs_add_up(speed: Rows) -> None:
    names = ["loader, full", *(f"loader, {what}" for what in ("first epoch", "second epoch", "thin"))]
    for name in (*names, "loader, with captions"):
        row = speed[name]
        assert row["read"] == speed["photographs"]["samples"] == 160
        assert sum(row["outcomes"].values()) == row["read"]
        assert row["outcomes"]["failed"] == 0
        assert not row["cut"]
        assert row["yielded"] == (160 if name == "loader, full" else 40)
        assert row["read_per_s"] > row["yielded_per_s"] * 0.99
        assert set(row["stages_s"]) >= {"read", "preview", "encode", "example", "batch", "wait_loader"}
    assert speed["loader, full"]["encoded"] == 0
    first, second = speed["loader, first epoch"], speed["loader, second epoch"]
    assert first["encoded"] == 160
    assert second["encoded"] == 0, "the ledger has the signals"
    assert second["outcomes"] == first["outcomes"]
    thin = speed["loader, thin"]
    assert thin["encoded"] == 160 - thin["outcomes"]["dropped_thin"] < 160
    written = speed["loader, with captions"]
    assert written["captioned"] == written["outcomes"]["kept"]
    for row in (first, thin):
        assert row["slower"] in ("gpu", "decoders")
        assert row["of_slower"] > 0


def test_signals_of_one_device_are_those_of_the_same_device(speed: Rows) -> None:
    row = speed["signals, CPU and device"]
    assert row["samples"] == 64
    assert row["same_cluster"] == 1
    assert row["correlation"] == 1
    assert row["largest_difference"] == 0
    assert row["flipped_at_the_gate"] == 0


def test_arms_train_on_what_they_say(quality: Rows) -> None:
    pairs = quality["pairs"]
    assert pairs["samples"] == 800
    assert pairs["scenes"] == 200
    assert 320 < pairs["swapped"] < 480  # a half: 5.6 standard deviations on either side
    signals = quality["signals"]
    assert signals["encoded"] == 800
    assert 0 < signals["alignment_auc"] < 1
    captioner = sum(quality[name]["seconds"] for name in ("captioner", "fit", "signals"))
    steps = quality["full"]["steps"]
    assert steps == 25  # an epoch of 800 by 32
    for name in ARMS:
        row = quality[name]
        assert row["steps"] == row["of_steps"] == (8 if "35%" in name else steps)
        assert row["pairs_seen"] == 32 * row["steps"]
        assert 0 < row["clean_share"] < 1
        assert not row["cut"]
        places = [place["step"] for place in row["curve"]]
        assert places == sorted(set(places))
        assert places[-1] == row["steps"]
        assert all(0 <= place["r1"] <= 100 for place in row["curve"])
        assert row["r1"] == row["curve"][-1]["r1"]
        free = name.startswith("full") or "random" in name
        assert row["captioner_s"] == pytest.approx(0 if free else captioner, abs=0.06)
    clean = 1 - pairs["swapped"] / pairs["samples"]
    assert quality["full"]["clean_share"] == pytest.approx(clean, abs=1e-3), (
        "the full arm sees everything once"
    )


@pytest.mark.parametrize(("name", "rows"), [("speed", SPEED), ("quality", QUALITY)])
def test_without_time_every_row_is_skipped_by_name(name: str, rows: list[str], tmp_path: Path) -> None:
    found = measured(name, tmp_path, "--seconds", "1")
    assert list(found) == rows
    assert found["machine"]["cores"] > 0
    for row in rows[1:]:
        assert found[row]["skipped"], row
        assert set(found[row]) == {"row", "skipped"}


CUT = """
import time, bench
bench.STARTED = time.monotonic()
run = bench.Bench(True, "cpu", 2.5)
(run.scratch / "left over").touch()
print(run.scratch)
def fail():
    raise ValueError("no\\nmore")
def skip():
    raise bench.Skip("not here")
rows = {"first": dict, "failing": fail, "skipping": skip, "long": lambda: time.sleep(100), "last": dict}
rows = [bench.Row(name, work) for name, work in rows.items()]
run.run([*rows[:3], bench.Row("after", dict, after=("failing",)), *rows[3:]])
"""


def test_a_row_that_runs_too_long_is_cut_and_the_others_are_named() -> None:
    done = python(["-c", f"import sys\nsys.path.insert(0, {str(GPU)!r})\n{CUT}"], status=1)
    scratch, *lines = done.stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows[0].pop("took_s") >= 0
    assert rows == [
        {"row": "first"},
        {"row": "failing", "failed": "ValueError: no"},
        {"row": "skipping", "skipped": "not here"},
        {"row": "after", "skipped": "needs the row failing"},
        {"row": "long", "skipped": "cut: its 2 s were over"},
        {"row": "last", "skipped": "0 s left"},
    ]
    assert not Path(scratch).exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("name", ["speed", "quality"])
def test_without_a_gpu_the_full_size_says_so(name: str, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    done = python([str(GPU / f"{name}.py"), "--out", str(out)], status=1)
    assert "no GPU here" in done.stderr
    assert "--tiny" in done.stderr
    assert not done.stdout
    assert not out.exists()


# Lines as benches/captioner_device.rs writes them.
BINARY = """\
#!/bin/sh
[ "$1 $2 $3" = "--device cpu --batch" ] || exit 1
echo '{"what": "matrix product", "device": "cpu", "precision": "float32", "tflops": 0.097}'
echo '{"what": "encode", "batch": '$4', "images_per_s": 4873.14, "of_matrix_product": 0.112}'
echo '{"what": "nearest codes", "batch": '$4', "codes": 3000, "of_encode": 0.0067}'
echo '{"what": "captions, 3 beams", "batch": '$4', "captions_per_s": 573.77}'
"""


def test_the_rust_bench_is_asked_where_it_is_given(tmp_path: Path) -> None:
    program(tmp_path / "captioner_device", BINARY)
    found = measured("speed", tmp_path, "--captioner-device", str(tmp_path / "captioner_device"))
    assert list(found) == SPEED
    encode = found["encode, batch 16"]
    assert encode["measured_by"] == found["captions, batch 8"]["measured_by"] == "captioner_device"
    assert (encode["images_per_s"], encode["of_matrix_product"]) == (4873.0, 0.112)
    assert found["nearest codes, batch 16"]["of_encode"] == 0.0067
    assert found["captions, batch 8"]["captions_per_s"] == 573.8


COUNTED = """
import blip, captioners, torch
from types import SimpleNamespace
from torch.utils.flop_counter import FlopCounterMode
part = {"dim": 256, "layers": 4, "heads": 4, "mlp": 1024}
decoder = {**part, "vocab": 9000, "positions": 64, "max_tokens": 30}
sizes = {"preview_size": 224, "patch_size": 16, "vision": part, "decoder": decoder}
sizes["codebook"] = {"codes": 3000, "code_dim": 256}
run = SimpleNamespace(on_gpu=False, device="meta")
model = blip.Blip(run, SimpleNamespace(sizes=sizes)).model
pixels = torch.empty(2, 3, 224, 224, device="meta")
texts = torch.zeros(2, 30, dtype=torch.long, device="meta")
with FlopCounterMode(display=False) as counter, torch.inference_mode():
    seen = model.vision_model(pixels).last_hidden_state
    for _ in range(2):
        model.text_decoder(input_ids=texts, encoder_hidden_states=seen)
print(captioners.operations(sizes, theirs=True) / (counter.get_total_flops() / 2))
"""


def test_operations_are_those_that_torch_counts() -> None:
    # Ours leave out keys and values of the class token, which BLIP's decoder looks at.
    assert float(snippet(COUNTED)) == pytest.approx(1, abs=0.005)


# A card that is used ever more, and one that nothing happens on.
NVIDIA_SMI = """\
#!/bin/sh
case "$*" in
*-lms*) echo "50, 100"; echo "[N/A], 7"; echo "100, 300"; exec sleep 60 ;;
*) n=$(cat "$0.calls" 2>/dev/null || echo 0); n=$((n + 1)); echo $n >"$0.calls"
   [ $n -le 2 ] && echo "GPU-a, 10" || echo "GPU-a, 500"; echo "GPU-b, 3" ;;
esac
"""

SAMPLED = """
import time, machine
sampler = machine.Sampler("a")
while len(sampler.samples) < 2:
    time.sleep(0.01)
sampler.stop()
print(sampler.busy(), sampler.most_used(), sampler.process.args[1])
none = machine.Sampler("a", command="/no/such/program")
none.stop()
print(none.busy(), none.most_used())
"""

RANKS = """
import agreement
from pathlib import Path
print(agreement.grown(Path(sys.argv[1]), "cpu"))
"""


def test_what_nvidia_smi_says_is_read(tmp_path: Path, small: Path) -> None:
    program(tmp_path / "nvidia-smi", NVIDIA_SMI)
    sampled = snippet(SAMPLED, path=str(tmp_path)).splitlines()
    assert sampled == ["0.75 300.0 --id=GPU-a", "None None"]
    ranks = snippet(RANKS, str(small), path=str(tmp_path))
    assert ranks.strip() == "{'GPU-a': 490.0, 'GPU-b': 0.0}"


COPIES = """
import agreement, bench, torch
from pathlib import Path
run = bench.Bench(True, "cpu", 300.0, scratch=Path(sys.argv[1]))
print(agreement.copies(run, Path(sys.argv[1]), Path(sys.argv[2])))
one = [torch.zeros(2, 3), torch.arange(4)]
print(agreement.agree(one, [tensor.clone() for tensor in one]), agreement.agree(one, [one[0], one[1] + 1]))
agreement.agree = lambda there, host: False
try:
    agreement.copies(run, Path(sys.argv[1]), Path(sys.argv[2]))
except AssertionError as error:
    print(error)
"""


def test_batches_are_compared_one_by_one(small: Path) -> None:
    found = snippet(COPIES, str(small), str(small.parent / "tokenizer.json")).splitlines()
    assert found == [
        "{'batches': 20, 'same': 20, 'cut': False}",
        "True False",
        "20 of 20 batches differ on cpu",
    ]


PHOTOGRAPHS = """
import photographs
from pathlib import Path
import tldr_loader as tldr
folder = Path(sys.argv[1])
print(photographs.make(folder / "small", photographs.drawn(4, 64, 48), 64, 16, side=32))
tldr.Captioner.train(folder / "small", folder / "model", preset="tiny", epochs=1)
(folder / "model" / "tokenizer.json").rename(folder / "tokenizer.json")
again = photographs.carried([folder / "small"])
print(len(again), max(max(image.size) for image, _ in again), again[5][1])
photographs.make(folder / "again", photographs.drawn(4, 64, 48), 64, 16, side=32)
shards = sorted((folder / "small").glob("*.tar"))
print(all((folder / "again" / shard.name).read_bytes() == shard.read_bytes() for shard in shards))
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 64 small photographs, beside a tokenizer."""
    folder = tmp_path_factory.mktemp("photographs")
    made, again, same = snippet(PHOTOGRAPHS, str(folder)).splitlines()
    assert "'samples': 64, 'originals': 4, 'shards': 4" in made
    number, longest, caption = again.split(" ", 2)
    assert (number, longest) == ("64", "32")
    assert caption.endswith("waves, drawing 1 no. 5")
    assert same == "True", "the same photographs twice"
    return folder / "small"


DRAWN = """
import io, json, tarfile, drawn, torch
from pathlib import Path
folder = Path(sys.argv[1])
corpus = drawn.Corpus(60, 20, copies=3, swapped=0.4, size=32, shards=2)
found = drawn.write(folder / "a", corpus, "cpu")
drawn.write(folder / "b", corpus, "cpu")
names = ("train/00000.tar", "train/00001.tar", "test/00000.tar")
print(all((folder / "a" / n).read_bytes() == (folder / "b" / n).read_bytes() for n in names))
captions, truths = [], []
for name in names:
    with tarfile.open(folder / "a" / name) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    for key in sorted(key for key in members if key.endswith("json")):
        truths.append(json.loads(members[key]))
        captions.append(members[key.replace("json", "txt")].decode())
told = [drawn.caption(truth["scene"]) for truth in truths]
right = [truth["noise"] == "none" for truth in truths]
print(right == [a == b for a, b in zip(captions, told)])
print(right.count(False) == found["swapped"], all(right[60:]))
train, test = {truth["scene"] for truth in truths[:60]}, {truth["scene"] for truth in truths[60:]}
print(len(train), len(test), len(train & test))
print(len({drawn.caption(scene) for scene in range(0, drawn.SCENES, 37)}) == len(range(0, drawn.SCENES, 37)))
wanted = "a large red circle left of a large blue square on grey"
scene = next(n for n in range(drawn.SCENES) if drawn.caption(n) == wanted)
picture = drawn.draw(torch.tensor([scene]), 64, torch.Generator().manual_seed(0))[0].double()
strongest = [picture[28:36, x : x + 6].mean((0, 1)).argmax().item() for x in (14, 44)]
print(strongest, abs(picture[:4].mean().item() - 128) < 3)
"""


def test_drawn_pairs_show_what_they_say(tmp_path: Path) -> None:
    same, noise, counts, scenes, names, colours = snippet(DRAWN, str(tmp_path)).splitlines()
    assert same == "True", "the same pairs twice"
    assert noise == "True"
    assert counts == "True True"
    assert scenes == "20 20 0"
    assert names == "True"
    assert colours == "[0, 2] True", "red is left, blue is right, on grey"


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
