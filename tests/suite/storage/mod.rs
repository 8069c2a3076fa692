//! What every storage promises, and what the one on disk does with its directory.

mod contract;
mod damage;
mod format;
mod model;
