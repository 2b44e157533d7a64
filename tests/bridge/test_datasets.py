"""The labelled examples that come with the project."""

import itertools
import json
import random
import re
import subprocess
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path
from statistics import mean
from typing import Literal
from zipfile import ZipFile

import dspy
import pytest
from dspex_bridge import datasets
from dspex_bridge.datasets import Example, load
from dspex_bridge.engine.embedded import AsyncKnnEngine, KnnEngine

ROOT = Path(__file__).parents[2]
FOLDER = Path(datasets.__file__).parent
README = (FOLDER / "README.md").read_text("utf-8")

SIZES = {"train": 165, "val": 75, "test": 120}
DIGESTS = {
    "train": "5397fec3811605d744c668148ff16c5a0b9d0279877a4294b2b4516c11351f64",
    "val": "58c77d69d19c5537e76323be754d323faa10786311706ad1bf7acd2e7c207a1e",
    "test": "07db509d0735d910f2eabb4c415339a3aaa284033992fef5dfa2643dafc249b1",
}
DEPARTMENTS = {"billing", "accounts", "engineering", "integrations", "sales"}
PRIORITIES = {"low", "normal", "high"}
# The share of their words that two messages may have in common.
MOST_ALIKE = 0.4


@pytest.fixture(scope="module")
def rows() -> list[Example]:
    lines = (FOLDER / "support_messages.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def message(row: Example) -> str:
    return row["inputs"]["message"]


def words(row: Example) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", message(row).casefold()))


def test_a_row_is_a_message_with_its_department_and_priority(rows: list[Example]) -> None:
    for row in rows:
        assert row.keys() == {"inputs", "outputs"}
        assert row["inputs"].keys() == {"message"}
        assert list(row["outputs"]) == ["department", "priority"]
        assert message(row) == " ".join(message(row).split())
        assert len(words(row)) >= 8
    assert {row["outputs"]["department"] for row in rows} == DEPARTMENTS
    assert {row["outputs"]["priority"] for row in rows} == PRIORITIES


def test_no_two_messages_are_nearly_the_same(rows: list[Example]) -> None:
    told = [(message(row), words(row)) for row in rows]
    alike = [
        (one, other)
        for (one, ones), (other, others) in itertools.combinations(told, 2)
        if len(ones & others) > MOST_ALIKE * len(ones | others)
    ]
    assert alike == []


@pytest.mark.parametrize("split", SIZES)
def test_every_combination_of_labels_is_equally_frequent_in_a_split(split: str) -> None:
    examples = load("support_messages", split)
    counts = Counter(tuple(example["outputs"].values()) for example in examples)
    assert len(counts) == len(DEPARTMENTS) * len(PRIORITIES)
    assert set(counts.values()) == {SIZES[split] // len(counts)}
    assert len(examples) == SIZES[split]


def test_the_splits_share_no_message_and_leave_none_out(rows: list[Example]) -> None:
    parted = [message(row) for split in SIZES for row in load("support_messages", split)]
    assert sorted(parted) == sorted(map(message, rows))
    assert len(set(parted)) == len(parted)


@pytest.mark.parametrize("split", SIZES)
def test_a_split_is_the_same_for_ever(split: str) -> None:
    written = json.dumps(load("support_messages", split), ensure_ascii=False)
    assert sha256(written.encode()).hexdigest() == DIGESTS[split]


def test_the_labels_of_a_split_are_mixed() -> None:
    first = load("support_messages", "train")[:32]
    counts = Counter(example["outputs"]["department"] for example in first)
    assert counts.keys() == DEPARTMENTS
    assert min(counts.values()) >= 3


def test_what_is_loaded_is_the_callers_own() -> None:
    load("support_messages", "val")[0]["outputs"]["department"] = "nobody's"
    assert load("support_messages", "val")[0]["outputs"]["department"] in DEPARTMENTS


@pytest.mark.parametrize(
    ("name", "split", "said"),
    [
        ("../secrets", "train", "there is no data set '../secrets'; there are: support_messages"),
        ("support_messages", "dev", "support_messages has no split 'dev'; it has: train, val, te"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(name: str, split: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        load(name, split)


def test_loading_needs_nothing_that_is_installed() -> None:
    script = (
        "import sys\n"
        "from dspex_bridge.datasets import load\n"
        "load('support_messages', 'train')\n"
        "print(*{name.partition('.')[0] for name in sys.modules})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert not {"dspy", "pydantic", "numpy", "msgpack", "asyncio"} & set(done.stdout.split())


def test_the_wheel_has_the_data_and_its_readme(tmp_path: Path) -> None:
    from hatchling.builders.wheel import WheelBuilder

    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path))
    with ZipFile(wheel) as packed:
        names = set(packed.namelist())
    assert {
        "dspex_bridge/datasets/README.md",
        "dspex_bridge/datasets/support_messages.jsonl",
    } <= names


# What there is to gain: the table in the README


class Triage(dspy.Signature):  # type: ignore[misc]
    """Route a support message."""

    message: str = dspy.InputField()
    department: Literal["billing", "accounts", "engineering", "integrations", "sales"] = (
        dspy.OutputField()
    )
    priority: Literal["low", "normal", "high"] = dspy.OutputField()


def accuracy(demos: list[Example]) -> tuple[float, float]:
    """The share of test messages whose department, and priority, `demo/knn` gets right."""
    program = dspy.Predict(Triage)
    program.demos = [dspy.Example(**demo["inputs"], **demo["outputs"]) for demo in demos]
    lm = dspy.LM("demo/knn", engine=KnnEngine(), async_engine=AsyncKnnEngine(), cache=False)
    test = load("support_messages", "test")
    right: Counter[str] = Counter()
    with dspy.context(lm=lm):
        for example in test:
            answer = program(**example["inputs"])
            right.update(n for n, label in example["outputs"].items() if answer[n] == label)
    return right["department"] / len(test), right["priority"] / len(test)


# More demonstrations would take half a minute.
@pytest.mark.parametrize("number", [0, 8, 32])
def test_demonstrations_raise_the_accuracy_as_the_readme_says(number: int) -> None:
    train = load("support_messages", "train")
    runs = [accuracy(random.Random(seed).sample(train, number)) for seed in range(5)]
    departments, priorities = zip(*runs, strict=True)
    row = (
        f"| {number} | {mean(departments):.3f} | {min(departments):.3f} to {max(departments):.3f} "
        f"| {mean(priorities):.3f} |"
    )
    assert row in README.splitlines()
