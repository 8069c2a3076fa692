//! Compiles `abi.proto` into `OUT_DIR` with protox, which is Rust: no `protoc` is needed.

use std::error::Error;

const PROTO: &str = "abi.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let descriptors = protox::compile([PROTO], ["."])?;
    prost_build::Config::new()
        // A binary value is a slice of the frame it came in, not a copy of it.
        .bytes(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
