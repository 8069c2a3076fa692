//! Compiles `abi.proto` into `OUT_DIR`. protox compiles it, so no `protoc` is needed.
//!
//! - `abi.rs`: the messages.
//! - `shapes.rs`: for each message a `Shape` by which the codec counts elements.
//! - `commands.rs`: the list of commands, for `src/abi/command.rs`.
//! - `exports.rs`: the messages of the commands, for `src/abi/mod.rs` and `src/lib.rs`.
//! - `views.rs`: borrowed views of requests, for `src/abi/view/mod.rs`.
//! - `modules.rs`: for the programs, the modules that `RUST_LOG` can name.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write;
use std::path::Path;
use std::{env, fs, io};

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::source_code_info::Location;
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto, SourceCodeInfo};

const PROTO: &str = "abi.proto";

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed={PROTO}");
    let mut descriptors = protox::compile([PROTO], ["."])?;
    let [file] = &mut descriptors.file[..] else {
        return Err(format!("{PROTO}: imports are not supported").into());
    };
    let out = env::var("OUT_DIR")?;
    let out = Path::new(&out);
    fs::write(out.join("shapes.rs"), shapes(&file.message_type)?)?;
    let commands = commands(file)?;
    fs::write(out.join("commands.rs"), command_list(&commands))?;
    fs::write(out.join("exports.rs"), exports(&commands))?;
    fs::write(out.join("views.rs"), views(&commands)?)?;
    if env::var_os("CARGO_FEATURE_CLI").is_some() {
        let modules: Vec<_> = log_modules()?.into_iter().collect();
        fs::write(out.join("modules.rs"), format!("&{modules:?}"))?;
    }
    remove_trailing_comments(file);
    prost_build::Config::new()
        // A binary value is a slice of its frame, not a copy.
        .bytes(["."])
        // Values compare by type, in field order, then by content; NaN is unordered. Pairs compare
        // by key, then by value.
        .type_attribute(".abi.Value", "#[derive(PartialOrd)]")
        .type_attribute(".abi.Kvpair", "#[derive(PartialOrd)]")
        .compile_fds(descriptors)?;
    Ok(())
}

/// Generates an implementation of `Shaped` for every message.
fn shapes(messages: &[DescriptorProto]) -> Result<String> {
    let mut code = String::new();
    for message in messages {
        let repeated: Vec<i32> = message
            .field
            .iter()
            .filter(|f| is_repeated(f))
            .map(|f| f.number())
            .collect();
        let mut nested = String::new();
        for field in &message.field {
            if let Some(inner) =
                message_of(field, messages).filter(|inner| has_repeated(inner, messages))
            {
                write!(
                    nested,
                    "({}, crate::abi::{}::SHAPE), ",
                    field.number(),
                    inner.name()
                )?;
            }
        }
        for field in message.field.iter().filter(|field| is_repeated(field)) {
            if !matches!(field.r#type(), Type::String | Type::Bytes | Type::Message) {
                return Err(format!(
                    "{}: numbers are packed; teach Shape to count them",
                    field.name()
                )
                .into());
            }
        }
        let name = message.name();
        writeln!(
            code,
            "impl Shaped for crate::abi::{name} {{ const SHAPE: &'static Shape = \
             &Shape {{ repeated: &{repeated:?}, messages: &[{nested}] }}; }}"
        )?;
    }
    Ok(code)
}

fn is_repeated(field: &FieldDescriptorProto) -> bool {
    field.label() == Label::Repeated
}

fn has_repeated(message: &DescriptorProto, messages: &[DescriptorProto]) -> bool {
    message.field.iter().any(|field| {
        is_repeated(field)
            || message_of(field, messages).is_some_and(|inner| has_repeated(inner, messages))
    })
}

/// The message type of a field, if it has one.
fn message_of<'a>(
    field: &FieldDescriptorProto,
    messages: &'a [DescriptorProto],
) -> Option<&'a DescriptorProto> {
    let name = field.type_name().rsplit('.').next()?;
    messages.iter().find(|message| message.name() == name)
}

/// A command: a field of the request, and the message in it.
struct Command {
    /// The name of the field: `hget`.
    name: String,
    /// What prost calls the variant: `Hget`.
    variant: String,
    number: i32,
    /// The comment above the field, in lines.
    doc: Vec<String>,
    /// The variant of `Effect`: `Read`.
    effect: &'static str,
    /// The name of the message, and so of the view but for its `Ref`.
    message: String,
    /// In the order of their numbers.
    fields: Vec<Field>,
}

/// A field of a command.
struct Field {
    name: String,
    number: i32,
    kind: Kind,
}

/// The types of fields that views know. `Reader` in `src/abi/view/mod.rs` reads each.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Text,
    Keys,
    Pair,
    Pairs,
    Values,
    Number,
}

