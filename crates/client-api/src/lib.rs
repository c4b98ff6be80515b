//! Client-server HTTP: one file per endpoint; renders sync.
