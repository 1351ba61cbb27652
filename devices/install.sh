#!/bin/sh
# Install edgeasr on a Raspberry Pi or a Jetson into an environment of its own, and hear a clip with it.
#
#   sh install.sh [FOLDER] [PIP OPTION...]
#
# FOLDER is ~/edgeasr unless given. PIP OPTIONs go to `pip install`: --no-index --find-links WHEELS without a network.
# INSTALL_PACKAGE is what pip installs: the source tree that this lies in unless set, `edgeasr` where it lies in none;
# a path to a wheel, say, or edgeasr[litert].
# INSTALL_MODEL is the bundle to hear the clip with: the one that comes along unless set. 32-bit Bookworm needs one that
# was exported with --target tflite-armv7.
set -eu

usage() {
    sed -n '2,10s/^# \{0,1\}//p' "$0"
}

say() {
    printf '%s\n' "$*"
}

fail() {
    say "install.sh: $*" >&2
    exit 2
}

case ${1-} in
    -h | --help) usage; exit 0 ;;
    '' | -*) folder=$HOME/edgeasr ;;
    *) folder=$1; shift ;;
esac
[ "$#" = 0 ] || case $1 in
    -*) ;;
    *) fail "got the words $folder and $1, wanted one folder and then options of pip: see --help" ;;
esac
tree=$(dirname "$0")/..
if [ -n "${INSTALL_PACKAGE-}" ]; then
    package=$INSTALL_PACKAGE
elif [ -f "$tree/pyproject.toml" ]; then
    package=$tree
else
    package=edgeasr
fi

[ -z "${INSTALL_MODEL-}" ] || [ -e "$INSTALL_MODEL" ] || fail "there is no bundle $INSTALL_MODEL: set INSTALL_MODEL to one"
command -v apt-get >/dev/null || fail 'got a system without apt-get, wanted Raspberry Pi OS, Debian, Ubuntu or JetPack: see docs/install.md'

# Programs of 32 bits may run on a kernel of 64: what counts is dpkg's architecture.
architecture=$(dpkg --print-architecture)
case $architecture in
    arm64 | amd64 | armhf) ;;
    *) fail "got a system of $architecture, wanted arm64, amd64 or armhf: there are no packages for others" ;;
esac

# JetPack 5 and 6 bring Python 3.8 and 3.10: a newer one has to be named.
python=${PYTHON:-python3}
command -v "$python" >/dev/null || fail "got no program $python: apt-get install python3, or set PYTHON"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case $version in
    2.* | 3.[0-9] | 3.10)
        fail "got Python $version, wanted 3.11 or newer: set PYTHON to one, JetPack's users as docs/install.md says" ;;
esac

packages="$(basename "$python")-venv libportaudio2 gcc libc6-dev" # the compiler halves the time of recognition
system_packages=''
as_32_bits=''
if [ "$architecture" = armhf ]; then
    # PyPI has no wheels of numpy and cffi for it: Debian's are used, and libraries where wheels bring their own.
    packages="$packages python3-numpy python3-cffi libsndfile1 libsoxr0"
    system_packages=--system-site-packages
    if [ "$version" = 3.11 ]; then
        [ -n "${INSTALL_MODEL-}" ] ||
            fail 'got no INSTALL_MODEL on 32 bits with Python 3.11, wanted a model exported for tflite-armv7, or Trixie'
        case $package in
            *']') ;;
            *) package="${package}[tflite]" ;;
        esac
    else
        packages="$packages python3-onnxruntime" # Debian has it since Trixie, PyPI never had
    fi
    # pip asks the kernel what it runs on, and one of 64 bits would not say 32.
    [ "$(uname -m)" != aarch64 ] || as_32_bits='setarch linux32'
fi
missing=''
for one in $packages; do
    dpkg-query -W -f '${db:Status-Status}' "$one" 2>/dev/null | grep -qx installed || missing="$missing $one"
done
if [ -n "$missing" ]; then
    say "Installing$missing through apt"
    as_root=''
    [ "$(id -u)" = 0 ] || as_root=sudo
    # shellcheck disable=SC2086 # words, each a package
    DEBIAN_FRONTEND=noninteractive $as_root apt-get -qq install --no-install-recommends -y $missing >/dev/null ||
        fail "apt-get could not install$missing: run apt-get update, then this again"
fi

say "Installing $package into $folder"
# shellcheck disable=SC2086 # nothing or one word; nothing or two
"$python" -m venv $system_packages "$folder" || fail "no environment could be made in $folder: name another folder"
# shellcheck disable=SC2086
$as_32_bits "$folder/bin/python" -m pip --disable-pip-version-check install --quiet "$@" "$package" ||
    fail "pip could not install $package into $folder: what it said is above"

say 'Hearing the bundled clip'
clip=$("$folder/bin/python" -c 'import edgeasr, pathlib; print(pathlib.Path(edgeasr.__file__).parent / "models" / "demo.flac")')
wanted='it was the first time that she had seen the old house
there was a man in the house and he had a great deal of money'
heard=$("$folder/bin/edgeasr" transcribe "$clip" ${INSTALL_MODEL:+--model "$INSTALL_MODEL"}) || fail "edgeasr could not transcribe $clip: run $folder/bin/edgeasr doctor"
# Another model may hear other words.
[ -z "${INSTALL_MODEL-}" ] || [ -z "$heard" ] || wanted=$heard
[ "$heard" = "$wanted" ] || fail "heard '$heard', wanted '$wanted': run $folder/bin/edgeasr doctor"
say "$heard"
say "It works. What else listening needs: $folder/bin/edgeasr doctor"
say "Then speak: $folder/bin/edgeasr listen"