/// The commands in the order of their numbers.
fn commands(file: &FileDescriptorProto) -> Result<Vec<Command>> {
    const REQUEST: &str = "CommandRequest";
    let messages = &file.message_type;
    let mut of_file = messages.iter().enumerate();
    let (at, request) = of_file
        .find(|(_, message)| message.name() == REQUEST)
        .ok_or_else(|| format!("{PROTO}: no message {REQUEST}"))?;
    let mut commands = Vec::new();
    for (index, field) in request.field.iter().enumerate() {
        let name = field.name();
        let message = message_of(field, messages)
            .ok_or_else(|| format!("{PROTO}: command {name} is no message"))?;
        let location = location(file.source_code_info.as_ref(), at, index);
        let comments = location.ok_or_else(|| format!("{PROTO}: no comments at {name}"))?;
        commands.push(Command {
            name: name.to_owned(),
            variant: capitalized(name),
            number: field.number(),
            doc: comments
                .leading_comments()
                .lines()
                .map(str::to_owned)
                .collect(),
            effect: effect(name, comments.trailing_comments().trim())?,
            message: message.name().to_owned(),
            fields: fields(message, messages)?,
        });
    }
    commands.sort_by_key(|command| command.number);
    Ok(commands)
}

fn capitalized(name: &str) -> String {
    let first = name.chars().take(1).map(|first| first.to_ascii_uppercase());
    first.chain(name.chars().skip(1)).collect()
}

/// Where a field stands in the source, with its comments.
fn location(info: Option<&SourceCodeInfo>, message: usize, field: usize) -> Option<&Location> {
    // The numbers of FileDescriptorProto.message_type and DescriptorProto.field.
    let path = [
        4,
        i32::try_from(message).ok()?,
        2,
        i32::try_from(field).ok()?,
    ];
    info?.location.iter().find(|location| location.path == path)
}

fn effect(command: &str, word: &str) -> Result<&'static str> {
    Ok(match word {
        "read" => "Read",
        "write" => "Write",
        "connection" => "Connection",
        "message" => "Message",
        "" => return Err(format!("{PROTO}: no effect after command {command}").into()),
        word => {
            let message = format!("{PROTO}: unknown effect {word:?} after command {command}");
            return Err(message.into());
        }
    })
}

fn fields(message: &DescriptorProto, messages: &[DescriptorProto]) -> Result<Vec<Field>> {
    let mut fields = Vec::new();
    for field in &message.field {
        let inner = message_of(field, messages).map(DescriptorProto::name);
        let kind = match (field.r#type(), inner, is_repeated(field)) {
            (Type::String, _, false) => Kind::Text,
            (Type::String, _, true) => Kind::Keys,
            (_, Some("Kvpair"), false) => Kind::Pair,
            (_, Some("Kvpair"), true) => Kind::Pairs,
            (_, Some("Value"), true) => Kind::Values,
            (Type::Uint32, _, false) => Kind::Number,
            _ => {
                let (message, field) = (message.name(), field.name());
                return Err(format!(
                    "{message}.{field}: views cannot read this type; teach build.rs and view/mod.rs"
                )
                .into());
            }
        };
        fields.push(Field {
            name: field.name().to_owned(),
            number: field.number(),
            kind,
        });
    }
    fields.sort_by_key(|field| field.number);
    Ok(fields)
}

/// Removes the effects from what prost makes documentation of.
fn remove_trailing_comments(file: &mut FileDescriptorProto) {
    for location in file
        .source_code_info
        .iter_mut()
        .flat_map(|info| &mut info.location)
    {
        location.trailing_comments = None;
    }
}

impl Command {
    /// The field that says what the command is about.
    fn named(&self) -> Option<(&str, &'static str)> {
        self.fields.iter().find_map(|field| {
            let kind = match field.name.as_str() {
                "table" => "Table",
                "topic" => "Topic",
                "pattern" => "Pattern",
                _ => return None,
            };
            Some((field.name.as_str(), kind))
        })
    }

    /// The keys of its view, as an expression.
    fn keys(&self) -> Option<String> {
        self.fields.iter().find_map(|field| {
            let name = &field.name;
            Some(match field.kind {
                Kind::Text if name == "key" => format!("Keys::one(view.{name})"),
                Kind::Keys => format!("view.{name}"),
                Kind::Pair => format!("view.{name}.map_or(Keys::NONE, |pair| Keys::one(pair.key))"),
                Kind::Pairs => format!("view.{name}.keys()"),
                Kind::Text | Kind::Values | Kind::Number => return None,
            })
        })
    }

