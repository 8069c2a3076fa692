//! What a session at a terminal asks of its server, each until Ctrl-C.
//!
//! A command has the connection that is there, or a new one with all subscriptions on it. Whatever is given up after it
//! was sent, and was a write, may have been executed.

use std::time::Duration;

use kv::abi::{CommandRequest, CommandResponse};
use tokio::task::spawn_blocking;

use super::printing::print;
use super::signals::interrupted;
use super::{CANCELLED, Terminal, Trouble};
use crate::args::{Args, Command, Listen};
use crate::commands::info;
use crate::commands::ping::{self, PingArgs};
use crate::commands::scan::Part;
use crate::commands::subscribe::TIMEOUT_HINT;
use crate::connection::{is_write, within};
use crate::failure::{Failure, Place};
use crate::input::literal::Literals;
use crate::output::Format;
use crate::repl::grammar::{ConnectArgs, Wanted};
use crate::repl::names::RequestName;
use crate::repl::session::{Ready, connected};

impl Terminal {
    /// A command for the server, with what its line says of the format and the time.
    pub(super) async fn remote(
        &mut self,
        command: Command,
        (format, timeout): (Option<Format>, Option<Duration>),
    ) -> Result<(), Trouble> {
        let (command, request) = uninterrupted(with_values(command)).await?;
        let args = &self.session.args;
        let args = args.for_line(
            format.unwrap_or(args.output),
            timeout.unwrap_or(args.timeout),
        );
        let response = match request {
            Some(request) => return self.request(command, request, &args).await,
            None => match command.asked(Literals::of_commands())?.try_into()? {
                Wanted::Messages(which) => {
                    self.subscribe(&which, format, &args).await?;
                    if timeout.is_some() && which.until.within.is_none() {
                        self.note(TIMEOUT_HINT);
                    }
                    return Ok(());
                }
                Wanted::Pong(ping) => self.pong(ping, &args).await?,
                Wanted::Facts => self.facts(&args).await?,
                Wanted::Answer(_) => return Ok(()),
            },
        };
        printed(command, response, args.output).await
    }

    async fn request(
        &mut self,
        command: Command,
        request: CommandRequest,
        args: &Args,
    ) -> Result<(), Trouble> {
        let perhaps_executed = is_write(&request);
        let name = RequestName::from(&request);
        self.ready().await?;
        let mut response = tokio::select! {
            response = self.session.ask(request, args.timeout) => response?,
            () = interrupted() => return Err(Trouble::Cancelled { perhaps_executed }),
        };
        let exists = !response.pairs.is_empty() || !matches!(command, Command::Hgetall { .. });
        let more = match Part::of(&command, &mut response) {
            Some(part) => self.more(&part, args).await,
            None => None,
        };
        let printed = printed(command, response, args.output).await;
        if let (Ok(()), Some(line)) = (&printed, more) {
            self.note(&line);
        }
        if printed.is_ok() && exists {
            self.names.answered(&name);
        }
        printed
    }

    /// What is to be said behind a part of a table.
    async fn more(&self, part: &Part, args: &Args) -> Option<String> {
        let unknown = |failure| Some(part.unknown(&failure, Place::Prompt));
        let Some((client, _)) = self.session.client() else {
            return unknown(self.session.not_connected());
        };
        tokio::select! {
            more = part.more(client, args, Place::Prompt) => more,
            () = interrupted() => unknown(Failure::Interrupted("cancelled".to_owned())),
        }
    }

    async fn pong(&mut self, ping: &PingArgs, args: &Args) -> Result<CommandResponse, Trouble> {
        if let Some(patience) = ping.wait {
            let waited = uninterrupted(async {
                // Attempts of their own: the connection of the session is not given up for an answer that is late.
                let client = ping::wait(args, patience).await?;
                client.close().await;
                Ok(())
            });
            waited.await?;
        }
        self.on_connection(async |client| ping::pong(args, ping, client).await)
            .await
    }

    async fn facts(&mut self, args: &Args) -> Result<CommandResponse, Trouble> {
        self.on_connection(async |client| info::facts(args, client).await)
            .await
    }

    /// What several requests, which change nothing, come to on the connection.
    async fn on_connection<T>(
        &mut self,
        work: impl AsyncFnOnce(&kv::Client) -> Result<T, Failure>,
    ) -> Result<T, Trouble> {
        self.ready().await?;
        let Some((client, _)) = self.session.client() else {
            return Err(self.session.not_connected().into());
        };
        let done = tokio::select! {
            done = work(client) => done,
            () = interrupted() => return Err(CANCELLED),
        };
        Ok(self.session.answered(done)?)
    }

