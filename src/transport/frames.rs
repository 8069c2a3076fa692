//! Reading frames from a stream that may be TLS.
//!
//! TLS tells a peer that says goodbye from one that is just gone, so that nobody can cut a message short unseen.
//! A frame says how long it is, so for this protocol both are an end: a clean one between frames, and a
//! truncated frame inside one.

use std::io::ErrorKind;
use std::task::{Context, Poll};

use futures::StreamExt;
use tokio::io::AsyncRead;
use tokio_util::codec::{Decoder, Framed};

use crate::codec::DecodeError;

/// What comes next, or [`None`] at the end.
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

/// [`poll_next`], which calls `cut` where the stream ends without TLS's goodbye.
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
        // As it is: a request is large enough to be worth not moving.
        _ => next,
    }
}
