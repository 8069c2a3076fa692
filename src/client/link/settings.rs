//! [`LinkSettings`]: what all connections of a client have in common.

use tokio::io::{AsyncRead, AsyncWrite};

use super::Link;
use crate::client::config::ClientConfig;
use crate::client::error::ClientError;
use crate::codec::CodecConfig;

/// The settings that all connections of a client share.
#[derive(Debug, Clone, Copy)]
pub(in crate::client) struct LinkSettings {
    codec: CodecConfig,
    max_under_way: usize,
    plain_answers: bool,
}

impl LinkSettings {
    pub(in crate::client) fn of(config: &ClientConfig) -> Self {
        Self {
            codec: config.codec,
            max_under_way: config.max_under_way,
            plain_answers: config.plain_answers,
        }
    }

    pub(in crate::client) fn link<IO>(self, io: IO, number: u64) -> Link
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let link = Link::new(io, self.codec, self.max_under_way, number);
        if self.plain_answers {
            link.ask_for_plain_answers();
        }
        link
    }
}

/// Waits for the stream and makes a connection of it.
pub(in crate::client) async fn linked<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: impl Future<Output = Result<IO, ClientError>>,
    settings: LinkSettings,
    number: u64,
) -> Result<Link, ClientError> {
    Ok(settings.link(stream.await?, number))
}
