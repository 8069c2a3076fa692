//! The commands of a load, and how often each comes: `hget:9,hset:1`.

use std::fmt;
use std::str::FromStr;

/// The largest weight of a command, which keeps the sum far from overflow.
const MAX_WEIGHT: u32 = 1_000_000;

/// A command that a load can contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Hget,
    Hset,
    Hmget,
    Hmset,
    Hexist,
    Hdel,
    Publish,
    Ping,
    /// Removes the keys at the end. It cannot be part of a mix.
    Hmdel,
}

impl Kind {
    const IN_MIX: [Self; 8] = [
        Self::Hget,
        Self::Hset,
        Self::Hmget,
        Self::Hmset,
        Self::Hexist,
        Self::Hdel,
        Self::Publish,
        Self::Ping,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hget => "hget",
            Self::Hset => "hset",
            Self::Hmget => "hmget",
            Self::Hmset => "hmset",
            Self::Hexist => "hexist",
            Self::Hdel => "hdel",
            Self::Publish => "publish",
            Self::Ping => "ping",
            Self::Hmdel => "hmdel",
        }
    }

    /// Whether the command reads or writes the table.
    pub(crate) fn touches_table(self) -> bool {
        !matches!(self, Self::Publish | Self::Ping)
    }

    /// How many keys a request names.
    pub(crate) fn keys(self, batch: usize) -> usize {
        match self {
            Self::Hget | Self::Hset | Self::Hexist | Self::Hdel => 1,
            Self::Hmget | Self::Hmset | Self::Hmdel => batch,
            Self::Publish | Self::Ping => 0,
        }
    }

    /// How many values a request carries.
    pub(crate) fn values(self, batch: usize) -> usize {
        match self {
            Self::Hset | Self::Publish => 1,
            Self::Hmset => batch,
            Self::Hget | Self::Hmget | Self::Hexist | Self::Hdel | Self::Ping | Self::Hmdel => 0,
        }
    }
}

/// Commands with their weights. Each command occurs once, and no weight is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mix(Vec<(Kind, u32)>);

impl Mix {
    /// A mix of one command.
    pub(crate) fn only(kind: Kind) -> Self {
        Self(vec![(kind, 1)])
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Kind, u32)> + '_ {
        self.0.iter().copied()
    }

    pub(crate) fn touches_table(&self) -> bool {
        self.iter().any(|(kind, _)| kind.touches_table())
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.iter();
        let parts: Vec<_> = parts
            .map(|(kind, weight)| format!("{}:{weight}", kind.name()))
            .collect();
        f.write_str(&parts.join(","))
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut mix: Vec<(Kind, u32)> = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part.split_once(':').unwrap_or((part, "1"));
            let kind = kind(name)?;
            let weight = weight
                .parse()
                .ok()
                .filter(|weight| (1..=MAX_WEIGHT).contains(weight))
                .ok_or_else(|| {
                    format!(
                        "the weight {weight:?} of {} is not a number from 1 to {MAX_WEIGHT}",
                        kind.name()
                    )
                })?;
            if mix.iter().any(|(known, _)| *known == kind) {
                return Err(format!("{} is listed twice", kind.name()));
            }
            mix.push((kind, weight));
        }
        Ok(Self(mix))
    }
}

fn kind(name: &str) -> Result<Kind, String> {
    let mut kinds = Kind::IN_MIX.into_iter();
    let found = kinds.find(|kind| kind.name().eq_ignore_ascii_case(name));
    found.ok_or_else(|| {
        let names = Kind::IN_MIX.map(Kind::name).join(", ");
        format!(
            "unknown command {name:?}; write COMMAND:WEIGHT separated by commas, with these \
            commands: {names}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_without_a_weight_has_weight_1() {
        let mix: Mix = "hget:9,HSET".parse().unwrap();
        assert_eq!(mix, Mix(vec![(Kind::Hget, 9), (Kind::Hset, 1)]));
        assert_eq!(mix.to_string(), "hget:9,hset:1");
    }

    #[test]
    fn refuses_malformed_mixes() {
        for (text, part) in [
            ("", "unknown command \"\""),
            ("get:1", "unknown command \"get\""),
            ("hmdel", "unknown command"),
            ("hget:0", "\"0\" of hget"),
            ("hget:1000001", "from 1 to 1000000"),
            ("hget:-1", "\"-1\""),
            ("hget:1,hget:2", "twice"),
            ("hget:1,", "unknown command \"\""),
        ] {
            let error = text.parse::<Mix>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
