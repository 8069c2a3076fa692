//! How rows lie in sled's tree: the keys of its entries, and references to values in parts.
//!
//! The key of a row is the length of its table's name, that name, and the key in the table: no two
//! rows collide, whatever their names contain. An entry holds the encoded value, or a reference to
//! parts of it. Parts are entries of the same tree, sorted behind all tables.
//!
//! A write that is made in several batches has a record of what it replaces, in entries between the
//! tables and the parts: see `undo`.
//!
//! Files on disk depend on everything here.

/// The name of a table follows its length, a big-endian `u64`.
const TABLE_LEN_BYTES: usize = size_of::<u64>();

/// The keys of parts begin with this: the length of a table name that cannot exist. The number of
/// the value and the number of the part follow, big-endian, so that parts are sorted.
const PARTS: [u8; 8] = [0xff; 8];

/// The keys of records begin with this, the length of another name that cannot exist. The number of
/// the record follows, and in its further entries the number of a batch and of an entry, all
/// big-endian.
const RECORDS: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe];

/// A reference begins with this, which no message does: a protobuf tag with field number 0. The
/// number of the value and its length in bytes follow.
const REFERENCE: u8 = 0;

/// The length of a reference.
pub(super) const REFERENCE_LEN: usize = 1 + 2 * size_of::<u64>();

/// The key of a row.
pub(super) fn row_key(table: &[u8], key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(TABLE_LEN_BYTES + table.len() + key.len());
    row.extend_from_slice(&(table.len() as u64).to_be_bytes());
    row.extend_from_slice(table);
    row.extend_from_slice(key);
    row
}

/// The key in its table of a row of a table with a name of `table_len` bytes.
pub(super) fn key_of(table_len: usize, row: &[u8]) -> &[u8] {
    row.get(TABLE_LEN_BYTES + table_len..).unwrap_or_default()
}

/// The name of the table of a row.
pub(super) fn table_of(row: &[u8]) -> Option<&[u8]> {
    let (len, rest) = row.split_first_chunk::<TABLE_LEN_BYTES>()?;
    let len = usize::try_from(u64::from_be_bytes(*len)).ok()?;
    rest.get(..len)
}

/// What the keys of all parts of a value begin with.
pub(super) fn part_prefix(number: u64) -> [u8; 16] {
    let mut prefix = [0xff; 16];
    let (_, tail) = prefix.split_at_mut(PARTS.len());
    tail.copy_from_slice(&number.to_be_bytes());
    prefix
}

/// The key of a part of a value.
pub(super) fn part_key(number: u64, part: u32) -> Vec<u8> {
    [&part_prefix(number)[..], &part.to_be_bytes()].concat()
}

/// The number of the value, if this is the key of a part.
pub(super) fn number_of_part(key: &[u8]) -> Option<u64> {
    let number = key.strip_prefix(&PARTS)?.first_chunk()?;
    Some(u64::from_be_bytes(*number))
}

/// What the keys of all entries of a record begin with. It is also the key of its first entry.
pub(super) fn record_key(number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    let (head, tail) = key.split_at_mut(RECORDS.len());
    head.copy_from_slice(&RECORDS);
    tail.copy_from_slice(&number.to_be_bytes());
    key
}

/// What the keys of a record's entries about one batch begin with.
pub(super) fn record_batch_prefix(number: u64, batch: u32) -> Vec<u8> {
    [&record_key(number)[..], &batch.to_be_bytes()].concat()
}

/// The key of a record's entry about a batch.
pub(super) fn record_batch_key(number: u64, batch: u32, entry: u32) -> Vec<u8> {
    [
        &record_batch_prefix(number, batch)[..],
        &entry.to_be_bytes(),
    ]
    .concat()
}

/// The number of the record, if this is the key of an entry of one, and the number of the batch
/// that the entry is about, if it is not the first.
pub(super) fn number_of_record(key: &[u8]) -> Option<(u64, Option<u32>)> {
    let (number, rest) = key.strip_prefix(&RECORDS)?.split_first_chunk()?;
    let batch = rest.first_chunk().map(|batch| u32::from_be_bytes(*batch));
    Some((u64::from_be_bytes(*number), batch))
}

/// What the keys of the entries of all records begin with.
pub(super) fn records_prefix() -> [u8; 8] {
    RECORDS
}

/// A reference to a value in parts.
pub(super) fn new_reference(number: u64, len: u64) -> Vec<u8> {
    let mut row = Vec::with_capacity(REFERENCE_LEN);
    row.push(REFERENCE);
    row.extend(number.to_be_bytes());
    row.extend(len.to_be_bytes());
    row
}

/// The number and the length of a value in parts, if this is a reference to one.
pub(super) fn reference(row: &[u8]) -> Option<(u64, u64)> {
    let (number, rest) = row.strip_prefix(&[REFERENCE])?.split_first_chunk()?;
    let len = rest.try_into().ok()?;
    Some((u64::from_be_bytes(*number), u64::from_be_bytes(len)))
}

/// The checksum of an entry. It detects damage, not malice: for an entry of the usual, small size
/// it takes a fraction of the time of a CRC.
pub(super) fn checksum(key: &[u8], row: &[u8]) -> u64 {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |sum: u64, word: u64| (sum.rotate_left(29) ^ word).wrapping_mul(MULTIPLIER);
    let mut sum = key.len() as u64;
    for bytes in [key, row] {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            sum = mix(sum, u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        sum = mix(sum, u64::from_le_bytes(last) ^ (bytes.len() as u64) << 56);
    }
    sum ^ sum >> 32
}
