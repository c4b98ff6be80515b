//! How RocksDB is set up: one column family per class of table, one cache for all.

use chappe_kv::Class;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType,
    Options as RocksOptions,
};

/// A file is compacted early once so many of so many rows that follow each other say that something is deleted.
const DELETED: usize = 4_000;
const DELETED_OF: usize = 8_000;
/// Files of tables that are open at a time, at most.
pub const OPEN_FILES: u16 = 1024;

/// Names on disk; never change one.
pub(crate) const FAMILIES: [&str; 4] = ["point", "index", "bulk", "queue"];

/// The column family of a class.
pub(crate) fn family(class: Class) -> &'static str {
    match class {
        Class::Point => "point",
        Class::Index => "index",
        Class::Bulk => "bulk",
        Class::Queue => "queue",
    }
}

/// What an operator may tune.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether a commit answers only when it is on disk. Switch off only to measure what it costs.
    pub sync: bool,
    /// Bytes of the block cache that all tables share.
    pub cache_bytes: usize,
    /// Bytes of new rows kept in memory before they are written out, over all tables.
    pub write_buffer_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { sync: true, cache_bytes: 256 << 20, write_buffer_bytes: 128 << 20 }
    }
}

impl Options {
    pub(crate) fn database(&self) -> RocksOptions {
        let mut options = RocksOptions::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_db_write_buffer_size(self.write_buffer_bytes);
        options.set_max_total_wal_size(2 * self.write_buffer_bytes as u64);
        options.set_max_background_jobs(2);
        options.set_max_open_files(OPEN_FILES.into());
        options.set_bytes_per_sync(1 << 20);
        options.set_keep_log_file_num(3);
        options.set_max_log_file_size(16 << 20);
        options
    }

    pub(crate) fn families(&self) -> Vec<ColumnFamilyDescriptor> {
        let cache = Cache::new_lru_cache(self.cache_bytes);
        FAMILIES
            .into_iter()
            .map(|name| ColumnFamilyDescriptor::new(name, self.family_options(name, &cache)))
            .collect()
    }

    fn family_options(&self, name: &str, cache: &Cache) -> RocksOptions {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(cache);
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        blocks.set_format_version(5);
        // In a database that is larger than the cache a look-up reads a few KiB of index and filter, not all of a file's.
        blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        blocks.set_pin_top_level_index_and_filter(true);
        if name != "queue" {
            blocks.set_bloom_filter(10.0, false);
            blocks.set_partition_filters(true);
        }
        blocks.set_block_size(if name == "bulk" { 16 << 10 } else { 4 << 10 });
        let mut options = RocksOptions::default();
        options.set_block_based_table_factory(&blocks);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_write_buffer_size(self.write_buffer_bytes / 4);
        // 1,024 open files reach for 128 GiB.
        options.set_target_file_size_base(128 << 20);
        // Short rows as well: uncompressed, those of "point" and "queue" took half as much as the events themselves.
        options.set_compression_type(DBCompressionType::Lz4);
        // Whoever looks for the first row of a queue walks over all that was deleted before it.
        options.add_compact_on_deletion_collector_factory(DELETED_OF, DELETED, 0.5);
        options
    }
}
