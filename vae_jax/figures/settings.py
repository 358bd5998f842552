"""What a study compares: settings (runs that differ in their seed only), the families they form, and their labels.

Everything here is decided by config fields: the columns that the grid set, and `config.json` for the fields it did not set.
The name of a run is text that labels show; no decision depends on it.
"""

import dataclasses
import enum
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vae_jax.figures import style
from vae_jax.storage import tables

Row = dict[str, Any]
WEIGHTS = ("objective.noise_scale", "objective.distortion_weight", "objective.beta")


class Role(enum.IntEnum):
    """What the three numbers of the objective make of a setting, in the order of panels."""

    DETERMINISTIC = 0  # noise_scale 0: an autoencoder
    NO_KL = 1  # beta 0
    BOTH = 2  # reconstruction and KL: VAE, beta-VAE, and the other ways to balance them
    KL_ONLY = 3  # distortion_weight 0
    CLOSED_FORM = 4  # a baseline without training: PCA, pPCA


ROLE_LABELS = {
    Role.DETERMINISTIC: "deterministic",
    Role.NO_KL: "no KL",
    Role.BOTH: "reconstruction and KL",
    Role.KL_ONLY: "KL only",
    Role.CLOSED_FORM: "closed form",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
    """Runs that differ in their seed only.

    Attributes:
      name: of its rows.
      label: what tells it from every other setting of the study.
      role: see `Role`.
      values: its value of every config field that varies in the study, by dotted name.
      rows: its lines of results.csv, without those that diverged.
      color: that of its family.
    """

    name: str
    label: str
    role: Role
    values: Mapping[str, Any]
    rows: list[Row]
    color: Any

    def mean(self, column: str) -> tuple[float, float]:
        """Mean and standard error of a column over the seeds where it is finite; nan where it is nowhere."""
        found = [row[column] for row in self.rows if isinstance(row.get(column), int | float)]
        found = [value for value in found if math.isfinite(value)]
        return tables.mean_and_stderr(found) if found else (math.nan, math.nan)

    @property
    def score(self) -> float:
        """What the best setting has most of: elbo (of the validation split where that was evaluated), else -mse; or nan."""
        for column, sign in (("valid_elbo", 1), ("elbo", 1), ("valid_mse", -1), ("mse", -1)):
            if math.isfinite(value := self.mean(column)[0]):
                return sign * value
        return math.nan


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
    """Settings that differ in one field, `axis`, in its order; `axis` is "" where there is one setting alone."""

    label: str
    axis: str
    settings: list[Setting]
    color: Any

    @property
    def role(self) -> Role:
        return self.settings[0].role


def resolve(row: Row, key: str, config: Callable[[str], Any]) -> Any:
    """The config field `key` of a run: the grid's column, else `config.json`, as `results.csv` would have it."""
    if key in row:
        return row[key]
    if "seed" not in row:
        return None  # a closed form has only the fields that it was computed for
    value = config(key)
    if isinstance(value, list | tuple):
        return "(" + ",".join(map(str, value)) + ")"
    if isinstance(value, str):
        for kind in (int, float):
            try:
                if str(kind(value)) == value:
                    return kind(value)
            except ValueError:
                continue
    return value


def role_of(row: Row, config: Callable[[str], Any]) -> Role:
    """The role of a run, by its weights and its kind of objective."""
    if "seed" not in row:
        return Role.CLOSED_FORM
    noise, distortion, beta = (resolve(row, key, config) for key in WEIGHTS)
    if noise == 0:
        return Role.DETERMINISTIC
    if distortion == 0:
        return Role.KL_ONLY
    if beta == 0 and resolve(row, "objective.kind", config) in (None, "weighted"):
        return Role.NO_KL
    return Role.BOTH


def families_of(rows: Sequence[Row], config: Callable[[str], Any]) -> list[Family]:
    """The rows of a table as families of settings, in the order of panels: by role, then as they first appear.

    Args:
      rows: of results.csv, without those that diverged.
      config: from a dotted name to the value in `config.json`, or None.
    """
    keys = tables.grid_keys(rows)
    resolved = [{key: resolve(row, key, config) for key in keys} for row in rows]
    trained = [values for values, row in zip(resolved, rows, strict=True) if "seed" in row]
    varying = [key for key in keys if len({values[key] for values in trained or resolved}) > 1]
    groups: dict[tuple, list[Row]] = {}
    for row, values in zip(rows, resolved, strict=True):
        what = role_of(row, config), str(row["name"]), *(values[key] for key in varying)
        groups.setdefault(what, []).append(row)
    drafts = [
        Setting(name, "", role, dict(zip(varying, values, strict=True)), members, None)
        for (role, name, *values), members in groups.items()
    ]
    labels = _labels(drafts, varying)
    drafts = [dataclasses.replace(draft, label=label) for draft, label in zip(drafts, labels, strict=True)]
    split = _split(drafts, varying)
    colors = style.family_colors([(members[0].role, len(members)) for _, members in split])
    return [
        Family(label, axis, [dataclasses.replace(member, color=color) for member in members], color)
        for (axis, members), label, color in zip(split, _family_labels(split, varying), colors, strict=True)
    ]


def _split(drafts: Sequence[Setting], varying: Sequence[str]) -> list[tuple[str, list[Setting]]]:
    """(axis, members in its order) of every family, in the order of panels."""
    numeric = [key for key in varying if all(is_number(draft.values[key]) for draft in drafts if _is_trained(draft))]
    texts = [key for key in varying if key not in numeric]
    families: list[tuple[tuple, str, list[Setting]]] = []
    groups = groups_of(drafts, lambda draft: (draft.role, *(draft.values[key] for key in texts))).values()
    for number, members in enumerate(groups):
        axis = main_axis(members, numeric)
        names = len({draft.name for draft in members}) > 1 and members[0].role is Role.CLOSED_FORM
        rest = [key for key in numeric if key != axis]
        for family in groups_of(members, _key_of(rest, names)).values():
            family.sort(key=lambda draft: sort_key(draft.values.get(axis)))
            place = members[0].role, number, *(sort_key(family[0].values[key]) for key in rest)
            families.append((place, axis if len(family) > 1 else "", family))
    families.sort(key=lambda family: family[0])
    return [(axis, members) for _, axis, members in families]


def _is_trained(draft: Setting) -> bool:
    return draft.role is not Role.CLOSED_FORM


def _key_of(keys: Sequence[str], names: bool) -> Callable[[Setting], tuple]:
    """A setting's values of `keys`; with its name for closed forms, whose name is what was computed."""
    return lambda draft: (*(draft.values[key] for key in keys), *([draft.name] if names else []))


def groups_of(items: Sequence[Setting], key: Callable[[Setting], Any]) -> dict[Any, list[Setting]]:
    """Settings by what `key` gives for them, in order of first appearance."""
    groups: dict[Any, list[Setting]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def sort_key(value) -> tuple:
    """Numbers in their order, then texts, then what there is none of."""
    return (0, value, "") if is_number(value) else (2, 0, "") if value is None else (1, 0, str(value))


def axes_of(members: Sequence[Setting], numeric: Sequence[str]) -> list[str]:
    """The numeric fields that vary among these settings: beta, then others of the objective, then by number of values."""
    counts = {key: len({member.values[key] for member in members}) for key in numeric}
    found = [key for key in numeric if counts[key] > 1]
    return sorted(found, key=lambda key: (key != "objective.beta", not key.startswith("objective."), -counts[key]))


def main_axis(members: Sequence[Setting], numeric: Sequence[str]) -> str:
    """The first of `axes_of`, or ""."""
    return next(iter(axes_of(members, numeric)), "")


def short(key: str, among: Sequence[str]) -> str:
    """The last part of a dotted name, or all of it where another one ends alike."""
    last = key.rpartition(".")[2]
    alike = sum(other.rpartition(".")[2] == last for other in among) > 1
    return key if alike and not key.startswith("objective.") else last


def told(key: str, value, among: Sequence[str]) -> str:
    """A field and its value as a label has it: "beta 0.5"."""
    return f"{short(key, among)} {value:g}" if is_number(value) else f"{short(key, among)} {value}"


def _labels(drafts: Sequence[Setting], varying: Sequence[str]) -> list[str]:
    """The name, where there are several, and what tells a setting from the others of its name."""
    several = len({draft.name for draft in drafts}) > 1
    labels = []
    for draft in drafts:
        same = [other for other in drafts if other.name == draft.name]
        parts = [told(key, draft.values[key], varying) for key in _telling(draft, same, varying)]
        if len({other.role for other in same}) > 1 and draft.role is not Role.BOTH:
            parts.insert(0, ROLE_LABELS[draft.role])
        # A method is often named as its weight is: "capacity 4", not "capacity, capacity 4".
        named = parts and parts[0].partition(" ")[0] == draft.name
        labels.append(style.plain(", ".join([*([draft.name] if (several or not parts) and not named else []), *parts])))
    return labels


def _telling(draft: Setting, same: Sequence[Setting], varying: Sequence[str]) -> list[str]:
    """The fields in which `draft` differs from others of its name; its role stands for the three weights where it can."""
    keys = [key for key in varying if len({other.values[key] for other in same}) > 1 and draft.values[key] is not None]
    if len({other.role for other in same}) == 1:
        return keys
    alike = [other for other in same if other.role is draft.role]
    return [key for key in keys if key not in WEIGHTS or len({other.values[key] for other in alike}) > 1]


def _family_labels(split: Sequence[tuple[str, list[Setting]]], varying: Sequence[str]) -> list[str]:
    """What tells a family from the others: its name where no other family has that, else the fields that it holds."""
    labels = []
    for axis, members in split:
        others = {member.name for _, family in split if family is not members for member in family}
        names = [member.name for member in members]
        if len(split) > 1 and not others & set(names):
            labels.append(style.plain(max(names, key=names.count)))
            continue
        keys = [key for key in varying if key != axis and len({family[0].values[key] for _, family in split}) > 1]
        roles = {family[0].role for _, family in split}
        parts = [told(key, members[0].values[key], varying) for key in keys if key not in WEIGHTS or len(roles) == 1]
        parts = [part for part in parts if not part.endswith(" None")]
        if len(roles) > 1 and (members[0].role is not Role.BOTH or not parts):
            parts.insert(0, ROLE_LABELS[members[0].role])
        labels.append(style.plain(", ".join(parts) or max(names, key=names.count)))
    return labels


@dataclasses.dataclass(frozen=True)
class Choice:
    """The settings that one figure compares.

    Attributes:
      settings: in the order of panels.
      note: what is said of the rest: "latents 8 in all", or "" where nothing is held.
      axis: the numeric field in which they differ; "" where it is another thing.
    """

    settings: list[Setting]
    note: str
    axis: str = ""


def comparison(candidates: Sequence[Setting], most: int) -> Choice:
    """At most `most` settings that differ in one thing.

    One numeric field varies: settings spread over its range, every role among them. Several vary: the others are held at
    their values in the best setting. Texts vary (a prior, a likelihood): one of each, at values that all of them have, else
    the best of each.
    """
    if not candidates:
        return Choice([], "")
    varying = list(candidates[0].values)
    numeric = [key for key in varying if all(is_number(candidate.values[key]) for candidate in candidates)]
    texts = [key for key in varying if key not in numeric]
    combinations = list(groups_of(candidates, lambda s: tuple(s.values[key] for key in texts)).values())
    if len(combinations) > 1:
        return _one_of_each(combinations, numeric, varying, most)
    axes = axes_of(candidates, [key for key in numeric if _varies_in_role(candidates, key)])
    if len({candidate.role for candidate in candidates}) > 1:  # what is compared are the weights of the objective
        axes = [
            *(key for key in axes if key.startswith("objective.")),
            *(key for key in axes if not key.startswith("objective.")),
        ]
        axes = axes if axes and axes[0].startswith("objective.") else ["", *axes]
    rest = axes[1:]
    best = _best(candidates)
    held = [s for s in candidates if all(s.values[key] == best.values[key] for key in rest)]
    note = ", ".join(told(key, best.values[key], varying) for key in rest)
    axis = axes[0] if axes else ""
    return Choice(_spread(held, axis, most), style.plain(f"{note} in all" if note else ""), axis)


def _varies_in_role(candidates: Sequence[Setting], key: str) -> bool:
    groups = groups_of(candidates, lambda s: s.role).values()
    return any(len({s.values[key] for s in members}) > 1 for members in groups)


def _best(candidates: Sequence[Setting]) -> Setting:
    """Of the best score; those with reconstruction and KL before others."""
    return max(candidates, key=lambda s: (s.role is Role.BOTH, s.score if not math.isnan(s.score) else -math.inf))


def _spread(candidates: Sequence[Setting], axis: str, most: int) -> list[Setting]:
    """Of each role the settings spread over the axis, as many as there is room for; the best one is among them."""
    chosen: list[Setting] = []
    roles = groups_of(sorted(candidates, key=lambda s: s.role), lambda s: s.role)
    room = max(most - sum(role is not Role.BOTH for role in roles), 1)
    for role, members in roles.items():
        members = sorted(members, key=lambda s: sort_key(s.values.get(axis)))
        count = room if role is Role.BOTH or len(roles) == 1 else 1
        chosen += evenly(members, count, _best(members))
    return chosen[:most]


def evenly(members: Sequence[Setting], count: int, kept: Setting) -> list[Setting]:
    """`count` of the members, evenly spread from the first to the last, `kept` in place of the nearest."""
    if len(members) <= count:
        return list(members)
    at = members.index(kept)
    places = [round(i * (len(members) - 1) / max(count - 1, 1)) for i in range(count)]
    if at not in places:
        inner = range(1, count - 1) if count > 2 else range(count)
        places[min(inner, key=lambda i: abs(places[i] - at))] = at
    return [members[place] for place in sorted(set(places))]


def _one_of_each(combinations: Sequence[list[Setting]], numeric: Sequence[str], varying: Sequence[str], most: int) -> Choice:
    """One setting of each combination of texts: at the values that all have, of which the best, else the best of each."""
    axes = [key for key in numeric if any(len({s.values[key] for s in members}) > 1 for members in combinations)]
    by_values = [{(s.role, *(s.values[key] for key in axes)): s for s in members} for members in combinations]
    common = functools.reduce(lambda a, b: [key for key in a if key in b], by_values[1:], list(by_values[0]))
    alone = all(len(members) == 1 for members in combinations)
    if alone or not common:
        chosen, note = [_best(members) for members in combinations], "" if alone else "the best of each by elbo"
    else:
        totals = {key: sum(v for v in (found[key].score for found in by_values) if not math.isnan(v)) for key in common}
        best = max(common, key=lambda key: (key[0] is Role.BOTH, totals[key]))
        chosen = [found[best] for found in by_values]
        note = ", ".join(told(key, value, varying) for key, value in zip(axes, best[1:], strict=True))
        note = f"{note} in all" if note else ""
    if len(chosen) > most:
        note = ", ".join(filter(None, [note, f"{most} of {len(chosen)} settings"]))
        chosen = sorted(chosen, key=lambda s: -s.score if not math.isnan(s.score) else math.inf)[:most]
    return Choice(
        sorted((s for members in combinations for s in members if s in chosen), key=lambda s: s.role), style.plain(note)
    )
