//! The two clients, at servers that do what a test says and at real ones.

mod broken;
mod calls;
mod end;
mod promises;
mod prost;
mod reconnect;
mod restart;
mod shared;
mod threads;
