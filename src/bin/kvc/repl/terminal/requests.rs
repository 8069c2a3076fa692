//! Requests of a session on a terminal, each of which Ctrl-C cancels.
//!
//! A command uses the current connection, or a new one with all subscriptions on it. A write that
//! is cancelled after it was sent may have been executed.

use std::time::Duration;

use kv::Promise;
use kv::abi::{CommandRequest, CommandResponse};
use tokio::task::spawn_blocking;

use super::printing::print;
use super::signals::interrupted;
use super::{CANCELLED, NoAnswer, Terminal};
use crate::commands::answer::{Answer, Question};
use crate::commands::ping::{self, PingArgs};
use crate::commands::scan::Part;
use crate::commands::subscribe::{Subscription, TIMEOUT_HINT};
use crate::commands::{Remote, Task, info};
use crate::connection::{Options, within};
use crate::failure::{Failure, Interface};
use crate::input::literal::Literals;
use crate::output::Format;
use crate::repl::grammar::ConnectArgs;
use crate::repl::session::{Ready, connected};

impl Terminal {
    /// Runs a command that asks the server, with the format and the timeout of its line.
    pub(super) async fn remote(
        &mut self,
        command: Remote,
        (format, timeout): (Option<Format>, Option<Duration>),
    ) -> Result<(), NoAnswer> {
        let task = uninterrupted(task(command)).await?;
        let options = &self.session.options;
        let options = options.with(
            format.unwrap_or(options.output),
            timeout.unwrap_or(options.timeout),
        );
        let report = match task {
            Task::Request(request) => return self.request(request, &options).await,
            Task::Subscribe(what) => {
                self.subscribe(&what, format, &options).await?;
                if timeout.is_some() && what.until.within.is_none() {
                    self.note(TIMEOUT_HINT);
                }
                return Ok(());
            }
            Task::Ping(ping) => self.pong(&ping, &options).await?,
            Task::Info => self.facts(&options).await?,
        };
        printed(Answer::Report(report), options.output).await
    }

    async fn request(
        &mut self,
        request: CommandRequest,
        options: &Options,
    ) -> Result<(), NoAnswer> {
        let question = Question::from(&request);
        let perhaps_executed = question.is_write();
        self.ready().await?;
        let mut response = tokio::select! {
            response = self.session.ask(request, options.timeout) => response?,
            () = interrupted() => return Err(NoAnswer::Cancelled { perhaps_executed }),
        };
        // A table that does not exist has no pairs either.
        let exists = !response.pairs.is_empty() || *question.promise() != Promise::Pairs;
        let note = match Part::of(&question, &mut response) {
            Some(part) => self.part_note(&part, options).await,
            None => None,
        };
        let answer = Answer::Response(question.clone(), response);
        printed(answer, options.output).await?;
        if let Some(note) = note {
            self.note(&note);
        }
        if exists {
            self.names.answered(&question);
        }
        Ok(())
    }

    /// A note about a scan that ended before its table.
    async fn part_note(&self, part: &Part, options: &Options) -> Option<String> {
        let unknown = |failure| Some(part.unknown(&failure, Interface::Prompt));
        let Some((client, _)) = self.session.client() else {
            return unknown(self.session.not_connected());
        };
        tokio::select! {
            note = part.note(client, options, Interface::Prompt) => note,
            () = interrupted() => unknown(Failure::Interrupted("cancelled".to_owned())),
        }
    }

    async fn pong(
        &mut self,
        ping: &PingArgs,
        options: &Options,
    ) -> Result<CommandResponse, NoAnswer> {
        if let Some(patience) = ping.wait {
            let waited = uninterrupted(async {
                // These attempts use connections of their own: the session keeps its connection
                // even if an answer is late.
                let client = ping::wait(options, patience).await?;
                client.close().await;
                Ok(())
            });
            waited.await?;
        }
        self.on_connection(async |client| ping::pong(options, ping, client).await)
            .await
    }

    async fn facts(&mut self, options: &Options) -> Result<CommandResponse, NoAnswer> {
        self.on_connection(async |client| info::facts(options, client).await)
            .await
    }

