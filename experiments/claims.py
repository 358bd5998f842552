"""Set what the post says beside what the studies measured, claim by claim, with a verdict by a stated rule.

    python -m experiments.claims --workdir=runs
    python -m experiments.claims --workdir=runs --pages
    python -m experiments.claims --workdir=runs --write

Reads the directories that ./scripts/reproduce makes. --pages also puts the claims on the page of each study (report.html),
--write writes docs/post.md and docs/post.zh.md.
"""

import pathlib

from absl import flags

from experiments import command_line

_WORKDIR = flags.DEFINE_string("workdir", "runs", "Directory that holds the directories of the studies.")
_PAGES = flags.DEFINE_bool("pages", False, "Put the claims on the page of each study too.")
_WRITE = flags.DEFINE_bool("write", False, "Write docs/post.md and docs/post.zh.md.")


def main() -> None:
    from vae_jax.figures import claims, post
    from vae_jax.storage import run_directory

    judged = claims.judge(_WORKDIR.value, post.CLAIMS)
    print(claims.text(judged))
    if _PAGES.value:
        from vae_jax.api import pages

        for workdir in claims.write(pathlib.Path(_WORKDIR.value), judged):
            pages.report(workdir)
    for language, name in enumerate(("post.md", "post.zh.md") if _WRITE.value else ()):
        with run_directory.atomic_write(pathlib.Path("docs") / name) as file:
            file.write(claims.page(judged, language))


if __name__ == "__main__":
    command_line.run(main)
