"""The post, claim by claim: what it says, what the studies measured, and a verdict that follows from the numbers by a rule.

A difference counts where it is larger than twice its standard error over the seeds; a setting with a single seed has no
error, and decides nothing. `post.CLAIMS` is the table; `judge` reads the directories of the studies; `page` writes the document.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from vae_jax.core import errors
from vae_jax.storage import run_directory, tables

Row = run_directory.Row
Text = tuple[str, str]  # English, Chinese
ERRORS = 2.0  # standard errors by which a difference has to exceed 0


class Value(NamedTuple):
    """A mean over seeds with its standard error (nan for one seed)."""

    mean: float
    error: float

    def __format__(self, spec: str) -> str:
        shown = f"{self.mean:{spec}}".replace("inf", "∞")
        return shown if math.isnan(self.error) else f"{shown} ± {self.error:{spec}}"


def below(small: Value, large: Value) -> bool:
    """Whether `small` is the smaller one by more than `ERRORS` standard errors of the difference."""
    if math.isinf(large.mean) and math.isfinite(small.mean):
        return large.mean > 0
    return large.mean - small.mean > ERRORS * math.hypot(small.error, large.error)


def alike(a: Value, b: Value) -> bool:
    """Whether neither is below the other: the seeds do not tell them apart."""
    return not below(a, b) and not below(b, a)


@dataclasses.dataclass(frozen=True)
class Table:
    """The rows of a finished study, each with every field of its config by dotted names, without the diverged runs."""

    rows: list[Row]

    def value(self, column: str, **fields) -> Value:
        """Mean over the seeds of the runs whose config has these fields (two underscores for a dot).

        Raises:
          MissingError: no such run has that column.
        """
        wanted = {key.replace("__", "."): value for key, value in fields.items()}
        found = [
            row[column] for row in self.rows if column in row and all(row.get(key) == value for key, value in wanted.items())
        ]
        if not found:
            raise MissingError(f"{column} where {', '.join(f'{key}={value}' for key, value in wanted.items())}")
        return Value(*tables.mean_and_stderr(found))

    def values(self, key: str, **fields) -> list:
        """The different values of a field among the runs with these fields, sorted."""
        wanted = {name.replace("__", "."): value for name, value in fields.items()}
        return sorted({row[key] for row in self.rows if key in row and all(row.get(k) == v for k, v in wanted.items())})


class MissingError(Exception):
    """A study, a run or a column that a claim needs is not there."""


class Studies:
    """The finished studies below a directory, by the name of their own directory; read when a claim asks for one."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.read: dict[str, Table] = {}

    def __getitem__(self, name: str) -> Table:
        if name not in self.read:
            workdir = self.folder / name
            if not (workdir / "results.csv").exists():
                raise MissingError(f"the study {name}")
            self.read[name] = read_table(workdir)
        return self.read[name]


def read_table(workdir: pathlib.Path) -> Table:
    """The rows of `results.csv`, with the fields of `config.json` that the grid did not set."""
    config = flat(run_directory.read_config(workdir).get("config", {}))
    rows = [row for row in tables.read_csv(workdir / "results.csv") if "diverged" not in row]
    # A closed form has no seed, and no field of a network.
    return Table([(config if "seed" in row else {}) | row for row in rows])


def flat(config: Mapping, prefix: str = "") -> dict:
    """A nested config by dotted names."""
    found: dict = {}
    for key, value in config.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


HOLDS: Text = ("holds", "成立")
FAILS: Text = ("does not hold as written", "按原文不成立")
UNMEASURED: Text = ("not measured", "未测量")


class Verdict(NamedTuple):
    """What came out: a verdict and the numbers behind it, each in English and Chinese."""

    verdict: Text
    numbers: Text


def where(english: str, chinese: str) -> Text:
    """The verdict of a claim that holds under a condition."""
    return f"holds where {english}", f"有条件成立：{chinese}"


def decide(is_true: bool, numbers: Text) -> Verdict:
    """Holds, or does not."""
    return Verdict(HOLDS if is_true else FAILS, numbers)


