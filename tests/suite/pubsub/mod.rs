//! Publish and subscribe, as clients of a server in the test's own process see it.

mod commands;
mod ends;
mod limits;
mod order;
mod stress;
