#!/bin/sh
# Makes .venv, ready to run: GNU Radio from apt, everything else from pip. `make setup` calls it.
#
# GNU Radio has no wheels, so the virtual environment stands on the system's Python and sees its
# packages. NumPy must then be the one GNU Radio was built for. Running this again takes a second:
# a stamp remembers what it was last made from.
#
# UOISC_PYTHON  a Python that can already `import gnuradio` (conda-forge, own build): apt is then
#               left alone. Default: /usr/bin/python3 and apt. See docs/install.md.
set -eu

cd "$(dirname "$0")/.."
apt_packages="gnuradio uhd-host python3-venv"
# For the window of GNU Radio Companion, which Debian's gnuradio neither needs nor recommends.
apt_packages="$apt_packages gir1.2-gtk-3.0"
# The tests build a radio that is not there and drive it through gr-soapy and gr-uhd.
apt_packages="$apt_packages g++ libsoapysdr-dev uhd-soapysdr"
python=${UOISC_PYTHON:-/usr/bin/python3}
venv=.venv
numpy_constraint=$venv/constraints-numpy.txt
stamp=$venv/uoisc-setup.stamp
# What lies in ~/.local is neither the system's nor ours: pip must not count on it.
export PYTHONNOUSERSITE=1

say() { printf 'setup: %s\n' "$*"; }
stop() { printf 'setup: %s\n' "$*" >&2; exit 1; }

missing_apt_packages() {
    for package in $apt_packages; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' ||
            printf '%s ' "$package"
    done
}

install_apt_packages() {
    command -v apt-get >/dev/null && command -v dpkg-query >/dev/null ||
        stop "this machine has no apt. Install GNU Radio 3.10 another way (conda-forge, say) and" \
            "run: make setup UOISC_PYTHON=/path/to/its/python. See docs/install.md."
    missing=$(missing_apt_packages)
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" -eq 0 ]; then
        as_root=env
    elif command -v sudo >/dev/null; then
        as_root="sudo env"
    else
        stop "needs these packages and may not install them: run as root:" \
            "apt-get install --no-install-recommends $missing"
    fi
    say "installing with apt: $missing"
    $as_root apt-get -q update
    # shellcheck disable=SC2086  # one word per package
    $as_root DEBIAN_FRONTEND=noninteractive \
        apt-get -q install -y --no-install-recommends $missing
}

check_python() {
    [ -x "$python" ] || stop "$python does not exist or is not executable."
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        stop "$("$python" --version) at $python is too old, Python 3.11 or newer is needed" \
            "(Debian 12, Ubuntu 24.04 or newer; otherwise see docs/install.md)."
    "$python" -c 'import numpy; from gnuradio import gr' ||
        stop "$python cannot import GNU Radio (the reason is above). See docs/install.md."
}

fingerprint() {
    "$python" -c 'import hashlib, sys, numpy
digest = hashlib.sha256(f"{sys.executable} {sys.version} {numpy.__version__}".encode())
for name in sys.argv[1:]:
    digest.update(open(name, "rb").read())
print(digest.hexdigest())' scripts/setup.sh pyproject.toml constraints.txt
}

make_venv() {
    # One that was copied, moved, or stands on another Python is of no use.
    if [ -e $venv ] && ! { grep -q '^include-system-site-packages = true' $venv/pyvenv.cfg &&
        $venv/bin/python -c 'import sys; sys.exit(sys.argv[1] != sys.prefix)' "$PWD/$venv" &&
        [ "$("$python" -c 'import sys; print(sys.base_prefix, sys.version)')" = \
            "$($venv/bin/python -c 'import sys; print(sys.base_prefix, sys.version)')" ]; }; then
        say "$venv does not fit $python, making it anew"
        rm -rf $venv
    fi
    [ -e $venv ] || { say "making $venv over $python" && "$python" -m venv --system-site-packages $venv; }
}

install_python_packages() {
    # Not below the system's NumPy, not above its major version: GNU Radio's bindings break there.
    "$python" -c 'import numpy
version = numpy.__version__
print(f"numpy>={version},<{int(version.partition(chr(46))[0]) + 1}")' >$numpy_constraint
    say "installing Python packages with pip (about 2 GB the first time)"
    $venv/bin/python -m pip install --quiet --disable-pip-version-check \
        --editable '.[dev,diffusion,perceptual,ray,train]' --constraint constraints.txt --constraint $numpy_constraint
    # What counts in the end: everything together in one process.
    $venv/bin/python -c 'import numba, numpy, torch, zmq; from gnuradio import gr' ||
        stop "the new environment cannot import GNU Radio, NumPy, Numba and torch together."
}

[ -n "${UOISC_PYTHON:-}" ] || install_apt_packages
check_python
wanted=$(fingerprint)
if [ -x $venv/bin/uoisc ] && [ "$(cat $stamp 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi
make_venv
install_python_packages
printf '%s\n' "$wanted" >$stamp
say "done, the command is $venv/bin/uoisc"
