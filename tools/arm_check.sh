#!/usr/bin/env bash
# Checks on emulated 64-bit Arm CPUs that engines give the labels that they give here.
#
#     tools/arm_check.sh [FOLDER]
#
# FOLDER keeps the emulator, a Python for Arm and the engines for the next run; without it they go into a temporary folder
# that is removed at the end. Needs an x86-64 Debian or Ubuntu with apt-get, dpkg-deb and Debian's keyring (package
# debian-archive-keyring), a CPU with VNNI, a network, and in PYTHON (default: python) this package with its extras `host`
# and `cpu`. No root. MIRROR is the Debian mirror, CPUS the CPUs, by QEMU's names.
#
# QEMU and Python are those of Debian 13: the QEMU 7.2 of Debian 12 crashes. numpy and ONNX Runtime for Arm have the
# versions of those installed here. Exit code 0: all labels are as they have to be; 3: some are not; another one:
# something is missing.
set -euo pipefail

readonly mirror=${MIRROR:-http://deb.debian.org/debian}
readonly keyring=/usr/share/keyrings/debian-archive-keyring.gpg
readonly python=${PYTHON:-python}
# Without dot products, with them, and with all that QEMU has: also bfloat16 and products of 8-bit matrices.
read -ra cpus <<< "${CPUS:-cortex-a72 cortex-a76 max}"
repository=$(cd "$(dirname "$0")/.." && pwd)
readonly repository

main() {
    if (($# > 1)) || [[ ${1:-} == -* ]]; then
        fail "usage: tools/arm_check.sh [FOLDER]"
    fi
    require
    if (($# == 1)); then
        mkdir -p "$1"
        folder=$(cd "$1" && pwd)
    else
        folder=$(mktemp -d)
        trap 'rm -rf "$folder"' EXIT
    fi
    [[ -e $folder/environment ]] || make_environment
    rm -rf "$folder/engines"
    mkdir "$folder/engines"
    export PYTHONPATH=$repository PYTHONDONTWRITEBYTECODE=1
    "$python" "$repository/tools/arm_engines.py" build "$folder/engines"
    echo "== this machine"
    "$python" "$repository/tools/arm_run.py" "$folder/engines" "$folder/host.npz"
    local cpu results=()
    for cpu in "${cpus[@]}"; do
        echo "== $cpu"
        emulate "$cpu" "$repository/tools/arm_run.py" "$folder/engines" "$folder/$cpu.npz"
        results+=("$folder/$cpu.npz")
    done
    echo "== labels"
    "$python" "$repository/tools/arm_engines.py" compare "$folder/host.npz" "${results[@]}"
}

fail() {
    echo "error: $1" >&2
    exit 2
}

require() {
    local tool
    for tool in apt-get dpkg-deb "$python"; do
        command -v "$tool" > /dev/null || fail "there is no $tool"
    done
    [[ $(dpkg --print-architecture) == amd64 ]] || fail "this system is no x86-64 one: on Arm run the tests themselves"
    [[ -e $keyring ]] || fail "there is no $keyring; fix: apt-get install debian-archive-keyring"
}

# apt-get with lists and packages of its own, which changes nothing of this system and needs no root.
private_apt() {
    APT_CONFIG=$folder/apt/apt.conf apt-get -q "$@"
}

make_environment() {
    rm -rf "$folder"/{apt,root,site,wheels,qemu-aarch64}
    mkdir -p "$folder"/{root,site,wheels} "$folder"/apt/{lists,parts,cache/archives}/partial
    touch "$folder/apt/status"
    echo "deb [signed-by=$keyring] $mirror trixie main" > "$folder/apt/sources.list"
    cat > "$folder/apt/apt.conf" << EOF
Dir::State "$folder/apt";
Dir::State::status "$folder/apt/status";
Dir::Cache "$folder/apt/cache";
Dir::Etc::sourcelist "$folder/apt/sources.list";
Dir::Etc::sourceparts "$folder/apt/parts";
Dir::Etc::preferencesparts "$folder/apt/parts";
Dir::Etc::parts "$folder/apt/parts";
APT::Architecture "arm64";
APT::Architectures { "arm64"; "amd64"; };
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Debug::NoLocking "true";
EOF
    private_apt update
    private_apt install --yes --download-only python3 libstdc++6
    local package
    for package in "$folder"/apt/cache/archives/*.deb; do
        dpkg-deb -x "$package" "$folder/root"
    done
    ln -sfn usr/lib "$folder/root/lib" # where programs look for the loader
    (cd "$folder/apt/cache" && private_apt download qemu-user:amd64)
    dpkg-deb --fsys-tarfile "$folder"/apt/cache/qemu-user_*.deb |
        tar -x -C "$folder" --strip-components=3 ./usr/bin/qemu-aarch64
    install_wheels
    rm -rf "$folder/apt" "$folder/wheels"
    touch "$folder/environment"
}

install_wheels() {
    local wheel wanted version
    version=$(basename "$(readlink "$folder/root/usr/bin/python3")") # python3.13
    wanted=$("$python" -c 'from importlib.metadata import version as of
print(*(f"{name}=={of(name)}" for name in ("numpy", "onnxruntime")))')
    # shellcheck disable=SC2086  # two words
    "$python" -m pip download -q --no-deps --only-binary :all: --implementation cp --python-version "${version#python}" \
        --platform manylinux_2_27_aarch64 --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64 \
        -d "$folder/wheels" $wanted
    for wheel in "$folder"/wheels/*.whl; do
        "$python" -m zipfile -e "$wheel" "$folder/site"
    done
}

emulate() {
    local cpu=$1
    shift
    PYTHONPATH=$repository:$folder/site "$folder/qemu-aarch64" -cpu "$cpu" -L "$folder/root" \
        "$folder/root/usr/bin/python3" -S -P "$@"
}

main "$@"
