//! The settings of a server, parsed once into valid values.
//!
//! Each setting that people write as text has a type of its own. Its parser says what it got and
//! what is allowed, so nothing has to be checked again later.

mod address;
mod server;
mod slow_subscriber;
mod storage_choice;

pub use address::{Address, DEFAULT_ADDRESS, InvalidAddress};
pub use server::ServerConfig;
pub use slow_subscriber::{SlowSubscriber, UnknownPolicy};
pub use storage_choice::{DEFAULT_STORAGE, StorageChoice, UnknownStorage};
