#!/bin/sh
# Builds engines of TensorRT from the graphs of the bundle that this file lies in, on the machine that will run them:
#
#     sh build_engine.sh [ARTEFACT ...]       without one, of all artefacts for TensorRT
#
# They go to ~/.cache/edgeasr/engines (below XDG_CACHE_HOME if that is set), where `edgeasr listen --backend tensorrt`
# looks for them, each under the SHA-256 of its graph. An engine that is there is left alone: remove it to build it again.
# TRTEXEC names another trtexec than that on PATH or in /usr/src/tensorrt/bin. The end is 0 when all engines are there,
# and 2, after one line, where something is missing or fails.
set -eu
umask 077

bundle=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
case ${XDG_CACHE_HOME:-} in
/*) engines=$XDG_CACHE_HOME/edgeasr/engines ;;
*) engines=${HOME:?}/.cache/edgeasr/engines ;;
esac
partial=

fail() {
    echo "build_engine.sh: $*" >&2
    exit 2
}

remove_partial() {
    [ -z "$partial" ] || rm -f -- "$partial"
}
trap remove_partial EXIT
trap 'exit 130' INT TERM

# KNOWN GIVEN...: which artefacts to build
choose() {
    known=$1
    shift
    for one in "$@"; do
        case " $known " in
        *" $one "*) ;;
        *) fail "got artefact $one, wanted some of $known" ;;
        esac
    done
    chosen=" ${*:-$known} "
}

# The path of trtexec, or nothing
find_trtexec() {
    if [ -n "${TRTEXEC:-}" ]; then
        command -v "$TRTEXEC" || true
    elif ! command -v trtexec && [ -x /usr/src/tensorrt/bin/trtexec ]; then
        echo /usr/src/tensorrt/bin/trtexec
    fi
}

hash_of() {
    sha256sum -- "$1" | cut -d ' ' -f 1
}

# LOG: 10.3.0 of [TensorRT v100300], 8.2.1 of [TensorRT v8201]
version_in() {
    number=$(sed -n 's/.*\[TensorRT v\([0-9][0-9]*\)\].*/\1/p' "$1" | head -n 1)
    if [ -z "$number" ]; then
        return
    elif [ "$number" -ge 10000 ]; then
        echo "$((number / 10000)).$((number / 100 % 100)).$((number % 100))"
    else
        echo "$((number / 1000)).$((number / 100 % 10)).$((number % 100))"
    fi
}

capability_in() {
    sed -n 's/.*Compute Capability: \([0-9][0-9]*\.[0-9][0-9]*\).*/\1/p' "$1" | head -n 1
}

# ARTEFACT FILE SHA256 FLAG...: the engine of one graph
build() {
    artefact=$1 file=$2 sha256=$3
    shift 3
    case $chosen in
    *" $artefact "*) ;;
    *) return 0 ;;
    esac
    engine=$engines/$sha256.engine record=$engines/$sha256.json log=$engines/$sha256.log
    if [ -f "$engine" ] && [ -f "$record" ]; then
        echo "$file: there already, $engine"
        return 0
    fi
    trtexec=$(find_trtexec)
    [ -n "$trtexec" ] || fail "got no trtexec, wanted that of JetPack: apt install libnvinfer-bin, or set TRTEXEC"
    [ -f "$bundle/$file" ] || fail "$bundle has no $file: copy the whole bundle"
    [ "$(hash_of "$bundle/$file")" = "$sha256" ] || fail "$bundle/$file is not what was exported: copy the bundle again"
    mkdir -p -- "$engines"
    echo "$file: building with $trtexec, which takes minutes"
    partial=$engines/.$sha256.$$
    "$trtexec" --onnx="$bundle/$file" --saveEngine="$partial" --timingCacheFile="$engines/timing.cache" "$@" \
        </dev/null >"$log" 2>&1 || fail "trtexec fails on $file, see $log: $(grep -F '[E]' "$log" | tail -n 1)"
    [ -s "$partial" ] || fail "trtexec wrote no engine of $file, see $log"
    rm -f -- "$record"
    mv -- "$partial" "$engine"
    partial=$record.$$
    printf '{"onnx_sha256": "%s", "engine_sha256": "%s", "tensorrt": "%s", "compute_capability": "%s"}\n' \
        "$sha256" "$(hash_of "$engine")" "$(version_in "$log")" "$(capability_in "$log")" >"$partial"
    mv -- "$partial" "$record"
    partial=
    echo "$file: wrote $engine"
}