    /// Runs several requests that change nothing on the connection.
    async fn on_connection<T>(
        &mut self,
        work: impl AsyncFnOnce(&kv::Client) -> Result<T, Failure>,
    ) -> Result<T, NoAnswer> {
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

    /// Makes sure that there is a connection, and subscribes again if it is a new one.
    pub(super) async fn ready(&mut self) -> Result<(), NoAnswer> {
        let ready = tokio::select! {
            ready = self.session.ready() => ready?,
            () = interrupted() => return Err(CANCELLED),
        };
        if matches!(ready, Ready::Again) {
            self.note(&format!("connected to {} again", self.session.options.addr));
        }
        let Some(on) = self.session.client() else {
            return Err(self.session.not_connected().into());
        };
        let renewed = tokio::select! {
            renewed = within(&self.session.options, self.subscribed.renew(on)) => renewed,
            () = interrupted() => return Err(CANCELLED),
        };
        match self.session.answered(renewed)? {
            0 => {}
            1 => self.note("subscribed again; messages published meanwhile were missed"),
            many => self.note(&format!(
                "subscribed again to all {many}; messages published meanwhile were missed"
            )),
        }
        Ok(())
    }

    async fn subscribe(
        &mut self,
        what: &Subscription,
        format: Option<Format>,
        options: &Options,
    ) -> Result<(), NoAnswer> {
        self.ready().await?;
        let Some(on) = self.session.client() else {
            return Err(self.session.not_connected().into());
        };
        let added = tokio::select! {
            added = within(options, self.subscribed.add(on, what, format)) => added,
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

    /// Connects to another server, or again to the same one. The old connection and its
    /// subscriptions stay until the new connection works.
    pub(super) async fn connect(
        &mut self,
        server: &ConnectArgs,
        timeout: Option<Duration>,
    ) -> Result<(), NoAnswer> {
        let connected = self.try_to_connect(server, timeout).await;
        connected.map_err(|no_answer| NoAnswer::StaysConnected(Box::new(no_answer)))?;
        self.note(&format!("connected to {}", self.session.options.addr));
        Ok(())
    }

    async fn try_to_connect(
        &mut self,
        server: &ConnectArgs,
        timeout: Option<Duration>,
    ) -> Result<(), NoAnswer> {
        let now = &self.session.options;
        let same = now.clone();
        let (options, is_other) = uninterrupted(chosen(server.clone(), same)).await?;
        let this_time = options.with(options.output, timeout.unwrap_or(options.timeout));
        let client = uninterrupted(connected(&this_time)).await?;
        if is_other {
            let ended = self.subscribed.list().len();
            self.subscribed.remove(&[]);
            self.session.switch(options, client);
            match ended {
                0 => {}
                1 => self.note("the subscription has ended"),
                many => self.note(&format!("the {many} subscriptions have ended")),
            }
            return Ok(());
        }
        let on = (&client, self.session.next_generation());
        let renewed = uninterrupted(within(&this_time, self.subscribed.renew(on))).await?;
        self.session.switch(options, client);
        match renewed {
            0 => {}
            1 => self.note("subscribed again"),
            many => self.note(&format!("subscribed again to all {many}")),
        }
        Ok(())
    }
}

/// The options for the server to connect to, and whether it is another one. The files that they
/// come from may be pipes.
async fn chosen(server: ConnectArgs, same: Options) -> Result<(Options, bool), Failure> {
    let chosen = spawn_blocking(move || {
        let other = server.chosen(&same)?;
        let is_other = other.is_some();
        Ok((other.unwrap_or(same), is_other))
    });
    let lost = |error| Failure::Local(format!("cannot find the server: {error}"));
    chosen.await.map_err(lost)?
}

async fn printed(answer: Answer, format: Format) -> Result<(), NoAnswer> {
    match print(answer, format).await {
        Some(printed) => Ok(printed?),
        None => Err(CANCELLED),
    }
}

/// What a command asks. Its values may come from a pipe that nobody writes to.
async fn task(command: Remote) -> Result<Task, Failure> {
    let task = spawn_blocking(move || command.task(&mut Literals::of_commands()));
    let lost = |error| Failure::Local(format!("cannot read the values: {error}"));
    task.await.map_err(lost)?
}

/// Runs `work`, unless Ctrl-C comes first.
async fn uninterrupted<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, NoAnswer> {
    tokio::select! {
        done = work => Ok(done?),
        () = interrupted() => Err(CANCELLED),
    }
}
