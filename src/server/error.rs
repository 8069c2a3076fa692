//! Why a server cannot start, or how it failed in the end.
//!
//! No client is told of these errors: they are for the program that runs the server. What a client
//! is told is a [`KvError`](crate::KvError).

use std::io;

use thiserror::Error;

use crate::storage::StorageError;

/// Why a server cannot listen, or did not stop cleanly.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The server cannot listen on an address.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address, as it was given.
        address: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The last sync failed, or was not done in time.
    #[error("storage failed")]
    Storage(#[from] StorageError),
}
