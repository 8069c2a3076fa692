//! The memory cost of stored rows, as requested from the allocator. `cargo bench --bench server --
//! --only stored` measures it with the allocator's overhead, beside Redis.

use allocation_counter::measure;
use futures::executor::block_on;
use kv::{MemTable, Storage, StorageStats};

/// The length of a value.
const VALUE: usize = 64;

fn fill(store: &MemTable, tables: usize, rows: usize) {
    for table in 0..tables {
        let table = format!("table:{table:06}");
        for row in 0..rows {
            let key = format!("key:{row:08}");
            block_on(store.set(&table, &key, "v".repeat(VALUE).as_str().into())).unwrap();
        }
    }
}

/// The memory that such a store uses beyond the rows' keys and values, in bytes per row.
fn overhead(tables: usize, rows: usize) -> i64 {
    let empty = measure(|| drop(std::hint::black_box(MemTable::new()))).bytes_max;
    let mut store = None;
    let info = measure(|| fill(store.insert(MemTable::new()), tables, rows));
    let row = "key:00000000".len() + VALUE;
    let rows = (tables * rows) as i64;
    (info.bytes_current - empty as i64) / rows - row as i64
}

#[test]
fn a_row_in_a_large_table_costs_little_more_than_its_key_and_value() {
    for rows in [1000, 10_000, 62_500] {
        let overhead = overhead(1, rows);
        assert!(overhead <= 12, "{overhead} bytes a row of {rows}");
    }
}

#[test]
fn a_table_of_one_row_costs_little_more_than_its_name_and_row() {
    let name = "table:000000".len() as i64;
    let overhead = overhead(20_000, 1) - name;
    assert!(overhead <= 44, "{overhead} bytes a table");
}

#[test]
fn replacing_a_value_of_the_same_length_allocates_only_for_the_answer() {
    for rows in [1, 16, 1000] {
        let store = MemTable::new();
        fill(&store, 1, rows);
        let value = "w".repeat(VALUE);
        let info = measure(|| {
            block_on(store.set("table:000000", "key:00000000", value.as_str().into())).unwrap();
        });
        assert_eq!(info.count_total, 1, "with {rows} rows");
        assert_eq!(info.bytes_total, VALUE as u64);
    }
}

#[test]
fn removed_rows_leave_nothing_behind() {
    let store = MemTable::new();
    let info = measure(|| {
        fill(&store, 5000, 1);
        fill(&store, 2, 5000);
        for table in 0..5000 {
            let rows = if table < 2 { 5000 } else { 1 };
            let table = format!("table:{table:06}");
            for row in 0..rows {
                block_on(store.del(&table, &format!("key:{row:08}"))).unwrap();
            }
        }
    });
    assert_eq!(store.stats(), StorageStats::new(0, 0));
    assert!(info.bytes_current <= 64 * 1024, "{info:?}");
}
