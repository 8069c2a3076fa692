//! Reads frames from a stream that may be TLS.
//!
//! TLS ends a stream with a close_notify alert so that a receiver can detect truncation. This
//! protocol does not depend on it, because every frame carries its length: the end of the stream is
//! a clean close between frames and a truncated frame inside one, with or without close_notify.

use std::io::ErrorKind;
use std::task::{Context, Poll};

use futures::StreamExt;
use tokio::io::AsyncRead;
use tokio_util::codec::{Decoder, Framed};

use crate::codec::DecodeError;

/// Polls for the next frame; [`None`] at the end of the stream.
#[cfg(feature = "client")]
#[inline]
pub(crate) fn poll_next<IO, C>(
    framed: &mut Framed<IO, C>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<C::Item, DecodeError>>>
where
    IO: AsyncRead + Unpin,
    C: Decoder<Error = DecodeError>,
{
    poll_next_or_cut(framed, cx, || ())
}

/// Like [`poll_next`], but calls `cut` if a TLS stream ends without close_notify.
#[inline]
pub(crate) fn poll_next_or_cut<IO, C>(
    framed: &mut Framed<IO, C>,
    cx: &mut Context<'_>,
    cut: impl FnOnce(),
) -> Poll<Option<Result<C::Item, DecodeError>>>
where
    IO: AsyncRead + Unpin,
    C: Decoder<Error = DecodeError>,
{
    let next = framed.poll_next_unpin(cx);
    match &next {
        Poll::Ready(Some(Err(DecodeError::Io(error))))
            if error.kind() == ErrorKind::UnexpectedEof =>
        {
            cut();
            let mut rest = std::mem::take(framed.read_buffer_mut());
            Poll::Ready(framed.codec_mut().decode_eof(&mut rest).transpose())
        }
        // Returned unchanged: a request is large, and rebuilding the value would move it.
        _ => next,
    }
}
