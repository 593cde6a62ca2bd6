#!/bin/sh
# Makes a virtual environment with the first Python that is new enough: make_venv.sh DIRECTORY
# PYTHON=/path/to/python names one to use instead.
set -eu
directory=$1

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
has_venv() { "$1" -c 'import venv, ensurepip' 2>/dev/null; }

without_venv=
for python in ${PYTHON:-python3.11 python3 python3.12 python3.13 python3.14}; do
  if is_new_enough "$python"; then
    if has_venv "$python"; then
      echo "Making $directory with $("$python" --version)"
      exec "$python" -m venv "$directory"
    fi
    without_venv=${without_venv:-$python}
  fi
done

if [ -n "$without_venv" ]; then
  echo "$without_venv lacks the venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2
else
  echo "Python 3.11 or newer was not found. On Debian and Ubuntu: apt-get install python3 python3-venv;" \
    "or name one: make PYTHON=/path/to/python3.11 ..." >&2
fi
exit 1
