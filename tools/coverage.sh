#!/usr/bin/env bash
# Which lines of the package do tests and notebooks run, all together? Everything runs under coverage, which takes long: bash tools/coverage.sh [words for pytest]
set -euo pipefail
cd "$(dirname "$0")/.."
folder="$(mktemp -d)"; trap 'rm -rf "$folder"' EXIT
export COVERAGE_FILE="$folder/data"
python -m coverage run -m pytest tests "$@"
python -m coverage combine -q
python -m coverage report
