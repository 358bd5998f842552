"""Set what the post says beside what the studies measured, claim by claim, with a verdict by a stated rule.

    python -m experiments.claims --workdir=runs
    python -m experiments.claims --workdir=runs --write

Reads the directories that ./scripts/reproduce makes; --write also writes docs/post.md and docs/post.zh.md.
"""

import pathlib

from absl import flags

from experiments import command_line

_WORKDIR = flags.DEFINE_string("workdir", "runs", "Directory that holds the directories of the studies.")
_WRITE = flags.DEFINE_bool("write", False, "Write docs/post.md and docs/post.zh.md.")


def main() -> None:
    from vae_jax.figures import claims, post
    from vae_jax.storage import run_directory

    judged = claims.judge(_WORKDIR.value, post.CLAIMS)
    print(claims.text(judged))
    for language, name in enumerate(("post.md", "post.zh.md") if _WRITE.value else ()):
        with run_directory.atomic_write(pathlib.Path("docs") / name) as file:
            file.write(claims.page(judged, language))


if __name__ == "__main__":
    command_line.run(main)
