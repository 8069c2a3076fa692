//! Compares the codec with what one would write without it: `LengthDelimitedCodec` plus prost for
//! frames, plain flate2 for gzip, and libdeflate as a yardstick. Every comparison is within one
//! run, on the same messages; on a shared machine ratios are meaningful, absolute times less so.
//!
//!     cargo bench --bench codec

#![allow(
    missing_docs,
    reason = "criterion's macros make functions that have none"
)]
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;
use std::io::{Read, Write};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main,
};
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use kv::abi::{CommandRequest, CommandResponse, Kvpair, Value};
use kv::{CodecConfig, Compression, ProstCodec};
use libdeflater::{CompressionLvl, Compressor, Decompressor};
use prost::Message;
use tokio_util::codec::{Decoder, Encoder, LengthDelimitedCodec};

type Requests = ProstCodec<CommandRequest, CommandRequest>;
type Responses = ProstCodec<CommandResponse, CommandResponse>;

const BATCH: usize = 1000;

fn small_requests() -> [(&'static str, CommandRequest); 2] {
    let value = Value::from("v".repeat(64));
    [
        ("hget", CommandRequest::new_hget("table", "key:000001")),
        (
            "hset of 64 bytes",
            CommandRequest::new_hset("table", "key:000001", value),
        ),
    ]
}

fn length_delimited() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .max_frame_length(16 * 1024 * 1024)
        .new_codec()
}

fn uncompressed() -> CodecConfig {
    CodecConfig::default().with_compression(None)
}

fn small_frames(c: &mut Criterion) {
    for (name, request) in small_requests() {
        let mut group = group(c, &format!("encode {name}"));
        let mut buffer = BytesMut::with_capacity(64 * 1024);
        let mut codec = Requests::new(CodecConfig::default());
        group.bench_function("kv", |b| {
            b.iter_batched(
                || request.clone(),
                |request| {
                    buffer.clear();
                    codec.encode(request, &mut buffer).unwrap();
                },
                BatchSize::SmallInput,
            );
        });
        let mut codec = length_delimited();
        group.bench_function("length-delimited", |b| {
            b.iter_batched(
                || request.clone(),
                |request| {
                    buffer.clear();
                    codec
                        .encode(Bytes::from(request.encode_to_vec()), &mut buffer)
                        .unwrap();
                },
                BatchSize::SmallInput,
            );
        });
        group.finish();
        decode_batch(
            c,
            &format!("decode {name}, {BATCH} in one buffer"),
            &request,
        );
    }
}

