//! The two clients, against scripted servers and real ones.

mod broken;
mod calls;
mod end;
mod promises;
mod prost;
mod reconnect;
mod restart;
mod shared;
mod threads;
