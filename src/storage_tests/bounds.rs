//! Answers that there is no room for: they are refused, and nothing was done.

use std::collections::BTreeMap;
use std::fmt::Debug;

use futures::executor::block_on;

use super::{NO_LIMIT, all, keys};
use crate::{Applied, Storage, StorageError, Value};

pub(super) fn an_answer_that_there_is_no_room_for_changes_nothing(store: &impl Storage) {
    let ten = |letter: &str| Value::from(letter.repeat(10));
    let before: BTreeMap<_, _> = [("a", ten("x")), ("b", ten("y"))]
        .map(|(key, value)| (key.to_owned(), Some(value)))
        .into();
    block_on(async {
        for (key, value) in &before {
            let value = value.clone().unwrap();
            store.set("t", key, value, NO_LIMIT).await.unwrap();
        }
        let stats = store.stats();
        let both = keys(["a", "b"]);
        let changes = || {
            vec![
                ("c".into(), 1.into()),
                ("a".into(), 2.into()),
                ("a".into(), 3.into()),
                ("b".into(), 4.into()),
            ]
        };
        // The values have 20 bytes, and with their keys 22. A number that is replaced counts with 8.
        too_large(store.get_many("t", &both, 19).await, 19);
        too_large(store.set_many("t", changes(), 19).await, 19);
        too_large(store.del_many("t", &both, 19).await, 19);
        too_large(store.get_all("t", 21).await, 21);
        assert_eq!(all(store, "t").await, before);
        assert_eq!(store.stats(), stats);
        // A table that was not there is not there afterwards either.
        let twice = vec![
            ("k".into(), ten("z")),
            ("k".into(), ten("z")),
            ("k".into(), 1.into()),
        ];
        too_large(store.set_many("new", twice, 19).await, 19);
        assert_eq!(store.stats(), stats);

        assert_eq!(store.get_many("t", &both, 20).await.unwrap().len(), 2);
        assert_eq!(store.get_all("t", 22).await.unwrap().len(), 2);
        store.set_many("t", changes(), 28).await.unwrap();
        assert_eq!(store.get("t", "a").await.unwrap(), Some(3.into()));
        assert_eq!(store.del_many("t", &both, 16).await.unwrap().len(), 2);
    });
}

pub(super) fn a_replaced_value_that_there_is_no_room_for_stays(store: &impl Storage) {
    let values: [(Value, usize); 5] = [
        ("ten bytes!".into(), 10),
        (b"bytes".into(), 5),
        (5.into(), 8),
        (0.5.into(), 8),
        (true.into(), 1),
    ];
    block_on(async {
        for (value, len) in values {
            store.set("t", "k", value.clone(), NO_LIMIT).await.unwrap();
            let stats = store.stats();
            too_large(store.set("t", "k", 1.into(), len - 1).await, len - 1);
            too_large(store.del("t", "k", len - 1).await, len - 1);
            assert_eq!(store.get("t", "k").await.unwrap(), Some(value.clone()));
            assert_eq!(store.stats(), stats);
            let replaced = store.set("t", "k", value.clone(), len).await.unwrap();
            assert_eq!(replaced, Some(value.clone()));
            assert_eq!(store.del("t", "k", len).await.unwrap(), Some(value));
        }
        // What there was not takes no room.
        assert_eq!(store.del("t", "k", 0).await.unwrap(), None);
        assert_eq!(store.set("t", "k", "new".into(), 0).await.unwrap(), None);
    });
}

fn too_large<T: Debug>(outcome: Result<T, StorageError>, limit: usize) {
    let error = outcome.unwrap_err();
    assert!(
        matches!(error, StorageError::AnswerTooLarge { max_bytes } if max_bytes == limit),
        "{error}"
    );
    assert_eq!(error.applied(), Applied::No);
}
