//! `bench`: measurements side by side in one run, printed as ratios.
//!
//! In:  which parts, how many rounds; `cargo xtask bench` builds and starts this.
//! Out: tables on standard output, and one JSON file under `target/bench`.
//! Not here: asserting anything: a missed target is printed, not an error.

#![forbid(unsafe_code)]

mod machine;
mod options;
mod parts;
mod record;
mod rounds;
mod table;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use crate::{machine::Machine, options::Arguments, record::Record};

fn main() -> ExitCode {
    match perform(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(arguments: &Arguments) -> anyhow::Result<()> {
    let options = arguments.options()?;
    let mut record = Record::new(Machine::look()?, &options);
    println!("{}", record.heading());
    for part in parts::chosen(&arguments.parts)? {
        let tables = (part.run)(&options).with_context(|| format!("measuring {}", part.name))?;
        for table in &tables {
            println!("\n{table}");
        }
        record.add(part.name, tables);
        // What was measured is kept if a later part fails.
        record.write(&arguments.out)?;
    }
    println!("\nwritten: {}", record.path(&arguments.out).display());
    Ok(())
}
