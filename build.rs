//! Compiles `abi.proto` into `OUT_DIR`: its messages, with protox, which is Rust, so that no `protoc` is
//! needed; and the shape of each message, by which the codec counts elements.

use std::error::Error;
use std::fmt::Write;
use std::{env, fs, path::Path};

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
    fs::write(
        Path::new(&env::var("OUT_DIR")?).join("shapes.rs"),
        shapes(&messages)?,
    )?;
    prost_build::Config::new()
        // A binary value is a slice of the frame it came in, not a copy of it.
        .bytes(["."])
        // By the type, in the order of the fields, then by what is in it; NaN has no place. Pairs by their keys first.
        .type_attribute(".abi.Value", "#[derive(PartialOrd)]")
        .type_attribute(".abi.Kvpair", "#[derive(PartialOrd)]")
        .compile_fds(descriptors)?;
    Ok(())
}

/// An implementation of `Shaped` for every message.
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

/// The message that a field holds.
fn message_of<'a>(
    field: &FieldDescriptorProto,
    messages: &'a [DescriptorProto],
) -> Option<&'a DescriptorProto> {
    let name = field.type_name().rsplit('.').next()?;
    messages.iter().find(|message| message.name() == name)
}
