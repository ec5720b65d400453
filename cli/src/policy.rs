//! `namegate policy`: files in, verdicts, differences and advice out.
//!
//! In:  arguments.
//! Out: tables, JSON or YAML on stdout, mistakes and notes on stderr, an exit status.
//! Not here: judging (`agent::offline`).

use std::path::PathBuf;

use agent::offline::{
    self, Decision, OfflineError, Options, Outcome,
    scenario::{self, Fallback},
};
use policy::parse::{Limits, Note};

use crate::{
    args::{self, Format, Policy},
    findings::{self, Tested},
    output, tables,
};

/// Everything is as it should be.
const FINE: i32 = 0;
/// A flow came out otherwise, or there are warnings nobody wants.
const DIFFERENT: i32 = 1;
/// A file is invalid.
const INVALID: i32 = 2;

/// Carries out the command and returns the status to exit with.
pub(crate) fn run(command: Policy) -> i32 {
    let done = match command {
        Policy::Validate {
            files,
            deny_warnings,
            output,
        } => validate(&files, deny_warnings, output.format),
        Policy::Verdict(args) => verdict(&args),
        Policy::Get {
            endpoint,
            target,
            output,
        } => crate::list::policy(endpoint.as_deref(), &target, &output).map(|()| 0),
        Policy::Test {
            scenarios,
            world,
            policy,
            datapath_only,
            output,
        } => {
            let fallback = Fallback {
                world: world.as_deref(),
                policies: &policy,
                options: Options { datapath_only },
            };
            test(&scenarios, fallback, output.format)
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("namegate: {error:#}");
        INVALID
    })
}

fn validate(files: &[PathBuf], deny_warnings: bool, format: Format) -> anyhow::Result<i32> {
    let checked = offline::validate(files, &Limits::default());
    if format == Format::Table {
        say(&checked.notes);
    }
    output::print(format, &findings::validated(&checked), |found| {
        let lines: Vec<_> = found.lines().collect();
        lines.join("\n")
    })?;
    Ok(if !checked.is_valid() {
        INVALID
    } else if deny_warnings && checked.has_warnings() {
        DIFFERENT
    } else {
        FINE
    })
}

fn verdict(args: &args::Verdict) -> anyhow::Result<i32> {
    match judged(args) {
        Ok(judged) => {
            output::print(args.output.format, &judged.outcomes, |outcomes| {
                table(&judged.flows, outcomes)
            })?;
            Ok(FINE)
        }
        Err(errors) => Ok(complain(&errors)),
    }
}

/// Each flow in words, and what came of it.
struct Judged {
    flows: Vec<[String; 3]>,
    outcomes: Vec<Outcome>,
}

fn judged(args: &args::Verdict) -> Result<Judged, Vec<OfflineError>> {
    let one = |error: offline::InputError| vec![OfflineError::from(error)];
    let world = offline::world(&args.world).map_err(one)?;
    let flows = match &args.flows {
        Some(path) => offline::flows(path).map_err(one)?,
        None => offline::flows_of(&world).map_err(one)?,
    };
    let loaded = scenario::load(&args.policy, &world.value)?;
    say(&loaded.notes);
    let options = Options {
        datapath_only: args.datapath_only,
    };
    let outcomes = offline::judge(&world, &loaded, &flows, options).map_err(|e| vec![e])?;
    let words = flows.value.iter().map(|flow| {
        let flow = &flow.value;
        [flow.from.value.clone(), flow.to.value.clone(), flow.what()]
    });
    Ok(Judged {
        flows: words.collect(),
        outcomes,
    })
}

fn table(flows: &[[String; 3]], outcomes: &[Outcome]) -> String {
    let mut table = tables::plain(&["From", "To", "Flow", "Verdict", "Egress", "Ingress"]);
    for ([from, to, what], outcome) in flows.iter().zip(outcomes) {
        table.add_row([
            from.clone(),
            to.clone(),
            what.clone(),
            outcome.verdict.to_string(),
            cell(outcome.egress.as_ref()),
            cell(outcome.ingress.as_ref()),
        ]);
    }
    tables::fitted(table)
}

/// One direction: the verdict and how it came about, then the policies below each other.
fn cell(decision: Option<&Decision>) -> String {
    let Some(decision) = decision else {
        return "-".to_owned();
    };
    let mut text = format!("{} {}", decision.verdict, decision.match_type);
    if let Some(l7) = decision.l7 {
        text.push_str(&format!(" {l7}"));
    }
    if !decision.reason_text.is_empty() {
        text.push_str(&format!("\n{}", decision.reason_text));
    }
    for rule in &decision.rules {
        text.push_str(&format!("\n{rule}"));
    }
    text
}

fn test(scenarios: &[PathBuf], fallback: Fallback<'_>, format: Format) -> anyhow::Result<i32> {
    let mut status = FINE;
    let mut all = Vec::new();
    for path in scenarios {
        match offline::test(path, fallback) {
            Ok(tested) => {
                if format == Format::Table {
                    say(&tested.notes);
                }
                let tested = findings::tested(path, tested.flows, &tested.mismatches);
                status = status.max(if tested.ok { FINE } else { DIFFERENT });
                all.push(tested);
            }
            Err(errors) => status = status.max(complain(&errors)),
        }
    }
    if format != Format::Table || !all.is_empty() {
        output::print(format, &all, |all| {
            let lines: Vec<_> = all.iter().flat_map(Tested::lines).collect();
            lines.join("\n")
        })?;
    }
    Ok(status)
}

fn say(notes: &[Note]) {
    for note in notes {
        eprintln!("namegate: note: {note}");
    }
}

fn complain(errors: &[OfflineError]) -> i32 {
    for error in errors {
        eprintln!("namegate: {error}");
    }
    INVALID
}
