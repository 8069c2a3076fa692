//! The memory of stored rows: how much more is resident once a server has them.
//!
//! One connection writes the rows, a hundred of a table per request, so that nothing else adds to
//! the memory counted.

use kv::abi::{CommandRequest, Kvpair};

use crate::args::{Args, Variant};
use crate::blocking::{BlockingClient, decode};
use crate::process::Server;
use crate::protocol::{Protocol, array, frame, random_text};
use crate::report::{Column, Unit};
use crate::rounds::{self, Rounds};

const ROWS_A_REQUEST: usize = 100;

#[derive(Debug)]
struct Load {
    name: String,
    tables: usize,
    /// The number of rows in each table.
    rows: usize,
    value_len: usize,
}

/// The figures of one run.
#[derive(Debug)]
struct Figures {
    before: f64,
    after: f64,
    rows: f64,
}

const COLUMNS: &[Column<Figures>] = &[
    Column::with_ratio("resident, for the rows", Unit::Bytes, |run| {
        run.after - run.before
    }),
    Column::plain("for a row", Unit::Count, |run| {
        (run.after - run.before) / run.rows
    }),
    Column::plain("resident, in all", Unit::Bytes, |run| run.after),
];

pub(crate) fn run(args: &Args, variants: &[Variant]) {
    let rounds = Rounds {
        args,
        variants,
        columns: COLUMNS,
    };
    // Each run starts its own server.
    let start = |_: &Load, variant| variant;
    rounds.run(loads(args), start, |load, variant, _| {
        measure_once(load, variant)
    });
}

impl rounds::Load for Load {
    fn name(&self) -> &str {
        &self.name
    }
}

fn loads(args: &Args) -> Vec<Load> {
    let load = |tables, rows, value_len| Load {
        name: format!("stored: {tables} tables of {rows} rows, {value_len} B"),
        tables,
        rows,
        value_len,
    };
    let many = args.scaled(62_500);
    vec![
        load(16, many, 64),
        load(16, many, 8),
        load(16, args.scaled(6_250), 1400),
        load(args.scaled(100_000), 1, 64),
        load(args.scaled(100_000), 10, 8),
    ]
}

fn measure_once(load: &Load, variant: &Variant) -> Figures {
    let server = Server::start(variant);
    let mut client = BlockingClient::connect(server.protocol, &server.endpoint);
    let value = random_text(load.value_len);
    let mut write = |table: &str, keys: &[String]| {
        let reply = client.exchange(&request(server.protocol, table, keys, &value));
        match server.protocol {
            Protocol::Kvs => assert!(decode(&reply).is_ok()),
            Protocol::Redis => assert_eq!(reply, format!(":{}\r\n", keys.len()).as_bytes()),
        }
    };
    write("of the first request", &["key".to_owned()]);
    let before = server.resident() as f64;
    let keys: Vec<_> = (0..load.rows).map(|row| format!("key:{row:07}")).collect();
    for table in 0..load.tables {
        let table = format!("table:{table:06}");
        for keys in keys.chunks(ROWS_A_REQUEST) {
            write(&table, keys);
        }
    }
    Figures {
        before,
        after: server.resident() as f64,
        rows: (load.tables * load.rows) as f64,
    }
}

fn request(protocol: Protocol, table: &str, keys: &[String], value: &str) -> Vec<u8> {
    match protocol {
        Protocol::Kvs => {
            let pairs = keys.iter().map(|key| Kvpair::new(&**key, value.into()));
            frame(CommandRequest::new_hmset(table, pairs.collect::<Vec<_>>()))
        }
        Protocol::Redis => {
            let pairs = keys.iter().flat_map(|key| [&**key, value]);
            array(&["HSET", table].into_iter().chain(pairs).collect::<Vec<_>>())
        }
    }
}
