//! The promises of every storage, and how the one on disk treats its directory.

mod broken;
mod contract;
mod damage;
mod format;
mod model;
mod steps;
