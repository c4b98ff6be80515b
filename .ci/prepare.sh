# Sourced by run and .ci/run: where things are built, and what has to be installed first.
# Everything lands in the user's cache folder, outside the clone.

cache="${XDG_CACHE_HOME:-$HOME/.cache}/chappe"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
export CHAPPE_BIN="$CARGO_TARGET_DIR/debug/chappe"
export PIP_DISABLE_PIP_VERSION_CHECK=1
mkdir -p "$cache"

# Installs Debian packages, or says what to install.
install_packages() {
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing $*"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "$@" >/dev/null
  else
    echo "Please install first: $* (Debian's names), then try again." >&2
    exit 1
  fi
}

# A C++ compiler and libclang for RocksDB, and Rust itself.
need_rust() {
  if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
    PATH="$HOME/.cargo/bin:$PATH"
  fi
  if ! command -v cargo >/dev/null; then
    echo "Please install Rust first, with rustup; Cargo.toml says which version (rust-version)." >&2
    exit 1
  fi
  command -v c++ >/dev/null || install_packages g++
  if ! ldconfig -p | grep -q 'libclang[-.]' && ! ls /usr/lib/llvm-*/lib/libclang*.so* >/dev/null 2>&1; then
    install_packages libclang-dev
  fi
}

# A virtual environment with matrix-nio and Synapse; made again when the pins change.
need_python() {
  command -v python3 >/dev/null || install_packages python3 python3-venv
  python3 -c 'import ensurepip' 2>/dev/null || install_packages python3-venv
  local environment="$cache/python" pins=interop/requirements.txt
  if ! cmp -s "$pins" "$environment/pins"; then
    rm -rf "$environment"
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet --requirement "$pins"
    cp "$pins" "$environment/pins"
  fi
  python="$environment/bin/python"
}

# Node and matrix-js-sdk.
need_node() {
  if ! command -v node >/dev/null || [ "$(node -p 'parseInt(process.versions.node)')" -lt 20 ]; then
    echo "Please install Node.js 20 or later first." >&2
    exit 1
  fi
  if ! cmp -s interop/js/package-lock.json interop/js/node_modules/.chappe-pins; then
    npm ci --prefix interop/js --no-audit --no-fund --loglevel=error
    cp interop/js/package-lock.json interop/js/node_modules/.chappe-pins
  fi
}

# Go, for Complement.
need_go() {
  if ! command -v go >/dev/null; then
    echo "Please install Go 1.25 or later first." >&2
    exit 1
  fi
}
