"""`results.csv` is written and read to the bit, and the arithmetic of the summary is right."""

import functools
import math

import numpy as np
import pytest

from vae_jax.core import errors
from vae_jax.storage import tables

# To how many decimals a summary shows each column, what matters most first.
DECIMALS = {
    "distortion": 2, "rate": 3, "elbo": 2, "importance_bound": 2, "train_elbo": 4, "sigma": 4, "mse": 4, "active_units": 1,
    "mean_std": 3, "knn_accuracy": 3, "frechet_prior": 3, "frechet_midpoint": 3, "bits_per_pixel": 3, "coverage_1sigma": 3,
    "coverage_3sigma": 4, "residual_mean_square": 3, "mean_sigma": 4,
}  # fmt: skip
summary = functools.partial(tables.summary, decimals=DECIMALS)

ROWS = [
    {"run": 0, "name": "vae", "objective.beta": 0.1, "rate": 2.5, "elbo": -1e-300, "knn_accuracy": 1 / 3},
    {"run": 1, "name": "ae", "objective.beta": 0.0, "rate": math.inf, "elbo": -math.inf, "elbo_se": None, "late": 7},
    {"run": 2, "name": "pca"},
]


# CSV


def test_csv_is_written_as_the_contract_says(tmp_path):
    path = tmp_path / "results.csv"
    tables.write_csv(path, ROWS)
    assert path.read_bytes().decode() == (
        "run,name,objective.beta,rate,elbo,knn_accuracy,elbo_se,late\n"
        f"0,vae,0.1,2.5,-1e-300,{1 / 3!r},,\n"
        "1,ae,0.0,inf,-inf,,,7\n"
        "2,pca,,,,,,\n"
    )


def test_csv_comes_back_bit_for_bit_without_what_does_not_apply(tmp_path):
    path = tmp_path / "results.csv"
    tables.write_csv(path, ROWS)
    read = tables.read_csv(path)
    assert read == [{key: value for key, value in row.items() if value is not None} for row in ROWS]
    assert [type(read[0][key]) for key in ("run", "name", "rate")] == [int, str, float]
    tables.write_csv(tmp_path / "again.csv", read)
    assert (tmp_path / "again.csv").read_text().splitlines()[1] == path.read_text().splitlines()[1].removesuffix(",")


@pytest.mark.parametrize("value", [0.1, 1e-45, 123456789.123456789, float(np.float32(0.1)), -0.0])
def test_csv_keeps_every_bit_of_a_float(tmp_path, value):
    tables.write_csv(tmp_path / "r.csv", [{"run": 0, "name": "vae", "x": value}])
    (row,) = tables.read_csv(tmp_path / "r.csv")
    assert np.float64(row["x"]).tobytes() == np.float64(value).tobytes()


def test_csv_keeps_commas_and_quotes(tmp_path):
    row = {"run": 0, "model.hidden": (64, 32), "name": 'a "b", c', "x": np.float32(0.5)}
    tables.write_csv(tmp_path / "r.csv", [row])
    assert tables.read_csv(tmp_path / "r.csv") == [row | {"model.hidden": "(64,32)"}]


@pytest.mark.parametrize("text", ["nan", "inf", "1_000", "12", "1e3", "0.10", " 1", "+1", "01", "1.", "\u0663"])
def test_a_name_is_never_a_number_and_a_setting_only_as_we_write_one(tmp_path, text):
    tables.write_csv(tmp_path / "r.csv", [{"run": 0, "name": text, "data.path": text}])
    (row,) = tables.read_csv(tmp_path / "r.csv")
    assert row["name"] == text
    assert str(row["data.path"]) == text  # written again it is the same


