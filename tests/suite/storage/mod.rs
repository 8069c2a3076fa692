//! What every storage promises, and what the one on disk does with its directory.

mod contract;
mod format;
mod model;
