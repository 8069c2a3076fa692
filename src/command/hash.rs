//! The commands on tables. Each is one call of the storage, because one call takes effect at one
//! moment, and writes its answer from where the storage has the values.

use std::ops::ControlFlow;

use super::answer::Answer;
use crate::abi::view::{
    HdelRef, HexistRef, HgetRef, HgetallRef, HlenRef, HmdelRef, HmexistRef, HmgetRef, HmsetRef,
    HscanRef, HsetRef,
};
use crate::abi::{Keys, PairRef, ValueRef};
use crate::storage::{Change, PartLimit, Storage, StorageError};

/// The maximum number of pairs in an answer to `Hscan`.
const MAX_SCANNED: usize = 64 * 1024;

/// The maximum size of the pairs in an answer to `Hscan`, in bytes, unless the first is larger.
/// Larger parts would delay other requests; smaller ones would scan a table in memory more often,
/// because each part scans all of it.
const MAX_SCANNED_BYTES: usize = 4 * 1024 * 1024;

pub(super) fn hget<S: Storage>(
    storage: &S,
    command: &HgetRef<'_>,
    answer: &mut Answer<'_>,
) -> impl Future<Output = Result<(), StorageError>> + Send {
    storage.read(command.table, Keys::one(command.key), |value| match value {
        Some(_) => answer.value(value),
        None => answer.missing(),
    })
}

pub(super) async fn hgetall<S: Storage>(
    storage: &S,
    command: &HgetallRef<'_>,
    answer: &mut Answer<'_>,
) -> Result<(), StorageError> {
    let size = storage.read_size(command.table).await?;
    if answer.expect_pairs(size.keys, size.bytes).is_break() {
        return Ok(());
    }
    storage
        .read_all(command.table, |key, value| answer.pair(key, value))
        .await
}

pub(super) fn hmget<S: Storage>(
    storage: &S,
    command: &HmgetRef<'_>,
    answer: &mut Answer<'_>,
) -> impl Future<Output = Result<(), StorageError>> + Send {
    storage.read(command.table, command.keys, |value| answer.value(value))
}

pub(super) fn hset<S: Storage>(
    storage: &S,
    command: &HsetRef<'_>,
    answer: &mut Answer<'_>,
) -> impl Future<Output = Result<(), StorageError>> + Send {
    // `NameLimits::check_hset` has rejected a request without a pair or a value.
    let key = command.pair.map_or("".into(), |pair| pair.key);
    let value = command.pair.and_then(|pair| pair.value);
    answer.lift_limit();
    storage.write(command.table, Keys::one(key), move |_, previous| {
        answer.restart();
        answer.value(previous)?;
        ControlFlow::Continue(value.map_or(Change::Keep, Change::Set))
    })
}

pub(super) fn hmset<S: Storage>(
    storage: &S,
    command: &HmsetRef<'_>,
    answer: &mut Answer<'_>,
) -> impl Future<Output = Result<(), StorageError>> + Send {
    let pairs = command.pairs;
    let mut rest = pairs.iter();
    storage.write(command.table, pairs.keys(), move |position, previous| {
        if position == 0 {
            answer.restart();
            rest = pairs.iter();
        }
        answer.value(previous)?;
        ControlFlow::Continue(match rest.next() {
            Some(PairRef {
                value: Some(value), ..
            }) => Change::Set(value),
            _ => Change::Keep,
        })
    })
}

pub(super) fn hdel<S: Storage>(
    storage: &S,
    command: &HdelRef<'_>,
    answer: &mut Answer<'_>,
) -> impl Future<Output = Result<(), StorageError>> + Send {
    answer.lift_limit();
    storage.write(command.table, Keys::one(command.key), |_, previous| {
        answer.restart();
        answer.value(previous)?;
        ControlFlow::Continue(Change::Remove)
    })
}

pub(super) fn hmdel<S: Storage>(
    storage: &S,
    command: &HmdelRef<'_>,
    answer: &mut Answer<'_>,
) -> impl Future<Output = Result<(), StorageError>> + Send {
    storage.write(command.table, command.keys, |position, previous| {
        if position == 0 {
            answer.restart();
        }
        answer.value(previous)?;
        ControlFlow::Continue(Change::Remove)
    })
}

pub(super) fn hexist<S: Storage>(
    storage: &S,
    command: &HexistRef<'_>,
    answer: &mut Answer<'_>,
) -> impl Future<Output = Result<(), StorageError>> + Send {
    storage.read_existence(command.table, Keys::one(command.key), |exists| {
        answer.value(Some(exists.into()))
    })
}

pub(super) fn hmexist<S: Storage>(
    storage: &S,
    command: &HmexistRef<'_>,
    answer: &mut Answer<'_>,
) -> impl Future<Output = Result<(), StorageError>> + Send {
    storage.read_existence(command.table, command.keys, |exists| {
        answer.value(Some(exists.into()))
    })
}

pub(super) fn hscan<S: Storage>(
    storage: &S,
    command: &HscanRef<'_>,
    answer: &mut Answer<'_>,
) -> impl Future<Output = Result<(), StorageError>> + Send {
    let wanted = match usize::try_from(command.limit) {
        Ok(0) | Err(_) => usize::MAX,
        Ok(wanted) => wanted,
    };
    let limits = answer.limits();
    let limit = PartLimit::new(
        wanted.min(limits.elements).clamp(1, MAX_SCANNED),
        limits.part_bytes.min(MAX_SCANNED_BYTES),
    );
    storage.read_from(command.table, command.from, limit, |key, value| {
        answer.pair_of_part(key, value)
    })
}

pub(super) async fn hlen<S: Storage>(
    storage: &S,
    command: &HlenRef<'_>,
    answer: &mut Answer<'_>,
) -> Result<(), StorageError> {
    let size = storage.read_size(command.table).await?;
    // No storage holds more than 2^63 keys.
    let keys = i64::try_from(size.keys).unwrap_or(i64::MAX);
    answer.single(ValueRef::Integer(keys));
    Ok(())
}
