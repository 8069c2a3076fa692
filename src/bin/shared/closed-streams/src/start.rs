//! The check of the streams, in a constructor of the program.
//!
//! It makes two system calls and stores a number. It neither allocates nor uses anything that the
//! runtime has yet to set up.

use std::sync::atomic::{AtomicU8, Ordering};

use rustix::fs::{OFlags, fcntl_getfl};
use rustix::stdio;

pub(crate) const STDIN: u8 = 1;
pub(crate) const STDOUT: u8 = 2;

/// The streams that were closed or open in the wrong direction, one bit each.
static CLOSED: AtomicU8 = AtomicU8::new(0);

ctor::declarative::ctor! {
    #[ctor(unsafe)]
    fn look() {
        for (stream, descriptor, direction) in [
            (STDIN, stdio::stdin(), OFlags::RDONLY),
            (STDOUT, stdio::stdout(), OFlags::WRONLY),
        ] {
            let is_usable = fcntl_getfl(descriptor).is_ok_and(|flags| {
                let mode = flags & OFlags::RWMODE;
                mode == direction || mode == OFlags::RDWR
            });
            if !is_usable {
                CLOSED.fetch_or(stream, Ordering::Relaxed);
            }
        }
    }
}

pub(crate) fn was_closed(stream: u8) -> bool {
    CLOSED.load(Ordering::Relaxed) & stream != 0
}
