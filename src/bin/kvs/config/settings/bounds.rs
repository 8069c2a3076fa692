//! Bounds that settings share.

use kv::CodecConfig;

/// 1 TiB, more memory than any machine can spare: a larger value is a typing error.
pub(super) const MAX_MEMORY: usize = match 1_usize.checked_shl(40) {
    Some(bytes) => bytes,
    None => usize::MAX,
};

/// The largest message that the wire can carry. The library silently lowers a larger limit to it;
/// a person should be told.
pub(super) fn largest_message() -> usize {
    CodecConfig::default()
        .with_max_message_len(usize::MAX)
        .max_message_len()
}