fn decode_batch(c: &mut Criterion, name: &str, request: &CommandRequest) {
    let mut wire = BytesMut::new();
    for _ in 0..BATCH {
        Requests::new(CodecConfig::default())
            .encode(request.clone(), &mut wire)
            .unwrap();
    }
    let mut group = group(c, name);
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("kv", |b| {
        let mut codec = Requests::new(CodecConfig::default());
        b.iter_batched(
            || wire.clone(),
            |mut wire| {
                while let Some(request) = codec.decode(&mut wire).unwrap() {
                    black_box(request);
                }
            },
            BatchSize::LargeInput,
        );
    });
    group.bench_function("length-delimited", |b| {
        let mut codec = length_delimited();
        b.iter_batched(
            || wire.clone(),
            |mut wire| {
                while let Some(frame) = codec.decode(&mut wire).unwrap() {
                    black_box(CommandRequest::decode(frame.freeze()).unwrap());
                }
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn large_binary(c: &mut Criterion) {
    let request = CommandRequest::new_hset("table", "key", Value::binary(vec![7; 1024 * 1024]));
    let mut wire = BytesMut::new();
    Requests::new(uncompressed())
        .encode(request, &mut wire)
        .unwrap();
    let mut group = group(c, "decode 1 MiB binary");
    group.bench_function("kv", |b| {
        let mut codec = Requests::new(uncompressed());
        b.iter_batched(
            || BytesMut::from(&wire[..]),
            |mut wire| (codec.decode(&mut wire).unwrap(), wire),
            BatchSize::LargeInput,
        );
    });
    group.bench_function("length-delimited", |b| {
        let mut codec = length_delimited();
        b.iter_batched(
            || BytesMut::from(&wire[..]),
            |mut wire| {
                let frame = codec.decode(&mut wire).unwrap().unwrap();
                (CommandRequest::decode(frame.freeze()).unwrap(), wire)
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

/// A response with pairs whose values are JSON, like those of services, of about this encoded
/// length.
fn response(len: usize) -> CommandResponse {
    let pair = |i: usize| {
        let (a, b) = (
            i.wrapping_mul(2_654_435_761) % 100_000,
            i.wrapping_mul(40_503) % 1000,
        );
        let json = format!(
            r#"{{"id":{a},"name":"user {b}","active":{},"score":{b}.5}}"#,
            i.is_multiple_of(3)
        );
        Kvpair::new(format!("user:{i:06}"), json.into())
    };
    let mut pairs = Vec::new();
    let mut encoded = 0;
    while encoded < len {
        pairs.push(pair(pairs.len()));
        encoded += 3 + pairs.last().map_or(0, Message::encoded_len);
    }
    pairs.into()
}

fn gzip(c: &mut Criterion) {
    for (name, len) in [
        ("1.5 KB", 1500),
        ("16 KiB", 16 * 1024),
        ("1 MiB", 1024 * 1024),
    ] {
        let response = response(len);
        let plain = response.encode_to_vec();
        let mut group = group(c, &format!("compress {name}"));
        group.throughput(Throughput::Bytes(plain.len() as u64));
        for level in [1, 2, 3, 6] {
            let compression = Some(Compression::default().with_level(level));
            let mut codec = Responses::new(CodecConfig::default().with_compression(compression));
            let mut wire = BytesMut::new();
            codec.encode(response.clone(), &mut wire).unwrap();
            group.bench_function(format!("kv, level {level}, to {} bytes", wire.len()), |b| {
                b.iter_batched(
                    || response.clone(),
                    |response| {
                        wire.clear();
                        codec.encode(response, &mut wire).unwrap();
                    },
                    BatchSize::LargeInput,
                );
            });
        }
        for level in [2, 6] {
            let to = flate2_plainly(&response, level).len();
            group.bench_function(format!("flate2, level {level}, to {to} bytes"), |b| {
                b.iter(|| flate2_plainly(&response, level));
            });
        }
        for level in [1, 6] {
            let mut compressor = Compressor::new(CompressionLvl::new(level).unwrap());
            let mut out = vec![0; compressor.gzip_compress_bound(plain.len())];
            let to = compressor.gzip_compress(&plain, &mut out).unwrap();
            group.bench_function(format!("libdeflate, level {level}, to {to} bytes"), |b| {
                b.iter(|| {
                    compressor
                        .gzip_compress(&response.encode_to_vec(), &mut out)
                        .unwrap()
                });
            });
        }
        group.finish();
        gunzip(c, name, &response);
    }
}

fn flate2_plainly(response: &CommandResponse, level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(&response.encode_to_vec()).unwrap();
    encoder.finish().unwrap()
}

fn gunzip(c: &mut Criterion, name: &str, response: &CommandResponse) {
    let mut wire = BytesMut::new();
    Responses::new(CodecConfig::default())
        .encode(response.clone(), &mut wire)
        .unwrap();
    let member = wire.get(4..).map(Bytes::copy_from_slice).unwrap();
    let mut group = group(c, &format!("inflate and decode {name}"));
    group.bench_function("kv", |b| {
        let mut codec = Responses::new(CodecConfig::default());
        b.iter_batched(
            || wire.clone(),
            |mut wire| codec.decode(&mut wire).unwrap(),
            BatchSize::LargeInput,
        );
    });
    group.bench_function("flate2", |b| {
        b.iter(|| {
            let mut plain = Vec::new();
            GzDecoder::new(&member[..]).read_to_end(&mut plain).unwrap();
            CommandResponse::decode(Bytes::from(plain)).unwrap()
        });
    });
    group.bench_function("libdeflate", |b| {
        let mut decompressor = Decompressor::new();
        let len = response.encoded_len();
        b.iter(|| {
            let mut plain = vec![0; len];
            decompressor.gzip_decompress(&member, &mut plain).unwrap();
            CommandResponse::decode(Bytes::from(plain)).unwrap()
        });
    });
    group.finish();
}

fn group<'a>(c: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    group
}

criterion_group!(benches, small_frames, large_binary, gzip);
criterion_main!(benches);