@dataclasses.dataclass(frozen=True)
class Claim:
    """One statement of the post.

    Attributes:
      says: the statement, in our words.
      rule: how the verdict follows from the numbers.
      measure: reads the studies and decides.
      figure: where it can be seen, below the directory of the studies.
      remark: where the post is imprecise, or what one should know.
    """

    says: Text
    rule: Text
    measure: Callable[[Studies], Verdict]
    figure: str
    remark: Text = ("", "")


class Judged(NamedTuple):
    """A claim, its name, and what came out."""

    name: str
    claim: Claim
    verdict: Text
    numbers: Text


def judge(folder: str | pathlib.Path, claims: Mapping[str, Claim]) -> list[Judged]:
    """Each of `claims` against the studies in `folder`; one whose study is not there says so.

    Raises:
      UserError: no such directory, or none of the studies in it.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise errors.UserError(f"--workdir={folder}: no such directory; ./scripts/reproduce makes its studies")
    studies, found = Studies(folder), []
    for name, claim in claims.items():
        try:
            verdict, numbers = claim.measure(studies)
        except MissingError as missing:
            verdict, numbers = UNMEASURED, (f"needs {missing}", f"缺少 {missing}")
        found.append(Judged(name, claim, verdict, numbers))
    if all(judged.verdict == UNMEASURED for judged in found):
        raise errors.UserError(f"--workdir={folder}: holds none of the studies that ./scripts/reproduce makes")
    return found


def text(judged: Sequence[Judged]) -> str:
    """The table that is printed: each claim with its verdict and numbers."""
    lines = []
    for one in judged:
        lines += [f"{one.name}: {one.verdict[0]}", f"    {one.claim.says[0]}", f"    {one.numbers[0]}"]
    return "\n".join(lines)


def write(folder: pathlib.Path, judged: Sequence[Judged]) -> list[pathlib.Path]:
    """`claims.json` in the directory of each study, for its page: the claims whose figure lies there.

    Returns:
      Those directories.
    """
    by_study: dict[pathlib.Path, list[dict[str, str]]] = {}
    for one in judged:
        shown = {"statement": one.claim.says[0], "verdict": one.verdict[0], "numbers": one.numbers[0]}
        by_study.setdefault(folder / pathlib.PurePath(one.claim.figure).parts[0], []).append(shown)
    found = {workdir: shown for workdir, shown in by_study.items() if (workdir / "results.csv").exists()}
    for workdir, listed in found.items():
        run_directory.record(workdir, ["claims.json"])
        run_directory.write_json(workdir / "claims.json", listed)
    return list(found)


HEAD: Sequence[str] = (
    """# The post, claim by claim

Written by `python -m experiments.claims --workdir=runs --write` from the directories that `./scripts/reproduce` made; nothing on this page is typed in.
Means over seeds with their standard errors. A verdict follows from the numbers by the rule beside it.

""",
    """# 原文逐条检验

由 `python -m experiments.claims --workdir=runs --write` 根据 `./scripts/reproduce` 生成的目录写成，数字均非手工填写。
数值为各随机种子的均值与标准误；结论按所列规则由数字得出。

""",
)
LABELS = (("Rule", "Measured", "Verdict", "Figure", "Note"), ("规则", "测得", "结论", "图", "说明"))


def page(judged: Sequence[Judged], language: int) -> str:
    """The document in Markdown: `language` 0 is English, 1 Chinese."""
    rule, measured, verdict, figure, note = LABELS[language]
    colon = (": ", "：")[language]
    parts = [HEAD[language]]
    for number, one in enumerate(judged, 1):
        lines = [f"## {number}. {one.claim.says[language]}", ""]
        lines += [f"- **{verdict}{colon}{one.verdict[language]}**", f"- {measured}{colon}{one.numbers[language]}"]
        lines += [f"- {rule}{colon}{one.claim.rule[language]}", f"- {figure}{colon}`runs/{one.claim.figure}`"]
        lines += [f"- {note}{colon}{one.claim.remark[language]}"] if one.claim.remark[language] else []
        parts.append("\n".join(lines) + "\n\n")
    return "".join(parts).rstrip() + "\n"
