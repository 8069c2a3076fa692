//! Compiles `abi.proto` into `OUT_DIR`: its messages, and for each message a `Shape` by which the
//! codec counts elements. protox compiles it, so no `protoc` is needed. For the programs, it also
//! lists the modules that `RUST_LOG` can name.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write;
use std::path::Path;
use std::{env, fs, io};

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto};

const PROTO: &str = "abi.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let descriptors = protox::compile([PROTO], ["."])?;
    let messages: Vec<_> = descriptors
        .file
        .iter()
        .flat_map(|file| &file.message_type)
        .cloned()
        .collect();
    let out = env::var("OUT_DIR")?;
    let out = Path::new(&out);
    fs::write(out.join("shapes.rs"), shapes(&messages)?)?;
    if env::var_os("CARGO_FEATURE_CLI").is_some() {
        let modules: Vec<_> = log_modules()?.into_iter().collect();
        fs::write(out.join("modules.rs"), format!("&{modules:?}"))?;
    }
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
fn shapes(messages: &[DescriptorProto]) -> Result<String, Box<dyn Error>> {
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
                write!(nested, "({}, {}::SHAPE), ", field.number(), inner.name())?;
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
            "impl Shaped for {name} {{ const SHAPE: &'static Shape = \
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

/// The modules of the library, such as `kv::net`, and of the server, such as `kvs::start`, sorted.
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
