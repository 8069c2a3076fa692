//! Implements the codec's [`Shaped`] for every message, from the shapes that build.rs generates out
//! of `abi.proto`. It lives here because `abi` and `codec` do not depend on each other.

use crate::codec::{Shape, Shaped};

include!(concat!(env!("OUT_DIR"), "/shapes.rs"));