    /// Has a connection, and subscribes again where it is not the one from before.
    pub(super) async fn ready(&mut self) -> Result<(), Trouble> {
        let ready = tokio::select! {
            ready = self.session.ready() => ready?,
            () = interrupted() => return Err(CANCELLED),
        };
        if matches!(ready, Ready::Again) {
            self.note(&format!("connected to {} again", self.session.args.addr));
        }
        let Some(on) = self.session.client() else {
            return Err(self.session.not_connected().into());
        };
        let renewed = tokio::select! {
            renewed = within(&self.session.args, self.subscribed.renew(on)) => renewed,
            () = interrupted() => return Err(CANCELLED),
        };
        match self.session.answered(renewed)? {
            0 => {}
            1 => self.note("subscribed again; what was published meanwhile is missed"),
            many => self.note(&format!(
                "subscribed again to all {many}; what was published meanwhile is missed"
            )),
        }
        Ok(())
    }

    async fn subscribe(
        &mut self,
        which: &Listen<'_>,
        format: Option<Format>,
        args: &Args,
    ) -> Result<(), Trouble> {
        self.ready().await?;
        let Some(on) = self.session.client() else {
            return Err(self.session.not_connected().into());
        };
        let added = tokio::select! {
            added = within(args, self.subscribed.add(on, which, format)) => added,
            () = interrupted() => return Err(CANCELLED),
        };
        let added = self.session.answered(added)?;
        for name in &added {
            self.note(&format!("subscribed to {name:?}"));
        }
        if added.is_empty() {
            self.note("subscribed already");
        }
        Ok(())
    }

    /// Goes to another server, or connects again to the same one. The old connection and
    /// its subscriptions stay until the new connection works.
    pub(super) async fn connect(
        &mut self,
        server: &ConnectArgs,
        timeout: Option<Duration>,
    ) -> Result<(), Trouble> {
        let connected = self.try_to_connect(server, timeout).await;
        connected.map_err(|trouble| Trouble::Stays(Box::new(trouble)))?;
        self.note(&format!("connected to {}", self.session.args.addr));
        Ok(())
    }

    async fn try_to_connect(
        &mut self,
        server: &ConnectArgs,
        timeout: Option<Duration>,
    ) -> Result<(), Trouble> {
        let now = &self.session.args;
        let same = now.for_line(now.output, now.timeout);
        let (args, is_other) = uninterrupted(chosen(server.clone(), same)).await?;
        let this_time = args.for_line(args.output, timeout.unwrap_or(args.timeout));
        let client = uninterrupted(connected(&this_time)).await?;
        if is_other {
            let ended = self.subscribed.list().len();
            self.subscribed.remove(&[]);
            self.session.switch(args, client);
            match ended {
                0 => {}
                1 => self.note("the subscription has ended"),
                many => self.note(&format!("the {many} subscriptions have ended")),
            }
            return Ok(());
        }
        let on = (&client, self.session.next_generation());
        let renewed = uninterrupted(within(&this_time, self.subscribed.renew(on))).await?;
        self.session.switch(args, client);
        match renewed {
            0 => {}
            1 => self.note("subscribed again"),
            many => self.note(&format!("subscribed again to all {many}")),
        }
        Ok(())
    }
}

/// The arguments for the server that is to be connected to, and whether it is another. The files
/// that they come from may be pipes.
async fn chosen(server: ConnectArgs, same: Args) -> Result<(Args, bool), Failure> {
    let chosen = spawn_blocking(move || {
        let other = server.chosen(&same)?;
        let is_other = other.is_some();
        Ok((other.unwrap_or(same), is_other))
    });
    let lost = |error| Failure::Local(format!("cannot find the server: {error}"));
    chosen.await.map_err(lost)?
}

async fn printed(
    command: Command,
    response: CommandResponse,
    format: Format,
) -> Result<(), Trouble> {
    match print(command, response, format).await {
        Some(printed) => Ok(printed?),
        None => Err(CANCELLED),
    }
}

/// The request of a command, with the values that come from files, if it asks for an answer and no more. A file may be a
/// pipe that nobody writes to.
async fn with_values(command: Command) -> Result<(Command, Option<CommandRequest>), Failure> {
    let asked = spawn_blocking(move || {
        let request = match command.asked(Literals::of_commands())?.try_into()? {
            Wanted::Answer(request) => Some(request),
            Wanted::Messages(_) | Wanted::Pong(_) | Wanted::Facts => None,
        };
        Ok((command, request))
    });
    let lost = |error| Failure::Local(format!("cannot read the values: {error}"));
    asked.await.map_err(lost)?
}

/// What comes of it, unless Ctrl-C comes first.
async fn uninterrupted<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Trouble> {
    tokio::select! {
        done = work => Ok(done?),
        () = interrupted() => Err(CANCELLED),
    }
}
