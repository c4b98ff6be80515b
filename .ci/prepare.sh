# Sourced by run and .ci/run: where things are built, and what has to be installed first.
# Everything lands in the user's cache folder, outside the clone.

cache="${XDG_CACHE_HOME:-$HOME/.cache}/chappe"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
export CHAPPE_BIN="$CARGO_TARGET_DIR/debug/chappe"
export PIP_DISABLE_PIP_VERSION_CHECK=1
mkdir -p "$cache"

# Once more after a while: registries and networks fail at times.
again() { "$@" || { echo "once more: $*" >&2; sleep 10; "$@"; }; }

# Installs Debian packages, or says what to install.
install_packages() {
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing $*"
    # What is known already may do. Somebody else may be installing.
    again apt-get update -qq || true
    DEBIAN_FRONTEND=noninteractive again \
      apt-get -o DPkg::Lock::Timeout=60 install -qq --no-install-recommends "$@" >/dev/null
  else
    echo "Please install first: $* (Debian's names), then try again." >&2
    exit 1
  fi
}

# Rust itself, as new as Cargo.toml says: from rustup, which is fetched if it is not there.
need_cargo() {
  local wanted found
  PATH="$PATH:$HOME/.cargo/bin"
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  found=$(cargo --version 2>/dev/null | cut -d ' ' -f 2 || true)
  [ "$(printf '%s\n' "$wanted" "${found:-0}" | sort -V | head -n 1)" != "$wanted" ] || return 0
  # Debian's own may be in front of a newer one.
  if [ -x "$HOME/.cargo/bin/cargo" ] && [ "$(command -v cargo)" != "$HOME/.cargo/bin/cargo" ]; then
    PATH="$HOME/.cargo/bin:$PATH"
    need_cargo
    return
  fi
  echo "Rust $wanted or later is needed, ${found:-none} is here: installing it with rustup"
  if command -v rustup >/dev/null; then
    rustup toolchain install stable --profile minimal --component rustfmt,clippy
    rustup default stable
  else
    command -v curl >/dev/null || install_packages curl ca-certificates
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs -o "$cache/rustup-init.sh" \
      && sh "$cache/rustup-init.sh" -y --no-modify-path --profile minimal --component rustfmt,clippy \
      || { echo "rustup cannot be had: please install Rust $wanted (https://rustup.rs), then try again." >&2; exit 1; }
  fi
  PATH="$HOME/.cargo/bin:$PATH"
}

# A C++ compiler and libclang for RocksDB, and Rust.
need_rust() {
  command -v c++ >/dev/null || install_packages g++
  # Not libclang-cpp, which other packages bring and RocksDB's bindings cannot use.
  if ! PATH="$PATH:/usr/sbin:/sbin" ldconfig -p | grep -E 'libclang(-[0-9]+)?\.so' >/dev/null &&
    ! compgen -G '/usr/lib/llvm-*/lib/libclang.so*' >/dev/null; then
    install_packages libclang-dev
  fi
  need_cargo
}

# A virtual environment with matrix-nio, mautrix and Synapse; made again when the pins change.
need_python() {
  command -v python3 >/dev/null || install_packages python3 python3-venv
  python3 -c 'import ensurepip' 2>/dev/null || install_packages python3-venv
  local environment="$cache/python" pins=interop/requirements.txt
  if ! cmp -s "$pins" "$environment/pins"; then
    rm -rf "$environment"
    # In a list joined by && nothing ends by itself.
    python3 -m venv "$environment" || return
    again timeout 600 "$environment/bin/pip" install --quiet --requirement "$pins" || return
    cp "$pins" "$environment/pins"
  fi
  python="$environment/bin/python"
}

# Node, matrix-js-sdk, and what drives a browser.
need_node() {
  command -v npm >/dev/null || install_packages nodejs npm
  if [ "$(node -p 'parseInt(process.versions.node)')" -lt 20 ]; then
    echo "Please install Node.js 20 or later first." >&2
    exit 1
  fi
  if ! cmp -s interop/js/package-lock.json interop/js/node_modules/.chappe-pins; then
    again timeout 600 npm ci --prefix interop/js --no-audit --no-fund --loglevel=error || return
    cp interop/js/package-lock.json interop/js/node_modules/.chappe-pins
  fi
}

# The client of interop/rust. In a folder of its own: its dependencies have other features than the server's.
need_rust_sdk() {
  local built="$cache/rust-client"
  CARGO_TARGET_DIR="$built" cargo build --manifest-path interop/rust/Cargo.toml --locked &&
    export CHAPPE_RUST_CLIENT="$built/debug/chappe-interop-rust"
}

# What the lab makes its certificates with.
need_lab() { command -v openssl >/dev/null || install_packages openssl; }

# ClamAV's daemon; its signatures are the test's own.
need_clamav() {
  local path="$PATH:/usr/sbin:/sbin"
  PATH="$path" command -v clamd >/dev/null || (install_packages clamav-daemon) || true
  if ! PATH="$path" command -v clamd >/dev/null; then
    echo "NOT RUN: clamd is not there and Debian's package clamav-daemon cannot be had." >&2
    exit 3
  fi
}

# Debian's browser.
need_chromium() {
  [ -x /usr/bin/chromium ] || (install_packages chromium) || true
  if [ ! -x /usr/bin/chromium ]; then
    echo "NOT RUN: /usr/bin/chromium is not there and Debian's package chromium cannot be had." >&2
    exit 3
  fi
}

# Go, for Complement.
need_go() {
  if ! command -v go >/dev/null; then
    echo "Please install Go 1.25 or later first." >&2
    exit 1
  fi
}

# The Go modules of complement-tests. Where the suite's alone is missing, complement-tests/run says so.
need_go_modules() {
  again timeout 600 go mod download -C complement-tests && return
  if ! GOPROXY=off go list -C complement-tests -deps -test . >/dev/null; then
    echo "NOT RUN: the Go modules of complement-tests cannot be had." >&2
    exit 3
  fi
}
