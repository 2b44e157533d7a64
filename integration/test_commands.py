"""The commands of a shell, each as a process, against the real bridge."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow
import pytest
from dspex_bridge.datasets import load
from pyarrow import parquet

DSPEX = [sys.executable, "-P", "-c", "from dspex_bridge.cli import main; main()"]
ENV = {
    **{name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")},
    "DSPEX_MODEL": "demo/knn",
    "PYTHONUNBUFFERED": "1",
}
TIMEOUT_S = 100

TRIAGE = "message -> department: Literal['billing','accounts','engineering','integrations','sales']"
SCORED = ["--metric", "exact_match:department"]
LEARNING = [
    *("--signature", TRIAGE, "--trainset", "support_messages:train"),
    *("--valset", "support_messages:val", "--outputs", "department", *SCORED),
]

# For a search: more trials than anybody waits for, each of them short.
ENDLESS = ["--param", "trials=9999", "--max-examples", "20"]


def dspex(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DSPEX, *arguments],
        cwd=folder,
        env=ENV,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def test_a_wrong_command_is_told_last_where_a_client_looks_for_the_cause(tmp_path: Path) -> None:
    done = dspex(tmp_path, "brige")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "dspex: error: there is no command 'brige'"


def printed(folder: Path, *arguments: str) -> str:
    done = dspex(folder, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def told(folder: Path, *arguments: str) -> Any:
    return json.loads(printed(folder, *arguments, "--json"))


def test_a_program_runs_from_a_signature_and_from_the_file_of_it(tmp_path: Path) -> None:
    signature = "text, limit: int -> points: list[str]"
    inputs = ["--input", "text=@letter.txt", "--input", "limit=3"]
    (tmp_path / "letter.txt").write_text("One thing. Another thing.")
    one = told(tmp_path, "run", "--signature", signature, *inputs)
    (tmp_path / "a.json").write_text(json.dumps({"signature": signature, "module": "predict"}))
    other = told(tmp_path, "run", "--program", "a.json", *inputs)
    assert one["outputs"] == other["outputs"]
    assert isinstance(one["outputs"]["points"], list)


def test_a_data_set_is_written_as_lines_of_json(tmp_path: Path) -> None:
    lines = printed(tmp_path, "dataset", "support_messages", "val").splitlines()
    assert [json.loads(line) for line in lines] == load("support_messages", "val")


def test_a_data_set_that_nobody_reads_to_its_end_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [*DSPEX, "dataset", "support_messages", "test"]
    done = subprocess.run(
        command, env=ENV, stdout=writer, stderr=subprocess.PIPE, timeout=TIMEOUT_S, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_program_has_the_same_score_on_each_kind_of_file(tmp_path: Path, kind: str) -> None:
    examples = load("support_messages", "val")
    rows = [{"body": one["inputs"]["message"], **one["outputs"]} for one in examples]
    path = tmp_path / f"val.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif kind == "csv":
        lines = [[row["body"].replace('"', '""'), row["department"]] for row in rows]
        path.write_text("body,department\n" + "".join(f'"{a}",{b}\n' for a, b in lines))
    else:
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    score = ["evaluate", "--signature", TRIAGE, *SCORED]
    got = told(tmp_path, *score, "--dataset", path.name, "--inputs", "message=body")
    expected = told(tmp_path, *score, "--dataset", "support_messages:val")
    assert got["score"] == expected["score"]
    assert [one["outputs"] for one in got["results"]] == [
        one["outputs"] for one in expected["results"]
    ]
    assert len(got["results"]) == len(examples)


def test_what_evaluate_cannot_score_is_counted_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question,size,answer\na,1,a\nb,many,b\n")
    program = ["--signature", "question, size: int -> answer"]
    done = printed(tmp_path, "evaluate", *program, "--dataset", "a.csv", "--metric", "exact_match")
    assert "on 2 examples" in done
    assert "failed: 1, the first with input_validation: " in done


def test_what_optimize_saves_has_the_score_that_it_told(tmp_path: Path) -> None:
    told_files = ["--save", "best.json", "--html", "report.html"]
    learning = [*LEARNING, "--optimizer", "labeled_few_shot", "--param", "k=32", *told_files]
    done = dspex(tmp_path, "optimize", *learning)
    assert done.returncode == 0, done.stderr
    assert "difference: +0." in done.stdout
    assert done.stdout.endswith("the program: best.json\nthe report: report.html\n")
    # Where stderr is no terminal it has lines.
    assert "optimize compile 0/1" in done.stderr
    score = ["--dataset", "support_messages:val", *SCORED]
    again = told(tmp_path, "evaluate", "--program", "best.json", *score)["score"]
    assert f"score on 75 examples  0.240           {again:.3f}" in done.stdout
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    tree = ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>"))  # noqa: S314 - our own
    departments = [item.text for item in tree.iter("ins") if "  department: " in (item.text or "")]
    assert len(departments) == 32


def test_the_same_seed_gives_the_same_program_and_another_one_another(tmp_path: Path) -> None:
    learning = [*LEARNING, "--optimizer", "labeled_few_shot", "--max-examples", "20"]
    first, same, other = (
        told(tmp_path, "optimize", *learning, "--seed", seed)["state"]["predictors"]
        for seed in ("3", "3", "4")
    )
    assert first == same != other


def test_a_search_for_several_objectives_has_its_front_on_the_page(tmp_path: Path) -> None:
    variables = {"k": {"kind": "int", "low": 0, "high": 20, "applies_to": "demos.k"}}
    (tmp_path / "variables.json").write_text(json.dumps(variables))
    search = ["--optimizer", "variables", "--param", "variables=@variables.json"]
    asked = ["--param", "trials=4", "--param", 'objectives=["score", "tokens"]']
    files = ["--max-examples", "20", "--html", "a.html"]
    printed(tmp_path, "optimize", *LEARNING, *search, *asked, *files)
    assert "Pareto front" in (tmp_path / "a.html").read_text(encoding="utf-8")


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A search that would take minutes, once its first trials have been scored."""
    variables = '{"k": {"kind": "int", "low": 0, "high": 160, "applies_to": "demos.k"}}'
    search = ["--optimizer", "variables", "--param", f"variables={variables}"]
    with subprocess.Popen(
        [*DSPEX, "optimize", *LEARNING, *search, *ENDLESS, "--save", "best.json"],
        cwd=tmp_path,
        env=ENV,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            seen: list[str] = []
            for line in process.stderr:
                seen.append(line)
                if re.search(r"compile [1-9]\d*/9999", line):
                    break
            else:
                pytest.fail("".join(seen))
            yield process
        finally:
            process.kill()


def test_an_interrupt_ends_with_the_best_so_far(
    endless: subprocess.Popen[str], tmp_path: Path
) -> None:
    endless.send_signal(signal.SIGINT)
    out, err = endless.communicate(timeout=TIMEOUT_S)
    assert endless.returncode == 0, err
    assert "stopped early (cancelled): this is the best so far" in out
    assert json.loads((tmp_path / "best.json").read_text())["lineage"]["optimizer"]["name"]


def test_a_deadline_ends_with_the_best_so_far(tmp_path: Path) -> None:
    variables = '{"k": {"kind": "int", "low": 0, "high": 160, "applies_to": "demos.k"}}'
    search = ["--optimizer", "variables", "--param", f"variables={variables}"]
    done = told(tmp_path, "optimize", *LEARNING, *search, *ENDLESS, "--timeout", "5")
    assert done["stopped"] == "timeout"


def test_a_spent_limit_ends_with_the_best_so_far(tmp_path: Path) -> None:
    learning = [*LEARNING, "--optimizer", "labeled_few_shot", "--limit", "max_calls=100"]
    assert told(tmp_path, "optimize", *learning)["stopped"] == "budget"


def test_a_run_with_the_name_of_a_checkpoint_pays_once(tmp_path: Path) -> None:
    learning = [*LEARNING, "--optimizer", "labeled_few_shot", "--checkpoint", "triage"]
    first = told(tmp_path, "optimize", *learning)
    again = told(tmp_path, "optimize", *learning)
    assert first["checkpoint"]["recorded"] > 0
    assert again["checkpoint"]["recorded"] == 0
    assert again["score"] == first["score"]
    assert (tmp_path / ".dspex").is_dir()


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (
            ["evaluate", "--signature", "a -> ", "--dataset", "x.csv", "--metric", "f1"],
            2,
            "dspex evaluate: ",
        ),
        (
            ["evaluate", "--signature", "a -> b", "--dataset", "x.csv", "--metric", "f1"],
            2,
            "dspex evaluate: x.csv: cannot be read",
        ),
        (
            ["evaluate", "--program", "x.json", "--dataset", "x.csv", "--metric", "f1"],
            2,
            "dspex evaluate: --program: cannot read x.json",
        ),
        (
            [
                *("evaluate", "--signature", TRIAGE, "--dataset", "support_messages:val"),
                *("--metric", "f2"),
            ],
            1,
            "dspex evaluate: invalid_params: ",
        ),
        (
            ["optimize", *LEARNING, "--optimizer", "labeled_few_shot", "--param", "kk=1"],
            1,
            "dspex optimize: invalid_params: optimize: params of labeled_few_shot",
        ),
        (
            ["optimize", *LEARNING, "--optimizer", "labeled_few_shot", "--save", "none/a.json"],
            2,
            "dspex optimize: --save: there is no folder ",
        ),
        (["run", "--signature", "a -> b", "--input", "c=1"], 1, "dspex run: input_validation: "),
        (
            ["run", "--signature", "a -> b", "--state-dir", "none"],
            2,
            "dspex run: --state-dir: there is no folder none",
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_place(
    tmp_path: Path, arguments: list[str], status: int, complaint: str
) -> None:
    done = dspex(tmp_path, *arguments)
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith(complaint)
    assert "Traceback" not in done.stderr
