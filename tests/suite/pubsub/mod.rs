//! Publish and subscribe, as clients see it. The server runs in the process of the tests.

mod commands;
mod ends;
mod limits;
mod order;
mod stress;
