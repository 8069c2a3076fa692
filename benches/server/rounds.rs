//! The order of the measurements, and the resulting table.
//!
//! For each load, the servers of all variants are started, and each round runs the load on one
//! after the other, so that a temporary disturbance of the machine affects all of them.

use crate::args::{Args, Variant};
use crate::report::{self, Column};

/// Something to measure, with the name of its row.
pub(crate) trait Load {
    fn name(&self) -> &str;
}

/// What all loads of a table have in common.
pub(crate) struct Rounds<'a, F: 'static> {
    pub(crate) args: &'a Args,
    pub(crate) variants: &'a [Variant],
    pub(crate) columns: &'static [Column<F>],
}

impl<'a, F> Rounds<'a, F> {
    /// Measures the wanted loads and prints their table. `start` runs once per load and variant,
    /// and its result is used by all their runs. `measure` gets the number of the run, from 1.
    pub(crate) fn run<L: Load, S>(
        &self,
        loads: Vec<L>,
        start: impl Fn(&L, &'a Variant) -> S,
        measure: impl Fn(&L, &S, usize) -> F,
    ) {
        let args = self.args;
        let loads = loads.into_iter();
        let loads: Vec<_> = loads.filter(|load| args.wants(load.name())).collect();
        if loads.is_empty() {
            return;
        }
        print!("{}", report::header("load", self.columns));
        let names: Vec<_> = self.variants.iter().map(|variant| &*variant.name).collect();
        for load in loads {
            let variants = self.variants.iter();
            let started: Vec<_> = variants.map(|variant| start(&load, variant)).collect();
            let mut runs: Vec<Vec<F>> = started.iter().map(|_| Vec::new()).collect();
            for run in 1..=args.runs() {
                eprintln!("{}, run {run} of {}", load.name(), args.runs());
                for (runs, started) in runs.iter_mut().zip(&started) {
                    runs.push(measure(&load, started, run));
                }
            }
            let rows = report::rows(load.name(), &names, &runs, self.columns);
            print!("{rows}");
        }
        println!();
    }
}