    /// The name of its view, with or without the lifetime.
    fn view(&self, lifetime: &str) -> String {
        let borrows = self.fields.iter().any(|field| field.kind != Kind::Number);
        format!("{}Ref{}", self.message, if borrows { lifetime } else { "" })
    }
}

/// Re-exports the messages of the commands.
fn exports(commands: &[Command]) -> String {
    let messages: Vec<_> = commands.iter().map(|command| &*command.message).collect();
    format!(
        "pub use crate::abi::generated::{{{}}};",
        messages.join(", ")
    )
}

/// What one function says of each command, joined: the arms of a `match`, or the items of a list.
fn each(commands: &[Command], line: impl Fn(&Command) -> String) -> String {
    commands
        .iter()
        .map(|command| line(command) + "\n")
        .collect()
}

/// Generates `Command`, and what a `CommandRequest` says about its command.
fn command_list(commands: &[Command]) -> String {
    let count = commands.len();
    let variants = each(commands, |Command { variant, doc, .. }| {
        let doc: String = doc.iter().map(|line| format!("///{line}\n")).collect();
        format!("{doc}{variant},")
    });
    let all = each(commands, |Command { variant, .. }| {
        format!("Self::{variant},")
    });
    let names = each(commands, |Command { variant, name, .. }| {
        format!("Self::{variant} => {name:?},")
    });
    let numbers = each(
        commands,
        |Command {
             variant, number, ..
         }| { format!("Self::{variant} => {number},") },
    );
    let effects = each(
        commands,
        |Command {
             variant, effect, ..
         }| { format!("Self::{variant} => Effect::{effect},") },
    );
    let of_requests = each(commands, |Command { variant, .. }| {
        format!("RequestData::{variant}(_) => Command::{variant},")
    });
    let tables = each(commands, |command| {
        match (&command.variant, command.named()) {
            (variant, Some((field, _))) => {
                format!("Some(RequestData::{variant}(command)) => &command.{field},")
            }
            (variant, None) => format!("Some(RequestData::{variant}(_)) => \"\","),
        }
    });
    format!(
        "/// A command, without what it is about.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Command {{ {variants} }}

        impl Command {{
            /// Every command, in the order of their numbers.
            pub const ALL: [Self; {count}] = [{all}];

            /// Its name, in lower case.
            pub fn name(self) -> &'static str {{ match self {{ {names} }} }}

            /// Its number on the wire: that of its field in a [`CommandRequest`].
            pub fn number(self) -> u32 {{ match self {{ {numbers} }} }}

            /// What it may change.
            pub fn effect(self) -> Effect {{ match self {{ {effects} }} }}
        }}

        impl CommandRequest {{
            /// The command; [`None`] if there is none that this library knows.
            pub fn command(&self) -> Option<Command> {{
                Some(match self.request_data.as_ref()? {{ {of_requests} }})
            }}

            /// The table, the topic or the pattern that it names; empty if it names none.
            pub fn table(&self) -> &str {{ match &self.request_data {{ {tables} None => \"\" }} }}
        }}
        "
    )
}

/// Generates a view for each command, and `RequestRef`, which is one of them.
fn views(commands: &[Command]) -> Result<String> {
    let structs: String = commands.iter().map(view).collect::<Result<_>>()?;
    let variants = each(commands, |command| {
        format!("{}({}),", command.variant, command.view("<'a>"))
    });
    let reads = each(commands, |command| {
        let (variant, view) = (&command.variant, command.view(""));
        let tag = command.number << 3 | 2;
        format!("{tag} => Self::{variant}({view}::read(&mut reader)?),")
    });
    let of_views = each(commands, |Command { variant, .. }| {
        format!("Self::{variant}(_) => Command::{variant},")
    });
    let messages = each(commands, |Command { variant, .. }| {
        format!("Self::{variant}(view) => RequestData::{variant}(view.message()),")
    });
    let named = each(commands, |command| {
        match (&command.variant, command.named()) {
            (variant, Some((field, kind))) => {
                format!("Self::{variant}(view) => Named::{kind}(view.{field}),")
            }
            (variant, None) => format!("Self::{variant}(_) => Named::Nothing,"),
        }
    });
    let keys = each(commands, |command| {
        match (&command.variant, command.keys()) {
            (variant, Some(keys)) => format!("Self::{variant}(view) => {keys},"),
            (variant, None) => format!("Self::{variant}(_) => Keys::NONE,"),
        }
    });
    Ok(format!(
        "{structs}

        /// A request, borrowed from its frame.
        #[derive(Debug, Clone, Copy)]
        pub(crate) enum RequestRef<'a> {{ {variants} }}

        impl<'a> RequestRef<'a> {{
            /// Reads a request in the form in which protobuf encoders write it: one command, its
            /// fields in order and each once unless repeated, nothing else. [`None`] for any other,
            /// which [`canonical`] may bring into this form.
            pub(crate) fn read(encoded: &'a [u8]) -> Option<Self> {{
                let (tag, command) = only_field(encoded)?;
                let mut reader = Reader::new(command);
                let request = match tag {{ {reads} _ => return None }};
                reader.is_at_end().then_some(request)
            }}

            /// The command.
            pub(crate) fn command(&self) -> Command {{ match self {{ {of_views} }} }}

            /// The request as a message of its own.
            pub(crate) fn message(&self) -> CommandRequest {{
                CommandRequest::from(match self {{ {messages} }})
            }}

            /// What the request is about.
            pub(crate) fn named(&self) -> Named<'a> {{ match self {{ {named} }} }}

            /// The keys that the request names.
            pub(crate) fn keys(&self) -> Keys<'a> {{ match self {{ {keys} }} }}
        }}
        "
    ))
}

/// Generates the view of one command, with a function that reads its encoded fields.
fn view(command: &Command) -> Result<String> {
    let name = command.view("<'a>");
    let (generics, lifetime) = if name.ends_with('>') {
        ("<'a>", "'a")
    } else {
        ("", "'_")
    };
    let (mut fields, mut reads) = (String::new(), String::new());
    let (mut names, mut owned) = (String::new(), String::new());
    for field in &command.fields {
        let Field { name, number, kind } = field;
        let (rust_type, read, wire_type, to_owned) = match kind {
            Kind::Text => ("Text<'a>", "text", "BYTES", ".into()"),
            Kind::Keys => (
                "Keys<'a>",
                "keys",
                "BYTES",
                ".iter().map(String::from).collect()",
            ),
            Kind::Pair => ("Option<PairRef<'a>>", "pair", "BYTES", ".map(Kvpair::from)"),
            Kind::Pairs => (
                "Pairs<'a>",
                "pairs",
                "BYTES",
                ".iter().map(Kvpair::from).collect()",
            ),
            Kind::Values => (
                "Values<'a>",
                "values",
                "BYTES",
                ".iter().map(Value::from).collect()",
            ),
            Kind::Number => ("u32", "number", "VARINT", ""),
        };
        if *number > 15 {
            return Err(format!("{}.{name}: views read tags of one byte", command.message).into());
        }
        writeln!(fields, "pub(crate) {name}: {rust_type},")?;
        writeln!(
            reads,
            "let {name} = reader.{read}(tag({number}, {wire_type}))?;"
        )?;
        write!(names, "{name}, ")?;
        write!(owned, "{name}: self.{name}{to_owned}, ")?;
    }
    let message = format!("crate::abi::{}", command.message);
    let reader = if reads.is_empty() {
        "_reader"
    } else {
        "reader"
    };
    Ok(format!(
        "#[derive(Debug, Clone, Copy)]
        pub(crate) struct {name} {{ {fields} }}

        impl{generics} {name} {{
            #[inline(always)]
            fn read({reader}: &mut Reader<{lifetime}>) -> Option<Self> {{
                {reads}
                Some(Self {{ {names} }})
            }}

            fn message(&self) -> {message} {{ {message} {{ {owned} }} }}
        }}
        "
    ))
}

/// The modules of the library, such as `kv::server`, and of the server, such as `kvs::start`,
/// sorted.
fn log_modules() -> io::Result<BTreeSet<String>> {
    let mut modules = BTreeSet::new();
    for entry in fs::read_dir("src")? {
        let path = entry?.path();
        if !path.ends_with("bin") {
            // Not all of `src`: a change to kvc does not affect the list.
            println!("cargo::rerun-if-changed={}", path.display());
            add_modules(&path, "kv", &mut modules)?;
        }
    }
    println!("cargo::rerun-if-changed=src/bin/kvs");
    for entry in fs::read_dir("src/bin/kvs")? {
        add_modules(&entry?.path(), "kvs", &mut modules)?;
    }
    // Some modules are in other directories, named by `#[path]`.
    for line in fs::read_to_string("src/bin/kvs/main.rs")?.lines() {
        let declared = line.strip_prefix("mod ");
        if let Some(name) = declared.and_then(|rest| rest.strip_suffix(';')) {
            modules.insert(format!("kvs::{name}"));
        }
    }
    Ok(modules)
}

/// Adds the modules in a file or directory to `modules`; `parent` is the module around them.
fn add_modules(path: &Path, parent: &str, modules: &mut BTreeSet<String>) -> io::Result<()> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let module = match &*name {
        "tests" => return Ok(()),
        "lib" | "main" | "mod" => parent.to_owned(),
        name => format!("{parent}::{name}"),
    };
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            add_modules(&entry?.path(), &module, modules)?;
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        modules.insert(module);
    }
    Ok(())
}
