//! Tables that come, go and change their form, under threads too.

use futures::executor::block_on;

use super::*;

#[test]
fn reading_creates_no_table_and_the_last_row_takes_its_table_with_it() {
    let store = MemTable::new();
    let keys = ["a".to_owned(), "b".to_owned()];
    block_on(async {
        store.get("t", "a").await.unwrap();
        store.get_many("t", &keys, usize::MAX).await.unwrap();
        store.get_all("t", usize::MAX).await.unwrap();
        store.contains("t", "a").await.unwrap();
        store.contains_many("t", &keys).await.unwrap();
        store.del("t", "a", usize::MAX).await.unwrap();
        store.del_many("t", &keys, usize::MAX).await.unwrap();
        store.set_many("t", Vec::new(), usize::MAX).await.unwrap();
        drop(store.get_iter("t"));
        assert_eq!(store.tables(), 0);

        store.set("t", "a", 1.into(), usize::MAX).await.unwrap();
        store.set("t", "b", 2.into(), usize::MAX).await.unwrap();
        store.del("t", "a", usize::MAX).await.unwrap();
        assert_eq!(store.tables(), 1);
        store.del_many("t", &keys, usize::MAX).await.unwrap();
        assert_eq!(store.tables(), 0);
    });
}

#[test]
fn a_table_is_whole_under_threads_that_empty_it_and_fill_it() {
    // With 16 rows it lies in its shard, with 17 it has a lock of its own, with 65 from the beginning.
    for rows in [16, 17, 65] {
        let store = MemTable::new();
        let keys: Vec<_> = (0..rows).map(|row| row.to_string()).collect();
        let fill = |stamp: i64| {
            let pairs = keys.iter().map(|key| (key.clone(), stamp.into()));
            let write = store.set_many("t", pairs.collect(), usize::MAX);
            whole(block_on(write).unwrap(), rows);
        };
        let empty = || {
            let removed = block_on(store.del_many("t", &keys, usize::MAX));
            whole(removed.unwrap(), rows);
        };
        let read = || {
            let pairs = block_on(store.get_all("t", usize::MAX)).unwrap();
            assert!(pairs.is_empty() || pairs.len() == rows);
            whole(pairs.into_iter().map(|pair| pair.value).collect(), rows);
        };
        std::thread::scope(|scope| {
            scope.spawn(|| (0..2000).for_each(fill));
            scope.spawn(|| (2000..4000).for_each(fill));
            scope.spawn(|| (0..2000).for_each(|_| empty()));
            scope.spawn(|| (0..2000).for_each(|_| read()));
        });
        let keys = block_on(store.get_all("t", usize::MAX)).unwrap().len() as u64;
        assert_eq!(store.stats(), StorageStats::new(u64::from(keys > 0), keys));
    }
}

/// What one command wrote, or nothing.
fn whole(values: Vec<Option<Value>>, rows: usize) {
    let mut values = values.into_iter();
    if let Some(first) = values.next() {
        assert_eq!(values.len(), rows - 1);
        assert!(values.all(|value| value == first), "half of a command");
    }
}

#[test]
fn a_shard_gives_back_the_room_of_tables_that_are_gone() {
    let store = MemTable::new();
    let names: Vec<_> = (0..20_000).map(|table| table.to_string()).collect();
    for name in &names {
        block_on(store.set(name, "k", 1.into(), usize::MAX)).unwrap();
    }
    let room = || -> usize {
        let shards = store.shards.iter();
        shards.map(|shard| shard.read().capacity()).sum()
    };
    assert!(room() >= names.len());
    for name in &names {
        block_on(store.del(name, "k", usize::MAX)).unwrap();
    }
    assert_eq!(store.stats(), StorageStats::new(0, 0));
    assert!(room() < 2048, "{}", room());
}