@pytest.mark.parametrize(
    "text",
    [
        "run,name\n1\n",
        "run,name\n1,2,3\n",
        'run,name\n1,"2',
        "run,name\n1,\xff\n",
        "",
        "name,elbo\nvae,1\n",
        "run,elbo\n0,1\n",
        "run,name,elbo,elbo\n0,vae,1,2\n",
        "run,name\n,vae\n",
        "run,name\n0,\n",
        "run,name\n0.5,vae\n",
        "run,name\none,vae\n",
        "run,name,seed\n0,vae,x\n",
        "run,name,elbo\n0,vae,n/a\n",
        "run,name,diverged\n0,vae,yes\n",
        "run,name\n-1,vae\n",
        "run,name\n" + 30 * "9" + ",vae\n",
        "run,name\n" + 5000 * "9" + ",vae\n",
        "run,name,elbo\n0,vae," + 200_000 * "9" + "\n",
    ],
)
def test_damaged_csv_is_one_line(tmp_path, text):
    path = tmp_path / "results.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(errors.UserError) as caught:
        tables.read_csv(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


# Means over seeds

STUDY = [
    {"run": 0, "name": "vae", "seed": 0, "objective.beta": 1.0, "rate": 1.0, "mse": 0.1},
    {"run": 1, "name": "vae", "seed": 1, "objective.beta": 1.0, "rate": 2.0, "mse": 0.3},
    {"run": 2, "name": "vae", "seed": 2, "objective.beta": 1.0, "rate": 6.0, "mse": 0.2},
    {"run": 3, "name": "ae", "seed": 0, "objective.beta": 0.0, "rate": math.inf, "mse": 0.05},
    {"run": 4, "name": "ae", "seed": 1, "objective.beta": 0.0, "rate": math.inf, "mse": 0.05},
    {"run": 5, "name": "pca", "mse": 0.5},
]


def test_mean_and_stderr_by_hand():
    mean, error = tables.mean_and_stderr([1.0, 2.0, 6.0])
    assert mean == 3.0
    assert error == pytest.approx(math.sqrt((4 + 1 + 9) / 2 / 3))


def test_mean_and_stderr_of_one_or_of_infinities_has_no_error():
    assert tables.mean_and_stderr([2.0])[0] == 2.0
    assert math.isnan(tables.mean_and_stderr([2.0])[1])
    mean, error = tables.mean_and_stderr([math.inf, math.inf])
    assert mean == math.inf
    assert math.isnan(error)


def test_varying_keys_tell_rows_of_one_name_apart():
    assert tables.grid_keys(STUDY) == ["objective.beta"]
    assert tables.varying_keys(STUDY) == []  # the name tells
    grid = [row | {"name": "vae", "model.latents": 2} for row in STUDY]
    assert tables.varying_keys(grid) == ["objective.beta"]
    assert tables.grid_keys(grid) == ["objective.beta", "model.latents"]


def test_grouped_keeps_order():
    groups = tables.grouped(STUDY, ["name"])
    assert [(key, [row["run"] for row in rows]) for key, rows in groups.items()] == [
        (("vae",), [0, 1, 2]),
        (("ae",), [3, 4]),
        (("pca",), [5]),
    ]


def test_the_summary_by_hand():
    assert [line.split() for line in summary(STUDY).splitlines()] == [
        ["name", "seeds", "rate", "mse"],
        ["vae", "3", "3.000", "±1.528", "0.2000", "±0.0577"],
        ["ae", "2", "inf", "0.0500", "±0.0000"],
        ["pca", "0.5000"],
    ]


def test_the_summary_shows_what_varies():
    rows = [
        {"run": run, "name": "b", "seed": 0, "objective.beta": beta, "model.latents": 2, "rate": beta}
        for run, beta in enumerate([0.5, 2.0])
    ]
    lines = [line.split() for line in summary(rows).splitlines()]
    assert lines == [["name", "objective.beta", "seeds", "rate"], ["b", "0.5", "1", "0.500"], ["b", "2", "1", "2.000"]]


def test_the_summary_has_the_exact_values_where_there_is_a_closed_form():
    rows = [
        {"run": 0, "name": "linear", "seed": 0, "elbo": 6.5, "importance_bound": 6.75, "sigma": 0.25, "train_elbo": 6.84294},
        {"run": 1, "name": "ppca", "elbo": 6.5, "importance_bound": 6.5, "sigma": 0.25, "train_elbo": 6.84354},
    ]
    assert [line.split() for line in summary(rows).splitlines()] == [
        ["name", "seeds", "elbo", "importance_bound", "train_elbo", "sigma"],
        ["linear", "1", "6.50", "6.75", "6.8429", "0.2500"],
        ["ppca", "6.50", "6.50", "6.8435", "0.2500"],
    ]
    assert summary(rows[:1]).split() == ["name", "seeds", "elbo", "importance_bound", "linear", "1", "6.50", "6.75"]


def test_a_diverged_run_is_in_no_mean():
    rows = [row | ({"diverged": 40, "rate": math.nan} if row["run"] in (2, 3, 4) else {}) for row in STUDY]
    assert [" ".join(line.split()) for line in summary(rows).splitlines()[1:3]] == [
        "vae 2 1.500 ±0.500 0.2000 ±0.1000 seed 2 diverged at step 40",
        "ae 0 seed 0 diverged at step 40, seed 1 diverged at step 40",
    ]
    assert summary(rows[3:4]).endswith("  diverged at step 40")
    assert tables.diverged(STUDY) == ""
    assert tables.diverged(rows) == (
        "3 of 6 runs diverged: run 2 (vae, objective.beta=1.0) at step 40; run 3 (ae, objective.beta=0.0) at step 40; "
        "run 4 (ae, objective.beta=0.0) at step 40"
    )
    assert tables.diverged(rows[2:3]).startswith("1 of 1 run diverged: run 2 (vae,")
    many = [rows[2] | {"run": run} for run in range(9)]
    assert tables.diverged(many).endswith("; run 4 (vae, objective.beta=1.0) at step 40; 4 more")


def test_the_columns_of_the_summary_stand_under_each_other():
    lines = summary(STUDY).splitlines()
    assert [line.find(cell) for line, cell in zip(lines, ("mse", "0.2000", "0.0500", "0.5000"), strict=True)] == [
        lines[0].index("mse")
    ] * 4


WIDE = [
    {"run": run, "name": "vae", "seed": run, "objective.beta": 1.0} | dict.fromkeys(reversed(DECIMALS), 0.5 + run)
    for run in range(2)
]


def test_the_summary_has_six_columns_and_says_what_is_left():
    lines = summary(WIDE, width=200).splitlines()
    columns = ["distortion", "rate", "elbo", "importance_bound", "mse", "active_units"]  # train_elbo, sigma: beside ppca
    assert lines[0].split() == ["name", "seeds", *columns]
    assert lines[2] == "9 more columns in results.csv"
    with_ppca = [*WIDE, {"run": 2, "name": "ppca", "train_elbo": 1.0}]
    assert summary(with_ppca, width=200).splitlines()[0].split() == ["name", "seeds", *list(DECIMALS)[:6]]


@pytest.mark.parametrize(("width", "columns"), [(200, 6), (101, 6), (95, 5), (80, 4), (65, 3), (30, 1), (1, 1)])
def test_the_summary_fits_the_terminal(width, columns):
    lines = summary(WIDE, width=width).splitlines()
    assert len(lines[0].split()) == 2 + columns
    assert max(map(len, lines[:-1])) <= max(width, 30)
    assert lines[-1].split()[0] == str(15 - columns)


def test_one_column_that_does_not_fit():
    rows = [{"run": 0, "name": "vae", "seed": 0, "rate": 0.5, "mse": 0.5}]
    assert summary(rows, width=20).splitlines()[-1] == "1 more column in results.csv"
    assert summary(rows, width=40).splitlines()[-1].split() == ["vae", "1", "0.500", "0.5000"]


CHOICE = [
    {"run": 0, "name": "vae", "seed": 0, "objective.beta": 0.5, "valid_elbo": -9.0, "elbo": -12.0, "active_units": 3.0},
    {"run": 1, "name": "vae", "seed": 1, "objective.beta": 0.5, "valid_elbo": -9.5, "elbo": -12.0, "active_units": 4.0},
    {"run": 2, "name": "vae", "seed": 0, "objective.beta": 2.0, "valid_elbo": -10.0, "elbo": -11.0, "active_units": 2.0},
    {"run": 3, "name": "vae", "seed": 1, "objective.beta": 2.0, "valid_elbo": -10.5, "elbo": -11.0, "active_units": 2.0},
]


def test_the_best_setting_is_chosen_by_validation_where_there_is_any():
    """The test split must not choose what is then reported on it."""
    title, line = tables.best(CHOICE).splitlines()
    assert title == "best setting of each name by validation elbo, its test split:"
    assert line.split() == ["vae", "objective.beta=0.5", "elbo", "-12.00", "±0.00", "active_units", "3.50", "±0.50"]
    title, line = tables.best([{k: v for k, v in row.items() if k != "valid_elbo"} for row in CHOICE]).splitlines()
    assert title == "best setting of each name by test elbo, its test split:"
    assert "objective.beta=2 " in line


def test_closed_forms_beside_are_chosen_by_the_test_split():
    """They have no validation columns; the runs are chosen by theirs all the same."""
    exact = [{"run": 4 + n, "name": "ppca", "objective.beta": beta, "elbo": -beta} for n, beta in enumerate((1.0, 2.0))]
    lines = tables.best([*exact, *CHOICE]).splitlines()
    assert ["validation" in line for line in lines] == [True, False, False, False]
    assert lines[1].split()[:2] == ["vae", "objective.beta=0.5"]
    assert lines[3].split()[:2] == ["ppca", "objective.beta=1"]


@pytest.mark.parametrize("column", ["valid_elbo", "elbo"])
def test_what_is_not_finite_or_diverged_is_not_the_best(column):
    rows = [row if column == "valid_elbo" else {k: v for k, v in row.items() if k != "valid_elbo"} for row in CHOICE]
    rows = [*rows[:2], rows[2] | {column: math.nan}, rows[3] | {"diverged": 3}]
    assert tables.best(rows) == ""  # one setting is left, and nothing to choose
