# Sourced by the scripts: goes to the repository's root and makes .venv from requirements.txt, once.
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ ! -x .venv/bin/python ]; then
  python=""
  for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$candidate; break; fi
  done
  if [ -z "$python" ]; then
    echo "error: vae_jax needs Python 3.11 or newer; ${PYTHON:-python3} is $("${PYTHON:-python3}" -V 2>&1 || echo missing)." \
      "Install one, or name it: PYTHON=/path/to/python3.11 $0" >&2
    exit 1
  fi
  if ! said=$("$python" -m venv .venv 2>&1); then
    rm -rf .venv
    echo "error: $python could not make .venv (${said##*$'\n'}); Debian and Ubuntu need the package python3-venv for it" >&2
    exit 1
  fi
fi

if ! cmp -s requirements.txt .venv/installed.txt; then
  echo "installing requirements.txt into .venv (a minute or two, once)" >&2
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
  cp requirements.txt .venv/installed.txt
fi
