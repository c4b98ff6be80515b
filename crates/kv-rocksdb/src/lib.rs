//! The key-value contract on RocksDB.
